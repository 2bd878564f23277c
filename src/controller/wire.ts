/** Ids and errors on the wire, as the controller's RPCs carry them. */
import { create } from '@bufbuild/protobuf';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { isUuid, type TopicId } from '../base/ids.ts';
import { ErrorSchema, type Error as WireError } from '../gen/flotilla/v1/common_pb.ts';

export interface ControllerHint {
  readonly brokerId: number;
  /** Where brokers reach it. */
  readonly address: string;
  readonly leaderEpoch: number;
}

export function topicIdToBytes(topicId: TopicId): Uint8Array {
  const bytes = new Uint8Array(16);
  for (let i = 0; i < 16; i++) bytes[i] = Number.parseInt(topicId.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** Throws INVALID_REQUEST unless there are 16 bytes. */
export function topicIdFromBytes(bytes: Uint8Array): TopicId {
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  if (!isUuid(hex)) throw new FlotillaError('INVALID_REQUEST', `a topic id has 16 bytes, not ${bytes.length}`);
  return hex as TopicId;
}

export function errorToWire(error: unknown, leader: ControllerHint | undefined): WireError {
  const known = error instanceof FlotillaError ? error : new FlotillaError('UNKNOWN_SERVER_ERROR', messageOf(error));
  const wire = create(ErrorSchema, { code: known.number, message: known.message, retriable: known.retriable });
  if (known.code === 'NOT_CONTROLLER' && leader !== undefined) wire.leader = { $typeName: 'flotilla.v1.LeaderHint', ...leader };
  return wire;
}

/** Ids and errors on the wire, as the controller's RPCs carry them. */
import { create } from '@bufbuild/protobuf';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { type BrokerId, type DirectoryId, isUuid, type ReplicaId } from '../base/ids.ts';
import { ErrorSchema, type Error as WireError } from '../gen/flotilla/v1/common_pb.ts';
import { type ReplicaIdentity, ReplicaIdentitySchema } from '../gen/flotilla/v1/controller_pb.ts';
import type { ReplicaAssignment } from '../metadata/image.ts';

export interface ControllerHint {
  readonly brokerId: number;
  /** Where brokers reach it. */
  readonly address: string;
  readonly leaderEpoch: number;
}

export function errorToWire(error: unknown, leader: ControllerHint | undefined): WireError {
  const known = error instanceof FlotillaError ? error : new FlotillaError('UNKNOWN_SERVER_ERROR', messageOf(error));
  const wire = create(ErrorSchema, { code: known.number, message: known.message, retriable: known.retriable });
  if (known.code === 'NOT_CONTROLLER' && leader !== undefined) wire.leader = { $typeName: 'flotilla.v1.LeaderHint', ...leader };
  return wire;
}

export function replicaToWire({ replicaId, brokerId, directoryId }: ReplicaAssignment): ReplicaIdentity {
  return create(ReplicaIdentitySchema, { replicaId: BigInt(replicaId), brokerId, directoryId });
}

/** Errors: INVALID_REQUEST. */
export function replicaFromWire({ replicaId, brokerId, directoryId }: ReplicaIdentity): ReplicaAssignment {
  if (!isUuid(directoryId)) throw new FlotillaError('INVALID_REQUEST', 'a directory id has 32 hex digits');
  return { replicaId: Number(replicaId) as ReplicaId, brokerId: brokerId as BrokerId, directoryId: directoryId as DirectoryId };
}

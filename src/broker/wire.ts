/** Between protobuf messages and what is inside: ids, errors. */
import { create } from '@bufbuild/protobuf';
import { InvariantError } from '../base/assert.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { ErrorSchema, LeaderHintSchema, type Error as WireError } from '../gen/flotilla/v1/common_pb.ts';
import type { MetadataImage } from '../metadata/image.ts';
import { NotLeaderError } from './not-leader.ts';

/** The error on the wire; a leader hint carries the address on the listener that the call came in on. */
export function toWireError(error: FlotillaError, image: MetadataImage, listener: string): WireError {
  const wire = create(ErrorSchema, { code: error.number, message: error.message, retriable: error.retriable });
  if (error instanceof NotLeaderError && error.leader !== undefined) {
    const { brokerId, leaderEpoch } = error.leader;
    const address = image.brokers.get(brokerId)?.listeners.get(listener) ?? '';
    wire.leader = create(LeaderHintSchema, { brokerId, address, leaderEpoch });
  }
  return wire;
}

/** The error that an answer of another broker carries. */
export function fromWireError(error: WireError): FlotillaError {
  return FlotillaError.fromNumber(error.code, error.message);
}

/**
 * Anything thrown, as an error for the client (hazard B32): a disk's error is STORAGE_ERROR, what is not known is a defect of ours. CLOSED is of a
 * handle that this broker held, to a log or another broker: the client's own handles are open, and another try is worth it.
 */
export function toFlotillaError(error: unknown): FlotillaError {
  if (error instanceof FlotillaError && error.code === 'CLOSED') {
    return new FlotillaError('BROKER_NOT_AVAILABLE', `This broker stops, or lost its link to another. Try again: ${error.message}`, {
      cause: error,
    });
  }
  if (error instanceof FlotillaError) return error;
  if (error instanceof InvariantError)
    return new FlotillaError('BROKER_NOT_AVAILABLE', 'This broker found itself broken and stops. Try another.');
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (typeof code === 'string' && /^E[A-Z]+$/.test(code)) {
    return new FlotillaError('STORAGE_ERROR', `The disk failed: ${messageOf(error)}. Try again; another replica may answer.`, {
      cause: error,
    });
  }
  return new FlotillaError('UNKNOWN_SERVER_ERROR', `This is a defect of the broker: ${messageOf(error)}`, { cause: error });
}

/**
 * Errors over gRPC: the number of a FlotillaError's code goes in the trailer `flotilla-code`, its message is the status message,
 * so that the other side throws the same error. Statuses without the trailer come from gRPC itself.
 */
import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { InvariantError } from '../base/assert.ts';
import { type ErrorCode, FlotillaError, messageOf } from '../base/errors.ts';

const CODE_TRAILER = 'flotilla-code';
/** Trailers are bounded by HTTP/2 header limits, and characters outside ASCII take nine bytes there. */
const MAX_MESSAGE_CHARS = 1000;

/** Statuses for people with other gRPC tools; the trailer is what counts. */
const statusByCode: Partial<Record<ErrorCode, status>> = {
  REQUEST_TIMED_OUT: status.DEADLINE_EXCEEDED,
  ABORTED: status.CANCELLED,
  INVALID_REQUEST: status.INVALID_ARGUMENT,
  MESSAGE_TOO_LARGE: status.RESOURCE_EXHAUSTED,
  UNSUPPORTED_VERSION: status.UNIMPLEMENTED,
  UNKNOWN_SERVER_ERROR: status.UNKNOWN,
};

/** The status that the server ends a call with. An InvariantError ends the process instead: see {@link crash}. */
export function toServiceError(error: unknown): ServiceError {
  const operating = error instanceof FlotillaError ? error : new FlotillaError('UNKNOWN_SERVER_ERROR', messageOf(error), { cause: error });
  const metadata = new Metadata();
  metadata.set(CODE_TRAILER, String(operating.number));
  const code = statusByCode[operating.code] ?? (operating.retriable ? status.UNAVAILABLE : status.FAILED_PRECONDITION);
  const details = operating.message.slice(0, MAX_MESSAGE_CHARS);
  return Object.assign(new Error(details), { code, details, metadata });
}

/** What the caller throws for a call that ended with a status. */
export function fromServiceError(error: Partial<ServiceError> & Error, address: string): FlotillaError {
  const sent = error.metadata?.get(CODE_TRAILER)[0];
  if (sent !== undefined) return FlotillaError.fromNumber(Number(sent), error.details ?? error.message);
  // grpc-js ends some messages with the title of a note that it does not have.
  const details = (error.details ?? error.message).replace(/ Resolution note: $/, '');
  switch (error.code) {
    case status.DEADLINE_EXCEEDED:
      return new FlotillaError('REQUEST_TIMED_OUT', `${address} did not answer in time.`, { cause: error });
    case status.RESOURCE_EXHAUSTED:
      return new FlotillaError('MESSAGE_TOO_LARGE', `${address}: ${details}`, { cause: error });
    case status.UNIMPLEMENTED:
      return new FlotillaError('UNSUPPORTED_VERSION', `${address} does not serve this call: it runs another version, or is no broker.`, {
        cause: error,
      });
    default:
      return new FlotillaError('NETWORK_EXCEPTION', `${address} can't be reached: ${details}`, { cause: error });
  }
}

/** Lets a broken invariant end the process, out of reach of gRPC's own catch blocks. Says whether it was one. */
export function crashOnInvariant(error: unknown): boolean {
  if (!(error instanceof InvariantError)) return false;
  process.nextTick(() => {
    throw error;
  });
  return true;
}

import type { DescMethod, MessageShape } from '@bufbuild/protobuf';
import { create } from '@bufbuild/protobuf';
import type { Environment } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { Admin, AllocateProducerIdRequestSchema } from '../gen/flotilla/v1/admin_pb.ts';
import type { Error as WireError } from '../gen/flotilla/v1/common_pb.ts';
import type { CompressionTable } from '../record/compression.ts';
import type { Crc32c } from '../record/types.ts';
import type { Channels } from './channels.ts';
import type { MetadataCache } from './metadata-cache.ts';
import { backoffMs, linkSignals, sleep, throwIfAborted } from './wait.ts';

/** What the handles of one client share. */
export interface Cluster {
  readonly environment: Environment;
  readonly channels: Channels;
  readonly metadata: MetadataCache;
  readonly codecs: Codecs;
  /** Fires when the client closes. */
  readonly closing: AbortSignal;
}

/** What batches are summed and compressed with. */
export interface Codecs {
  readonly compression: CompressionTable;
  readonly crc32c: Crc32c;
}

export interface CallOptions {
  /** Aborts the call with ABORTED. What the cluster already began goes on. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds for the whole call with its retries; default 30,000. Then REQUEST_TIMED_OUT. */
  readonly timeoutMs?: number | undefined;
}

export const DEFAULT_CALL_TIMEOUT_MS = 30_000;
/** One broker's share of a call's time, so that a hung broker leaves time for the others. */
const ATTEMPT_TIMEOUT_MS = 10_000;

/** The error of an answer, as what the SDK throws. */
export function fromWire(error: WireError): FlotillaError {
  return FlotillaError.fromNumber(error.code, error.message);
}

/** Whether another try may help: by our own table, or by what the broker says of a code that this client doesn't know. */
export function isRetriable(error: WireError): boolean {
  return error.retriable || fromWire(error).retriable;
}

/**
 * A unary call to any broker that answers, tried again with backoff while the error is retriable and time is left.
 * @param attempt makes one call with the milliseconds it may take, and throws a FlotillaError for an error in the answer.
 */
export async function withRetries<T>(
  cluster: Cluster,
  options: CallOptions | undefined,
  attempt: (address: string, timeoutMs: number, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { environment, metadata } = cluster;
  const deadline = environment.monotonicMs() + (options?.timeoutMs ?? DEFAULT_CALL_TIMEOUT_MS);
  const { signal, release } = linkSignals(options?.signal, cluster.closing);
  try {
    for (let round = 1; ; round++) {
      let failure: unknown;
      for (const address of metadata.addresses()) {
        throwIfAborted(signal);
        const left = deadline - environment.monotonicMs();
        if (left <= 0) break;
        try {
          return await attempt(address, Math.ceil(Math.min(left, ATTEMPT_TIMEOUT_MS)), signal);
        } catch (error) {
          throwIfAborted(signal);
          if (!(error instanceof FlotillaError && error.retriable)) throw error;
          failure = error;
        }
      }
      if (environment.monotonicMs() >= deadline) {
        throw new FlotillaError('REQUEST_TIMED_OUT', `no broker answered in time; the last error: ${messageOf(failure)}`, {
          cause: failure,
        });
      }
      await sleep(environment, Math.min(backoffMs(environment, round), deadline - environment.monotonicMs()), signal);
    }
  } finally {
    release();
  }
}

/** A call to any broker, for an answer that holds its error. */
export function callAny<M extends DescMethod>(
  cluster: Cluster,
  method: M,
  request: (timeoutMs: number) => MessageShape<M['input']>,
  errorOf: (answer: MessageShape<M['output']>) => WireError | undefined,
  options?: CallOptions,
): Promise<MessageShape<M['output']>> {
  return withRetries(cluster, options, async (address, timeoutMs, signal) => {
    const answer = await cluster.channels.get(address).unary(method, request(timeoutMs), { timeoutMs, signal });
    const error = errorOf(answer);
    if (error) throw fromWire(error);
    return answer;
  });
}

/** A producer id that no other producer ever gets. */
export async function allocateProducerId(cluster: Cluster, options?: CallOptions): Promise<number> {
  const answer = await callAny(
    cluster,
    Admin.method.allocateProducerId,
    (timeoutMs) => create(AllocateProducerIdRequestSchema, { count: 1, timeoutMs }),
    ({ error }) => error,
    options,
  );
  return Number(answer.firstProducerId);
}

/** What a producer may be told, and what it takes for granted otherwise. */
import { FlotillaError } from '../base/errors.ts';
import { Acks } from '../gen/flotilla/v1/data_pb.ts';
import type { CompressionName } from '../record/types.ts';
import type { Cluster } from './cluster.ts';
import { MAX_IN_FLIGHT, type QueueSettings } from './partition-queue.ts';
import type { ProduceStreamOptions } from './produce-stream.ts';
import type { Partitioner } from './records.ts';

export interface ProducerOptions {
  /**
   * When a record counts as acknowledged: `quorum` (default): synced on a majority of replicas; `leader`: synced by the leader alone,
   * may be lost at a failover; `none`: on arrival.
   */
  readonly acks?: 'quorum' | 'leader' | 'none' | undefined;
  /** No duplicates and no reordering by retries. Default: true with `acks: 'quorum'`; other acks exclude it (INVALID_REQUIRED_ACKS). */
  readonly idempotent?: boolean | undefined;
  /** Default: none. Codecs that are not at hand are refused here (UNSUPPORTED_COMPRESSION_TYPE). */
  readonly compression?: CompressionName | undefined;
  /** Default: Kafka's murmur2 of the key; records without a key stay with a partition for 16 KiB, then go to the next. */
  readonly partitioner?: Partitioner | undefined;
  /** Milliseconds from `send` to REQUEST_TIMED_OUT, retries included. Default 120,000. */
  readonly deliveryTimeoutMs?: number | undefined;
  /** Milliseconds that a broker may take to acknowledge before the batch is sent again. Default 30,000. */
  readonly requestTimeoutMs?: number | undefined;
  /** Bytes of records that are not yet acknowledged; beyond it `send` waits. Default 64 MiB. */
  readonly maxBufferedBytes?: number | undefined;
  /** Bytes of a batch before compression, at most; batches are as large as the load makes them. Default 524,288. */
  readonly maxBatchBytes?: number | undefined;
  /** Batches in flight for each partition: 1 to 5. Default 5. Without idempotence, more than 1 lets retries change the order. */
  readonly maxInFlight?: number | undefined;
}

export interface SendOptions {
  /** ABORTED as soon as it fires. A record that is already in a batch may be appended all the same. */
  readonly signal?: AbortSignal | undefined;
}

export const DEFAULT_DELIVERY_TIMEOUT_MS = 120_000;
export const DEFAULT_REQUEST_TIMEOUT_MS = 30_000;
export const DEFAULT_MAX_BUFFERED_BYTES = 64 << 20;
/** Half of Kafka's default max.message.bytes: larger batches are no faster, and take memory in every broker. */
export const DEFAULT_MAX_BATCH_BYTES = 1 << 19;
/** The largest record, and the largest batch: the most that message.max.bytes can be, and well within gRPC's limit of 64 MiB. */
export const MAX_RECORD_BYTES = 32 << 20;
/** 24.8 days: the most that a timer takes, and well within what the wire takes. */
const MAX_REQUEST_TIMEOUT_MS = 2 ** 31 - 1;

export interface ProducerSettings {
  readonly queues: QueueSettings;
  readonly streams: ProduceStreamOptions;
  readonly maxBufferedBytes: number;
}

/** @throws FlotillaError INVALID_REQUIRED_ACKS, INVALID_REQUEST, UNSUPPORTED_COMPRESSION_TYPE */
export function checkOptions(options: ProducerOptions, { compression, crc32c }: Cluster['codecs']): ProducerSettings {
  const acks = options.acks ?? 'quorum';
  const idempotent = options.idempotent ?? acks === 'quorum';
  const maxInFlight = options.maxInFlight ?? MAX_IN_FLIGHT;
  const codec = options.compression ?? 'none';
  if (idempotent && acks !== 'quorum') {
    throw new FlotillaError('INVALID_REQUIRED_ACKS', `idempotent needs acks 'quorum', not '${acks}': leave out one of the two`);
  }
  if (!Number.isInteger(maxInFlight) || maxInFlight < 1 || maxInFlight > MAX_IN_FLIGHT) {
    throw new FlotillaError('INVALID_REQUEST', `maxInFlight is 1 to ${MAX_IN_FLIGHT}, not ${maxInFlight}`);
  }
  const queues: QueueSettings = {
    idempotent,
    maxInFlight,
    maxBatchBytes: Math.min(positive(options, 'maxBatchBytes', DEFAULT_MAX_BATCH_BYTES), MAX_RECORD_BYTES),
    deliveryTimeoutMs: positive(options, 'deliveryTimeoutMs', DEFAULT_DELIVERY_TIMEOUT_MS),
    compression: codec === 'none' ? undefined : compression.get(codec),
    crc32c,
    builders: [],
  };
  const maxBufferedBytes = positive(options, 'maxBufferedBytes', DEFAULT_MAX_BUFFERED_BYTES);
  const requestTimeoutMs = Math.ceil(Math.min(positive(options, 'requestTimeoutMs', DEFAULT_REQUEST_TIMEOUT_MS), MAX_REQUEST_TIMEOUT_MS));
  const streams = { acks: { quorum: Acks.QUORUM, leader: Acks.LEADER, none: Acks.NONE }[acks], requestTimeoutMs };
  return { queues, streams, maxBufferedBytes };
}

/** NaN and the like would be compared with for ever: no record would expire, no batch be full. */
function positive(
  options: ProducerOptions,
  name: 'maxBatchBytes' | 'deliveryTimeoutMs' | 'requestTimeoutMs' | 'maxBufferedBytes',
  byDefault: number,
): number {
  const value = options[name] ?? byDefault;
  if (typeof value === 'number' && value > 0) return value;
  throw new FlotillaError('INVALID_REQUEST', `${name} is a number above 0, not ${String(value)}: leave it out for ${byDefault}`);
}

import type { FlotillaError } from '../base/errors.ts';
import { decodeBatch } from '../record/batch.ts';
import type { BatchBuilder } from '../record/builder.ts';
import { CompressionTable } from '../record/compression.ts';
import type { Compression } from '../record/types.ts';
import { Deferred } from './wait.ts';

/** Where a record went. */
export interface RecordMetadata {
  readonly partition: number;
  /** -1 with `acks: 'none'`, and where the broker knows the record for a duplicate and no longer knows its offset. */
  readonly offset: number;
  /** Milliseconds since the epoch: the record's own, or the broker's with message.timestamp.type=LogAppendTime. */
  readonly timestamp: number;
}

/** The ends of one record's promise. */
export interface Waiting {
  readonly resolve: (metadata: RecordMetadata) => void;
  readonly reject: (error: unknown) => void;
  index: number;
  timestamp: number;
}

/** Records of one partition that travel, and succeed or fail, together. */
export class ProducerBatch {
  /** Until it is built. */
  builder: BatchBuilder | undefined;
  /** Once it is built. */
  bytes: Uint8Array | undefined;
  count = 0;
  /** What it takes of the producer's buffer. */
  readonly createdAtMs: number;
  bufferedBytes = 0;
  /** -1: none yet. */
  baseSequence = -1;
  /** Its number among the partition's batches, in order. */
  ordinal = 0;
  correlation = 0;
  sentAtMs = 0;
  attempts = 0;
  inFlight = false;
  /** An earlier attempt ended without saying whether it was appended. */
  maybeAppended = false;
  /** What the leader last said instead of taking it. */
  refusal: string | undefined;
  /** Its promises are settled. It may still be in flight. */
  settled = false;
  readonly waiting: Waiting[] = [];
  #done: Deferred<void> | undefined;

  constructor(builder: BatchBuilder, createdAtMs: number) {
    this.builder = builder;
    this.createdAtMs = createdAtMs;
  }

  /** Records that nobody awaits. */
  get unawaited(): number {
    return this.count - this.waiting.length;
  }

  succeed(partition: number, baseOffset: number, logAppendTimeMs: number): void {
    if (this.settled) return;
    this.settled = true;
    for (const { resolve, index, timestamp } of this.waiting) {
      const offset = baseOffset < 0 ? -1 : baseOffset + index;
      resolve({ partition, offset, timestamp: logAppendTimeMs >= 0 ? logAppendTimeMs : timestamp });
    }
    this.#done?.resolve();
  }

  fail(error: FlotillaError): void {
    if (this.settled) return;
    this.settled = true;
    for (const { reject } of this.waiting) reject(error);
    this.#done?.resolve();
  }

  /** Who waits for it waits for its parts. */
  becomes(parts: readonly ProducerBatch[]): void {
    this.settled = true;
    if (this.#done) void Promise.all(parts.map((part) => part.done())).then(() => this.#done?.resolve());
  }

  /** Resolves when the batch has succeeded or failed. */
  done(): Promise<void> {
    if (this.settled) return Promise.resolve();
    this.#done ??= new Deferred();
    return this.#done.promise;
  }
}

/** Far beyond any batch of this client's own. */
const MAX_OWN_BATCH_BYTES = 1 << 30;

/** A built batch of several records as two that are not built yet, with what waits for them. Each takes the builder that `open` gives. */
export function halves(batch: ProducerBatch, compression: Compression | undefined, open: () => BatchBuilder): ProducerBatch[] {
  const options = { compression: new CompressionTable(compression ? [compression] : []), maxBytes: MAX_OWN_BATCH_BYTES };
  const records = batch.bytes ? decodeBatch(batch.bytes, options) : [];
  const middle = records.length >> 1;
  const firstBytes = batch.bufferedBytes >> 1;
  return [0, middle].map((from) => {
    const to = from === 0 ? middle : records.length;
    const builder = open();
    const half = new ProducerBatch(builder, batch.createdAtMs);
    for (const { key, value, headers, timestamp } of records.slice(from, to)) builder.append(key, value, headers, timestamp);
    half.count = to - from;
    half.bufferedBytes = from === 0 ? firstBytes : batch.bufferedBytes - firstBytes;
    for (const waiting of batch.waiting) {
      if (waiting.index >= from && waiting.index < to) half.waiting.push(waiting);
    }
    for (const waiting of half.waiting) waiting.index -= from;
    return half;
  });
}

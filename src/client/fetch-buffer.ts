import { type DecodeOptions, decodeBatch, readBatchHeader, splitBatches } from '../record/batch.ts';
import type { BatchHeader, Record, RecordHeader } from '../record/types.ts';
import type { Codecs } from './cluster.ts';
import type { FetchStream } from './fetch-stream.ts';
import type { FetchedPartition } from './fetched-partition.ts';

/** A record as it was read. */
export interface ConsumerRecord {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  /** Milliseconds since the epoch. */
  readonly timestamp: number;
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers: readonly RecordHeader[];
}

/** A record batch as it was read. */
export interface ConsumedBatch {
  readonly topic: string;
  readonly partition: number;
  readonly header: BatchHeader;
  /** The batch's bytes: Kafka's RecordBatch v2. */
  readonly bytes: Uint8Array;
  /** Its records from the position on, decoded anew at each read. */
  readonly records: readonly Record[];
}

/** The most that one batch may take decompressed. */
export const MAX_DECOMPRESSED_BYTES = 256 << 20;

interface Chunk {
  readonly partition: FetchedPartition;
  readonly life: number;
  readonly bytes: Uint8Array;
  readonly nextOffset: number;
  readonly stream: FetchStream;
}

interface OpenChunk extends Chunk {
  readonly batches: Uint8Array[];
  next: number;
}

interface FoundBatch {
  readonly chunk: OpenChunk;
  readonly bytes: Uint8Array;
  readonly header: BatchHeader;
}

/** Decodes lazily. A class, since an object with a getter of its own takes longer to make than a small batch to decode. */
class UndecodedBatch implements ConsumedBatch {
  readonly topic: string;
  readonly partition: number;
  readonly header: BatchHeader;
  readonly bytes: Uint8Array;
  readonly #options: DecodeOptions;
  readonly #from: number;

  constructor({ topic, partition, position }: FetchedPartition, bytes: Uint8Array, header: BatchHeader, options: DecodeOptions) {
    this.topic = topic;
    this.partition = partition;
    this.header = header;
    this.bytes = bytes;
    this.#options = options;
    this.#from = position;
  }

  get records(): readonly Record[] {
    return decodeFrom(this.#from, this.bytes, this.header, this.#options);
  }
}

/** The records of a batch from the position on. */
function decodeFrom(position: number, bytes: Uint8Array, header: BatchHeader, options: DecodeOptions): readonly Record[] {
  const records = decodeBatch(bytes, options, header);
  const first = records[0];
  return first === undefined || first.offset >= position ? records : records.filter(({ offset }) => offset >= position);
}

/** What came and was not yet handed out, in the order of arrival. Batches are decoded one at a time, when they are reached. */
export class FetchBuffer {
  readonly #options: DecodeOptions;
  #chunks: Chunk[] = [];
  #head = 0;
  #open: OpenChunk | undefined;
  #records: readonly Record[] = [];
  #record = 0;

  constructor({ compression, crc32c }: Codecs, checkCrcs: boolean) {
    this.#options = { compression, maxBytes: MAX_DECOMPRESSED_BYTES, crc32c: checkCrcs ? crc32c : undefined };
  }

  add(partition: FetchedPartition, bytes: Uint8Array, nextOffset: number, stream: FetchStream): void {
    if (bytes.length === 0 && this.#isEmpty()) {
      partition.position = Math.max(partition.position, nextOffset);
      return;
    }
    this.#chunks.push({ partition, life: partition.life, bytes, nextOffset, stream });
  }

  nextRecord(): ConsumerRecord | undefined {
    for (;;) {
      const open = this.#open;
      if (open && open.life === open.partition.life && this.#record < this.#records.length) {
        const record = this.#records[this.#record++] as Record;
        const { partition } = open;
        partition.position = record.offset + 1;
        const { offset, timestamp, key, value, headers } = record;
        return { topic: partition.topic, partition: partition.partition, offset, timestamp, key, value, headers };
      }
      this.#records = [];
      this.#record = 0;
      const found = this.#nextBatch();
      if (found === undefined) return undefined;
      const { chunk, bytes, header } = found;
      this.#records = decodeFrom(chunk.partition.position, bytes, header, this.#options);
      chunk.next++;
    }
  }

  nextBatch(): ConsumedBatch | undefined {
    const rest = this.#restOfBatch();
    if (rest) return rest;
    const found = this.#nextBatch();
    if (found === undefined) return undefined;
    found.chunk.next++;
    return this.#handOut(found.chunk.partition, found.bytes, found.header);
  }

  /** Drops what a seek or a pause made void, and gives its credit back. */
  prune(): void {
    const kept: Chunk[] = [];
    for (let at = this.#head; at < this.#chunks.length; at++) {
      const chunk = this.#chunks[at] as Chunk;
      if (chunk.life === chunk.partition.life) kept.push(chunk);
      else chunk.stream.consumed(chunk.bytes.length);
    }
    this.#chunks = kept;
    this.#head = 0;
    if (this.#open && this.#open.life !== this.#open.partition.life) this.#finish(this.#open);
  }

  clear(): void {
    this.#chunks = [];
    this.#head = 0;
    this.#open = undefined;
    this.#records = [];
    this.#record = 0;
  }

  #isEmpty(): boolean {
    return this.#open === undefined && this.#head === this.#chunks.length;
  }

  /** The next batch that holds data from the position on; `chunk.next` stands at it. */
  #nextBatch(): FoundBatch | undefined {
    for (;;) {
      const chunk = this.#open ?? this.#openNext();
      if (chunk === undefined) return undefined;
      const { partition } = chunk;
      const bytes = chunk.batches[chunk.next];
      if (bytes === undefined || chunk.life !== partition.life) {
        this.#finish(chunk);
        continue;
      }
      const header = readBatchHeader(bytes);
      const dropped = partition.aborted.drops(header);
      if (!dropped && header.baseOffset + header.lastOffsetDelta >= partition.position) return { chunk, bytes, header };
      chunk.next++;
    }
  }

  #openNext(): OpenChunk | undefined {
    const chunk = this.#chunks[this.#head];
    if (chunk === undefined) return undefined;
    // First, since it throws for a chunk that is damaged: that stays the next, or its records would be passed over.
    const batches = splitBatches(chunk.bytes);
    this.#head++;
    if (this.#head === this.#chunks.length) {
      this.#chunks = [];
      this.#head = 0;
    }
    this.#open = { ...chunk, batches, next: 0 };
    return this.#open;
  }

  #finish(chunk: OpenChunk): void {
    const { partition } = chunk;
    // Past markers, compacted records and aborted transactions.
    if (chunk.life === partition.life) partition.position = Math.max(partition.position, chunk.nextOffset);
    chunk.stream.consumed(chunk.bytes.length);
    this.#open = undefined;
    this.#records = [];
    this.#record = 0;
  }

  /** What an iteration over records left of its batch. */
  #restOfBatch(): ConsumedBatch | undefined {
    const open = this.#open;
    const bytes = open?.batches[open.next - 1];
    const left = this.#record < this.#records.length && open?.life === open?.partition.life;
    this.#records = [];
    this.#record = 0;
    return open && bytes && left ? this.#handOut(open.partition, bytes, readBatchHeader(bytes)) : undefined;
  }

  #handOut(partition: FetchedPartition, bytes: Uint8Array, header: BatchHeader): ConsumedBatch {
    const batch = new UndecodedBatch(partition, bytes, header, this.#options);
    partition.position = header.baseOffset + header.lastOffsetDelta + 1;
    return batch;
  }
}

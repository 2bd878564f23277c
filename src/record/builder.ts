import { assert } from '../base/assert.ts';
import {
  BATCH_CRC_START,
  BATCH_HEADER_BYTES,
  BATCH_MAGIC,
  BATCH_OVERHEAD_BYTES,
  BatchAttribute,
  BatchField,
  writeInt32,
  writeInt64,
} from './batch.ts';
import { type Compression, CompressionCodec, type Crc32c, type RecordHeader } from './types.ts';
import { utf8Size, writeUtf8 } from './utf8.ts';
import { varintSize, varlongSize, writeVarint, writeVarlong } from './varint.ts';

/** Where the buffer starts; it doubles from here. */
const INITIAL_BYTES = 16 * 1024;
/** A batch's length is an int32, and its buffer a single one: records beyond this belong in a store for large objects. */
export const MAX_BUILDER_BYTES = 1024 * 1024 * 1024;
/** A record's length, attributes, deltas, lengths and header count at their longest. */
const MAX_RECORD_OVERHEAD = 36;

export interface BatchBuilderOptions {
  readonly crc32c: Crc32c;
  /** Default: none. As Kafka's producer does, the batch is compressed whether or not that makes it smaller. */
  readonly compression?: Compression | undefined;
  readonly isTransactional?: boolean | undefined;
}

/** At most how many bytes a record adds to a batch before compression. */
export function recordSizeBound(key: Uint8Array | null, value: Uint8Array | null, headers: readonly RecordHeader[]): number {
  let size = MAX_RECORD_OVERHEAD + (key?.length ?? 0) + (value?.length ?? 0);
  for (const header of headers) size += 10 + header.key.length * 3 + (header.value?.length ?? 0);
  return size;
}

/**
 * Builds record batches, one after the other: records are written straight into one buffer, which grows and is kept.
 * Layout: batch.ts. The offsets are 0, 1, 2 … and the leader epoch is -1 until the leader stamps them.
 */
export class BatchBuilder {
  private readonly crc32c: Crc32c;
  private readonly compression: Compression | undefined;
  private readonly isTransactional: boolean;
  private buffer = new Uint8Array(INITIAL_BYTES);
  private position = BATCH_HEADER_BYTES;
  private records = 0;
  private baseTimestamp = 0;
  private maxTimestamp = 0;
  private producerId = -1;
  private producerEpoch = -1;
  private baseSequence = -1;

  constructor(options: BatchBuilderOptions) {
    this.crc32c = options.crc32c;
    this.compression = options.compression;
    this.isTransactional = options.isTransactional ?? false;
  }

  /** Bytes of the batch so far, before compression, its header included. */
  get sizeBytes(): number {
    return this.position;
  }

  /** Records in the batch so far. */
  get count(): number {
    return this.records;
  }

  /** Copies a record in. `timestamp` is in milliseconds since the epoch. The caller watches {@link sizeBytes}. */
  append(key: Uint8Array | null, value: Uint8Array | null, headers: readonly RecordHeader[], timestamp: number): void {
    if (this.records === 0) {
      this.baseTimestamp = timestamp;
      this.maxTimestamp = timestamp;
    } else if (timestamp > this.maxTimestamp) this.maxTimestamp = timestamp;
    const timestampDelta = timestamp - this.baseTimestamp;
    let size = 1 + varlongSize(timestampDelta) + varintSize(this.records);
    size += nullableSize(key) + nullableSize(value) + varintSize(headers.length);
    for (const header of headers) {
      const length = utf8Size(header.key);
      size += varintSize(length) + length + nullableSize(header.value);
    }
    this.reserve(size + 5);

    const bytes = this.buffer;
    let at = writeVarint(bytes, this.position, size);
    bytes[at++] = 0;
    at = writeVarlong(bytes, at, timestampDelta);
    at = writeVarint(bytes, at, this.records);
    at = writeNullable(bytes, at, key);
    at = writeNullable(bytes, at, value);
    at = writeVarint(bytes, at, headers.length);
    for (const header of headers) {
      at = writeVarint(bytes, at, utf8Size(header.key));
      at = writeUtf8(bytes, at, header.key);
      at = writeNullable(bytes, at, header.value);
    }
    this.position = at;
    this.records++;
  }

  /** For the next {@link build}: the producer's id, its epoch and the sequence of the batch's first record. -1: none, the default. */
  setProducer(producerId: number, epoch: number, baseSequence: number): void {
    this.producerId = producerId;
    this.producerEpoch = epoch;
    this.baseSequence = baseSequence;
  }

  /** The finished batch, owned by the caller; the builder is empty again, with no producer. At least one record must be in it. */
  build(): Uint8Array {
    assert(this.records > 0, 'a batch has at least one record');
    const batch = this.payload();
    const attributes = CompressionCodec[this.compression?.name ?? 'none'] | (this.isTransactional ? BatchAttribute.transactional : 0);
    writeInt64(batch, BatchField.baseOffset, 0);
    writeInt32(batch, BatchField.batchLength, batch.length - BATCH_OVERHEAD_BYTES);
    writeInt32(batch, BatchField.leaderEpoch, -1);
    batch[BatchField.magic] = BATCH_MAGIC;
    batch[BatchField.attributes] = 0;
    batch[BatchField.attributes + 1] = attributes;
    writeInt32(batch, BatchField.lastOffsetDelta, this.records - 1);
    writeInt64(batch, BatchField.baseTimestamp, this.baseTimestamp);
    writeInt64(batch, BatchField.maxTimestamp, this.maxTimestamp);
    writeInt64(batch, BatchField.producerId, this.producerId);
    batch[BatchField.producerEpoch] = this.producerEpoch >> 8;
    batch[BatchField.producerEpoch + 1] = this.producerEpoch;
    writeInt32(batch, BatchField.baseSequence, this.baseSequence);
    writeInt32(batch, BatchField.recordCount, this.records);
    writeInt32(batch, BatchField.crc, this.crc32c(batch.subarray(BATCH_CRC_START)));
    this.reset();
    return batch;
  }

  /** Drops the records; the buffer is kept. */
  reset(): void {
    this.position = BATCH_HEADER_BYTES;
    this.records = 0;
    this.setProducer(-1, -1, -1);
  }

  /** The batch with its records and an unwritten header. */
  private payload(): Uint8Array {
    if (this.compression === undefined || this.compression.name === 'none') return this.buffer.slice(0, this.position);
    const compressed = this.compression.compress(this.buffer.subarray(BATCH_HEADER_BYTES, this.position));
    const batch = new Uint8Array(BATCH_HEADER_BYTES + compressed.length);
    batch.set(compressed, BATCH_HEADER_BYTES);
    return batch;
  }

  private reserve(bytes: number): void {
    const needed = this.position + bytes;
    if (needed <= this.buffer.length) return;
    assert(needed <= MAX_BUILDER_BYTES, 'a batch stays within the builder', { needed });
    const grown = new Uint8Array(Math.max(needed, this.buffer.length * 2));
    grown.set(this.buffer.subarray(0, this.position));
    this.buffer = grown;
  }
}

function nullableSize(bytes: Uint8Array | null): number {
  return bytes === null ? 1 : varintSize(bytes.length) + bytes.length;
}

function writeNullable(bytes: Uint8Array, at: number, value: Uint8Array | null): number {
  if (value === null) return writeVarint(bytes, at, -1);
  const start = writeVarint(bytes, at, value.length);
  bytes.set(value, start);
  return start + value.length;
}

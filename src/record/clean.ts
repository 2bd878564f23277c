/** What compaction leaves of a batch. */
import {
  BATCH_CRC_START,
  BATCH_HEADER_BYTES,
  BATCH_OVERHEAD_BYTES,
  BatchField,
  type DecodeOptions,
  decodeRecordsOf,
  readBatchHeader,
  writeInt32,
  writeInt64,
} from './batch.ts';
import type { Crc32c, Record } from './types.ts';
import { ByteReader } from './varint.ts';

export interface CleanOptions extends Omit<DecodeOptions, 'crc32c'> {
  readonly crc32c: Crc32c;
}

/**
 * The batch without the records that `keep` refuses: the batch itself when that is none, undefined when nothing is left. Those that stay are byte for byte
 * what they were, with their offsets, timestamps and headers, and the batch keeps its base offset, its last offset, its leader epoch and its producer, as in
 * Kafka. The compression stays as well.
 * @throws FlotillaError CORRUPT_MESSAGE, INVALID_RECORD, UNSUPPORTED_COMPRESSION_TYPE, MESSAGE_TOO_LARGE (over `maxBytes` decompressed)
 */
export function cleanBatch(bytes: Uint8Array, keep: (record: Record) => boolean, options: CleanOptions): Uint8Array | undefined {
  const header = readBatchHeader(bytes);
  const { payload, records } = decodeRecordsOf(bytes, options, header);
  const kept = records.map(keep);
  const count = kept.filter((is) => is).length;
  if (count === records.length) return bytes;
  if (count === 0) return undefined;
  const left = keptBytes(payload, kept);
  const stored =
    header.compression === undefined || header.compression === 'none' ? left : options.compression.get(header.compression).compress(left);
  const batch = new Uint8Array(BATCH_HEADER_BYTES + stored.length);
  batch.set(bytes.subarray(0, BATCH_HEADER_BYTES));
  batch.set(stored, BATCH_HEADER_BYTES);
  writeInt32(batch, BatchField.batchLength, batch.length - BATCH_OVERHEAD_BYTES);
  writeInt32(batch, BatchField.recordCount, count);
  if (header.timestampType === 'CreateTime') {
    const newest = records.reduce((time, { timestamp }, at) => (kept[at] ? Math.max(time, timestamp) : time), Number.NEGATIVE_INFINITY);
    writeInt64(batch, BatchField.maxTimestamp, newest);
  }
  writeInt32(batch, BatchField.crc, options.crc32c(batch.subarray(BATCH_CRC_START)));
  return batch;
}

/** Records say their own lengths, and where they stand relative to the batch's fields, which stay: so they are copied as they are. */
function keptBytes(payload: Uint8Array, kept: readonly boolean[]): Uint8Array {
  const left = new Uint8Array(payload.length);
  const reader = new ByteReader(payload, 0, payload.length);
  let length = 0;
  for (const is of kept) {
    const start = reader.position;
    const rest = reader.varint();
    reader.take(rest);
    if (!is) continue;
    left.set(payload.subarray(start, reader.position), length);
    length += reader.position - start;
  }
  return left.subarray(0, length);
}

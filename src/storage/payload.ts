/** What an entry's payload says of itself. A record batch (RecordBatch v2) is told from a command by its record count. */
import type { Entry } from '../raft/core/entry.ts';
import { EntryKind } from '../raft/core/entry.ts';
import type { Crc32c } from '../record/types.ts';
import type { Crc32 } from './wal-frame.ts';

/** Bytes of a batch header. */
export const BATCH_HEADER_BYTES = 61;
/** A batch's CRC32C covers what follows it; the offset, length and epoch before it are the leader's to stamp. */
export const BATCH_CHECKSUM_START = 21;
const LENGTH_AT = 8;
const CHECKSUM_AT = 17;
const LAST_OFFSET_DELTA_AT = 23;
const MAX_TIMESTAMP_AT = 35;

export interface Checksums {
  readonly crc32: Crc32;
  readonly crc32c: Crc32c;
}

export function isRecordBatch(entry: Pick<Entry, 'kind' | 'recordCount'>): boolean {
  return entry.kind === EntryKind.batch && entry.recordCount > 0;
}

/** Whether the payload matches the entry's payloadChecksum: a batch's own CRC32C, or crc32 of the whole. */
export function payloadIntact(entry: Entry, { crc32, crc32c }: Checksums): boolean {
  const { payload, payloadChecksum } = entry;
  if (isRecordBatch(entry) && payload.length >= BATCH_HEADER_BYTES) {
    if (crc32c(payload.subarray(BATCH_CHECKSUM_START)) >>> 0 === payloadChecksum) return true;
  }
  return crc32(payload) >>> 0 === payloadChecksum;
}

/** Milliseconds since the epoch; -1 when the payload is no batch. */
export function maxTimestampOf(entry: Entry): number {
  const { payload } = entry;
  if (!isRecordBatch(entry) || payload.length < BATCH_HEADER_BYTES) return -1;
  return batchMaxTimestampAt(payload, 0);
}

/** The whole batch's length that stands in its header, or undefined when fewer bytes than a header are there. */
export function batchLengthAt(bytes: Uint8Array, at: number): number | undefined {
  return at + BATCH_HEADER_BYTES > bytes.length ? undefined : 12 + readUint32(bytes, at + LENGTH_AT);
}

/** Whether a whole batch matches its own CRC32C. */
export function batchIntactAt(bytes: Uint8Array, at: number, length: number, crc32c: Crc32c): boolean {
  return crc32c(bytes.subarray(at + BATCH_CHECKSUM_START, at + length)) >>> 0 === batchChecksumAt(bytes, at);
}

/** Its CRC32C as its header states it. */
export function batchChecksumAt(bytes: Uint8Array, at: number): number {
  return readUint32(bytes, at + CHECKSUM_AT);
}

export function batchBaseOffsetAt(bytes: Uint8Array, at: number): number {
  return readInt64(bytes, at);
}

export function batchMaxTimestampAt(bytes: Uint8Array, at: number): number {
  return readInt64(bytes, at + MAX_TIMESTAMP_AT);
}

export function batchNextOffsetAt(bytes: Uint8Array, at: number): number {
  return readInt64(bytes, at) + readUint32(bytes, at + LAST_OFFSET_DELTA_AT) + 1;
}

function readUint32(bytes: Uint8Array, at: number): number {
  return (((bytes[at] ?? 0) << 24) | ((bytes[at + 1] ?? 0) << 16) | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0)) >>> 0;
}

function readInt64(bytes: Uint8Array, at: number): number {
  return (readUint32(bytes, at) | 0) * 2 ** 32 + readUint32(bytes, at + 4);
}

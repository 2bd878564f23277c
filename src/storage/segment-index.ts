/**
 * The `.entries` file of a segment: one row of 72 bytes an entry, so that entry i of the segment stands at i * 72. It names entries even where the
 * payload rotted, and the file that holds it. Big-endian:
 *
 *    0  the entry's own 48-byte header (raft/core/entry.ts), with its checksum
 *   48  u64  maxTimestamp     milliseconds, the greatest of this entry and of all before it in the segment; 2^64 - 1: none. So the last row tells a segment's
 *   56  u16  version          2; 3: sparse, of a cleaned segment
 *   58  u16  file             0: the segment's `.log`; 1: its `.control` (what is no batch); 2: none, compaction removed the payload
 *   60  u32  position         of the payload in that file
 *   64  u32  headChecksum     crc32 of the payload's first 21 bytes, which a batch's own CRC32C does not cover
 *   68  u32  rowChecksum      crc32 of bytes 0 … 67
 *
 * A cleaned segment has rows of version 3 only: of the entries of which there is something left, by ascending index, and of its last entry in any case, so that it
 * is known where the log stands behind it. They are found by searching, by the offset. The header in such a row is that of the entry, its index, term, offsets and
 * chain as they were; payloadLength, payloadChecksum and headerCrc are of what is left of the payload, and `file` is 2 where that is nothing.
 *
 * Rows of version 1, which stand in segments of that time and are still read, have 0 for their version, and for maxTimestamp that of their entry alone.
 */
import { ENTRY_HEADER_BYTES, type Entry, EntryKind } from '../raft/core/entry.ts';
import { putUint32, putUint64, readUint32, readUint64 } from '../raft/core/entry-codec.ts';
import { newerFormat } from './newer-format.ts';
import { BATCH_CHECKSUM_START, batchChecksumAt, batchMaxTimestampAt, maxTimestampOf } from './payload.ts';
import type { Crc32 } from './wal-frame.ts';

export const INDEX_ROW_BYTES = 72;
const ROW_VERSION = 2;
const SPARSE_ROW_VERSION = 3;
const NEWEST_VERSION = SPARSE_ROW_VERSION;
const NO_TIMESTAMP = 0xffffffff;

export const PayloadFile = { log: 0, control: 1, gone: 2 } as const;
export type PayloadFile = (typeof PayloadFile)[keyof typeof PayloadFile];

export interface IndexRow {
  readonly index: number;
  readonly term: number;
  readonly kind: EntryKind;
  readonly nextOffset: number;
  readonly recordCount: number;
  readonly length: number;
  readonly payloadChecksum: number;
  readonly chainHigh: number;
  readonly chainLow: number;
  /** -1: none. */
  readonly maxTimestamp: number;
  /** That of the entries before it in the segment is in it. */
  readonly isRunning: boolean;
  /** It is of a cleaned segment. */
  readonly isSparse: boolean;
  readonly file: number;
  readonly position: number;
  readonly headChecksum: number;
  /** The entry's header as it was. */
  readonly header: Uint8Array;
}

export function payloadFileOf(entry: Entry): PayloadFile {
  return entry.kind === EntryKind.batch ? PayloadFile.log : PayloadFile.control;
}

/** Where a row's payload stands in its file, and the maxTimestamp of the row before it in the segment. */
interface RowPlace {
  readonly position: number;
  readonly timestampBefore: number;
}

/** Returns the row's maxTimestamp. */
export function putIndexRow(bytes: Uint8Array, at: number, entry: Entry, { position, timestampBefore }: RowPlace, crc32: Crc32): number {
  bytes.set(entry.header, at);
  const maxTimestamp = Math.max(timestampBefore, maxTimestampOf(entry));
  putRest(bytes, at, { version: ROW_VERSION, file: payloadFileOf(entry), position, maxTimestamp, payload: entry.payload }, crc32);
  return maxTimestamp;
}

/** The row of an entry in a cleaned segment, from what it was and what is left of its payload, which may be nothing. Else as {@link putIndexRow}. */
export function putSparseRow(
  bytes: Uint8Array,
  at: number,
  was: IndexRow,
  payload: Uint8Array,
  { position, timestampBefore }: RowPlace,
  crc32: Crc32,
): number {
  bytes.set(was.header, at);
  putUint32(bytes, at + 4, payload.length);
  putUint32(bytes, at + 32, payload.length === 0 ? 0 : batchChecksumAt(payload, 0));
  putUint32(bytes, at, crc32(bytes.subarray(at + 4, at + ENTRY_HEADER_BYTES)));
  const file = payload.length === 0 ? PayloadFile.gone : PayloadFile.log;
  const maxTimestamp = payload.length === 0 ? timestampBefore : Math.max(timestampBefore, batchMaxTimestampAt(payload, 0));
  putRest(bytes, at, { version: SPARSE_ROW_VERSION, file, position, maxTimestamp, payload }, crc32);
  return maxTimestamp;
}

interface RowRest {
  readonly version: number;
  readonly file: PayloadFile;
  readonly position: number;
  readonly maxTimestamp: number;
  readonly payload: Uint8Array;
}

/** What stands behind the entry's header. */
function putRest(bytes: Uint8Array, at: number, { version, file, position, maxTimestamp, payload }: RowRest, crc32: Crc32): void {
  if (maxTimestamp < 0) bytes.fill(0xff, at + 48, at + 56);
  else putUint64(bytes, at + 48, maxTimestamp);
  putUint32(bytes, at + 56, (version << 16) | file);
  putUint32(bytes, at + 60, position);
  putUint32(bytes, at + 64, headChecksumOf(payload, crc32));
  putUint32(bytes, at + 68, crc32(bytes.subarray(at, at + 68)));
}

/** The row at `at`, or undefined when it is not intact. @throws DATA_DIRECTORY for one of a newer release. */
export function readIndexRow(bytes: Uint8Array, at: number, crc32: Crc32): IndexRow | undefined {
  if (at + INDEX_ROW_BYTES > bytes.length || readUint32(bytes, at + 68) !== crc32(bytes.subarray(at, at + 68))) return undefined;
  const version = readUint32(bytes, at + 56) >>> 16;
  if (version > NEWEST_VERSION) throw newerFormat('a row of a segment', version, NEWEST_VERSION);
  return {
    index: readUint64(bytes, at + 8),
    term: readUint32(bytes, at + 16),
    kind: bytes[at + 20] as EntryKind,
    nextOffset: readUint64(bytes, at + 24),
    recordCount: readUint32(bytes, at + 36),
    length: readUint32(bytes, at + 4),
    payloadChecksum: readUint32(bytes, at + 32),
    chainHigh: readUint32(bytes, at + 40),
    chainLow: readUint32(bytes, at + 44),
    maxTimestamp: readUint32(bytes, at + 48) === NO_TIMESTAMP ? -1 : readUint64(bytes, at + 48),
    isRunning: version >= ROW_VERSION,
    isSparse: version === SPARSE_ROW_VERSION,
    file: readUint32(bytes, at + 56) & 0xffff,
    position: readUint32(bytes, at + 60),
    headChecksum: readUint32(bytes, at + 64),
    header: bytes.subarray(at, at + ENTRY_HEADER_BYTES),
  };
}

export function headChecksumOf(payload: Uint8Array, crc32: Crc32): number {
  return crc32(payload.subarray(0, BATCH_CHECKSUM_START)) >>> 0;
}

/** The entry that a row stands for, with its payload. */
export function entryOf(row: IndexRow, payload: Uint8Array): Entry {
  const { index, term, kind, nextOffset, recordCount, payloadChecksum, chainHigh, chainLow, header } = row;
  return { index, term, kind, nextOffset, recordCount, payloadChecksum, chainHigh, chainLow, header, payload };
}

/** Rows that one sample stands for: what one look-up reads. */
export const BLOCK_ROWS = 64;

/** What stays in memory of a segment's rows: two numbers for every {@link BLOCK_ROWS} of them (a quarter of a byte an entry). */
export class SparseIndex {
  /** Of each block: the nextOffset of its last row, and the greatest maxTimestamp up to its end. */
  #nextOffsets: number[] = [];
  #maxTimestamps: number[] = [];
  #rows = 0;
  maxTimestamp = -1;

  get rows(): number {
    return this.#rows;
  }

  add(row: Pick<IndexRow, 'nextOffset' | 'maxTimestamp'>): void {
    const block = Math.floor(this.#rows / BLOCK_ROWS);
    if (this.#rows === 0) {
      // As literals: the first push would make room for 16 more, and most of thousands of segments have one block.
      this.#nextOffsets = [row.nextOffset];
      this.#maxTimestamps = [row.maxTimestamp];
    }
    this.#nextOffsets[block] = row.nextOffset;
    this.maxTimestamp = Math.max(this.maxTimestamp, row.maxTimestamp);
    this.#maxTimestamps[block] = this.maxTimestamp;
    this.#rows++;
  }

  /** The block with the first row whose nextOffset is above `offset`, or undefined: none. */
  blockOfOffset(offset: number): number | undefined {
    return firstWhere(this.#nextOffsets, (next) => next > offset);
  }

  /** The first block with a timestamp at or after `timestampMs`. */
  blockOfTime(timestampMs: number): number | undefined {
    return firstWhere(this.#maxTimestamps, (time) => time >= timestampMs);
  }
}

/** The place of the first number for which it holds, of ascending ones; undefined: of none. */
function firstWhere(ascending: readonly number[], holds: (value: number) => boolean): number | undefined {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (holds(ascending[middle] as number)) high = middle;
    else low = middle + 1;
  }
  return low < ascending.length ? low : undefined;
}

/**
 * The write-ahead log's flush frame: what one write and one fdatasync make durable, for all groups at once.
 *
 * A frame starts and ends on a 4 KiB page, so that no write ever touches a sector that holds durable bytes. All numbers are big-endian.
 *
 *   header (64 bytes) | directory: rows of 64 bytes | body: entries, byte for byte | zeros | directory again | trailer: the header again
 *
 * The header:
 *    0  u32  magic 'FLWF'
 *    4  u16  version 1
 *    6  u16  flags             1: first frame of its file
 *    8  u32  generation        of the file, which is overwritten in place: what carries another is left over from an earlier use
 *   12  u32  oldestGeneration  what older files hold is void
 *   16  u64  lsn               counts frames, without a gap over all files
 *   24  u64  durableUpTo       lsn up to which all frames are durable for certain
 *   32  u32  length            of the frame, in bytes, a multiple of the page
 *   36  u32  rowCount
 *   40  u32  previousChecksum  frameChecksum of the frame before
 *   44  u32  nonce             random per generation, so that no record that users store can pass for a frame
 *   48  u32  directoryChecksum crc32 of the rows
 *   52  u32  bodyLength
 *   56  u32  frameChecksum     crc32 of the header up to here, the rows and the body
 *   60  u32  headerChecksum    crc32 of the header up to here
 *
 * A row is one run of a group's records. HardStates and truncations stand wholly in their row, so either copy of the directory suffices for them:
 *    0  group key (24 bytes)
 *   24  u8   kind              {@link RowKind}
 *   25  u8   flags             1: the group's records can't be proved whole (sticky)
 *   28  u32  term              hardState: its term; entries: that of the last
 *   32  u64  index             hardState: vote; truncate, synced: the index; entries, moved: the first index
 *   40  u64  extra             hardState: commit; entries, moved: their number
 *   48  u64  sequence          counts the rows of the group, without a gap
 *   56  u32  position          of its entries, from the start of the frame
 *   60  u32  bytes             of its entries
 */
import { assert } from '../base/assert.ts';
import { GROUP_KEY_BYTES, type GroupKey } from '../base/ids.ts';
import type { Entry } from '../raft/core/entry.ts';
import { ENTRY_HEADER_BYTES } from '../raft/core/entry.ts';
import { newerFormat } from './newer-format.ts';

/** crc32 (IEEE) of the bytes; `seed` is the sum of what came before. Injected: a native one in the broker. */
export type Crc32 = (bytes: Uint8Array, seed?: number) => number;

export const PAGE_BYTES = 4096;
export const FRAME_HEADER_BYTES = 64;
export const ROW_BYTES = 64;
const MAGIC = 0x464c5746;
const VERSION = 1;

export const RowKind = {
  hardState: 1,
  /** Entries above the index are void. */
  truncate: 2,
  entries: 3,
  /** Entries that stood in a file about to be overwritten, again. */
  moved: 4,
  /** Entries up to the index are durable in segments. */
  synced: 5,
  /** The group was deleted. */
  forget: 6,
} as const;
export type RowKind = (typeof RowKind)[keyof typeof RowKind];

export interface Row {
  readonly group: GroupKey;
  readonly kind: number;
  readonly damaged: boolean;
  readonly term: number;
  readonly index: number;
  readonly extra: number;
  readonly sequence: number;
  readonly position: number;
  readonly bytes: number;
}

/** A row to write, with the entries it stands for. */
export interface NewRow {
  readonly group: GroupKey;
  readonly kind: RowKind;
  readonly damaged: boolean;
  readonly term: number;
  readonly index: number;
  readonly extra: number;
  readonly sequence: number;
  readonly entries: readonly Entry[] | undefined;
}

export interface FrameHeader {
  readonly firstOfFile: boolean;
  readonly generation: number;
  readonly oldestGeneration: number;
  readonly lsn: number;
  readonly durableUpTo: number;
  readonly length: number;
  readonly rowCount: number;
  readonly previousChecksum: number;
  readonly nonce: number;
  readonly directoryChecksum: number;
  readonly bodyLength: number;
  readonly frameChecksum: number;
}

export type NewFrame = Pick<
  FrameHeader,
  'firstOfFile' | 'generation' | 'oldestGeneration' | 'lsn' | 'durableUpTo' | 'previousChecksum' | 'nonce'
>;

/** Bytes of a frame with so many rows and entry bytes. */
export function frameBytes(rowCount: number, bodyLength: number): number {
  return roundUp(2 * (FRAME_HEADER_BYTES + rowCount * ROW_BYTES) + bodyLength);
}

/** The one buffer that frames are encoded into; it grows to the largest frame and is used again once a flush has ended (hazard B42). */
export class FrameBuffer {
  #bytes = new Uint8Array(16 * PAGE_BYTES);
  #view = new DataView(this.#bytes.buffer);
  readonly #crc32: Crc32;

  constructor(crc32: Crc32) {
    this.#crc32 = crc32;
  }

  /** Encodes a frame; the view is valid until the next call. */
  encode(frame: NewFrame, rows: readonly NewRow[]): { bytes: Uint8Array; checksum: number } {
    let bodyLength = 0;
    for (const row of rows) bodyLength += bytesOf(row.entries);
    const length = frameBytes(rows.length, bodyLength);
    this.#reserve(length);
    const bodyStart = FRAME_HEADER_BYTES + rows.length * ROW_BYTES;
    let at = bodyStart;
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i];
      if (row === undefined) continue;
      const end = this.#copyEntries(at, row.entries);
      this.#putRow(FRAME_HEADER_BYTES + i * ROW_BYTES, row, at, end - at);
      at = end;
    }
    const bytes = this.#bytes;
    const directory = bytes.subarray(FRAME_HEADER_BYTES, bodyStart);
    this.#putHeader(frame, length, rows.length, bodyLength, this.#crc32(directory));
    const checksum = this.#crc32(bytes.subarray(FRAME_HEADER_BYTES, at), this.#crc32(bytes.subarray(0, 56)));
    this.#view.setUint32(56, checksum);
    this.#view.setUint32(60, this.#crc32(bytes.subarray(0, 60)));
    const trailer = length - FRAME_HEADER_BYTES;
    bytes.fill(0, at, trailer - directory.length);
    bytes.copyWithin(trailer - directory.length, FRAME_HEADER_BYTES, bodyStart);
    bytes.copyWithin(trailer, 0, FRAME_HEADER_BYTES);
    return { bytes: bytes.subarray(0, length), checksum };
  }

  #reserve(length: number): void {
    if (this.#bytes.length >= length) return;
    this.#bytes = new Uint8Array(Math.max(length, 2 * this.#bytes.length));
    this.#view = new DataView(this.#bytes.buffer);
  }

  #copyEntries(start: number, entries: readonly Entry[] | undefined): number {
    let at = start;
    if (entries === undefined) return at;
    for (const entry of entries) {
      this.#bytes.set(entry.header, at);
      this.#bytes.set(entry.payload, at + ENTRY_HEADER_BYTES);
      at += ENTRY_HEADER_BYTES + entry.payload.length;
    }
    return at;
  }

  #putRow(at: number, row: NewRow, position: number, bytes: number): void {
    const view = this.#view;
    for (let i = 0; i < GROUP_KEY_BYTES; i++) this.#bytes[at + i] = row.group.charCodeAt(i);
    view.setUint32(at + 24, (row.kind << 24) | ((row.damaged ? 1 : 0) << 16));
    view.setUint32(at + 28, row.term);
    putUint53(view, at + 32, row.index);
    putUint53(view, at + 40, row.extra);
    putUint53(view, at + 48, row.sequence);
    view.setUint32(at + 56, position);
    view.setUint32(at + 60, bytes);
  }

  #putHeader(frame: NewFrame, length: number, rowCount: number, bodyLength: number, directoryChecksum: number): void {
    const view = this.#view;
    view.setUint32(0, MAGIC);
    view.setUint16(4, VERSION);
    view.setUint16(6, frame.firstOfFile ? 1 : 0);
    view.setUint32(8, frame.generation);
    view.setUint32(12, frame.oldestGeneration);
    putUint53(view, 16, frame.lsn);
    putUint53(view, 24, frame.durableUpTo);
    view.setUint32(32, length);
    view.setUint32(36, rowCount);
    view.setUint32(40, frame.previousChecksum);
    view.setUint32(44, frame.nonce);
    view.setUint32(48, directoryChecksum);
    view.setUint32(52, bodyLength);
  }
}

/**
 * Whatever its version, a file of this log begins with the magic, the version behind it, and a checksum of its first 60 bytes behind these.
 * @throws DATA_DIRECTORY when a newer release wrote it.
 */
export function refuseNewer(head: Uint8Array, crc32: Crc32): void {
  if (head.length < FRAME_HEADER_BYTES) return;
  const view = new DataView(head.buffer, head.byteOffset, FRAME_HEADER_BYTES);
  const version = view.getUint16(4);
  if (view.getUint32(0) === MAGIC && version > VERSION && view.getUint32(60) === crc32(head.subarray(0, 60)))
    throw newerFormat('a file of the write-ahead log', version, VERSION);
}

/** The header (or trailer) at `at`, or undefined when there is none that is intact. */
export function readHeader(bytes: Uint8Array, at: number, crc32: Crc32): FrameHeader | undefined {
  if (at < 0 || at + FRAME_HEADER_BYTES > bytes.length) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, FRAME_HEADER_BYTES);
  if (view.getUint32(0) !== MAGIC || view.getUint16(4) !== VERSION) return undefined;
  if (view.getUint32(60) !== crc32(bytes.subarray(at, at + 60))) return undefined;
  return {
    firstOfFile: view.getUint16(6) === 1,
    generation: view.getUint32(8),
    oldestGeneration: view.getUint32(12),
    lsn: getUint53(view, 16),
    durableUpTo: getUint53(view, 24),
    length: view.getUint32(32),
    rowCount: view.getUint32(36),
    previousChecksum: view.getUint32(40),
    nonce: view.getUint32(44),
    directoryChecksum: view.getUint32(48),
    bodyLength: view.getUint32(52),
    frameChecksum: view.getUint32(56),
  };
}

/** Whether the frame that starts at `at` is intact: its header, rows and entries. */
export function frameIntact(bytes: Uint8Array, at: number, header: FrameHeader, crc32: Crc32): boolean {
  const end = at + FRAME_HEADER_BYTES + header.rowCount * ROW_BYTES + header.bodyLength;
  if (at + header.length > bytes.length || end > at + header.length) return false;
  return crc32(bytes.subarray(at + FRAME_HEADER_BYTES, end), crc32(bytes.subarray(at, at + 56))) === header.frameChecksum;
}

/** The rows that start at `at`, or undefined when their checksum does not match the header's. */
export function readRows(bytes: Uint8Array, at: number, header: FrameHeader, crc32: Crc32): Row[] | undefined {
  const end = at + header.rowCount * ROW_BYTES;
  if (at < 0 || end > bytes.length || crc32(bytes.subarray(at, end)) !== header.directoryChecksum) return undefined;
  const rows: Row[] = [];
  for (let row = at; row < end; row += ROW_BYTES) {
    const view = new DataView(bytes.buffer, bytes.byteOffset + row, ROW_BYTES);
    let group = '';
    for (let i = 0; i < GROUP_KEY_BYTES; i++) group += String.fromCharCode(view.getUint8(i));
    rows.push({
      group: group as GroupKey,
      kind: view.getUint8(24),
      damaged: (view.getUint8(25) & 1) === 1,
      term: view.getUint32(28),
      index: getUint53(view, 32),
      extra: getUint53(view, 40),
      sequence: getUint53(view, 48),
      position: view.getUint32(56),
      bytes: view.getUint32(60),
    });
  }
  return rows;
}

export function bytesOf(entries: readonly Entry[] | undefined): number {
  let bytes = 0;
  if (entries !== undefined) for (const entry of entries) bytes += ENTRY_HEADER_BYTES + entry.payload.length;
  return bytes;
}

export function putUint53(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value >>> 0);
}

export function getUint53(view: DataView, at: number): number {
  const value = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
  assert(value <= Number.MAX_SAFE_INTEGER, 'a stored number is below 2^53', value);
  return value;
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}

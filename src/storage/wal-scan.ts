/**
 * Reads one write-ahead log file: its intact frames in order, and the gaps between them. A gap is what damage looks like; what follows the last
 * intact frame may be a torn tail, and only the files together can tell (wal-recovery.ts).
 */
import type { DiskFile } from '../base/environment.ts';
import { FileWindow } from './file-window.ts';
import {
  type Crc32,
  FRAME_HEADER_BYTES,
  type FrameHeader,
  frameIntact,
  PAGE_BYTES,
  ROW_BYTES,
  type Row,
  readHeader,
  readRows,
  refuseNewer,
} from './wal-frame.ts';

export interface ScannedFrame {
  /** Where it starts in its file. */
  readonly position: number;
  readonly header: FrameHeader;
  readonly rows: readonly Row[];
  readonly bytes: Uint8Array;
  readonly intact: boolean;
}

export interface ScannedFile {
  readonly generation: number;
  /** In order, with what is left of damaged frames between intact ones or after the last. */
  readonly frames: readonly ScannedFrame[];
  /** The greatest durableUpTo that any header says that can still be read, be its frame intact or not: all frames up to there were durable. */
  readonly durableUpTo: number;
}

/** Tells the frames of a file's present use from leftovers, and from payloads that look like frames. */
type FileUse = Pick<FrameHeader, 'generation' | 'nonce'>;

/** Undefined: no frame was ever written to the file. */
export async function scanFile(file: DiskFile, size: number, crc32: Crc32): Promise<ScannedFile | undefined> {
  const reader = new FileWindow(file, size);
  const head = await reader.at(0, PAGE_BYTES);
  refuseNewer(head, crc32);
  const use = readHeader(head, 0, crc32) ?? (await newestHeader(reader, size, crc32));
  if (use === undefined) return undefined;
  const frames: ScannedFrame[] = [];
  let at = 0;
  let durableUpTo = 0;
  while (at < size) {
    const frame = await frameAt(reader, at, use, frames.at(-1)?.header, crc32);
    if (frame !== undefined) {
      frames.push(frame);
      durableUpTo = Math.max(durableUpTo, frame.header.durableUpTo);
      at += frame.header.length;
      continue;
    }
    const damage = await damagedFrames(reader, at, size, use, crc32);
    frames.push(...damage.frames);
    durableUpTo = Math.max(durableUpTo, damage.durableUpTo);
    if (damage.resumeAt === undefined) break;
    at = damage.resumeAt;
  }
  return { generation: use.generation, frames, durableUpTo };
}

async function frameAt(
  reader: FileWindow,
  at: number,
  use: FileUse,
  previous: FrameHeader | undefined,
  crc32: Crc32,
): Promise<ScannedFrame | undefined> {
  const header = readHeader(await reader.at(at, PAGE_BYTES), 0, crc32);
  if (header === undefined || !isOf(use, header) || at + header.length > reader.size) return undefined;
  if (previous !== undefined && header.lsn === previous.lsn + 1 && header.previousChecksum !== previous.frameChecksum) return undefined;
  if (previous !== undefined && header.lsn <= previous.lsn) return undefined;
  const bytes = await reader.at(at, header.length);
  if (!frameIntact(bytes, 0, header, crc32)) return undefined;
  const rows = readRows(bytes, FRAME_HEADER_BYTES, header, crc32);
  return rows === undefined ? undefined : { position: at, header, rows, bytes, intact: true };
}

/**
 * From a page where no intact frame starts: looks on, page by page, for the next intact frame of the generation, and collects the directories
 * that can still be read on the way, from headers and trailers.
 */
async function damagedFrames(
  reader: FileWindow,
  from: number,
  size: number,
  use: FileUse,
  crc32: Crc32,
): Promise<{ frames: ScannedFrame[]; durableUpTo: number; resumeAt: number | undefined }> {
  const found = new Map<number, ScannedFrame>();
  let durableUpTo = 0;
  for (let page = from; page < size; page += PAGE_BYTES) {
    if (page > from) {
      const next = await frameAt(reader, page, use, undefined, crc32);
      if (next !== undefined && ![...found.values()].some((frame) => frame.header.lsn >= next.header.lsn)) {
        return { frames: inOrder(found), durableUpTo, resumeAt: page };
      }
    }
    const bytes = await reader.at(page, PAGE_BYTES);
    const header = readHeader(bytes, 0, crc32);
    if (header !== undefined && isOf(use, header)) {
      durableUpTo = Math.max(durableUpTo, header.durableUpTo);
      const rest = await reader.at(page, Math.min(header.length, size - page));
      keep(found, page, header, readRows(rest, FRAME_HEADER_BYTES, header, crc32), rest);
    }
    const trailer = readHeader(bytes, PAGE_BYTES - FRAME_HEADER_BYTES, crc32);
    const start = page + PAGE_BYTES - (trailer?.length ?? 0);
    if (trailer !== undefined && isOf(use, trailer) && start >= from) {
      durableUpTo = Math.max(durableUpTo, trailer.durableUpTo);
      const whole = await reader.at(start, trailer.length);
      keep(
        found,
        start,
        trailer,
        readRows(whole, trailer.length - FRAME_HEADER_BYTES - trailer.rowCount * ROW_BYTES, trailer, crc32),
        whole,
      );
    }
  }
  return { frames: inOrder(found), durableUpTo, resumeAt: undefined };
}

function keep(found: Map<number, ScannedFrame>, position: number, header: FrameHeader, rows: Row[] | undefined, bytes: Uint8Array): void {
  if (rows !== undefined && !found.has(header.lsn)) found.set(header.lsn, { position, header, rows, bytes, intact: false });
}

function inOrder(found: Map<number, ScannedFrame>): ScannedFrame[] {
  return [...found.values()].sort((a, b) => a.header.lsn - b.header.lsn);
}

/** Where the first page does not tell the file's present use: the newest generation of any header or trailer in it. */
async function newestHeader(reader: FileWindow, size: number, crc32: Crc32): Promise<FrameHeader | undefined> {
  let newest: FrameHeader | undefined;
  for (let page = 0; page < size; page += PAGE_BYTES) {
    const bytes = await reader.at(page, PAGE_BYTES);
    for (const at of [0, PAGE_BYTES - FRAME_HEADER_BYTES]) {
      const header = readHeader(bytes, at, crc32);
      if (header !== undefined && header.generation > (newest?.generation ?? 0)) newest = header;
    }
  }
  return newest;
}

function isOf(use: FileUse, header: FrameHeader): boolean {
  return header.generation === use.generation && header.nonce === use.nonce;
}

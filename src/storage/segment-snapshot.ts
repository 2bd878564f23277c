/**
 * What local recovery starts from, written at each segment roll: `NAME.snapshot`, NAME being that of the segment that starts there. Big-endian:
 *
 *    0  u32  magic 'FLSN'
 *    4  u16  version 1
 *    6  u16  flags        1: there is state
 *    8  u32  checksum     crc32 of all that follows
 *   12  u32  jsonLength
 *   16  JSON { lastIndex, nextOffset, terms, configuration? { index, payload (hex) } }
 *       state: the rest
 */
import type { Disk } from '../base/environment.ts';
import type { TermStart } from '../raft/core/types.ts';
import { publishFile } from './directory.ts';
import { parseSegmentName, segmentName } from './segment.ts';
import type { Crc32 } from './wal-frame.ts';

const MAGIC = 0x464c534e;
const VERSION = 1;
const HEADER_BYTES = 16;
/** Snapshots kept: the newest, and the one before in case it rots. */
const KEPT = 2;

export interface SegmentSnapshot {
  readonly lastIndex: number;
  readonly nextOffset: number;
  readonly terms: readonly TermStart[];
  readonly configuration: { readonly index: number; readonly payload: string } | undefined;
  /** The owner's state at nextOffset. */
  readonly state: Uint8Array | undefined;
}

export function encodeSnapshot(snapshot: SegmentSnapshot, crc32: Crc32): Uint8Array {
  const { state, ...described } = snapshot;
  const json = new TextEncoder().encode(JSON.stringify(described));
  const bytes = new Uint8Array(HEADER_BYTES + json.length + (state?.length ?? 0));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC);
  view.setUint16(4, VERSION);
  view.setUint16(6, state === undefined ? 0 : 1);
  view.setUint32(12, json.length);
  bytes.set(json, HEADER_BYTES);
  if (state !== undefined) bytes.set(state, HEADER_BYTES + json.length);
  view.setUint32(8, crc32(bytes.subarray(12)));
  return bytes;
}

/** Undefined: damaged, or of another version; recovery then reads more of the log instead. */
export function decodeSnapshot(bytes: Uint8Array, crc32: Crc32): SegmentSnapshot | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(0) !== MAGIC || view.getUint16(4) !== VERSION || view.getUint32(8) !== crc32(bytes.subarray(12))) return undefined;
  const jsonEnd = HEADER_BYTES + view.getUint32(12);
  const described = JSON.parse(new TextDecoder().decode(bytes.subarray(HEADER_BYTES, jsonEnd))) as Omit<SegmentSnapshot, 'state'>;
  const { lastIndex, nextOffset, terms, configuration } = described;
  return { lastIndex, nextOffset, terms, configuration, state: view.getUint16(6) === 1 ? bytes.slice(jsonEnd) : undefined };
}

/** Publishes the snapshot and removes old ones. */
export async function writeSnapshot(disk: Disk, directory: string, snapshot: SegmentSnapshot, crc32: Crc32): Promise<void> {
  const name = `${segmentName({ offset: snapshot.nextOffset, index: snapshot.lastIndex + 1 })}.snapshot`;
  await publishFile(disk, directory, name, encodeSnapshot(snapshot, crc32));
  const names = (await disk.list(directory)).filter((other) => parseSegmentName(other, 'snapshot') !== undefined);
  for (const old of names.slice(0, -KEPT)) await disk.remove(`${directory}/${old}`);
}

/** The newest intact snapshot at or below an index. */
export async function readSnapshot(disk: Disk, directory: string, lastIndex: number, crc32: Crc32): Promise<SegmentSnapshot | undefined> {
  for (const name of (await disk.list(directory)).reverse()) {
    const base = parseSegmentName(name, 'snapshot');
    if (base === undefined || base.index - 1 > lastIndex) continue;
    const file = await disk.open(`${directory}/${name}`, { create: false });
    const snapshot = decodeSnapshot(await file.read(0, await file.size()), crc32);
    await file.close();
    if (snapshot !== undefined) return snapshot;
  }
  return undefined;
}

/**
 * A snapshot of a replica's log, written at each segment roll and log-start move: what local recovery starts from, and what a follower gets that needs
 * entries which are gone. `NAME.snapshot`, NAME being that of the segment that starts behind it. Big-endian:
 *
 *    0  u32  magic 'FLSN'
 *    4  u16  version 4
 *    6  u16  flags        1: there is state
 *    8  u32  checksum     crc32 of all else, in its order
 *   12  u32  jsonLength
 *   16  JSON { group, lastIndex, lastTerm, nextOffset, logStartOffset, firstIndex, firstReplicableIndex, chain (16 hex digits), terms,
 *              configuration? { index, payload (hex) }, tombstoneFloor, abortedTransactions? }
 *       state: the rest
 *
 * `group` is the raftGroup as its directory is named. `firstIndex` is the first entry of the first segment, and from `firstReplicableIndex` on segments have all
 * entries: what lies between was cleaned. The last is kept as it came; nothing writes it yet. Up to version 3 the checksum was of what follows it alone. Version 2 had no firstIndex and tombstoneFloor: nothing was
 * cleaned. Version 1 had no group, lastTerm, logStartOffset, firstReplicableIndex and chain either: it is read, and a log of that time starts at index 1.
 */
import { hex } from '../base/bytes.ts';
import type { Disk } from '../base/environment.ts';
import type { LogPosition, TermStart } from '../raft/core/types.ts';
import { publishFile } from './directory.ts';
import { readFile } from './files.ts';
import { newerFormat } from './newer-format.ts';
import { parseSegmentName, segmentName } from './segment-files.ts';
import type { Crc32 } from './wal-frame.ts';

const MAGIC = 0x464c534e;
const VERSION = 4;
const HEADER_BYTES = 16;
/** Snapshots kept of those that recovery may start from: the newest, and the one before in case it rots. */
const KEPT = 2;

export interface SegmentSnapshot {
  /** Undefined: version 1. */
  readonly group: string | undefined;
  readonly lastIndex: number;
  readonly lastTerm: number;
  readonly nextOffset: number;
  readonly logStartOffset: number;
  /** At or below firstReplicableIndex: what is between them was cleaned. */
  readonly firstIndex: number;
  readonly firstReplicableIndex: number;
  /** Chain hash of the last entry, 16 hex digits. Undefined: version 1. */
  readonly chain: string | undefined;
  readonly terms: readonly TermStart[];
  readonly configuration: { readonly index: number; readonly payload: string } | undefined;
  /** 0: none. */
  readonly tombstoneFloor: number;
  /** Reserved. */
  readonly abortedTransactions?: unknown;
  /** The owner's state at nextOffset. */
  readonly state: Uint8Array | undefined;
}

/** Where the log stands that the snapshot is of; undefined in one of version 1. */
export function positionOf({ chain, lastIndex, lastTerm, nextOffset }: SegmentSnapshot): LogPosition | undefined {
  if (chain === undefined) return undefined;
  const [chainHigh, chainLow] = [chain.slice(0, 8), chain.slice(8)].map((word) => Number.parseInt(word, 16)) as [number, number];
  return { index: lastIndex, term: lastTerm, nextOffset, chainHigh, chainLow };
}

/** A position's chain hash as a snapshot has it. */
export function chainOf({ chainHigh, chainLow }: Pick<LogPosition, 'chainHigh' | 'chainLow'>): string {
  return [chainHigh, chainLow].map((word) => (word >>> 0).toString(16).padStart(8, '0')).join('');
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
  view.setUint32(8, checksumOf(bytes, VERSION, crc32));
  return bytes;
}

/** Undefined: damaged; recovery then reads more of the log instead. @throws DATA_DIRECTORY for one of a newer release. */
export function decodeSnapshot(bytes: Uint8Array, crc32: Crc32): SegmentSnapshot | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const version = view.getUint16(4);
  if (view.getUint32(0) !== MAGIC || version < 1 || view.getUint32(8) !== checksumOf(bytes, version, crc32)) return undefined;
  if (version > VERSION) throw newerFormat('a snapshot', version, VERSION);
  const jsonEnd = HEADER_BYTES + view.getUint32(12);
  const described = JSON.parse(new TextDecoder().decode(bytes.subarray(HEADER_BYTES, jsonEnd))) as Omit<SegmentSnapshot, 'state'>;
  const state = view.getUint16(6) === 1 ? bytes.slice(jsonEnd) : undefined;
  if (version >= 3) return { ...described, configuration: described.configuration, state };
  const uncleaned = { tombstoneFloor: 0, firstIndex: described.firstReplicableIndex ?? 1 };
  if (version === 2) return { ...described, ...uncleaned, configuration: described.configuration, state };
  const { lastIndex, nextOffset, terms, configuration } = described;
  const lastTerm = terms.at(-1)?.term ?? 0;
  const start = { logStartOffset: 0, firstReplicableIndex: 1, ...uncleaned };
  return { group: undefined, lastIndex, lastTerm, nextOffset, ...start, chain: undefined, terms, configuration, state };
}

function checksumOf(bytes: Uint8Array, version: number, crc32: Crc32): number {
  return version <= 3 ? crc32(bytes.subarray(12)) : crc32(bytes.subarray(12), crc32(bytes.subarray(0, 8)));
}

export function snapshotName({ nextOffset, lastIndex }: Pick<SegmentSnapshot, 'nextOffset' | 'lastIndex'>): string {
  return `${segmentName({ offset: nextOffset, index: lastIndex + 1 })}.snapshot`;
}

/** A configuration's payload as a snapshot has it. */
export function describeConfiguration(
  configuration: { readonly index: number; readonly payload: Uint8Array } | undefined,
): SegmentSnapshot['configuration'] {
  return configuration && { index: configuration.index, payload: hex(configuration.payload) };
}

export async function writeSnapshot(disk: Disk, directory: string, snapshot: SegmentSnapshot, crc32: Crc32): Promise<void> {
  await publishFile(disk, directory, snapshotName(snapshot), encodeSnapshot(snapshot, crc32));
}

/** Of a log's snapshots, by name and in order, those that may go. Recovery starts from none above `synced`, what the write-ahead log says, durably, to be in segments. */
export function oldSnapshots(names: readonly string[], synced: number): readonly string[] {
  return names.filter((name) => (parseSegmentName(name, 'snapshot')?.index ?? Number.POSITIVE_INFINITY) - 1 <= synced).slice(0, -KEPT);
}

/** The newest intact snapshot at or below an index. `names`: of the directory, where they are known. */
export async function readSnapshot(
  disk: Disk,
  directory: string,
  lastIndex: number,
  crc32: Crc32,
  names?: readonly string[],
): Promise<SegmentSnapshot | undefined> {
  for (const name of (names ?? (await disk.list(directory))).toReversed()) {
    const base = parseSegmentName(name, 'snapshot');
    if (base === undefined || base.index - 1 > lastIndex) continue;
    const snapshot = decodeSnapshot(await readFile(disk, `${directory}/${name}`), crc32);
    if (snapshot !== undefined) return snapshot;
  }
  return undefined;
}

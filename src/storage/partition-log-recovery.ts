/** Reads a replica's segments at start: up to what is synced for certain, and no further. */
import type { Disk, Logger } from '../base/environment.ts';
import { LOG_ORIGIN } from '../raft/core/chain.ts';
import { decodeConfiguration } from '../raft/core/configuration.ts';
import { type Entry, EntryKind } from '../raft/core/entry.ts';
import type { Configuration, LogPosition, TermStart } from '../raft/core/types.ts';
import { fileSize } from './files.ts';
import type { KeptSnapshot, LogStart } from './log-snapshots.ts';
import { decodeLogStart } from './log-start.ts';
import type { Checksums } from './payload.ts';
import { Segment } from './segment.ts';
import { type FoundSegment, findSegments, rowsOf } from './segment-directory.ts';
import { EXTENSIONS, parseSegmentName, type SegmentName, segmentName } from './segment-files.ts';
import type { IndexRow } from './segment-index.ts';
import { positionOf, readSnapshot, type SegmentSnapshot } from './segment-snapshot.ts';
import { decodeTombstoneFloor } from './tombstone-floor.ts';
import type { PartitionLog } from './types.ts';

export interface LoadedLog {
  readonly segments: Segment[];
  readonly last: LogPosition;
  readonly terms: readonly TermStart[];
  readonly configuration: { readonly index: number; readonly configuration: Configuration; readonly payload: Uint8Array } | undefined;
  readonly snapshot: PartitionLog['snapshot'];
  readonly newestSnapshot: KeptSnapshot | undefined;
  readonly start: LogStart;
  readonly tombstoneFloor: number;
  readonly sizeBytes: number;
  /** False: something that was synced is not there any more. */
  readonly whole: boolean;
}

interface Access {
  readonly disk: Disk;
  readonly directory: string;
  readonly checksums: Checksums;
  readonly log: Logger;
}

/**
 * `synced`: segments hold all entries up to it, durably; what they hold above is cut off, because the write-ahead log has it and a page cache that
 * outlived a failed sync can't be trusted (hazard B25). Undefined: not known, the write-ahead log was damaged; then everything that verifies stays.
 */
export async function loadLog(access: Access, synced: number | undefined): Promise<LoadedLog> {
  const { disk, directory, checksums } = access;
  // Once: there are thousands of logs to open at a start.
  const names = await withoutAhead(access, await disk.list(directory), synced);
  const snapshot = await readSnapshot(disk, directory, synced ?? Number.MAX_SAFE_INTEGER, checksums.crc32, names);
  const found = await openSegments(access, names, synced, snapshot?.firstIndex ?? 1);
  const { segments } = found;
  let whole = found.whole && covers(snapshot, segments);
  const active = segments.at(-1);
  // An emptied log ends where its snapshot does; one that lost its beginning has a snapshot that tells of it.
  const emptied = snapshot === undefined ? undefined : positionOf(snapshot);
  const first = active === undefined ? (synced ?? 0) + 1 : (segments[0]?.base.index ?? 1);
  if (first > 1 && (snapshot === undefined || snapshot.lastIndex + 1 < first || (active === undefined && emptied === undefined)))
    whole = false;
  const history = new History(snapshot?.terms ?? []);
  const after = snapshot?.lastIndex ?? 0;
  let lastRow: IndexRow | undefined;
  for (const segment of segments) {
    if (segment.lastIndex <= after || (segment === active && !segment.cleaned)) continue;
    // Without a row the terms behind it are not known, and Raft compares logs by them.
    const known =
      !segment.cleaned && (await segment.visitRows(Math.max(after + 1, segment.base.index), (row) => history.add(row, segment)));
    if (!known) whole = false;
  }
  if (active?.cleaned) {
    if (active.lastIndex < (synced ?? 0)) whole = false;
  } else if (active !== undefined) {
    const limit = synced === undefined ? Number.MAX_SAFE_INTEGER : synced - active.base.index + 1;
    const visit = (row: IndexRow): void => {
      lastRow = row;
      if (row.index > after) history.add(row, active);
    };
    const rows = await active.recover(limit, visit, synced === undefined);
    if (synced !== undefined && rows < limit) whole = false;
    await active.trim(names);
  }
  if (!whole) access.log.error('segments not whole', { directory: access.directory, synced });
  const last = lastRow ?? (await lastPosition(segments)) ?? emptied ?? LOG_ORIGIN;
  const sizeBytes = await totalBytes(access, segments, names);
  const configuration = await history.configuration(snapshot?.configuration);
  const state =
    snapshot?.state === undefined ? undefined : { index: snapshot.lastIndex, nextOffset: snapshot.nextOffset, state: snapshot.state };
  const { base } = segments[0] ?? { base: { index: last.index + 1, offset: last.nextOffset } };
  const logStartOffset = Math.max(base.offset, snapshot?.logStartOffset ?? 0, await history.logStartOffset());
  const firstReplicableIndex = Math.max(base.index, snapshot?.firstReplicableIndex ?? 1);
  const start = { firstIndex: base.index, firstReplicableIndex, logStartOffset };
  const tombstoneFloor = Math.max(snapshot?.tombstoneFloor ?? 0, await history.tombstoneFloor());
  // One without state, of an earlier release, serves recovery but no follower.
  const newestSnapshot = state && { lastIndex: state.index, nextOffset: state.nextOffset };
  // What is cleaned takes no entries.
  if (active?.cleaned) segments.push(newSegment(access, { index: last.index + 1, offset: last.nextOffset, generation: 0 }));
  return { segments, last, terms: history.terms, configuration, snapshot: state, newestSnapshot, start, tombstoneFloor, sizeBytes, whole };
}

/**
 * Without the snapshots above `synced`, which are removed, durably: nobody says in them where the log starts from then on, and recovery would start from them once what
 * they are of is synced again. Returns what is left of the names.
 */
async function withoutAhead({ disk, directory }: Access, names: readonly string[], synced: number | undefined): Promise<readonly string[]> {
  if (synced === undefined) return names;
  const ahead = names.filter((name) => (parseSegmentName(name, 'snapshot')?.index ?? 0) - 1 > synced);
  for (const name of ahead) await disk.remove(`${directory}/${name}`);
  if (ahead.length > 0) await disk.syncDirectory(directory);
  return ahead.length > 0 ? names.filter((name) => !ahead.includes(name)) : names;
}

/** Segments in order. Those that start above `synced` are removed, and what a crash left: of what was dropped below the log's start, and of cleaning. */
async function openSegments(
  access: Access,
  names: readonly string[],
  synced: number | undefined,
  firstIndex: number,
): Promise<{ segments: Segment[]; whole: boolean }> {
  const { disk, directory, checksums } = access;
  const found = await findSegments(disk, directory, checksums.crc32, names);
  for (const name of found.leftovers) await disk.remove(`${directory}/${name}`);
  const stays = ({ name }: FoundSegment) => name.index >= firstIndex && (synced === undefined || name.index <= synced);
  for (const other of found.segments) if (!stays(other)) await removeFiles(disk, directory, names, other.name);
  const kept = found.segments.filter(stays);
  let whole = true;
  const segments = kept.map((each, at) => openSegment(access, each, kept[at + 1]?.name));
  for (const [at, each] of kept.entries()) whole &&= await isWhole(access, each, kept[at + 1]?.name);
  // Payloads whose rows a crash took: the segment is begun again, in files of its own.
  for (const name of found.begun) if (synced !== undefined && name.index > synced) await removeFiles(disk, directory, names, name);
  return { segments, whole };
}

/** The rows last: as long as they are there, what a crash left of the segment is found. */
async function removeFiles(disk: Disk, directory: string, names: readonly string[], segment: SegmentName): Promise<void> {
  for (const extension of EXTENSIONS.toReversed()) {
    const name = `${segmentName(segment)}.${extension}`;
    if (names.includes(name)) await disk.remove(`${directory}/${name}`);
  }
}

function openSegment({ disk, directory, checksums }: Access, { name, cleaned }: FoundSegment, next: SegmentName | undefined): Segment {
  if (name.generation === 0)
    return new Segment(disk, directory, checksums, name, { rows: next === undefined ? 0 : next.index - name.index });
  // Where a damaged one ends is where the next one begins, as far as anybody can tell.
  const unknown = {
    index: (next?.index ?? name.index + 1) - 1,
    nextOffset: next?.offset ?? name.offset,
    term: 0,
    chainHigh: 0,
    chainLow: 0,
  };
  return new Segment(disk, directory, checksums, name, { rows: cleaned?.rows ?? 0, end: cleaned?.end ?? unknown });
}

function newSegment({ disk, directory, checksums }: Access, name: SegmentName): Segment {
  return new Segment(disk, directory, checksums, name, undefined);
}

/** Whether it has the rows up to the next one's start. */
async function isWhole({ disk, directory }: Access, { name, cleaned }: FoundSegment, next: SegmentName | undefined): Promise<boolean> {
  if (name.generation > 0) return cleaned?.end !== undefined && (next === undefined || cleaned.end.index + 1 === next.index);
  if (next === undefined) return true;
  return (await rowsOf(disk, directory, name)) >= next.index - name.index;
}

/** Whether the snapshot tells of all that was cleaned: before a segment is, its start is raised past it. */
function covers(snapshot: SegmentSnapshot | undefined, segments: readonly Segment[]): boolean {
  const cleanedTo = segments.findLast(({ cleaned }) => cleaned)?.lastIndex ?? 0;
  return cleanedTo === 0 || (snapshot !== undefined && cleanedTo <= snapshot.lastIndex && cleanedTo < snapshot.firstReplicableIndex);
}

async function lastPosition(segments: readonly Segment[]): Promise<LogPosition | undefined> {
  for (const segment of segments.toReversed()) {
    const row = await segment.lastRow();
    if (row !== undefined) return row;
  }
  return undefined;
}

async function totalBytes({ disk, directory }: Access, segments: readonly Segment[], names: readonly string[]): Promise<number> {
  // Of the active one, its rows were read.
  let bytes = (await segments.at(-1)?.payloadBytes()) ?? 0;
  const closed = new Set(segments.slice(0, -1).flatMap(({ name }) => [`${name}.log`, `${name}.control`]));
  for (const name of names) if (closed.has(name)) bytes += await fileSize(disk, `${directory}/${name}`);
  return bytes;
}

interface RowOf {
  readonly row: IndexRow;
  readonly segment: Segment;
}

/** Terms, the last configuration and the start of the log, from rows in order. */
class History {
  readonly terms: TermStart[];
  #configurationAt: RowOf | undefined;
  /** One for each time that it moved since the snapshot. */
  readonly #logStarts: RowOf[] = [];
  readonly #floors: RowOf[] = [];

  constructor(terms: readonly TermStart[]) {
    this.terms = [...terms];
  }

  add(row: IndexRow, segment: Segment): void {
    if (row.term !== this.terms.at(-1)?.term) this.terms.push({ term: row.term, index: row.index });
    if (row.kind === EntryKind.config) this.#configurationAt = { row, segment };
    else if (row.kind === EntryKind.setLogStart) this.#logStarts.push({ row, segment });
    else if (row.kind === EntryKind.tombstoneFloor) this.#floors.push({ row, segment });
  }

  /** 0: no row says. */
  logStartOffset(): Promise<number> {
    return greatest(this.#logStarts, decodeLogStart);
  }

  /** 0: no row says. */
  tombstoneFloor(): Promise<number> {
    return greatest(this.#floors, decodeTombstoneFloor);
  }

  async configuration(fromSnapshot: { index: number; payload: string } | undefined): Promise<LoadedLog['configuration']> {
    if (this.#configurationAt === undefined) {
      if (fromSnapshot === undefined) return undefined;
      const payload = fromHex(fromSnapshot.payload);
      return { index: fromSnapshot.index, configuration: decodeConfiguration(payload), payload };
    }
    const entry = await entryAt(this.#configurationAt);
    if (entry === undefined) return undefined;
    return { index: entry.index, configuration: decodeConfiguration(entry.payload), payload: entry.payload };
  }
}

async function greatest(rows: readonly RowOf[], offsetOf: (payload: Uint8Array) => number): Promise<number> {
  let offset = 0;
  for (const found of rows) {
    const entry = await entryAt(found);
    if (entry !== undefined) offset = Math.max(offset, offsetOf(entry.payload));
  }
  return offset;
}

async function entryAt({ row, segment }: RowOf): Promise<Entry | undefined> {
  return (await segment.readEntries(row.index, 1))[0];
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => Number.parseInt(text.slice(2 * i, 2 * i + 2), 16));
}

/** Reads a replica's segments at start: up to what is synced for certain, and no further. */
import type { Disk, Logger } from '../base/environment.ts';
import { decodeConfiguration } from '../raft/core/configuration.ts';
import { type Entry, EntryKind } from '../raft/core/entry.ts';
import type { Configuration, LogPosition, TermStart } from '../raft/core/types.ts';
import type { KeptSnapshot, LogStart } from './log-snapshots.ts';
import { decodeLogStart } from './log-start.ts';
import type { Checksums } from './payload.ts';
import { parseSegmentName, Segment, type SegmentBase, segmentName } from './segment.ts';
import { INDEX_ROW_BYTES, type IndexRow } from './segment-index.ts';
import { positionOf, readSnapshot } from './segment-snapshot.ts';
import type { PartitionLog } from './types.ts';

export interface LoadedLog {
  readonly segments: Segment[];
  readonly last: LogPosition;
  readonly terms: readonly TermStart[];
  readonly configuration: { readonly index: number; readonly configuration: Configuration; readonly payload: Uint8Array } | undefined;
  readonly snapshot: PartitionLog['snapshot'];
  readonly newestSnapshot: KeptSnapshot | undefined;
  readonly start: LogStart;
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

const EMPTY: LogPosition = { index: 0, term: 0, nextOffset: 0, chainHigh: 0, chainLow: 0 };

/**
 * `synced`: segments hold all entries up to it, durably; what they hold above is cut off, because the write-ahead log has it and a page cache that
 * outlived a failed sync can't be trusted (hazard B25). Undefined: not known, the write-ahead log was damaged; then everything that verifies stays.
 */
export async function loadLog(access: Access, synced: number | undefined): Promise<LoadedLog> {
  const { disk, directory, checksums } = access;
  // Once: there are thousands of logs to open at a start.
  const names = await disk.list(directory);
  const snapshot = await readSnapshot(disk, directory, synced ?? Number.MAX_SAFE_INTEGER, checksums.crc32, names);
  const segments = await openSegments(access, names, synced, snapshot?.firstReplicableIndex ?? 1);
  const active = segments.at(-1);
  let whole = await consecutive(access, segments);
  // An emptied log ends where its snapshot does; one that lost its beginning has a snapshot that tells of it.
  const emptied = snapshot === undefined ? undefined : positionOf(snapshot);
  const first = active === undefined ? (synced ?? 0) + 1 : (segments[0]?.base.index ?? 1);
  if (first > 1 && (snapshot === undefined || snapshot.lastIndex + 1 < first || (active === undefined && emptied === undefined)))
    whole = false;
  const history = new History(snapshot?.terms ?? []);
  const after = snapshot?.lastIndex ?? 0;
  let lastRow: IndexRow | undefined;
  if (active !== undefined) {
    for (const closed of segments.slice(0, -1)) {
      if (closed.lastIndex <= after) continue;
      // Without a row the terms behind it are not known, and Raft compares logs by them.
      if (!(await closed.visitRows(Math.max(after + 1, closed.base.index), (row) => history.add(row, closed)))) whole = false;
    }
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
  const last = lastRow ?? (await lastPosition(segments)) ?? emptied ?? EMPTY;
  const sizeBytes = await totalBytes(access, segments, names);
  const configuration = await history.configuration(snapshot?.configuration);
  const state =
    snapshot?.state === undefined ? undefined : { index: snapshot.lastIndex, nextOffset: snapshot.nextOffset, state: snapshot.state };
  const { base } = segments[0] ?? { base: { index: last.index + 1, offset: last.nextOffset } };
  const logStartOffset = Math.max(base.offset, snapshot?.logStartOffset ?? 0, await history.logStartOffset());
  const start = { firstReplicableIndex: base.index, logStartOffset };
  // One without state, of an earlier release, serves recovery but no follower.
  const newestSnapshot = state && { lastIndex: state.index, nextOffset: state.nextOffset };
  return { segments, last, terms: history.terms, configuration, snapshot: state, newestSnapshot, start, sizeBytes, whole };
}

/** Segments in order; those that start above `synced` are removed, and those below the log's start, which a crash left there. */
async function openSegments(
  { disk, directory, checksums }: Access,
  names: readonly string[],
  synced: number | undefined,
  firstIndex: number,
): Promise<Segment[]> {
  const basesOf = (extension: string) => names.map((name) => parseSegmentName(name, extension)).filter((base) => base !== undefined);
  const bases = basesOf('entries').sort((a, b) => a.index - b.index);
  const segments: Segment[] = [];
  for (let i = 0; i < bases.length; i++) {
    const base = bases[i] as SegmentBase;
    const next = bases[i + 1];
    const segment = new Segment(disk, directory, checksums, base, { rows: next === undefined ? 0 : next.index - base.index });
    if (base.index < firstIndex || (synced !== undefined && base.index > synced)) await removeFiles(disk, directory, names, base);
    else segments.push(segment);
  }
  // Payloads whose rows a crash took: the segment is begun again, in files of its own.
  const rowless = new Map([...basesOf('log'), ...basesOf('control')].map((base) => [base.index, base]));
  for (const { index } of bases) rowless.delete(index);
  for (const base of rowless.values()) if (synced !== undefined && base.index > synced) await removeFiles(disk, directory, names, base);
  return segments;
}

/** The rows last: as long as they are there, what a crash left of the segment is found. */
async function removeFiles(disk: Disk, directory: string, names: readonly string[], base: SegmentBase): Promise<void> {
  for (const extension of ['log', 'control', 'entries']) {
    const name = `${segmentName(base)}.${extension}`;
    if (names.includes(name)) await disk.remove(`${directory}/${name}`);
  }
}

/** Whether each closed segment has the rows up to the next one's start. */
async function consecutive({ disk, directory }: Access, segments: readonly Segment[]): Promise<boolean> {
  for (const segment of segments.slice(0, -1)) {
    if ((await bytesOf(disk, `${directory}/${segment.name}.entries`)) < segment.rowCount * INDEX_ROW_BYTES) return false;
  }
  return true;
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
  for (const name of names) if (closed.has(name)) bytes += await bytesOf(disk, `${directory}/${name}`);
  return bytes;
}

async function bytesOf(disk: Disk, path: string): Promise<number> {
  const file = await disk.open(path, { create: false });
  return file.size().finally(() => file.close());
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

  constructor(terms: readonly TermStart[]) {
    this.terms = [...terms];
  }

  add(row: IndexRow, segment: Segment): void {
    if (row.term !== this.terms.at(-1)?.term) this.terms.push({ term: row.term, index: row.index });
    if (row.kind === EntryKind.config) this.#configurationAt = { row, segment };
    else if (row.kind === EntryKind.setLogStart) this.#logStarts.push({ row, segment });
  }

  /** 0: no row says. */
  async logStartOffset(): Promise<number> {
    let offset = 0;
    for (const found of this.#logStarts) {
      const entry = await entryAt(found);
      if (entry !== undefined) offset = Math.max(offset, decodeLogStart(entry.payload));
    }
    return offset;
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

async function entryAt({ row, segment }: RowOf): Promise<Entry | undefined> {
  return (await segment.readEntries(row.index, 1))[0];
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => Number.parseInt(text.slice(2 * i, 2 * i + 2), 16));
}

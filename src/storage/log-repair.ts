/**
 * Finds what rotted in the segments of one open log, and puts it right with entries that another replica has: their bytes are written where they stood.
 * A row names its entry and the chain runs through all of them, so what comes is checked against what this replica itself had (docs/adr/0008).
 */
import { assert, must } from '../base/assert.ts';
import type { Disk } from '../base/environment.ts';
import { LOG_ORIGIN } from '../raft/core/chain.ts';
import type { Entry } from '../raft/core/entry.ts';
import type { LogPosition } from '../raft/core/types.ts';
import { readFile, withFile } from './files.ts';
import { IntactRows, type Place } from './intact-rows.ts';
import { isOwn, verifyOwn } from './own-entries.ts';
import type { Checksums } from './payload.ts';
import { RepairedFiles } from './repaired-files.ts';
import { parseSegmentName, type SegmentBase, type SegmentName, segmentName } from './segment-files.ts';
import { headChecksumOf, INDEX_ROW_BYTES, type IndexRow, PayloadFile, payloadFileOf, putIndexRow, readIndexRow } from './segment-index.ts';
import { decodeSnapshot } from './segment-snapshot.ts';
import { checkSegment, type Damage } from './stored-log.ts';
import type { LogRepair } from './types.ts';

/** What repair needs of the log. */
export interface RepairedLog {
  segments(): readonly { readonly base: SegmentName }[];
  /** Segments hold all up to here; durably, after a {@link flush}. */
  readonly writtenIndex: number;
  flush(): Promise<void>;
  readonly last: LogPosition;
  /** A snapshot can't be read any more: writes another one. */
  renewSnapshot(damaged: SegmentBase): Promise<void>;
  /** Does the work while nothing is written or dropped. */
  undisturbed(work: () => Promise<void>): Promise<void>;
}

export interface SegmentsRepairOptions extends Checksums {
  readonly disk: Disk;
  readonly directory: string;
  readonly log: RepairedLog;
  /** A write or a sync failed: the process must end (hazard B25). */
  readonly failed: (error: unknown) => void;
}

export class SegmentsRepair implements LogRepair {
  readonly #options: SegmentsRepairOptions;

  constructor(options: SegmentsRepairOptions) {
    this.#options = options;
  }

  segments(): readonly number[] {
    return this.#options.log.segments().map(({ base }) => base.index);
  }

  async check(firstIndex: number, paced: (bytes: number) => Promise<void>): Promise<readonly Damage[]> {
    const { log } = this.#options;
    const found = this.#segment(firstIndex);
    if (found === undefined) return [];
    const damages: Damage[] = [];
    const report = (damage: Damage) => void damages.push(damage);
    // What is written and not yet durable is read from segments, too.
    if (found.next === undefined) await log.flush();
    const synced = log.writtenIndex;
    try {
      await checkSegment({ ...this.#options, synced, report }, found.base, found.next, paced);
    } catch (error) {
      if (this.#isThere(found)) throw error;
    }
    // Dropped meanwhile, which nobody needs any more, or cleaned, and then another one has its place.
    if (!this.#isThere(found)) return this.check(firstIndex, paced);
    const last = found.next === undefined ? synced : found.next.index - 1;
    return damages.filter(({ entries }) => (entries?.[0] ?? 0) <= last);
  }

  async renewSnapshots(paced: (bytes: number) => Promise<void>): Promise<readonly Damage[]> {
    const { disk, directory, log, crc32 } = this.#options;
    const damages: Damage[] = [];
    for (const name of await disk.list(directory)) {
      const base = parseSegmentName(name, 'snapshot');
      if (base === undefined) continue;
      const path = `${directory}/${name}`;
      const bytes = await readFile(disk, path).catch(() => undefined);
      await paced(bytes?.length ?? 0);
      if (bytes === undefined || decodeSnapshot(bytes, crc32) !== undefined) continue;
      damages.push({ file: path, position: 0, what: 'the snapshot does not match its checksum' });
      await log.renewSnapshot(base);
    }
    return damages;
  }

  async write(firstIndex: number, entries: readonly Entry[], damagedTo: number): Promise<void> {
    await this.#options.log.undisturbed(async () => {
      const found = this.#segment(firstIndex);
      if (found?.base.generation === 0) await this.#write(found, entries, damagedTo);
    });
  }

  isCleaned(firstIndex: number): boolean {
    return (this.#segment(firstIndex)?.base.generation ?? 0) > 0;
  }

  #isThere({ base }: Found): boolean {
    return this.#segment(base.index)?.base.generation === base.generation;
  }

  #segment(firstIndex: number): Found | undefined {
    const segments = this.#options.log.segments();
    const at = segments.findIndex(({ base }) => base.index === firstIndex);
    const base = segments[at]?.base;
    return base && { base, next: segments[at + 1]?.base, before: segments[at - 1]?.base };
  }

  async #write({ base, next, before }: Found, entries: readonly Entry[], damagedTo: number): Promise<void> {
    const { disk, directory, log, crc32, failed } = this.#options;
    const first = must(entries[0], 'there are entries to write');
    const last = must(entries.at(-1), 'there are entries to write');
    const end = next === undefined ? log.writtenIndex : next.index - 1;
    assert(first.index >= base.index && last.index <= end, 'the entries are of the segment', { first: first.index, last: last.index, end });
    const files = new RepairedFiles(disk, `${directory}/${segmentName(base)}`, failed);
    try {
      const intact = new IntactRows(await files.open('entries'), base, crc32);
      const rows = await intact.between(first.index, last.index);
      const { place, ...start } = await intact.placeOf(first.index);
      const previous = start.previous ?? (await this.#endOf(before, base));
      const following = last.index === damagedTo ? await this.#following(intact, next, damagedTo + 1) : undefined;
      verifyOwn(entries, { rows, previous, following, next, end: log.last }, this.#options);
      for (const entry of entries) await this.#put(files, base, entry, rows, place);
      await files.sync();
      await disk.syncDirectory(directory);
    } finally {
      await files.close();
    }
  }

  /** The last entry before a segment. Undefined: not known any more. */
  async #endOf(before: SegmentName | undefined, { index }: SegmentBase): Promise<LogPosition | undefined> {
    if (index === 1) return LOG_ORIGIN;
    if (before === undefined) return undefined;
    const { disk, directory } = this.#options;
    return withFile(disk, `${directory}/${segmentName(before)}.entries`, async (file) => {
      // Of a cleaned one the rows have gaps, and its last entry the last row.
      const place = before.generation === 0 ? index - 1 - before.index : Math.floor((await file.size()) / INDEX_ROW_BYTES) - 1;
      const row = readIndexRow(await file.read(place * INDEX_ROW_BYTES, INDEX_ROW_BYTES), 0, this.#options.crc32);
      return row?.index === index - 1 ? row : undefined;
    });
  }

  /** The entry behind what is damaged, here or in the next segment. Undefined: not known any more. */
  async #following(intact: IntactRows, next: SegmentName | undefined, index: number): Promise<IndexRow | undefined> {
    if (index !== next?.index) return intact.at(index);
    const { disk, directory, crc32 } = this.#options;
    const path = `${directory}/${segmentName(next)}.entries`;
    if (!(await disk.exists(path))) return undefined;
    return withFile(disk, path, (file) => new IntactRows(file, next, crc32).at(index));
  }

  async #put(files: RepairedFiles, base: SegmentName, entry: Entry, rows: ReadonlyMap<number, IndexRow>, place: Place): Promise<void> {
    const { crc32 } = this.#options;
    const file = payloadFileOf(entry);
    const own = rows.get(entry.index);
    const isWhole = isOwn(own, entry) && own?.headChecksum === headChecksumOf(entry.payload, crc32);
    const position = isWhole ? own.position : place.ends[file];
    if (entry.payload.length > 0) await files.write(file === PayloadFile.log ? 'log' : 'control', position, entry.payload);
    const row = new Uint8Array(INDEX_ROW_BYTES);
    place.timestamp = putIndexRow(row, 0, entry, { position, timestampBefore: place.timestamp }, crc32);
    place.ends[file] = position + entry.payload.length;
    // One of an earlier version, too, stays as it is.
    if (!isWhole || own.isRunning) await files.write('entries', (entry.index - base.index) * INDEX_ROW_BYTES, row);
  }
}

interface Found {
  readonly base: SegmentName;
  readonly next: SegmentName | undefined;
  readonly before: SegmentName | undefined;
}

/**
 * Finds what rotted in the segments of one open log, and puts it right with entries that another replica has: their bytes are written where they stood.
 * A row names its entry and the chain runs through all of them, so what comes is checked against what this replica itself had (docs/adr/0008).
 */
import { assert, must } from '../base/assert.ts';
import type { Disk, DiskFile } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import { continuesChain } from '../raft/core/append-check.ts';
import type { Entry } from '../raft/core/entry.ts';
import type { LogPosition } from '../raft/core/types.ts';
import { readFile, withFile } from './files.ts';
import { batchBaseOffsetAt, batchNextOffsetAt, type Checksums, isRecordBatch, payloadIntact } from './payload.ts';
import { parseSegmentName, type SegmentBase, type SegmentName, segmentName } from './segment-files.ts';
import { headChecksumOf, INDEX_ROW_BYTES, type IndexRow, PayloadFile, payloadFileOf, putIndexRow, readIndexRow } from './segment-index.ts';
import { decodeSnapshot } from './segment-snapshot.ts';
import { checkSegment, type Damage } from './stored-log.ts';
import type { LogRepair } from './types.ts';

/** Rows read at once. */
const SCAN_ROWS = 8192;

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

/** Where the next payload stands in each file, and the greatest timestamp before it. */
interface Place {
  readonly ends: Record<PayloadFile, number>;
  timestamp: number;
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
    const { disk, directory, failed } = this.#options;
    const first = must(entries[0], 'there are entries to write');
    const last = must(entries.at(-1), 'there are entries to write');
    const end = next === undefined ? this.#options.log.writtenIndex : next.index - 1;
    assert(first.index >= base.index && last.index <= end, 'the entries are of the segment', { first: first.index, last: last.index, end });
    const files = new SegmentFiles(disk, `${directory}/${segmentName(base)}`, failed);
    try {
      const rows = await this.#rows(await files.open('entries'), base, first.index, last.index);
      const { place, ...start } = await this.#placeOf(await files.open('entries'), base, first.index);
      const previous = start.previous ?? (await this.#endOf(before, base));
      const following =
        last.index === damagedTo ? await this.#following(await files.open('entries'), base, next, damagedTo + 1) : undefined;
      this.#verify(entries, rows, { previous, following, next });
      for (const entry of entries) await this.#put(files, base, entry, rows, place);
      await files.sync();
      await disk.syncDirectory(directory);
    } finally {
      await files.close();
    }
  }

  /** The last entry before a segment. Undefined: not known any more. */
  async #endOf(before: SegmentName | undefined, { index }: SegmentBase): Promise<LogPosition | undefined> {
    if (index === 1) return ORIGIN;
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
  async #following(file: DiskFile, base: SegmentName, next: SegmentName | undefined, index: number): Promise<IndexRow | undefined> {
    if (index !== next?.index) return this.#rowAt(file, base, index);
    const { disk, directory } = this.#options;
    const path = `${directory}/${segmentName(next)}.entries`;
    if (!(await disk.exists(path))) return undefined;
    return withFile(disk, path, (other) => this.#rowAt(other, next, index));
  }

  async #rowAt(file: DiskFile, base: SegmentName, index: number): Promise<IndexRow | undefined> {
    const rows = await this.#rows(file, base, index, index);
    return rows.get(index);
  }

  /** Every entry is the one that this replica had: its own row says so, or the chain that leads to it, or on from it. @throws CORRUPT_MESSAGE otherwise. */
  #verify(entries: readonly Entry[], rows: ReadonlyMap<number, IndexRow>, { previous, following, next }: Surroundings): void {
    const first = must(entries[0], 'there are entries');
    const last = must(entries.at(-1), 'there are entries');
    let before = previous;
    for (const entry of entries) {
      if (before !== undefined && !(before.index + 1 === entry.index && continuesChain(before, entry)))
        throw foreign(entry, 'what stands before it');
      if (!payloadIntact(entry, this.#options) || !offsetsMatch(entry)) throw foreign(entry, 'its own checksum');
      before = entry;
    }
    const { last: end } = this.#options.log;
    const isEnd = last.index === end.index;
    if (following !== undefined && !continuesChain(last, { ...following, payload: NOTHING })) throw foreign(last, 'what stands behind it');
    if (isEnd && !sameChain(last, end)) throw foreign(last, 'the end of the log');
    if (next !== undefined && last.index === next.index - 1 && last.nextOffset !== next.offset) throw foreign(last, 'the next segment');
    const isAnchored = previous !== undefined || following !== undefined || isEnd;
    if (!isAnchored && !entries.some((entry) => isOwn(rows.get(entry.index), entry))) throw foreign(first, 'anything that is left here');
  }

  async #put(files: SegmentFiles, base: SegmentName, entry: Entry, rows: ReadonlyMap<number, IndexRow>, place: Place): Promise<void> {
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

  /** Those of the rows from..to that are intact. */
  async #rows(file: DiskFile, base: SegmentName, from: number, to: number): Promise<Map<number, IndexRow>> {
    const rows = new Map<number, IndexRow>();
    await this.#scan(file, base, from, to, (row) => rows.set(row.index, row));
    return rows;
  }

  /** Where an entry of the segment belongs, and the one before it. */
  async #placeOf(file: DiskFile, base: SegmentName, index: number): Promise<{ place: Place; previous: IndexRow | undefined }> {
    const place: Place = { ends: { [PayloadFile.log]: 0, [PayloadFile.control]: 0, [PayloadFile.gone]: 0 }, timestamp: -1 };
    let previous: IndexRow | undefined;
    let seen = base.index;
    await this.#scan(file, base, base.index, index - 1, (row) => {
      seen++;
      previous = row;
      place.ends[row.file as PayloadFile] = row.position + row.length;
      place.timestamp = Math.max(place.timestamp, row.maxTimestamp);
    });
    if (seen === index) return { place, previous };
    throw new FlotillaError('STORAGE_ERROR', `what stands before entry ${index} is damaged as well; it comes first`);
  }

  /** Intact rows of the entries from..to. */
  async #scan(file: DiskFile, base: SegmentName, from: number, to: number, visit: (row: IndexRow) => void): Promise<void> {
    for (let index = from; index <= to; index += SCAN_ROWS) {
      const count = Math.min(SCAN_ROWS, to - index + 1);
      const bytes = await file.read((index - base.index) * INDEX_ROW_BYTES, count * INDEX_ROW_BYTES);
      for (let i = 0; i < count; i++) {
        const row = readIndexRow(bytes, i * INDEX_ROW_BYTES, this.#options.crc32);
        if (row?.index === index + i) visit(row);
      }
    }
  }
}

const NOTHING = new Uint8Array(0);
const ORIGIN: LogPosition = { index: 0, term: 0, nextOffset: 0, chainHigh: 0, chainLow: 0 };

interface Found {
  readonly base: SegmentName;
  readonly next: SegmentName | undefined;
  readonly before: SegmentName | undefined;
}

/** What stands before and behind the entries, as far as it is whole. */
interface Surroundings {
  readonly previous: LogPosition | undefined;
  readonly following: IndexRow | undefined;
  readonly next: SegmentBase | undefined;
}

/** The files of a segment, opened as they are needed. */
class SegmentFiles {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #failed: (error: unknown) => void;
  readonly #open = new Map<string, DiskFile>();

  constructor(disk: Disk, path: string, failed: (error: unknown) => void) {
    this.#disk = disk;
    this.#path = path;
    this.#failed = failed;
  }

  async open(extension: string): Promise<DiskFile> {
    const open = this.#open.get(extension) ?? (await this.#disk.open(`${this.#path}.${extension}`, { create: true }));
    this.#open.set(extension, open);
    return open;
  }

  async write(extension: string, position: number, bytes: Uint8Array): Promise<void> {
    const file = await this.open(extension);
    await this.#orFail(file.write(position, [bytes]));
  }

  async sync(): Promise<void> {
    for (const file of this.#open.values()) await this.#orFail(file.sync());
  }

  async #orFail(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.#failed(error);
      throw error;
    }
  }

  async close(): Promise<void> {
    for (const file of this.#open.values()) await file.close();
  }
}

function isOwn(row: IndexRow | undefined, { header }: Entry): boolean {
  return row?.header.every((byte, at) => byte === header[at]) ?? false;
}

function sameChain(a: LogPosition, b: LogPosition): boolean {
  return a.chainHigh === b.chainHigh && a.chainLow === b.chainLow && a.nextOffset === b.nextOffset;
}

/** A batch's own checksum does not cover the offset that its leader stamped. */
function offsetsMatch(entry: Entry): boolean {
  if (!isRecordBatch(entry)) return true;
  const { payload, nextOffset, recordCount } = entry;
  return batchBaseOffsetAt(payload, 0) === nextOffset - recordCount && batchNextOffsetAt(payload, 0) === nextOffset;
}

function foreign({ index }: Entry, what: string): FlotillaError {
  return new FlotillaError('CORRUPT_MESSAGE', `entry ${index} that a peer sent does not match ${what}`);
}

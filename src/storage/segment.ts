/**
 * One segment of a replica's log: committed entries only, never truncated once they were synced. Three files (segment-files.ts):
 *
 *   .log      the payloads of batch entries back to back and nothing else: served to a fetch as they are
 *   .entries  a row an entry (segment-index.ts)
 *   .control  the payloads of Raft's own entries (configurations), back to back; made when the first comes
 *
 * A cleaned segment (cleaned-segment.ts) has what compaction left of the batches, rows of these alone, and one of the last entry in any case; it is never written to.
 * It has no `.control`: Raft does not read it any more, and the snapshot above it says what its entries did.
 */
import { assert, must } from '../base/assert.ts';
import type { Disk } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import type { Entry } from '../raft/core/entry.ts';
import type { LogPosition } from '../raft/core/types.ts';
import { BATCH_HEADER_BYTES, type Checksums, payloadIntact } from './payload.ts';
import { EXTENSIONS, SegmentFiles, type SegmentName } from './segment-files.ts';
import {
  BLOCK_ROWS,
  entryOf,
  headChecksumOf,
  INDEX_ROW_BYTES,
  type IndexRow,
  PayloadFile,
  payloadFileOf,
  putIndexRow,
  readIndexRow,
  SparseIndex,
} from './segment-index.ts';
import { isOfRow, type StoredBatches } from './stored-batches.ts';

/** Rows read at once while scanning. */
const SCAN_ROWS = 8192;
/** Rows of one readEntries, at most. */
const READ_ROWS = 4096;
/** Headers are read in one piece with what lies between them, as long as that is less than a read of its own would cost. */
const MAX_GAP_BYTES = 16 << 10;
const MAX_HEADERS_BYTES = 1 << 20;
/** A segment is never larger: positions are u32. */
const MAX_FILE_BYTES = 2 ** 32 - 1;

/** Gets the 61 bytes of a batch's header; false: it has seen enough. */
export type HeaderVisitor = (header: Uint8Array, nextOffset: number) => boolean;

/** What a segment that is there has. */
export interface ExistingRows {
  readonly rows: number;
  /** Of a cleaned one: where the log stands behind its last entry. */
  readonly end?: LogPosition;
}

/** Batches of a segment as they stand in its file, back to back. */
export interface BatchRows {
  readonly rows: readonly IndexRow[];
  readonly bytes: Uint8Array;
}

export class Segment {
  readonly base: SegmentName;
  logBytes = 0;
  #controlBytes = 0;
  #rowCount = 0;
  #index: Promise<SparseIndex> | undefined;
  readonly #end: LogPosition | undefined;
  readonly #files: SegmentFiles;
  readonly #checksums: Checksums;

  constructor(disk: Disk, directory: string, checksums: Checksums, base: SegmentName, existing: ExistingRows | undefined) {
    this.#files = new SegmentFiles(disk, directory, base);
    this.#checksums = checksums;
    this.base = base;
    this.#rowCount = existing?.rows ?? 0;
    this.#end = existing?.end;
    if (existing === undefined) this.#index = Promise.resolve(new SparseIndex());
  }

  get rowCount(): number {
    return this.#rowCount;
  }

  get name(): string {
    return this.#files.name;
  }

  /** Whether compaction made it. */
  get cleaned(): boolean {
    return this.base.generation > 0;
  }

  get lastIndex(): number {
    return this.#end?.index ?? this.base.index + this.#rowCount - 1;
  }

  /** Of a cleaned one: the offset behind its last entry. */
  get nextOffset(): number | undefined {
    return this.#end?.nextOffset;
  }

  /** Writes entries at the end; not synced. */
  async append(entries: readonly Entry[]): Promise<void> {
    assert(!this.cleaned, 'a cleaned segment takes no entries', this.name);
    const rows = new Uint8Array(entries.length * INDEX_ROW_BYTES);
    const logPayloads: Uint8Array[] = [];
    const controlPayloads: Uint8Array[] = [];
    let logEnd = this.logBytes;
    let controlEnd = this.#controlBytes;
    const index = await this.#loaded();
    let timestampBefore = index.maxTimestamp;
    for (let i = 0; i < entries.length; i++) {
      const entry = must(entries[i], 'an entry is there');
      assert(entry.index === this.lastIndex + 1 + i, 'a segment takes consecutive entries', { index: entry.index, last: this.lastIndex });
      const inLog = payloadFileOf(entry) === PayloadFile.log;
      const position = inLog ? logEnd : controlEnd;
      timestampBefore = putIndexRow(rows, i * INDEX_ROW_BYTES, entry, { position, timestampBefore }, this.#checksums.crc32);
      if (inLog) logEnd += entry.payload.length;
      else controlEnd += entry.payload.length;
      if (entry.payload.length > 0) (inLog ? logPayloads : controlPayloads).push(entry.payload);
    }
    assert(logEnd <= MAX_FILE_BYTES, 'a segment is below 4 GiB; lower segment.bytes', logEnd);
    if (logPayloads.length > 0) await this.#files.write('log', this.logBytes, logPayloads);
    if (controlPayloads.length > 0) await this.#files.write('control', this.#controlBytes, controlPayloads);
    await this.#files.write('entries', this.#rowCount * INDEX_ROW_BYTES, [rows]);
    for (let at = 0; at < rows.length; at += INDEX_ROW_BYTES) {
      index.add(must(readIndexRow(rows, at, this.#checksums.crc32), 'a row reads back'));
    }
    this.logBytes = logEnd;
    this.#controlBytes = controlEnd;
    this.#rowCount += entries.length;
  }

  /** Makes all that was appended durable, names included (hazard B26). */
  sync(): Promise<void> {
    return this.#files.sync();
  }

  /**
   * Reads the rows, checks them, and cuts the segment behind the last intact one (of at most `rows`). For a segment's recovery.
   * With `verifyPayloads`, an entry whose payload does not match is cut off too.
   */
  async recover(rows: number, visit: (row: IndexRow) => void, verifyPayloads: boolean): Promise<number> {
    const index = new SparseIndex();
    this.#index = Promise.resolve(index);
    const stored = Math.floor((await this.#files.size('entries')) / INDEX_ROW_BYTES);
    this.#rowCount = 0;
    await this.#scan(0, Math.min(rows, stored), async (row) => {
      if (verifyPayloads && !(await this.#payloadReadable(row))) return false;
      index.add(row);
      this.#rowCount++;
      if (row.file === PayloadFile.log) this.logBytes = row.position + row.length;
      else this.#controlBytes = row.position + row.length;
      visit(row);
      return true;
    });
    return this.#rowCount;
  }

  /** Cuts off what stands behind the last row: it is in the write-ahead log, or was never acknowledged. `names`: of the directory. */
  async trim(names: readonly string[]): Promise<void> {
    const lengths = { log: this.logBytes, control: this.#controlBytes, entries: this.#rowCount * INDEX_ROW_BYTES };
    for (const extension of EXTENSIONS.toReversed())
      if (names.includes(`${this.name}.${extension}`)) await this.#files.trim(extension, lengths[extension]);
  }

  /** The last row, or undefined when there is none. */
  async lastRow(): Promise<IndexRow | undefined> {
    return this.#rowCount === 0 ? undefined : (await this.#rows(this.#rowCount - 1, 1))[0];
  }

  /** The row of an entry that it holds. */
  async rowOf(index: number): Promise<IndexRow | undefined> {
    return index < this.base.index || index > this.lastIndex ? undefined : (await this.#rows(index - this.base.index, 1))[0];
  }

  /** Visits rows from `index` on; false: one is damaged, and those behind it were not visited. */
  async visitRows(index: number, visit: (row: IndexRow) => void): Promise<boolean> {
    const from = index - this.base.index;
    const visited = await this.#scan(from, this.#rowCount, async (row) => {
      visit(row);
      return true;
    });
    return visited === this.#rowCount - from;
  }

  /**
   * The stored bytes from the batch that holds `offset` on, `bytes` of them at most; undefined when no batch here ends above the offset. `room` may
   * give the memory for that many.
   */
  async readBatches(offset: number, bytes: number, room: (length: number) => Uint8Array | undefined): Promise<StoredBatches | undefined> {
    const block = (await this.#loaded()).blockOfOffset(offset);
    if (block === undefined) return undefined;
    const rows = (await this.#block(block)).filter((row) => isInLog(row) && row.nextOffset > offset);
    const row = rows[0];
    // The last entry of a cleaned segment, whose records are gone.
    if (row === undefined) return undefined;
    const end = await this.#logEnd();
    const wanted = Math.min(Math.max(bytes, row.length), end - row.position);
    const stored = await this.#files.read('log', row.position, wanted, room(wanted));
    // A batch's own CRC32C, which its reader checks, does not cover the offset that the leader stamped.
    if (!isOfRow(row, stored, 0, this.#checksums.crc32)) throw this.#corrupt(`entry ${row.index}`);
    return { bytes: stored, rows: await this.#rowsUntil(row.position + wanted, rows, (block + 1) * BLOCK_ROWS) };
  }

  /** The rows at hand, and those behind them of batches that begin before a position, or some more, as far as they are intact. `at`: the place of the next. */
  async #rowsUntil(position: number, rows: IndexRow[], at: number): Promise<readonly IndexRow[]> {
    const start = must(rows[0], 'rows are at hand').position;
    for (let next = at; next < this.#rowCount; ) {
      const last = must(rows.at(-1), 'rows are at hand');
      const end = last.position + last.length;
      if (end >= position) break;
      const likely = Math.ceil(((position - end) * rows.length) / (end - start));
      const wanted = Math.min(READ_ROWS, likely, this.#rowCount - next);
      const found = await this.#intactRows(next, wanted);
      rows.push(...found.filter(isInLog));
      if (found.length < wanted) break;
      next += wanted;
    }
    return rows;
  }

  /**
   * Visits the headers of its batches that end above `fromOffset` and no later than at `untilOffset`; what is between those of large ones is not read.
   * False: `visit` has seen enough.
   */
  async visitHeaders(fromOffset: number, untilOffset: number, visit: HeaderVisitor): Promise<boolean> {
    const block = (await this.#loaded()).blockOfOffset(fromOffset);
    for (let at = (block ?? Number.POSITIVE_INFINITY) * BLOCK_ROWS; at < this.#rowCount; at += READ_ROWS) {
      const rows = await this.#rows(at, READ_ROWS);
      if ((rows[0]?.nextOffset ?? untilOffset) > untilOffset) return true;
      const batches = rows.filter((row) => isInLog(row) && row.nextOffset > fromOffset && row.nextOffset <= untilOffset);
      for (const run of headerRuns(batches)) if (!(await this.#visitRun(run, visit))) return false;
    }
    return true;
  }

  async #visitRun(rows: readonly IndexRow[], visit: HeaderVisitor): Promise<boolean> {
    const start = must(rows[0], 'a run has rows').position;
    const end = must(rows.at(-1), 'a run has rows').position + BATCH_HEADER_BYTES;
    const bytes = await this.#files.read('log', start, end - start);
    for (const row of rows) {
      const header = bytes.subarray(row.position - start, row.position - start + BATCH_HEADER_BYTES);
      if (!isOfRow(row, header, 0, this.#checksums.crc32)) throw this.#corrupt(`entry ${row.index}`);
      if (!visit(header, row.nextOffset)) return false;
    }
    return true;
  }

  /** Entries from `index` on, about `maxBytes` of them, at least one; payloads verified. */
  readEntries(index: number, maxBytes: number): Promise<Entry[]> {
    assert(!this.cleaned, 'Raft reads no cleaned segment', { name: this.name, index });
    return this.readRows(index - this.base.index, maxBytes);
  }

  /** What stands in its rows from a place on, as {@link readEntries} gives it. */
  async readRows(place: number, maxBytes: number): Promise<Entry[]> {
    const rows = await this.#rows(place, READ_ROWS);
    const taken: IndexRow[] = [];
    let bytes = 0;
    for (const row of rows) {
      if (taken.length > 0 && bytes + row.header.length + row.length > maxBytes) break;
      bytes += row.header.length + row.length;
      taken.push(row);
    }
    const log = await this.#span(taken, PayloadFile.log);
    const control = await this.#span(taken, PayloadFile.control);
    return taken.map((row) => this.#entry(row, row.file === PayloadFile.log ? log : control));
  }

  /** All its batches, verified, about `maxBytes` at a time, at least one. */
  async *batches(maxBytes: number): AsyncGenerator<BatchRows> {
    let run: IndexRow[] = [];
    let bytes = 0;
    for (let place = 0; place < this.#rowCount; place += READ_ROWS) {
      for (const row of await this.#rows(place, READ_ROWS)) {
        if (!isInLog(row)) continue;
        if (run.length > 0 && bytes + row.length > maxBytes) {
          yield await this.#batchRows(run);
          run = [];
          bytes = 0;
        }
        run.push(row);
        bytes += row.length;
      }
    }
    if (run.length > 0) yield await this.#batchRows(run);
  }

  async #batchRows(rows: readonly IndexRow[]): Promise<BatchRows> {
    const span = await this.#span(rows, PayloadFile.log);
    for (const row of rows) this.#entry(row, span);
    return { rows, bytes: span.bytes };
  }

  /** The first batch with a timestamp at or after the time. */
  async batchForTime(timestampMs: number): Promise<{ readonly baseOffset: number; readonly nextOffset: number } | undefined> {
    const block = (await this.#loaded()).blockOfTime(timestampMs);
    if (block === undefined) return undefined;
    const row = (await this.#block(block)).find((candidate) => candidate.maxTimestamp >= timestampMs);
    return row && { baseOffset: row.nextOffset - row.recordCount, nextOffset: row.nextOffset };
  }

  /** The greatest timestamp of its batches, milliseconds since the epoch; -1: it has none. */
  async maxTimestamp(): Promise<number> {
    const last = this.#index === undefined ? await this.lastRow() : undefined;
    return last?.isRunning ? last.maxTimestamp : (await this.#loaded()).maxTimestamp;
  }

  /** Bytes of its payloads. */
  async payloadBytes(): Promise<number> {
    if (this.#index !== undefined) {
      await this.#loaded();
      return this.logBytes + this.#controlBytes;
    }
    let bytes = 0;
    for (const { name, length } of await this.#files.list()) if (!name.endsWith('.entries')) bytes += length;
    return bytes;
  }

  /** Closes the files; they open again when needed. */
  close(): Promise<void> {
    return this.#files.close();
  }

  /** Closes the files for good; whoever still reads gets the error. */
  retire(error: FlotillaError): Promise<void> {
    return this.#files.retire(error);
  }

  /** Returns the bytes of payloads that went. Whoever still reads gets the error, or that it is no longer kept. Durable once the directory is synced. */
  async remove(error?: FlotillaError): Promise<number> {
    const bytes = await this.payloadBytes();
    await this.#files.remove(error);
    return bytes;
  }

  /** Its files, with their lengths. */
  files(): Promise<{ readonly name: string; readonly length: number }[]> {
    return this.#files.list();
  }

  /** Bytes of one of its {@link files}. */
  readFile(name: string, position: number, length: number): Promise<Uint8Array> {
    return this.#files.readNamed(name, position, length);
  }

  /** The sparse index; of a segment that was closed before this process it is read on the first use. */
  #loaded(): Promise<SparseIndex> {
    this.#index ??= this.#load().catch((error: unknown) => {
      // The next one tries again: a disk may fail to read once.
      this.#index = undefined;
      throw error;
    });
    return this.#index;
  }

  async #load(): Promise<SparseIndex> {
    const index = new SparseIndex();
    const rows = await this.#scan(0, this.#rowCount, async (row) => {
      index.add(row);
      if (row.file === PayloadFile.log) this.logBytes = row.position + row.length;
      else this.#controlBytes = row.position + row.length;
      return true;
    });
    if (rows < this.#rowCount) throw this.#corruptRow(rows);
    return index;
  }

  async #logEnd(): Promise<number> {
    await this.#loaded();
    return this.logBytes;
  }

  #block(block: number): Promise<IndexRow[]> {
    return this.#rows(block * BLOCK_ROWS, BLOCK_ROWS);
  }

  async #rows(from: number, count: number): Promise<IndexRow[]> {
    const wanted = Math.min(count, this.#rowCount - from);
    const rows = await this.#intactRows(from, wanted);
    if (rows.length < wanted) throw this.#corruptRow(from + rows.length);
    return rows;
  }

  /** Up to the first that is damaged. */
  async #intactRows(from: number, count: number): Promise<IndexRow[]> {
    const bytes = await this.#files.read('entries', from * INDEX_ROW_BYTES, count * INDEX_ROW_BYTES);
    const rows: IndexRow[] = [];
    for (let i = 0; i < count; i++) {
      const row = readIndexRow(bytes, i * INDEX_ROW_BYTES, this.#checksums.crc32);
      if (row === undefined || !this.#isInPlace(row, from + i, rows.at(-1))) break;
      rows.push(row);
    }
    return rows;
  }

  /** Visits rows until one is not intact, or `visit` says stop; returns how many it visited. */
  async #scan(from: number, to: number, visit: (row: IndexRow) => Promise<boolean>): Promise<number> {
    let before: IndexRow | undefined;
    for (let at = from; at < to; at += SCAN_ROWS) {
      const wanted = Math.min(SCAN_ROWS, to - at);
      const bytes = await this.#files.read('entries', at * INDEX_ROW_BYTES, wanted * INDEX_ROW_BYTES);
      for (let i = 0; i < wanted; i++) {
        const row = readIndexRow(bytes, i * INDEX_ROW_BYTES, this.#checksums.crc32);
        if (row === undefined || !this.#isInPlace(row, at + i, before) || !(await visit(row))) return at + i - from;
        before = row;
      }
    }
    return to - from;
  }

  /** Entry i of a segment stands in row i; of a cleaned one each row is of a later entry than the one before. */
  #isInPlace(row: IndexRow, place: number, before: IndexRow | undefined): boolean {
    if (row.isSparse !== this.cleaned) return false;
    if (!this.cleaned) return row.index === this.base.index + place;
    return row.index >= this.base.index && row.index > (before?.index ?? 0) && row.index <= this.lastIndex;
  }

  async #span(rows: readonly IndexRow[], file: PayloadFile): Promise<{ start: number; bytes: Uint8Array }> {
    const inFile = rows.filter((row) => row.file === file && row.length > 0);
    const first = inFile[0];
    const last = inFile.at(-1);
    if (first === undefined || last === undefined) return { start: 0, bytes: new Uint8Array(0) };
    const extension = file === PayloadFile.log ? 'log' : 'control';
    return {
      start: first.position,
      bytes: await this.#files.read(extension, first.position, last.position + last.length - first.position),
    };
  }

  #entry(row: IndexRow, span: { start: number; bytes: Uint8Array }): Entry {
    const from = row.position - span.start;
    const payload = row.length === 0 ? new Uint8Array(0) : span.bytes.subarray(from, from + row.length);
    const entry = entryOf(row, payload);
    if (!this.#intact(entry, row)) throw this.#corrupt(`entry ${row.index}`);
    return entry;
  }

  #intact(entry: Entry, row: IndexRow): boolean {
    const { payload } = entry;
    if (payload.length !== row.length || headChecksumOf(payload, this.#checksums.crc32) !== row.headChecksum) return false;
    return payloadIntact(entry, this.#checksums);
  }

  async #payloadReadable(row: IndexRow): Promise<boolean> {
    const span = await this.#span([row], row.file === PayloadFile.log ? PayloadFile.log : PayloadFile.control);
    return this.#intact(entryOf(row, span.bytes), row);
  }

  #corruptRow(place: number): FlotillaError {
    return this.#corrupt(this.cleaned ? `row ${place}` : `entry ${this.base.index + place}`);
  }

  /** Never served and never sent on: another replica has it (hazard B23). */
  #corrupt(what: string): FlotillaError {
    return new FlotillaError(
      'STORAGE_ERROR',
      `${this.#files.pathOf('entries')}: ${what} is damaged; read it from another replica and check this disk`,
    );
  }
}

function isInLog({ file }: IndexRow): boolean {
  return file === PayloadFile.log;
}

/** Rows whose headers are read at once. */
function headerRuns(rows: readonly IndexRow[]): IndexRow[][] {
  const runs: IndexRow[][] = [];
  let run: IndexRow[] = [];
  let start = 0;
  let end = Number.NEGATIVE_INFINITY;
  for (const row of rows) {
    if (row.position - end > MAX_GAP_BYTES || row.position - start > MAX_HEADERS_BYTES) {
      run = [];
      runs.push(run);
      start = row.position;
    }
    run.push(row);
    end = row.position + BATCH_HEADER_BYTES;
  }
  return runs;
}

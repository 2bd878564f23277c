/**
 * One segment of a replica's log: committed entries only, never truncated once they were synced. Its files are named by the offset and the index they
 * start at, 20 digits each, `00000000000000000042-00000000000000000057.log`:
 *
 *   .log      the payloads of batch entries back to back and nothing else: served to a fetch as they are
 *   .entries  a row an entry (segment-index.ts)
 *   .control  the payloads of Raft's own entries (configurations), back to back; made when the first comes
 */
import { assert, must } from '../base/assert.ts';
import type { Disk, DiskFile } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import type { Entry } from '../raft/core/entry.ts';
import { BATCH_HEADER_BYTES, batchBaseOffsetAt, batchNextOffsetAt, type Checksums, payloadIntact } from './payload.ts';
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

export interface SegmentBase {
  readonly index: number;
  readonly offset: number;
}

type Extension = 'log' | 'entries' | 'control';
const EXTENSIONS: readonly Extension[] = ['entries', 'control', 'log'];

export function segmentName({ offset, index }: SegmentBase): string {
  return `${String(offset).padStart(20, '0')}-${String(index).padStart(20, '0')}`;
}

/** The base that a file name states, or undefined when it is no segment's file with that extension. */
export function parseSegmentName(name: string, extension: string): SegmentBase | undefined {
  const match = /^(\d{20})-(\d{20})\.(\w+)$/.exec(name);
  return match === null || match[3] !== extension ? undefined : { offset: Number(match[1]), index: Number(match[2]) };
}

const NOTHING = Promise.resolve();
const NO_FILES: readonly Extension[] = [];

export class Segment {
  readonly base: SegmentBase;
  logBytes = 0;
  #controlBytes = 0;
  #rowCount = 0;
  #index: Promise<SparseIndex> | undefined;
  /** Few, of three: plain, as there are thousands of segments. */
  #files: Partial<Record<Extension, Promise<DiskFile>>> = {};
  #dirty: readonly Extension[] = NO_FILES;
  /** Present once its files are gone, or another log's: what those get who still read. */
  #retired: FlotillaError | undefined;
  /** Of a segment that was found, too, the process that made it may have been killed before it could sync the names. */
  #namesDurable = false;
  #syncing: Promise<void> = NOTHING;
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #checksums: Checksums;

  constructor(disk: Disk, directory: string, checksums: Checksums, base: SegmentBase, existing: { rows: number } | undefined) {
    this.#disk = disk;
    this.#directory = directory;
    this.#checksums = checksums;
    this.base = base;
    this.#rowCount = existing?.rows ?? 0;
    if (existing === undefined) this.#index = Promise.resolve(new SparseIndex());
  }

  get rowCount(): number {
    return this.#rowCount;
  }

  get name(): string {
    return segmentName(this.base);
  }

  get lastIndex(): number {
    return this.base.index + this.#rowCount - 1;
  }

  /** Writes entries at the end; not synced. */
  async append(entries: readonly Entry[]): Promise<void> {
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
    if (logPayloads.length > 0) await this.#write('log', this.logBytes, logPayloads);
    if (controlPayloads.length > 0) await this.#write('control', this.#controlBytes, controlPayloads);
    await this.#write('entries', this.#rowCount * INDEX_ROW_BYTES, [rows]);
    for (let at = 0; at < rows.length; at += INDEX_ROW_BYTES) {
      index.add(must(readIndexRow(rows, at, this.#checksums.crc32), 'a row reads back'));
    }
    this.logBytes = logEnd;
    this.#controlBytes = controlEnd;
    this.#rowCount += entries.length;
  }

  /** Makes all that was appended durable, names included (hazard B26). */
  sync(): Promise<void> {
    // One after the other: a second caller must not find nothing dirty while the first one's sync is in flight.
    this.#syncing = this.#syncing.then(() => this.#syncDirty());
    return this.#syncing;
  }

  async #syncDirty(): Promise<void> {
    // Payloads before the rows that name them is not needed for safety: nothing counts as synced before all are.
    for (const extension of this.#dirty) {
      this.#dirty = this.#dirty.filter((other) => other !== extension);
      await (await this.#file(extension)).sync();
    }
    if (this.#namesDurable) return;
    this.#namesDurable = true;
    await this.#disk.syncDirectory(this.#directory);
  }

  /**
   * Reads the rows, checks them, and cuts the segment behind the last intact one (of at most `rows`). For a segment's recovery.
   * With `verifyPayloads`, an entry whose payload does not match is cut off too.
   */
  async recover(rows: number, visit: (row: IndexRow) => void, verifyPayloads: boolean): Promise<number> {
    const index = new SparseIndex();
    this.#index = Promise.resolve(index);
    const stored = Math.floor((await (await this.#file('entries')).size()) / INDEX_ROW_BYTES);
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
    for (const [extension, bytes] of [
      ['log', this.logBytes],
      ['control', this.#controlBytes],
      ['entries', this.#rowCount * INDEX_ROW_BYTES],
    ] as const) {
      if (!names.includes(`${this.name}.${extension}`)) continue;
      const file = await this.#file(extension);
      if ((await file.size()) > bytes) {
        await file.truncate(bytes);
        this.#markDirty(extension);
      }
    }
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
  async readBatches(offset: number, bytes: number, room: (length: number) => Uint8Array | undefined): Promise<Uint8Array | undefined> {
    const block = (await this.#loaded()).blockOfOffset(offset);
    if (block === undefined) return undefined;
    const found = (await this.#block(block)).find((candidate) => candidate.nextOffset > offset);
    const row = must(found, 'a row of the block holds the offset', offset);
    const end = await this.#logEnd();
    const wanted = Math.min(Math.max(bytes, row.length), end - row.position);
    const stored = await (await this.#file('log')).read(row.position, wanted, room(wanted));
    // A batch's own CRC32C, which its reader checks, does not cover the offset that the leader stamped.
    if (!isHeaderOf(row, stored)) throw this.#corrupt(row.index);
    return stored;
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
      const batches = rows.filter((row) => row.file === PayloadFile.log && row.nextOffset > fromOffset && row.nextOffset <= untilOffset);
      for (const run of headerRuns(batches)) if (!(await this.#visitRun(run, visit))) return false;
    }
    return true;
  }

  async #visitRun(rows: readonly IndexRow[], visit: HeaderVisitor): Promise<boolean> {
    const start = must(rows[0], 'a run has rows').position;
    const end = must(rows.at(-1), 'a run has rows').position + BATCH_HEADER_BYTES;
    const bytes = await (await this.#file('log')).read(start, end - start);
    for (const row of rows) {
      const header = bytes.subarray(row.position - start, row.position - start + BATCH_HEADER_BYTES);
      if (!isHeaderOf(row, header)) throw this.#corrupt(row.index);
      if (!visit(header, row.nextOffset)) return false;
    }
    return true;
  }

  /** Entries from `index` on, about `maxBytes` of them, at least one; payloads verified. */
  async readEntries(index: number, maxBytes: number): Promise<Entry[]> {
    const rows = await this.#rows(index - this.base.index, READ_ROWS);
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
    for (const { name, length } of await this.files()) if (!name.endsWith('.entries')) bytes += length;
    return bytes;
  }

  /** Closes the files; they open again when needed. */
  async close(): Promise<void> {
    // A sync goes from file to file: none is to be opened again behind this. Whoever asked for it hears of its failure.
    await this.#syncing.catch(() => {});
    const files = Object.values(this.#files);
    this.#files = {};
    for (const file of files) await (await file).close();
  }

  /** Closes the files for good; whoever still reads gets the error. */
  async retire(error: FlotillaError): Promise<void> {
    await this.#syncing.catch(() => {});
    this.#retired = error;
    await this.close();
  }

  /** Returns the bytes of payloads that went. Durable once the directory is synced. */
  async remove(): Promise<number> {
    const bytes = await this.payloadBytes();
    await this.retire(new FlotillaError('OFFSET_OUT_OF_RANGE', `${this.#pathOf('log')} is no longer kept; read from the log's start on`));
    // The rows last: as long as they are there, what a crash left of the segment is found.
    for (const extension of EXTENSIONS.toReversed()) {
      const path = this.#pathOf(extension);
      if (await this.#disk.exists(path)) await this.#disk.remove(path);
    }
    return bytes;
  }

  /** Its files, with their lengths. */
  async files(): Promise<{ readonly name: string; readonly length: number }[]> {
    const files: { name: string; length: number }[] = [];
    for (const extension of EXTENSIONS) {
      if (this.#files[extension] === undefined && !(await this.#disk.exists(this.#pathOf(extension)))) continue;
      files.push({ name: `${this.name}.${extension}`, length: await (await this.#file(extension)).size() });
    }
    return files;
  }

  /** Bytes of one of its {@link files}. */
  async readFile(name: string, position: number, length: number): Promise<Uint8Array> {
    const extension = must(
      EXTENSIONS.find((candidate) => name === `${this.name}.${candidate}`),
      'the file is of this segment',
      name,
    );
    return (await this.#file(extension)).read(position, length);
  }

  async #write(extension: Extension, position: number, buffers: readonly Uint8Array[]): Promise<void> {
    const file = await this.#file(extension);
    await file.write(position, buffers);
    // Only now: a sync that ran meanwhile did not cover it.
    this.#markDirty(extension);
    if (position === 0) this.#namesDurable = false;
  }

  #markDirty(extension: Extension): void {
    if (!this.#dirty.includes(extension)) this.#dirty = this.#dirty.concat(extension);
  }

  #file(extension: Extension): Promise<DiskFile> {
    if (this.#retired !== undefined) return Promise.reject(this.#retired);
    let file = this.#files[extension];
    if (file === undefined) {
      file = this.#disk.open(this.#pathOf(extension), { create: true }).catch((error: unknown) => {
        delete this.#files[extension];
        throw error;
      });
      this.#files[extension] = file;
    }
    return file;
  }

  #pathOf(extension: Extension): string {
    return `${this.#directory}/${this.name}.${extension}`;
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
    if (rows < this.#rowCount) throw this.#corrupt(this.base.index + rows);
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
    const bytes = await (await this.#file('entries')).read(from * INDEX_ROW_BYTES, wanted * INDEX_ROW_BYTES);
    const rows: IndexRow[] = [];
    for (let i = 0; i < wanted; i++) {
      const row = readIndexRow(bytes, i * INDEX_ROW_BYTES, this.#checksums.crc32);
      if (row === undefined || row.index !== this.base.index + from + i) throw this.#corrupt(this.base.index + from + i);
      rows.push(row);
    }
    return rows;
  }

  /** Visits rows until one is not intact, or `visit` says stop; returns how many it visited. */
  async #scan(from: number, to: number, visit: (row: IndexRow) => Promise<boolean>): Promise<number> {
    const file = await this.#file('entries');
    for (let at = from; at < to; at += SCAN_ROWS) {
      const wanted = Math.min(SCAN_ROWS, to - at);
      const bytes = await file.read(at * INDEX_ROW_BYTES, wanted * INDEX_ROW_BYTES);
      for (let i = 0; i < wanted; i++) {
        const row = readIndexRow(bytes, i * INDEX_ROW_BYTES, this.#checksums.crc32);
        if (row === undefined || row.index !== this.base.index + at + i || !(await visit(row))) return at + i - from;
      }
    }
    return to - from;
  }

  async #span(rows: readonly IndexRow[], file: PayloadFile): Promise<{ start: number; bytes: Uint8Array }> {
    const inFile = rows.filter((row) => row.file === file && row.length > 0);
    const first = inFile[0];
    const last = inFile.at(-1);
    if (first === undefined || last === undefined) return { start: 0, bytes: new Uint8Array(0) };
    const source = await this.#file(file === PayloadFile.log ? 'log' : 'control');
    return { start: first.position, bytes: await source.read(first.position, last.position + last.length - first.position) };
  }

  #entry(row: IndexRow, span: { start: number; bytes: Uint8Array }): Entry {
    const from = row.position - span.start;
    const payload = row.length === 0 ? new Uint8Array(0) : span.bytes.subarray(from, from + row.length);
    const entry = entryOf(row, payload);
    if (!this.#intact(entry, row)) throw this.#corrupt(row.index);
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

  /** Never served and never sent on: another replica has it (hazard B23). */
  #corrupt(index: number): FlotillaError {
    return new FlotillaError(
      'STORAGE_ERROR',
      `${this.#pathOf('entries')}: entry ${index} is damaged; read it from another replica and check this disk`,
    );
  }
}

/** Whether the bytes start with the header of the row's batch, at the offset that the leader stamped. */
function isHeaderOf(row: IndexRow, bytes: Uint8Array): boolean {
  if (bytes.length < BATCH_HEADER_BYTES) return false;
  return batchBaseOffsetAt(bytes, 0) === row.nextOffset - row.recordCount && batchNextOffsetAt(bytes, 0) === row.nextOffset;
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

/**
 * Writes a cleaned segment: what compaction left of one segment, or of several neighbours. It counts once it has a file of rows, which gets its name last, when all
 * of it is durable; until then a crash leaves files that the next start removes.
 */
import { assert, must } from '../base/assert.ts';
import type { Disk, DiskFile } from '../base/environment.ts';
import { BATCH_CHECKSUM_START, batchBaseOffsetAt, batchChecksumAt, batchLengthAt, batchNextOffsetAt, type Checksums } from './payload.ts';
import { Segment } from './segment.ts';
import { ASIDE } from './segment-directory.ts';
import { type SegmentName, segmentName } from './segment-files.ts';
import { INDEX_ROW_BYTES, type IndexRow, putSparseRow } from './segment-index.ts';

const NOTHING = new Uint8Array(0);

export class CleanedSegment {
  readonly name: SegmentName;
  logBytes = 0;
  rowCount = 0;
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #checksums: Checksums;
  readonly #log: DiskFile;
  readonly #rows: DiskFile;
  #lastIndex = 0;
  #timestamp = -1;

  private constructor(disk: Disk, directory: string, checksums: Checksums, name: SegmentName, log: DiskFile, rows: DiskFile) {
    this.#disk = disk;
    this.#directory = directory;
    this.#checksums = checksums;
    this.name = name;
    this.#log = log;
    this.#rows = rows;
  }

  static async begin(disk: Disk, directory: string, checksums: Checksums, name: SegmentName): Promise<CleanedSegment> {
    const log = await disk.open(pathOf(directory, name, 'log'), { create: true });
    const rows = await disk.open(asideOf(directory, name), { create: true });
    await log.truncate(0);
    await rows.truncate(0);
    return new CleanedSegment(disk, directory, checksums, name, log, rows);
  }

  /** Takes what is left of a run of batches. Every one of them must be one of the run, whole, in its place. */
  async add(was: readonly IndexRow[], left: Uint8Array): Promise<void> {
    const rows = new Uint8Array(was.length * INDEX_ROW_BYTES);
    let count = 0;
    let at = 0;
    for (const row of was) {
      if (at === left.length) break;
      if (batchBaseOffsetAt(left, at) !== row.nextOffset - row.recordCount) continue;
      const length = batchLengthAt(left, at) ?? Number.POSITIVE_INFINITY;
      const batch = left.subarray(at, at + length);
      const intact =
        batch.length === length && this.#checksums.crc32c(batch.subarray(BATCH_CHECKSUM_START)) >>> 0 === batchChecksumAt(batch, 0);
      assert(intact && batchNextOffsetAt(batch, 0) === row.nextOffset, 'what is left of a batch is a batch', { index: row.index });
      this.#putRow(rows, count, row, batch, this.logBytes + at);
      count++;
      at += length;
    }
    assert(at === left.length, 'what is left is of the batches that were given', { index: was[0]?.index, at });
    if (count === 0) return;
    await this.#log.write(this.logBytes, [left]);
    await this.#rows.write(this.rowCount * INDEX_ROW_BYTES, [rows.subarray(0, count * INDEX_ROW_BYTES)]);
    this.logBytes += left.length;
    this.rowCount += count;
  }

  /** Makes all of it durable, but for its name. `last`: the last entry of what it is made from. */
  async finish(last: IndexRow): Promise<void> {
    if (this.#lastIndex !== last.index) {
      const row = new Uint8Array(INDEX_ROW_BYTES);
      this.#putRow(row, 0, last, NOTHING, this.logBytes);
      await this.#rows.write(this.rowCount * INDEX_ROW_BYTES, [row]);
      this.rowCount++;
    }
    await this.#log.sync();
    await this.#rows.sync();
    await this.#close();
    await this.#disk.syncDirectory(this.#directory);
  }

  /** Gives it its name, durably: from here on it is the segment. */
  async publish({ index, term, nextOffset, chainHigh, chainLow }: IndexRow): Promise<Segment> {
    await this.#disk.rename(asideOf(this.#directory, this.name), pathOf(this.#directory, this.name, 'entries'));
    await this.#disk.syncDirectory(this.#directory);
    const existing = { rows: must(this.rowCount, 'a segment has rows'), end: { index, term, nextOffset, chainHigh, chainLow } };
    return new Segment(this.#disk, this.#directory, this.#checksums, this.name, existing);
  }

  /** Removes what there is of it, the rows first: they are what makes it count. */
  async abandon(): Promise<void> {
    await this.#close();
    const rows = [pathOf(this.#directory, this.name, 'entries'), asideOf(this.#directory, this.name)];
    for (const path of [...rows, pathOf(this.#directory, this.name, 'log')])
      if (await this.#disk.exists(path)) await this.#disk.remove(path);
  }

  #putRow(rows: Uint8Array, place: number, was: IndexRow, payload: Uint8Array, position: number): void {
    const { crc32 } = this.#checksums;
    this.#timestamp = putSparseRow(rows, place * INDEX_ROW_BYTES, was, payload, { position, timestampBefore: this.#timestamp }, crc32);
    this.#lastIndex = was.index;
  }

  async #close(): Promise<void> {
    await this.#log.close();
    await this.#rows.close();
  }
}

function pathOf(directory: string, name: SegmentName, extension: string): string {
  return `${directory}/${segmentName(name)}.${extension}`;
}

/** Where the rows are until it counts. */
function asideOf(directory: string, name: SegmentName): string {
  return `${pathOf(directory, name, 'entries')}${ASIDE}`;
}

/** What can be read of a segment's rows where some of them rotted. */
import type { DiskFile } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import type { SegmentBase } from './segment-files.ts';
import { INDEX_ROW_BYTES, type IndexRow, PayloadFile, readIndexRow } from './segment-index.ts';
import type { Crc32 } from './wal-frame.ts';

/** Rows read at once. */
const SCAN_ROWS = 8192;

/** Where the next payload stands in each file, and the greatest timestamp before it. */
export interface Place {
  readonly ends: Record<PayloadFile, number>;
  timestamp: number;
}

export class IntactRows {
  readonly #file: DiskFile;
  readonly #base: SegmentBase;
  readonly #crc32: Crc32;

  /** `file`: the `.entries` of the segment that begins at `base`. */
  constructor(file: DiskFile, base: SegmentBase, crc32: Crc32) {
    this.#file = file;
    this.#base = base;
    this.#crc32 = crc32;
  }

  async at(index: number): Promise<IndexRow | undefined> {
    return (await this.between(index, index)).get(index);
  }

  /** Those of the entries from..to, by index. */
  async between(from: number, to: number): Promise<Map<number, IndexRow>> {
    const rows = new Map<number, IndexRow>();
    await this.#scan(from, to, (row) => rows.set(row.index, row));
    return rows;
  }

  /** Where an entry of the segment belongs, and the one before it. @throws STORAGE_ERROR when a row before it is damaged. */
  async placeOf(index: number): Promise<{ place: Place; previous: IndexRow | undefined }> {
    const place: Place = { ends: { [PayloadFile.log]: 0, [PayloadFile.control]: 0, [PayloadFile.gone]: 0 }, timestamp: -1 };
    let previous: IndexRow | undefined;
    let seen = this.#base.index;
    await this.#scan(this.#base.index, index - 1, (row) => {
      seen++;
      previous = row;
      place.ends[row.file as PayloadFile] = row.position + row.length;
      place.timestamp = Math.max(place.timestamp, row.maxTimestamp);
    });
    if (seen === index) return { place, previous };
    throw new FlotillaError('STORAGE_ERROR', `what stands before entry ${index} is damaged as well; it comes first`);
  }

  async #scan(from: number, to: number, visit: (row: IndexRow) => void): Promise<void> {
    for (let index = from; index <= to; index += SCAN_ROWS) {
      const count = Math.min(SCAN_ROWS, to - index + 1);
      const bytes = await this.#file.read((index - this.#base.index) * INDEX_ROW_BYTES, count * INDEX_ROW_BYTES);
      for (let i = 0; i < count; i++) {
        const row = readIndexRow(bytes, i * INDEX_ROW_BYTES, this.#crc32);
        if (row?.index === index + i) visit(row);
      }
    }
  }
}

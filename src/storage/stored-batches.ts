/** Record batches as they stand back to back in a segment. */
import { BATCH_HEADER_BYTES, batchBaseOffsetAt, batchIntactAt, batchLengthAt, batchNextOffsetAt, type Checksums } from './payload.ts';
import { headChecksumOf, type IndexRow } from './segment-index.ts';
import type { Crc32 } from './wal-frame.ts';

/** Bytes of a segment from the start of a batch on; the last batch may be cut short. */
export interface StoredBatches {
  readonly bytes: Uint8Array;
  /** Of these batches, as far as they are intact. What the leader stamped no checksum of the batch covers, and in a cleaned segment nothing else says which is next. */
  readonly rows: readonly IndexRow[];
}

/** The whole batches up to an offset, or to the first that is not as it was written. */
export function wholeBatches(
  { bytes, rows }: StoredBatches,
  fromOffset: number,
  untilOffset: number,
  { crc32, crc32c }: Checksums,
): { bytes: number; nextOffset: number; damaged: boolean } {
  let at = 0;
  let nextOffset = fromOffset;
  for (let place = 0; ; place++) {
    const row = rows[place];
    if (row === undefined) return { bytes: at, nextOffset, damaged: false };
    const length = batchLengthAt(bytes, at);
    // The look-up knows the first batch's length, so only a batch that its own header states otherwise is cut short: damage.
    if (length === undefined || at + length > bytes.length) return { bytes: at, nextOffset, damaged: at === 0 };
    const next = batchNextOffsetAt(bytes, at);
    if (!isOfRow(row, bytes, at, crc32) || !batchIntactAt(bytes, at, length, crc32c)) return { bytes: at, nextOffset, damaged: true };
    if (next > untilOffset) return { bytes: at, nextOffset, damaged: false };
    at += length;
    nextOffset = next;
  }
}

/** Whether the header of the row's batch stands there, as the leader stamped it. Its offsets alone would be those of zeros at the start of a log. */
export function isOfRow(row: IndexRow, bytes: Uint8Array, at: number, crc32: Crc32): boolean {
  if (batchLengthAt(bytes, at) === undefined) return false;
  if (batchBaseOffsetAt(bytes, at) !== row.nextOffset - row.recordCount || batchNextOffsetAt(bytes, at) !== row.nextOffset) return false;
  return headChecksumOf(bytes.subarray(at, at + BATCH_HEADER_BYTES), crc32) === row.headChecksum;
}

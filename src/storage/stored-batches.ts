/** Record batches as they stand back to back in a segment. */
import { batchBaseOffsetAt, batchIntactAt, batchLengthAt, batchNextOffsetAt, type Checksums } from './payload.ts';

/** The whole batches up to an offset, or to the first that is not as it was written. `sparse`: batches are missing between those that are left. */
export function wholeBatches(
  stored: Uint8Array,
  fromOffset: number,
  untilOffset: number,
  { sparse, checksums }: { readonly sparse: boolean; readonly checksums: Checksums },
): { bytes: number; nextOffset: number; damaged: boolean } {
  let at = 0;
  let nextOffset = fromOffset;
  for (;;) {
    const length = batchLengthAt(stored, at);
    // The look-up knows the first batch's length, so only a batch that its own header states otherwise is cut short: damage.
    if (length === undefined || at + length > stored.length) return { bytes: at, nextOffset, damaged: at === 0 };
    const next = batchNextOffsetAt(stored, at);
    const base = batchBaseOffsetAt(stored, at);
    const follows = at === 0 || (sparse ? base >= nextOffset : base === nextOffset);
    if (!follows || !batchIntactAt(stored, at, length, checksums.crc32c)) return { bytes: at, nextOffset, damaged: true };
    if (next > untilOffset) return { bytes: at, nextOffset, damaged: false };
    at += length;
    nextOffset = next;
  }
}

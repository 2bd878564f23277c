/** Record batches as they stand back to back in a segment. */
import { BATCH_HEADER_BYTES, batchBaseOffsetAt, batchIntactAt, batchLengthAt, batchNextOffsetAt, type Checksums } from './payload.ts';

/** The whole batches up to an offset, or to the first that is not as it was written. */
export function wholeBatches(
  stored: Uint8Array,
  fromOffset: number,
  untilOffset: number,
  { crc32c }: Checksums,
): { bytes: number; nextOffset: number; damaged: boolean } {
  let at = 0;
  let nextOffset = fromOffset;
  for (;;) {
    const length = batchLengthAt(stored, at);
    // The look-up knows the first batch's length, so only a batch that its own header states otherwise is cut short: damage.
    if (length === undefined || at + length > stored.length) return { bytes: at, nextOffset, damaged: at === 0 };
    const next = batchNextOffsetAt(stored, at);
    const follows = at === 0 || batchBaseOffsetAt(stored, at) === nextOffset;
    if (!follows || !batchIntactAt(stored, at, length, crc32c)) return { bytes: at, nextOffset, damaged: true };
    if (next > untilOffset) return { bytes: at, nextOffset, damaged: false };
    at += length;
    nextOffset = next;
  }
}

/** The headers of whole batches, until `visit` says that it has seen enough: then false. */
export function visitHeaders(chunk: Uint8Array, visit: (header: Uint8Array, nextOffset: number) => boolean): boolean {
  let at = 0;
  for (let length = batchLengthAt(chunk, at); length !== undefined; length = batchLengthAt(chunk, at)) {
    if (!visit(chunk.subarray(at, at + BATCH_HEADER_BYTES), batchNextOffsetAt(chunk, at))) return false;
    at += length;
  }
  return true;
}

/**
 * lz4 with the package `lz4-napi`, in the format that Kafka's clients write: frames
 * (https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md) of independent blocks.
 *
 * The library does not bound its output, so the sizes are added up from the compressed bytes first.
 */
import { compressFrameSync, decompressFrameSync } from 'lz4-napi';
import type { Compression } from '../record/types.ts';
import { damaged, tooLarge } from './compression.ts';

const LZ4_MAGIC = 0x184d2204;
/** No block of a frame is larger decompressed; indexed by the block size id in the frame descriptor. */
const LZ4_BLOCK_BYTES = [0, 0, 0, 0, 64 * 1024, 256 * 1024, 1024 * 1024, 4 * 1024 * 1024] as const;

export const lz4Compression: Compression = {
  name: 'lz4',
  compress: (bytes) => compressFrameSync(asBuffer(bytes)),
  decompress: (bytes, maxBytes) => {
    if (lz4FrameSize(bytes, maxBytes) > maxBytes) throw tooLarge(maxBytes);
    return decompressFrameSync(asBuffer(bytes));
  },
};

/** An upper bound of the frame's decompressed size; exact when the cheap bound, the sum of its block limits, is beyond `maxBytes`. */
function lz4FrameSize(bytes: Uint8Array, maxBytes: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < 11 || view.getUint32(0, true) !== LZ4_MAGIC) throw damaged('lz4');
  const flags = view.getUint8(4);
  const blockBytes = LZ4_BLOCK_BYTES[(view.getUint8(5) >> 4) & 7] ?? 0;
  const hasBlockChecksums = (flags & 0x10) !== 0;
  const first = 7 + (flags & 0x08 ? 8 : 0) + (flags & 0x01 ? 4 : 0);
  let bound = 0;
  let exact = 0;
  for (let at = first; ; ) {
    if (at + 4 > bytes.length) throw damaged('lz4');
    const word = view.getUint32(at, true);
    at += 4;
    if (word === 0) return bound > maxBytes ? exact : bound;
    const length = word & 0x7fffffff;
    if (length > blockBytes || at + length > bytes.length) throw damaged('lz4');
    const stored = word >>> 31 === 1;
    bound += stored ? length : blockBytes;
    exact += stored ? length : lz4BlockSize(bytes, at, at + length);
    if (exact > maxBytes) return exact;
    at += length + (hasBlockChecksums ? 4 : 0);
  }
}

/** The decompressed size of a block: its tokens walked, nothing copied. */
function lz4BlockSize(bytes: Uint8Array, from: number, end: number): number {
  let size = 0;
  let at = from;
  const extended = (length: number): number => {
    let total = length;
    if (length === 15) {
      for (let byte = 255; byte === 255; total += byte) {
        if (at >= end) throw damaged('lz4');
        byte = bytes[at++] as number;
      }
    }
    return total;
  };
  while (at < end) {
    const token = bytes[at++] as number;
    const literals = extended(token >> 4);
    size += literals;
    at += literals;
    if (at >= end) break;
    at += 2;
    size += extended(token & 15) + 4;
  }
  return size;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

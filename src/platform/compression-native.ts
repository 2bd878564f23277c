/**
 * The codecs that take native packages, in the formats that Kafka's clients write:
 *
 * lz4: the frame format (https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md), independent blocks.
 * snappy: xerial's framing: 82 'SNAPPY' 00, u32 version, u32 lowest compatible version, then blocks of u32 length and raw
 * snappy, all big-endian. Some clients write raw snappy without the framing; it is read, never written.
 *
 * Neither library bounds its output, so the sizes are added up from the compressed bytes first.
 */
import { compressFrameSync, decompressFrameSync } from 'lz4-napi';
import * as snappy from 'snappy';
import { FlotillaError } from '../base/errors.ts';
import type { Compression } from '../record/types.ts';
import { tooLarge } from './compression.ts';

const XERIAL_MAGIC = Uint8Array.of(0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00);
const XERIAL_HEADER_BYTES = 16;
/** What xerial's own writer takes. */
const XERIAL_BLOCK_BYTES = 32 * 1024;

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

export const snappyCompression: Compression = {
  name: 'snappy',
  compress: compressXerial,
  decompress: (bytes, maxBytes) => (isXerial(bytes) ? decompressXerial(bytes, maxBytes) : decompressRaw(bytes, maxBytes)),
};

export const nativeCompressions: readonly Compression[] = [lz4Compression, snappyCompression];

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

function compressXerial(bytes: Uint8Array): Uint8Array {
  const blocks: Uint8Array[] = [];
  let size = XERIAL_HEADER_BYTES;
  for (let at = 0; at < bytes.length; at += XERIAL_BLOCK_BYTES) {
    const block = snappy.compressSync(bytes.subarray(at, at + XERIAL_BLOCK_BYTES));
    blocks.push(block);
    size += 4 + block.length;
  }
  const framed = new Uint8Array(size);
  const view = new DataView(framed.buffer);
  framed.set(XERIAL_MAGIC);
  view.setUint32(8, 1);
  view.setUint32(12, 1);
  let at = XERIAL_HEADER_BYTES;
  for (const block of blocks) {
    view.setUint32(at, block.length);
    framed.set(block, at + 4);
    at += 4 + block.length;
  }
  return framed;
}

function isXerial(bytes: Uint8Array): boolean {
  return bytes.length >= XERIAL_HEADER_BYTES && XERIAL_MAGIC.every((byte, i) => bytes[i] === byte);
}

function decompressXerial(bytes: Uint8Array, maxBytes: number): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const blocks: Uint8Array[] = [];
  let size = 0;
  for (let at = XERIAL_HEADER_BYTES; at < bytes.length; ) {
    if (at + 4 > bytes.length) throw damaged('snappy');
    const length = view.getUint32(at);
    at += 4;
    if (length > bytes.length - at) throw damaged('snappy');
    const block = bytes.subarray(at, at + length);
    size += rawSize(block);
    if (size > maxBytes) throw tooLarge(maxBytes);
    blocks.push(block);
    at += length;
  }
  const plain = new Uint8Array(size);
  let at = 0;
  for (const block of blocks) {
    const part = uncompress(block);
    plain.set(part, at);
    at += part.length;
  }
  return plain;
}

function decompressRaw(bytes: Uint8Array, maxBytes: number): Uint8Array {
  if (rawSize(bytes) > maxBytes) throw tooLarge(maxBytes);
  return uncompress(bytes);
}

/** Raw snappy starts with the decompressed length as a varint (32 bits at most), which the library holds itself to. */
function rawSize(block: Uint8Array): number {
  let size = 0;
  for (let i = 0; i < 5; i++) {
    const byte = block[i];
    if (byte === undefined) break;
    size += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return size;
  }
  throw damaged('snappy');
}

function uncompress(block: Uint8Array): Uint8Array {
  return snappy.uncompressSync(block, { asBuffer: true }) as Buffer;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

function damaged(name: string): FlotillaError {
  return new FlotillaError('CORRUPT_MESSAGE', `The record batch does not decompress as ${name}: its frame is damaged.`);
}

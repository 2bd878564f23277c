/**
 * snappy with the package `snappy`, in the format that Kafka's clients write: xerial's framing: 82 'SNAPPY' 00, u32 version, u32 lowest compatible
 * version, then blocks of u32 length and raw snappy, all big-endian. Some clients write raw snappy without the framing; it is read, never written.
 *
 * The library does not bound its output, so the sizes are added up from the compressed bytes first.
 */
import * as snappy from 'snappy';
import type { Compression } from '../record/types.ts';
import { damaged, tooLarge } from './compression.ts';

const XERIAL_MAGIC = Uint8Array.of(0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00);
const XERIAL_HEADER_BYTES = 16;
/** What xerial's own writer takes. */
const XERIAL_BLOCK_BYTES = 32 * 1024;

export const snappyCompression: Compression = {
  name: 'snappy',
  compress: compressXerial,
  decompress: (bytes, maxBytes) => (isXerial(bytes) ? decompressXerial(bytes, maxBytes) : decompressRaw(bytes, maxBytes)),
};

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

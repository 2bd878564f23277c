import * as zlib from 'node:zlib';
import { FlotillaError } from '../base/errors.ts';
import type { Compression } from '../record/types.ts';

export const gzipCompression: Compression = {
  name: 'gzip',
  compress: (bytes) => zlib.gzipSync(bytes),
  decompress: (bytes, maxBytes) => bounded(maxBytes, () => zlib.gunzipSync(bytes, { maxOutputLength: maxBytes })),
};

/** Undefined where Node has no zstd (before 22.15). */
export const zstdCompression: Compression | undefined =
  typeof zlib.zstdCompressSync === 'function'
    ? {
        name: 'zstd',
        compress: (bytes) => zlib.zstdCompressSync(bytes),
        decompress: (bytes, maxBytes) => bounded(maxBytes, () => zlib.zstdDecompressSync(bytes, { maxOutputLength: maxBytes })),
      }
    : undefined;

/** What Node decompresses by itself. */
export const nodeCompressions: readonly Compression[] =
  zstdCompression === undefined ? [gzipCompression] : [gzipCompression, zstdCompression];

/** The error for records that take more than `maxBytes` decompressed. */
export function tooLarge(maxBytes: number): FlotillaError {
  return new FlotillaError('MESSAGE_TOO_LARGE', `The record batch takes more than ${maxBytes} bytes decompressed, which is the limit.`);
}

/** The error for bytes that are no such frame. */
export function damaged(name: string): FlotillaError {
  return new FlotillaError('CORRUPT_MESSAGE', `The record batch does not decompress as ${name}: its frame is damaged.`);
}

function bounded(maxBytes: number, decompress: () => Uint8Array): Uint8Array {
  if (maxBytes <= 0) throw tooLarge(maxBytes);
  try {
    return decompress();
  } catch (error) {
    if (error instanceof RangeError && (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge(maxBytes);
    throw error;
  }
}

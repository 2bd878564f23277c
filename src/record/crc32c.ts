/**
 * CRC32C (Castagnoli; RFC 3720 appendix B.4) in JavaScript, slicing-by-16: for where no native one is at hand, as in the client.
 * `src/platform/crc32c.ts` has the native one.
 */
import type { Crc32c } from './types.ts';

/** The Castagnoli polynomial, bits reversed. */
const POLYNOMIAL = 0x82f63b78;
const SLICES = 16;

/** Table s maps a byte to its effect on the checksum when s more bytes follow it; 256 entries a table, back to back. */
const tables = buildTables();

function buildTables(): Int32Array {
  const built = new Int32Array(SLICES * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    built[byte] = crc;
  }
  for (let i = 256; i < built.length; i++) {
    const before = built[i - 256] as number;
    built[i] = (before >>> 8) ^ (built[before & 0xff] as number);
  }
  return built;
}

/**
 * The CRC32C of `bytes`, unsigned. `seed` is the checksum of what came before: `crc32c(b, crc32c(a))` is the checksum of a then b.
 */
export const crc32c: Crc32c = (bytes, seed = 0) => {
  const end = bytes.length;
  const sliced = end - (end % SLICES);
  let crc = ~seed;
  let at = 0;
  if (sliced > 0) {
    const words = new DataView(bytes.buffer, bytes.byteOffset, sliced);
    for (; at < sliced; at += SLICES) {
      const w0 = words.getInt32(at, true) ^ crc;
      const w1 = words.getInt32(at + 4, true);
      const w2 = words.getInt32(at + 8, true);
      const w3 = words.getInt32(at + 12, true);
      crc =
        effect(15, w0 & 0xff) ^
        effect(14, (w0 >>> 8) & 0xff) ^
        effect(13, (w0 >>> 16) & 0xff) ^
        effect(12, w0 >>> 24) ^
        effect(11, w1 & 0xff) ^
        effect(10, (w1 >>> 8) & 0xff) ^
        effect(9, (w1 >>> 16) & 0xff) ^
        effect(8, w1 >>> 24) ^
        effect(7, w2 & 0xff) ^
        effect(6, (w2 >>> 8) & 0xff) ^
        effect(5, (w2 >>> 16) & 0xff) ^
        effect(4, w2 >>> 24) ^
        effect(3, w3 & 0xff) ^
        effect(2, (w3 >>> 8) & 0xff) ^
        effect(1, (w3 >>> 16) & 0xff) ^
        effect(0, w3 >>> 24);
    }
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ effect(0, (crc ^ (bytes[at] as number)) & 0xff);
  return ~crc >>> 0;
};

/** Small enough that V8 inlines it. */
function effect(bytesAfter: number, byte: number): number {
  return tables[(bytesAfter << 8) | byte] as number;
}

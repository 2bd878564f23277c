import fc from 'fast-check';
import * as snappy from 'snappy';
import { describe, expect, test } from 'vitest';
import { nodeCompressions } from '../../src/platform/compression.ts';
import { lz4Compression } from '../../src/platform/compression-lz4.ts';
import { nativeCompressions } from '../../src/platform/compression-native.ts';
import { snappyCompression } from '../../src/platform/compression-snappy.ts';

describe.each([...nodeCompressions, ...nativeCompressions])('$name', (codec) => {
  test('survives the round trip at exactly its limit', () => {
    const compressible = fc
      .array(fc.constantFrom('flotilla', 'kafka', 'raft', 'x'), { maxLength: 20_000 })
      .map((words) => Buffer.from(words.join('')));
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 5000 }), compressible), (bytes) => {
        const compressed = codec.compress(bytes);
        const plain = codec.decompress(compressed, Math.max(bytes.length, 1));
        expect(Buffer.compare(plain, bytes)).toBe(0);
        if (bytes.length > 1) expect(() => codec.decompress(compressed, bytes.length - 1)).toThrow(/more than \d+ bytes decompressed/);
      }),
      { numRuns: 50 },
    );
  });

  test('cut anywhere, throws', () => {
    const compressed = codec.compress(Buffer.from('flotilla '.repeat(50)));
    // A xerial header without blocks is the empty text, as its writer has it.
    const empty = codec.name === 'snappy' ? 16 : -1;
    for (let length = 0; length < compressed.length; length++) {
      if (length === empty) continue;
      expect(() => codec.decompress(compressed.subarray(0, length), 10_000), `${length}`).toThrow();
    }
  });
});

test('snappy without xerial framing is read', () => {
  const plain = Buffer.from('raw snappy '.repeat(20));
  expect(Buffer.compare(snappyCompression.decompress(snappy.compressSync(plain), 1000), plain)).toBe(0);
});

test('snappy is written as xerial does: 32 KiB a block', () => {
  const framed = Buffer.from(snappyCompression.compress(new Uint8Array(70_000)));
  expect(framed.subarray(0, 16).toString('hex')).toBe('82534e41505059000000000100000001');
  let blocks = 0;
  for (let at = 16; at < framed.length; at += 4 + framed.readUInt32BE(at)) blocks++;
  expect(blocks).toBe(3);
});

test('lz4 frames have independent blocks, which is all that the Java client reads', () => {
  const frame = lz4Compression.compress(new Uint8Array(200_000));
  expect(Buffer.from(frame).readUInt32LE(0)).toBe(0x184d2204);
  expect((frame[4] as number) & 0x20).toBe(0x20);
});

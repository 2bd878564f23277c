import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { nativeCrc32c } from '../../src/platform/crc32c.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import { murmur2, partitionForKey } from '../../src/record/partitioner.ts';
import { readUtf8, utf8Size, writeUtf8 } from '../../src/record/utf8.ts';
import { ByteReader, varintSize, varlongSize, writeVarint, writeVarlong } from '../../src/record/varint.ts';
import { text } from './fixtures.ts';

const ascending = Uint8Array.from({ length: 32 }, (_, i) => i);

describe('crc32c', () => {
  test.each([
    ['the check value', text('123456789'), 0xe3069283],
    ['32 zeros (RFC 3720 B.4)', new Uint8Array(32), 0x8a9136aa],
    ['32 ones', new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ['ascending', ascending, 0x46dd794e],
    ['descending', ascending.toReversed(), 0x113fdb5c],
    ['nothing', new Uint8Array(), 0],
  ])('%s', (_name, bytes, sum) => {
    expect(crc32c(bytes)).toBe(sum);
    expect(nativeCrc32c(bytes)).toBe(sum);
  });

  test('agrees with the native one, whole and in parts, at any alignment', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(200), fc.nat(20), (bytes, cut, skip) => {
        const view = bytes.subarray(Math.min(skip, bytes.length));
        expect(crc32c(view)).toBe(nativeCrc32c(view));
        const [head, tail] = [view.subarray(0, cut), view.subarray(cut)];
        expect(crc32c(tail, crc32c(head))).toBe(crc32c(view));
        expect(nativeCrc32c(tail, nativeCrc32c(head))).toBe(crc32c(view));
      }),
    );
  });
});

describe('murmur2', () => {
  // org.apache.kafka.common.utils.UtilsTest.testMurmur2
  test.each([
    ['21', -973932308],
    ['foobar', -790332482],
    ['a-little-bit-long-string', -985981536],
    ['a-little-bit-longer-string', -1486304829],
    ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
    ['abc', 479470107],
  ])('%s', (key, hash) => {
    expect(murmur2(text(key))).toBe(hash);
    expect(partitionForKey(text(key), 10)).toBe((hash & 0x7fffffff) % 10);
  });
});

describe('varints', () => {
  test('survive the round trip at their stated size', () => {
    const bytes = new Uint8Array(10);
    fc.assert(
      fc.property(fc.oneof(fc.integer(), fc.maxSafeInteger()), (value) => {
        const end = writeVarlong(bytes, 0, value);
        expect(end).toBe(varlongSize(value));
        expect(new ByteReader(bytes, 0, end).varlong()).toBe(value);
      }),
    );
    fc.assert(
      fc.property(fc.integer(), (value) => {
        const end = writeVarint(bytes, 0, value);
        expect(end).toBe(varintSize(value));
        expect(new ByteReader(bytes, 0, end).varint()).toBe(value);
      }),
    );
  });

  test.each([0, -1, 63, -64, 64, 2 ** 31 - 1, -(2 ** 31), 2 ** 31, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER])('%d', (value) => {
    const bytes = new Uint8Array(10);
    expect(new ByteReader(bytes, 0, writeVarlong(bytes, 0, value)).varlong()).toBe(value);
  });

  test('too long or cut off are refused', () => {
    const endless = new Uint8Array(20).fill(0xff);
    expect(() => new ByteReader(endless, 0, 20).varint()).toThrow(/longer than 32 bits/);
    expect(() => new ByteReader(endless, 0, 20).varlong()).toThrow(/beyond 2\^53/);
    expect(() => new ByteReader(endless, 0, 2).varint()).toThrow(/ends past/);
    expect(() => new ByteReader(Uint8Array.of(0x80, 0x80, 0x80, 0x80, 0x10), 0, 5).varint()).toThrow(/longer than 32 bits/);
    expect(() => new ByteReader(endless, 0, 20).take(21)).toThrow(/ends past/);
    expect(() => new ByteReader(endless, 0, 20).take(-1)).toThrow(/ends past/);
  });
});

describe('utf8', () => {
  test('agrees with TextEncoder and TextDecoder', () => {
    const encoder = new TextEncoder();
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' })), (string) => {
        const bytes = new Uint8Array(utf8Size(string));
        expect(writeUtf8(bytes, 0, string)).toBe(bytes.length);
        expect(bytes).toEqual(encoder.encode(string));
        expect(readUtf8(bytes)).toBe(string.toWellFormed());
      }),
    );
  });

  test('bad bytes never throw', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20 }), (bytes) => {
        expect(readUtf8(bytes).isWellFormed()).toBe(true);
      }),
    );
  });
});

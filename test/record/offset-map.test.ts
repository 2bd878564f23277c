import fc from 'fast-check';
import { expect, it } from 'vitest';
import { murmur3 } from '../../src/record/murmur3.ts';
import { mapBytesFor, mapCapacity, OffsetMap } from '../../src/record/offset-map.ts';

it('is a map of keys to their newest offsets, up to its room', () => {
  const operation = fc.record({ key: fc.integer({ min: 0, max: 40 }), offset: fc.nat(2 ** 52) });
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 80 }), fc.integer({ min: 3, max: 30 }), (operations, slots) => {
      const map = new OffsetMap(slots * 24 + 7);
      const model = new Map<number, number>();
      expect(map.capacity).toBe(Math.floor(slots * 0.9));
      for (const { key, offset } of operations) {
        const fits = model.has(key) || model.size < map.capacity;
        expect(map.put(Uint8Array.of(key), offset)).toBe(fits);
        if (fits) model.set(key, Math.max(offset, model.get(key) ?? 0));
        expect(map.size).toBe(model.size);
        for (let each = 0; each <= 40; each++) expect(map.get(Uint8Array.of(each))).toBe(model.get(each));
      }
    }),
    { numRuns: 60, seed: 5 },
  );
});

it('tells keys apart that begin their way at the same slot', () => {
  const sameSlot = (key: Uint8Array, into: Uint32Array) => into.set([1, 0, 0, key[0] ?? 0]);
  const map = new OffsetMap(10 * 24, sameSlot);
  for (let key = 0; key < 9; key++) expect(map.put(Uint8Array.of(key), 100 + key)).toBe(true);
  for (let key = 0; key < 9; key++) expect(map.get(Uint8Array.of(key))).toBe(100 + key);
  expect(map.get(Uint8Array.of(9))).toBeUndefined();
  expect(map.put(Uint8Array.of(9), 1)).toBe(false);
});

it('says what fits', () => {
  fc.assert(fc.property(fc.nat(1e9), (keys) => mapCapacity(mapBytesFor(keys)) >= keys));
});

it.each([
  ['', '00000000000000000000000000000000'],
  ['a', 'a794933c5556b01b5556b01b5556b01b'],
  ['order-4711', 'cef250142bd9bc3faafc7e7b2e99caa3'],
  ['The quick brown fox jumps over the lazy dog', '2f1583c3ecee2c675d7bf66ce5e91d2c'],
])('hashes %j as the reference does', (key, expected) => {
  const words = new Uint32Array(4);
  murmur3(new TextEncoder().encode(key), words);
  expect(Array.from(words, (word) => word.toString(16).padStart(8, '0')).join('')).toBe(expected);
});

import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { OffsetMap } from '../../src/storage/offset-map.ts';

const md5 = (key: Uint8Array) => createHash('md5').update(key).digest();

it('is a map of keys to their newest offsets, up to its room', () => {
  const operation = fc.record({ key: fc.integer({ min: 0, max: 40 }), offset: fc.nat(2 ** 52), clear: fc.nat(40) });
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 80 }), fc.integer({ min: 3, max: 30 }), (operations, slots) => {
      const map = new OffsetMap(slots * 24 + 7, md5);
      const model = new Map<number, number>();
      expect(map.capacity).toBe(Math.floor(slots * 0.9));
      for (const { key, offset, clear } of operations) {
        if (clear === 0) {
          map.clear();
          model.clear();
        }
        const fits = model.has(key) || model.size < map.capacity;
        expect(map.put(Uint8Array.of(key), offset)).toBe(fits);
        if (fits) model.set(key, offset);
        expect(map.size).toBe(model.size);
        for (let each = 0; each <= 40; each++) expect(map.get(Uint8Array.of(each))).toBe(model.get(each));
      }
    }),
    { numRuns: 60, seed: 5 },
  );
});

it('tells keys apart that begin their way at the same slot', () => {
  const sameSlot = (key: Uint8Array) => Uint8Array.of(0, 0, 0, 1, ...new Uint8Array(11), key[0] ?? 0);
  const map = new OffsetMap(10 * 24, sameSlot);
  for (let key = 0; key < 9; key++) expect(map.put(Uint8Array.of(key), 100 + key)).toBe(true);
  for (let key = 0; key < 9; key++) expect(map.get(Uint8Array.of(key))).toBe(100 + key);
  expect(map.get(Uint8Array.of(9))).toBeUndefined();
  expect(map.put(Uint8Array.of(9), 1)).toBe(false);
});

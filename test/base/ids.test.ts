import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeGroupKey, encodeGroupKey, isUuid, mintUuid, type TopicId } from '../../src/base/ids.ts';

describe('identities', () => {
  test('a group key survives the round trip', () => {
    const uint32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
    fc.assert(
      fc.property(fc.array(uint32, { minLength: 4, maxLength: 4 }), uint32, uint32, (words, partition, groupGeneration) => {
        const topicId = words.map((word) => word.toString(16).padStart(8, '0')).join('') as TopicId;
        const key = encodeGroupKey({ topicId, partition, groupGeneration });
        expect(key).toHaveLength(24);
        expect(decodeGroupKey(key)).toEqual({ topicId, partition, groupGeneration });
      }),
    );
  });

  test('a minted UUID is a version 4 UUID', () => {
    let word = 0x9e3779b9;
    const uuid = mintUuid(() => {
      word = (word * 1664525 + 1013904223) >>> 0;
      return word;
    });
    expect(isUuid(uuid)).toBe(true);
    expect(uuid[12]).toBe('4');
    expect('89ab').toContain(uuid[16]);
  });
});

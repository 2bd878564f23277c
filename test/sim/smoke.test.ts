import { describe, expect, test } from 'vitest';
import { simulate } from './run.ts';

describe('the production broker and SDK in simulation', () => {
  test('keep every promise in a few stormy worlds', async () => {
    let operations = 0;
    let elections = 0;
    let effective = 0;
    for (const seed of [1, 2, 3]) {
      const result = await simulate({ seed, safetyMs: 4_000, untilItCounts: false });
      operations += result.operations;
      elections += result.elections;
      effective += result.effective;
    }
    // A world in which nothing happens would prove nothing.
    expect(operations).toBeGreaterThan(100);
    expect(elections).toBeGreaterThan(6);
    expect(effective).toBeGreaterThan(3);
  });

  test('the same seed is the same world, event by event', async () => {
    const short = { safetyMs: 3_000, untilItCounts: false };
    const first = await simulate({ seed: 4, ...short });
    expect(await simulate({ seed: 4, ...short })).toEqual(first);
    expect((await simulate({ seed: 5, ...short })).hash).not.toBe(first.hash);
  });
});

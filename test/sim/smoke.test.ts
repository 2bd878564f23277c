import { describe, expect, test } from 'vitest';
import { simulate } from './run.ts';

describe('the production broker and SDK in simulation', () => {
  test('keep every promise in a few stormy worlds', async () => {
    let acknowledged = 0;
    let elections = 0;
    for (const seed of [1, 2, 3]) {
      const result = await simulate({ seed, safetyMs: 4_000 });
      acknowledged += result.acknowledged;
      elections += result.elections;
    }
    // A world in which nothing happens would prove nothing.
    expect(acknowledged).toBeGreaterThan(100);
    expect(elections).toBeGreaterThan(6);
  });

  test('the same seed is the same world, event by event', async () => {
    const first = await simulate({ seed: 4, safetyMs: 3_000 });
    expect(await simulate({ seed: 4, safetyMs: 3_000 })).toEqual(first);
    expect((await simulate({ seed: 5, safetyMs: 3_000 })).hash).not.toBe(first.hash);
  });
});

import { describe, expect, test } from 'vitest';
import { simulateCore } from './simulate.ts';

describe('simulation of the raft core', () => {
  test('300 seeds keep every invariant and recover', () => {
    let committed = 0;
    let reads = 0;
    let rests = 0;
    let snapshots = 0;
    for (let seed = 1; seed <= 300; seed++) {
      const result = simulateCore(seed);
      committed += result.committed;
      reads += result.reads;
      rests += result.rests;
      snapshots += result.snapshots;
    }
    // A world in which nothing happens would prove nothing.
    expect(committed).toBeGreaterThan(300 * 20);
    expect(reads).toBeGreaterThan(300 * 2);
    expect(rests).toBeGreaterThan(300 * 4);
    expect(snapshots).toBeGreaterThan(50);
  });

  test('the same seed is the same world', () => {
    for (const seed of [7, 77, 777]) expect(simulateCore(seed)).toEqual(simulateCore(seed));
    expect(simulateCore(7).hash).not.toBe(simulateCore(8).hash);
  });
});

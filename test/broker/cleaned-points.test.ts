import fc from 'fast-check';
import { expect, it } from 'vitest';
import { CleanedPoints } from '../../src/broker/cleaned-points.ts';

it('gives what has been clean for long enough, and no more', () => {
  const points = new CleanedPoints();
  expect(points.settledTo(10, 1_000, 0)).toBe(0);
  expect(points.settledTo(10, 1_000, 999)).toBe(0);
  expect(points.settledTo(20, 1_000, 999)).toBe(0);
  expect(points.settledTo(20, 1_000, 1_000)).toBe(10);
  expect(points.settledTo(20, 1_000, 1_998)).toBe(10);
  expect(points.settledTo(20, 1_000, 1_999)).toBe(20);
  expect(points.settledTo(20, 0, 2_000)).toBe(20);
});

it('begins anew when the log was replaced by one that is not as clean', () => {
  const points = new CleanedPoints();
  points.settledTo(20, 1_000, 0);
  expect(points.settledTo(15, 1_000, 1_500)).toBe(0);
  expect(points.settledTo(20, 1_000, 2_400)).toBe(0);
  expect(points.settledTo(20, 1_000, 2_500)).toBe(15);
});

it('never gives what was not clean all that time, and in the end gives all', () => {
  const step = fc.record({ ms: fc.nat(500), more: fc.integer({ min: 0, max: 30 }), back: fc.integer({ min: 0, max: 20 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.nat(3_000), (steps, forMs) => {
      const points = new CleanedPoints();
      const seen: { readonly nowMs: number; readonly cleanedTo: number }[] = [];
      let [nowMs, cleanedTo] = [0, 0];
      for (const { ms, more, back } of steps) {
        nowMs += ms;
        cleanedTo = back === 20 ? Math.floor(cleanedTo / 2) : cleanedTo + more;
        seen.push({ nowMs, cleanedTo });
        const settled = points.settledTo(cleanedTo, forMs, nowMs);
        const since = seen.findLastIndex((each) => nowMs - each.nowMs >= forMs);
        const lowest = since < 0 ? 0 : Math.min(...seen.slice(since).map((each) => each.cleanedTo));
        expect(settled).toBeLessThanOrEqual(lowest);
      }
      points.settledTo(cleanedTo, forMs, nowMs + forMs);
      expect(points.settledTo(cleanedTo, forMs, nowMs + 3 * forMs)).toBe(cleanedTo);
    }),
    { seed: 3 },
  );
});

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { chosen, median } from '../../bench/figures.ts';
import { plot } from '../../bench/plot.ts';

describe('figures', () => {
  test('the median has as many numbers below as above', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ noNaN: true, min: -1e6, max: 1e6 }), { minLength: 1 }), (numbers) => {
        const middle = median(numbers);
        expect(numbers.filter((number) => number < middle).length).toBeLessThanOrEqual(numbers.length / 2);
        expect(numbers.filter((number) => number > middle).length).toBeLessThanOrEqual(numbers.length / 2);
      }),
    );
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1])).toBe(2.5);
    expect(median([])).toBeNaN();
  });

  test('--only takes names of parts, and says which there are', () => {
    const parts = ['produce', 'consume', 'gaps'] as const;
    expect([...chosen(undefined, parts)]).toEqual(parts);
    expect([...chosen('gaps, produce', parts)]).toEqual(['produce', 'gaps']);
    expect(() => chosen('consumes', parts)).toThrow('--only takes produce, consume, gaps; not consumes');
  });

  test('a plot stays within its frame', () => {
    const point = fc.tuple(fc.double({ noNaN: true, min: 0, max: 1e4 }), fc.double({ noNaN: true, min: 0, max: 1e4 }));
    const latency = fc.tuple(fc.double({ noNaN: true, min: 0, max: 99.99 }), fc.double({ noNaN: true, min: 0, max: 1e4 }));
    fc.assert(
      fc.property(fc.array(point), fc.array(latency), (throughput, latencies) => {
        const lines = [...plot(throughput, latencies).matchAll(/<polyline points="([^"]*)"/g)].map((match) => match[1] ?? '');
        const places = lines.map((line) => line.split(' ').filter(Boolean));
        expect(places.map(({ length }) => length)).toEqual([throughput.length, latencies.length]);
        for (const place of places.flat()) {
          const [x, y] = place.split(',').map(Number);
          expect(x).toBeGreaterThanOrEqual(70);
          expect(x).toBeLessThanOrEqual(740);
          expect(y).toBeGreaterThanOrEqual(40);
          expect(y).toBeLessThanOrEqual(255);
        }
      }),
    );
  });
});

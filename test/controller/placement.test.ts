import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { BrokerId } from '../../src/base/ids.ts';
import { type PlacementBroker, placeReplicas } from '../../src/controller/placement.ts';

function brokers(racks: readonly (string | undefined)[]): PlacementBroker[] {
  return racks.map((rack, i) => ({ brokerId: (i + 1) as BrokerId, rack, replicas: 0, leaders: 0 }));
}

function spread(counts: Iterable<number>): number {
  const all = [...counts];
  return Math.max(...all) - Math.min(...all);
}

function loads(all: readonly PlacementBroker[], placed: readonly (readonly BrokerId[])[]) {
  const replicas = new Map(all.map(({ brokerId, replicas }) => [brokerId, replicas]));
  const leaders = new Map(all.map(({ brokerId, leaders }) => [brokerId, leaders]));
  for (const partition of placed) {
    for (const id of partition) replicas.set(id, replicas.get(id)! + 1);
    leaders.set(partition[0]!, leaders.get(partition[0]!)! + 1);
  }
  return { replicas, leaders };
}

const seed = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const partitions = fc.integer({ min: 1, max: 60 });

describe('placeReplicas', () => {
  test('spreads replicas and preferred leaders evenly over equal racks, or none', () => {
    const cluster = fc.oneof(
      fc.integer({ min: 1, max: 12 }).map((n) => brokers(Array(n).fill(undefined))),
      fc
        .tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 4 }))
        .map(([racks, size]) => brokers(Array.from({ length: racks * size }, (_, i) => `r${i % racks}`))),
    );
    fc.assert(
      fc.property(cluster, partitions, fc.nat(), seed, (all, count, r, seed) => {
        const replicas = (r % all.length) + 1;
        const placed = placeReplicas(all, count, replicas, seed);
        expect(placed).toHaveLength(count);
        for (const partition of placed) expect(new Set(partition).size).toBe(replicas);
        const load = loads(all, placed);
        expect(spread(load.replicas.values())).toBeLessThanOrEqual(1);
        expect(spread(load.leaders.values())).toBeLessThanOrEqual(1);
      }),
      { numRuns: 300 },
    );
  });

  test('uses as many racks as there are, evenly where racks have room', () => {
    const racks = fc.array(fc.constantFrom('a', 'b', 'c', undefined), { minLength: 1, maxLength: 10 });
    fc.assert(
      fc.property(racks, partitions, fc.nat(), seed, (names, count, r, seed) => {
        const all = brokers(names);
        const replicas = (r % all.length) + 1;
        const rackOf = new Map(all.map(({ brokerId, rack }) => [brokerId, rack ?? `broker ${brokerId}`]));
        const there = new Set(rackOf.values()).size;
        for (const partition of placeReplicas(all, count, replicas, seed)) {
          expect(new Set(partition).size).toBe(replicas);
          expect(new Set(partition.map((id) => rackOf.get(id))).size).toBe(Math.min(replicas, there));
        }
      }),
      { numRuns: 200 },
    );
  });

  test('is a function of its arguments', () => {
    const all = brokers(['a', 'b', 'c', 'a', 'b', 'c']);
    expect(placeReplicas(all, 50, 3, 7)).toEqual(placeReplicas(all.toReversed(), 50, 3, 7));
    expect(placeReplicas(all, 50, 3, 7)).not.toEqual(placeReplicas(all, 50, 3, 8));
  });

  test('many topics of one partition stay even', () => {
    let all = brokers([undefined, undefined, undefined, undefined, undefined]);
    for (let topic = 0; topic < 100; topic++) {
      const load = loads(all, placeReplicas(all, 1, 3, topic));
      expect(spread(load.replicas.values())).toBeLessThanOrEqual(1);
      all = all.map((broker) => ({
        ...broker,
        replicas: load.replicas.get(broker.brokerId)!,
        leaders: load.leaders.get(broker.brokerId)!,
      }));
    }
    expect(spread(all.map(({ leaders }) => leaders))).toBeLessThanOrEqual(2);
  });

  test('a new, empty broker does not take all of a topic', () => {
    const all = brokers(Array(4).fill(undefined)).map((broker, i) => ({
      ...broker,
      replicas: i === 3 ? 0 : 1000,
      leaders: i === 3 ? 0 : 300,
    }));
    const placed = placeReplicas(all, 40, 1, 1);
    const own = placed.filter(([id]) => id === 4).length;
    expect(own).toBeGreaterThanOrEqual(10);
    expect(own).toBeLessThanOrEqual(12);
  });
});

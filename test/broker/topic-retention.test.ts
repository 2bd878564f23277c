import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { retainedOfTopic, type SegmentSize } from '../../src/broker/topic-retention.ts';
import { SimWorld } from './sim-world.ts';

/** A partition's segments of ten records each. */
function segments(...each: readonly (readonly [sizeBytes: number, maxTimestampMs: number])[]): SegmentSize[] {
  return each.map(([sizeBytes, maxTimestampMs], at) => ({ nextOffset: (at + 1) * 10, sizeBytes, maxTimestampMs }));
}

describe('what a topic retains', () => {
  const topic = new Map([
    [0, segments([100, 1_000], [100, 4_000])],
    [1, segments([100, 2_000], [100, 3_000], [100, 5_000])],
    [2, []],
  ]);

  it.each([
    ['everything that it has room for', 500, {}],
    ['at least as much as it is told to', 450, {}],
    ['not the oldest', 400, { 0: 10 }],
    ['of each partition what is young', 200, { 0: 10, 1: 20 }],
    ['only the youngest', 100, { 0: 20, 1: 20 }],
    ['nothing', 0, { 0: 20, 1: 30 }],
  ] as const)('%s', (_what, bytes, starts) => {
    expect(Object.fromEntries(retainedOfTopic(topic, bytes))).toEqual(starts);
  });

  it('a segment in front of an older one goes first, and only then the older', () => {
    expect(
      Object.fromEntries(
        retainedOfTopic(
          new Map([
            [0, segments([100, 9_000], [100, 1])],
            [1, segments([100, 5_000])],
          ]),
          200,
        ),
      ),
    ).toEqual({ 1: 10 });
  });

  it('those who reckon at different moments delete together no more than one alone', () => {
    const sizes = fc.array(fc.tuple(fc.integer({ min: 0, max: 50 }), fc.integer({ min: 0, max: 20 })), { maxLength: 6 });
    fc.assert(
      fc.property(fc.array(sizes, { minLength: 2, maxLength: 4 }), fc.nat(400), (all, bytes) => {
        const inTime = all.map((each) => each.sort(([, a], [, b]) => a - b));
        const whole = new Map(inTime.map((each, partition) => [partition, segments(...each)] as const));
        const expected = retainedOfTopic(whole, bytes);
        // Broker A leads the even partitions, and has deleted when B reckons.
        const seen = new Map(
          [...whole].map(([partition, each]) => {
            const start = partition % 2 === 0 ? (expected.get(partition) ?? 0) : 0;
            return [partition, each.filter(({ nextOffset }) => nextOffset > start)] as const;
          }),
        );
        const later = retainedOfTopic(seen, bytes);
        for (const partition of whole.keys()) {
          if (partition % 2 === 1) expect(later.get(partition)).toBe(expected.get(partition));
          else expect(later.get(partition)).toBeUndefined();
        }
      }),
    );
  });
});

test('the oldest segments of a topic go, whoever leads them', async () => {
  await using world = await SimWorld.start({ settings: { 'log.retention.check.interval.ms': 1_000 } });
  const { client } = world;
  await world.settle(
    client.admin.createTopic({
      name: 'orders',
      partitions: 3,
      replicas: 3,
      configs: { 'segment.bytes': '2000', 'retention.ms': '-1', 'retention.topic.bytes': '14000' },
    }),
  );
  const producer = client.producer();
  const value = new TextEncoder().encode('.'.repeat(300));
  // The first partition has the old records, the second the young ones, the third none.
  for (const partition of [0, 1]) {
    for (let n = 0; n < 30; n++) await world.settle(producer.send('orders', { value, partition }));
    await world.cluster.time.run(5_000);
  }
  const described = await world.settle(client.admin.describeTopic('orders'));
  const [first, second, third] = described.partitions;
  expect(first?.logStartOffset).toBeGreaterThan(10);
  expect(second?.logStartOffset).toBe(0);
  expect(third?.logStartOffset).toBe(0);
  const bytes = described.partitions.reduce((sum, { sizeBytes = 0 }) => sum + sizeBytes, 0);
  expect(bytes).toBeGreaterThanOrEqual(14_000);
  expect(bytes).toBeLessThan(14_000 + 3_000);
  world.assertAllUp();
});

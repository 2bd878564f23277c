import { beforeEach, describe, expect, it, test } from 'vitest';
import { type LogFields, type Logger, silentLogger } from '../../src/base/environment.ts';
import type { Partition } from '../../src/broker/partition.ts';
import { type RetainedLog, Retention, type RetentionBounds, type RetentionOptions, retainedFrom } from '../../src/broker/retention.ts';
import { CLOCK_PAUSE_MS, TrustedClock } from '../../src/broker/trusted-clock.ts';
import { ManualEnvironment, settled } from './manual-environment.ts';
import { SimWorld } from './sim-world.ts';

/** A log of segments of ten records each; the last one may have a tail that is not written yet. */
class SegmentsLog implements RetainedLog {
  readonly #segments: readonly { readonly bytes: number; readonly timestamp: number }[];
  readonly #unwritten: { readonly bytes: number; readonly timestamp: number } | undefined;
  logStartOffset = 0;

  constructor(segments: readonly (readonly [bytes: number, timestamp: number])[], unwritten?: readonly [bytes: number, timestamp: number]) {
    const named = ([bytes, timestamp]: readonly [number, number]) => ({ bytes, timestamp });
    this.#segments = segments.map(named);
    this.#unwritten = unwritten && named(unwritten);
  }

  get nextOffset(): number {
    return this.#segments.length * 10 + (this.#unwritten === undefined ? 0 : 5);
  }

  get sizeBytes(): number {
    return this.#segments.reduce((sum, { bytes }) => sum + bytes, this.#unwritten?.bytes ?? 0);
  }

  segments() {
    return this.#segments.map(({ bytes }, at) => ({
      base: { index: at * 10 + 1, offset: at * 10 },
      maxTimestamp: () => Promise.reject(new Error('a read that nobody needs')),
      payloadBytes: async () => bytes,
    }));
  }

  async offsetForTime(timestampMs: number): Promise<number | undefined> {
    const at = this.#segments.findIndex(({ timestamp }) => timestamp >= timestampMs);
    if (at >= 0) return at * 10 + 3;
    return this.#unwritten !== undefined && this.#unwritten.timestamp >= timestampMs ? this.#segments.length * 10 : undefined;
  }
}

const FOREVER: RetentionBounds = { retentionMs: -1, retentionBytes: -1 };
const even = new SegmentsLog([
  [100, 1_000],
  [100, 2_000],
  [100, 3_000],
  [100, 4_000],
]);

describe('what is retained', () => {
  it.each([
    ['everything, for ever', even, FOREVER, 9_999_999, 0],
    ['by size, at least as much as was asked for', even, { retentionMs: -1, retentionBytes: 250 }, 0, 10],
    ['by size, exactly', even, { retentionMs: -1, retentionBytes: 200 }, 0, 20],
    ['by size, more than there is', even, { retentionMs: -1, retentionBytes: 400 }, 0, 0],
    ['by size, nothing', even, { retentionMs: -1, retentionBytes: 0 }, 0, 40],
    ['by age, to the last millisecond', even, { retentionMs: 1_000, retentionBytes: -1 }, 2_000, 0],
    ['by age, one more', even, { retentionMs: 1_000, retentionBytes: -1 }, 2_001, 10],
    ['by age, a quarter and what it takes to get there, in one check', even, { retentionMs: 1_000, retentionBytes: -1 }, 9_000, 10],
    ['by both, the size goes further', even, { retentionMs: 1_000, retentionBytes: 100 }, 2_001, 30],
    ['by age, of one segment: all of it', new SegmentsLog([[100, 1_000]]), { retentionMs: 10, retentionBytes: -1 }, 5_000, 10],
    [
      'by age, what is not written yet counts',
      new SegmentsLog([[100, 1_000]], [50, 4_995]),
      { retentionMs: 10, retentionBytes: -1 },
      5_000,
      0,
    ],
    [
      'by age, a segment in the way of older ones',
      new SegmentsLog([
        [100, 9_000],
        [100, 1],
      ]),
      { retentionMs: 10, retentionBytes: -1 },
      5_000,
      0,
    ],
    [
      'by size, what is not written yet counts',
      new SegmentsLog(
        [
          [100, 1],
          [100, 1],
        ],
        [50, 1],
      ),
      { retentionMs: -1, retentionBytes: 150 },
      0,
      10,
    ],
    ['nothing, of no records', new SegmentsLog([]), { retentionMs: 10, retentionBytes: 10 }, 5_000, 0],
    ['by age with a clock that is not trusted: everything', even, { retentionMs: 10, retentionBytes: -1 }, undefined, 0],
  ] as const)('%s', async (_what, log, bounds, nowMs, start) => {
    expect(await retainedFrom(log, bounds, nowMs)).toBe(start);
  });

  it('never goes back', async () => {
    const log = new SegmentsLog([
      [100, 1_000],
      [100, 2_000],
    ]);
    log.logStartOffset = 17;
    expect(await retainedFrom(log, { retentionMs: -1, retentionBytes: 100 }, 0)).toBe(17);
  });
});

describe('a check', () => {
  const INTERVAL_MS = 300_000;
  let environment: ManualEnvironment;
  let log: SegmentsLog & { reclaims: number };
  let leadership: { role: string; ready: boolean };
  let bounds: RetentionBounds & { retentionTopicBytes: number };
  let segmentsOf: RetentionOptions['segmentsOf'];
  let starts: number[];
  let errors: LogFields[];
  let retention: Retention;

  beforeEach(() => {
    environment = new ManualEnvironment();
    environment.wall = 10_000_000;
    log = Object.assign(
      new SegmentsLog([
        [100, 9_000_000],
        [100, 10_000_000 + 2 * INTERVAL_MS],
      ]),
      { reclaims: 0 },
    );
    leadership = { role: 'leader', ready: true };
    bounds = { retentionMs: 600_000, retentionBytes: -1, retentionTopicBytes: -1 };
    segmentsOf = async () => new Map();
    starts = [];
    errors = [];
    const partition = {
      topic: 'orders',
      partition: 0,
      get logStartOffset() {
        return log.logStartOffset;
      },
      get retention() {
        return bounds;
      },
      replica: { leadership, log: Object.assign(log, { reclaimSoon: () => void log.reclaims++ }) },
      startAt: async (offset: number) => {
        starts.push(offset);
        log.logStartOffset = offset;
        return offset;
      },
    };
    const logger: Logger = { ...silentLogger, error: (_message, fields = {}) => void errors.push(fields) };
    const partitions = { all: () => [partition as unknown as Partition] };
    const clock = new TrustedClock(environment, logger);
    retention = new Retention({
      partitions,
      segmentsOf: (topic, signal) => segmentsOf(topic, signal),
      environment,
      clock,
      log: logger,
      intervalMs: INTERVAL_MS,
      requestTimeoutMs: 1_000,
    });
    retention.start();
  });

  async function pass(ms: number): Promise<void> {
    environment.advance(ms);
    await settled();
  }

  it('comes each interval, and moves the start where this broker leads', async () => {
    await pass(INTERVAL_MS - 1);
    expect(starts).toEqual([]);
    await pass(1);
    expect(starts).toEqual([10]);
    expect(log.reclaims).toBe(1);
    await pass(INTERVAL_MS);
    expect(starts).toEqual([10]);
    expect(log.reclaims).toBe(2);
    await retention.stop();
    await pass(10 * INTERVAL_MS);
    expect(environment.timers).toBe(0);
  });

  it.each([
    { role: 'follower', ready: false },
    { role: 'leader', ready: false },
  ])('moves nothing as %o, and has what is below the start dropped', async (role) => {
    Object.assign(leadership, role);
    await pass(INTERVAL_MS);
    expect(starts).toEqual([]);
    expect(log.reclaims).toBe(1);
  });

  it.each([
    ['what it is told to keep', 100, [10]],
    ['everything, where it is told to keep everything while the leaders are asked', -1, []],
  ])('keeps of a topic %s', async (_what, told, expected) => {
    bounds = { ...FOREVER, retentionTopicBytes: 100 };
    const segments = [10, 20].map((nextOffset) => ({ nextOffset, sizeBytes: 100, maxTimestampMs: nextOffset }));
    segmentsOf = async () => {
      bounds = { ...bounds, retentionTopicBytes: told };
      return new Map([[0, segments]]);
    };
    await pass(INTERVAL_MS);
    expect(starts).toEqual(expected);
  });

  it('after a jump of the clock deletes nothing by age for an hour, and says so (B41)', async () => {
    environment.wall += 10 * 365 * 86_400_000;
    for (let ms = 0; ms < CLOCK_PAUSE_MS; ms += INTERVAL_MS) await pass(INTERVAL_MS);
    expect(starts).toEqual([]);
    expect(errors).toEqual([
      expect.objectContaining({ jumpMs: 10 * 365 * 86_400_000, advice: expect.stringContaining('set the clock right') }),
    ]);
    await pass(INTERVAL_MS);
    expect(starts).toEqual([10]);
  });

  it('a clock that is set right again within that hour has done no harm', async () => {
    environment.wall += 86_400_000;
    await pass(INTERVAL_MS);
    environment.wall -= 86_400_000;
    for (let ms = 0; ms <= CLOCK_PAUSE_MS; ms += INTERVAL_MS) await pass(INTERVAL_MS);
    expect(errors).toHaveLength(2);
    expect(starts).toEqual([10]);
  });
});

test('a topic keeps what it is told to keep, on all brokers, through restarts; who reads below hears where it starts', async () => {
  await using world = await SimWorld.start({ settings: { 'log.retention.check.interval.ms': 1_000 } });
  const topic = await world.createTopic('orders', { 'segment.bytes': '2000', 'retention.bytes': '5000', 'retention.ms': '-1' });
  const producer = world.client.producer();
  for (let n = 0; n < 60; n++)
    await world.settle(producer.send('orders', { value: new TextEncoder().encode(`value ${n}`.padEnd(300, '.')) }));
  await world.cluster.time.run(5_000);
  const logs = () =>
    world.cluster.machines.map(({ broker }) => [...(broker?.replicas ?? [])].find(({ log }) => log.nextOffset === 60)?.log);
  const start = logs()[0]?.logStartOffset ?? 0;
  expect(start).toBeGreaterThan(30);
  for (const log of logs()) {
    expect(log?.logStartOffset).toBe(start);
    expect(log?.sizeBytes).toBeLessThan(9_000);
    expect(log?.sizeBytes).toBeGreaterThanOrEqual(5_000);
  }
  await world.restartAll();
  const values = await world.readAll(topic, 60 - start);
  expect(values.map((value) => Number(value.replaceAll('.', '').split(' ')[1]))).toEqual(
    Array.from({ length: 60 - start }, (_, i) => start + i),
  );
  for (const log of logs()) expect(log?.logStartOffset).toBe(start);
  world.assertAllUp();
});

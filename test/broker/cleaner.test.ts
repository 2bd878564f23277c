import { beforeEach, describe, expect, it } from 'vitest';
import { concat } from '../../src/base/bytes.ts';
import { type LogFields, type Logger, silentLogger } from '../../src/base/environment.ts';
import { type CleanedLog, Cleaner, type CompactionBounds, dirtOf, RETRY_MS } from '../../src/broker/cleaner.ts';
import type { Partition } from '../../src/broker/partition.ts';
import { CLOCK_PAUSE_MS, TrustedClock } from '../../src/broker/trusted-clock.ts';
import { decodeBatch, splitBatches, stampBatch } from '../../src/record/batch.ts';
import { BatchBuilder } from '../../src/record/builder.ts';
import { inlineCompute } from '../../src/record/cleaning.ts';
import { CompressionTable } from '../../src/record/compression.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import { mapBytesFor } from '../../src/record/offset-map.ts';
import type { BatchRun, CleanableSegment } from '../../src/storage/types.ts';
import { ManualEnvironment, settled } from './manual-environment.ts';

const codecs = { compression: new CompressionTable(), crc32c };
const text = new TextEncoder();
const BACKOFF_MS = 15_000;
/** What is nothing to the pace of cleaning. */
const FAST = 2 ** 50;

type Written = { readonly key: string; readonly value: string | null; readonly time?: number };
interface FakeSegment {
  batches: Uint8Array[];
  readonly from: number;
  readonly until: number;
  cleaned: boolean;
  readonly time: number;
}

/** Segments of batches of one record, in memory. */
class FakeCleanedLog implements CleanedLog {
  readonly segments: FakeSegment[] = [];
  tombstoneFloor = 0;
  logStartOffset = 0;
  rolls = 0;
  cleanings = 0;
  failure: Error | undefined;
  /** Nothing is rewritten: it is being read for a follower. */
  pinned = false;

  add(...written: Written[]): this {
    const from = this.segments.at(-1)?.until ?? 0;
    const batches = written.map(({ key, value, time = 1_000 }, at) => {
      const builder = new BatchBuilder({ crc32c });
      builder.append(text.encode(key), value === null ? null : text.encode(value), [], time);
      const bytes = builder.build();
      stampBatch(bytes, from + at, 1);
      return bytes;
    });
    const time = Math.max(...written.map((each) => each.time ?? 1_000));
    this.segments.push({ batches, from, until: from + written.length, cleaned: false, time });
    return this;
  }

  get cleanedTo(): number {
    return this.segments.findLast(({ cleaned }) => cleaned)?.until ?? 0;
  }

  get offsets(): number[] {
    return this.segments.flatMap(({ batches }) =>
      batches.flatMap((bytes) => decodeBatch(bytes, { ...codecs, maxBytes: 1e6 })).map(({ offset }) => offset),
    );
  }

  rollIfOld(): void {
    this.rolls++;
  }

  cleanable(): readonly CleanableSegment[] {
    return this.segments.map(({ batches, from, until, cleaned, time }) => ({
      base: { index: from + 1, offset: from },
      lastIndex: until,
      nextOffset: until,
      cleaned,
      maxTimestamp: async () => time,
      payloadBytes: async () => batches.reduce((sum, { length }) => sum + length, 0),
    }));
  }

  async read(from: number, until: number): Promise<BatchRun> {
    if (this.failure !== undefined) throw this.failure;
    const found = this.segments.filter(({ from: start, until: end }) => end > from && start < until).flatMap(({ batches }) => batches);
    const bytes = concat(found.filter((each) => Number(new DataView(each.buffer).getBigInt64(0)) >= from));
    return { chunks: bytes.length === 0 ? [] : [bytes.slice()], bytes: bytes.length, nextOffset: until };
  }

  async clean(throughIndex: number, clean: (batches: Uint8Array) => Promise<Uint8Array>, signal: AbortSignal) {
    this.cleanings++;
    for (const segment of this.segments) {
      if (segment.until > throughIndex || this.pinned) break;
      signal.throwIfAborted();
      segment.batches = splitBatches(await clean(concat(segment.batches).slice()));
      segment.cleaned = true;
    }
    return { before: 0, after: 0 };
  }
}

const at = (time: number) => ({ key: 'a', value: 'v', time });
const bounds = (more: Partial<CompactionBounds> = {}): CompactionBounds => ({
  minCleanableRatio: 0.5,
  minCompactionLagMs: 0,
  maxCompactionLagMs: Number.MAX_SAFE_INTEGER,
  ...more,
});

describe('what is dirty of a log', () => {
  const log = new FakeCleanedLog().add(at(100), at(100)).add(at(200)).add(at(300));
  const [first] = log.segments as [FakeSegment];
  first.cleaned = true;

  it.each([
    ['half of it', bounds(), 1_000, 2],
    ['less than was asked for', bounds({ minCleanableRatio: 0.6 }), 1_000, undefined],
    ['what is old enough', bounds({ minCleanableRatio: 0.3, minCompactionLagMs: 700 }), 999, 1],
    ['nothing is old enough', bounds({ minCleanableRatio: 0, minCompactionLagMs: 900 }), 1_000, undefined],
    ['nothing by age, with a clock that is not trusted', bounds({ minCompactionLagMs: 1 }), undefined, undefined],
    ['too little, and too old', bounds({ minCleanableRatio: 1, maxCompactionLagMs: 799 }), 1_000, 2],
    ['too little, and not too old yet', bounds({ minCleanableRatio: 1, maxCompactionLagMs: 800 }), 1_000, undefined],
    ['too little, and nobody knows how old', bounds({ minCleanableRatio: 1, maxCompactionLagMs: 1 }), undefined, undefined],
  ] as const)('%s', async (_what, given, nowMs, segments) => {
    expect((await dirtOf(log, given, nowMs))?.segments.length).toBe(segments);
  });

  it('nothing, where all was cleaned', async () => {
    const clean = new FakeCleanedLog().add(at(100));
    for (const segment of clean.segments) segment.cleaned = true;
    expect(await dirtOf(clean, bounds({ minCleanableRatio: 0 }), 1_000)).toBeUndefined();
  });
});

describe('the cleaner', () => {
  let environment: ManualEnvironment;
  let logs: FakeCleanedLog[];
  let cleaner: Cleaner;
  let events: [string, LogFields][];
  let compaction: CompactionBounds & { compacts: boolean };
  /** By producers. */
  let written: number;

  function start(config: { dedupeBufferBytes?: number; ioBytesPerSecond?: number } = {}): void {
    const partitions = logs.map((log, partition) => ({ topic: 'orders', partition, compaction, replica: { log, quarantined: undefined } }));
    const note = (event: string, fields: LogFields = {}) => void events.push([event, fields]);
    const log: Logger = { ...silentLogger, info: note, warn: note, error: note };
    cleaner = new Cleaner({
      partitions: { all: () => partitions as unknown as Partition[] },
      compute: inlineCompute(codecs),
      environment,
      clock: new TrustedClock(environment, log),
      log,
      writtenBytes: () => written,
      config: { dedupeBufferBytes: 1 << 20, ioBytesPerSecond: FAST, backoffMs: BACKOFF_MS, ...config },
    });
    cleaner.start();
  }

  beforeEach(() => {
    environment = new ManualEnvironment();
    logs = [];
    events = [];
    written = 0;
    compaction = { ...bounds(), compacts: true };
  });

  async function pass(ms = BACKOFF_MS): Promise<void> {
    environment.advance(ms);
    await settled();
    await settled();
  }

  it('keeps the newest of each key, where it was; ends segments that are old', async () => {
    const log = new FakeCleanedLog()
      .add({ key: 'a', value: '1' }, { key: 'b', value: '1' })
      .add({ key: 'a', value: '2' }, { key: 'c', value: '1' })
      .add({ key: 'c', value: '2' });
    logs = [log];
    start();
    await pass(BACKOFF_MS - 1);
    expect(log.cleanings).toBe(0);
    await pass(1);
    expect(log.offsets).toEqual([1, 2, 4]);
    expect(log.rolls).toBe(1);
    expect(events).toEqual([['cleaned', expect.objectContaining({ topic: 'orders', partition: 0, to: 5, ratio: 1, unreadable: 0 })]]);
    await pass();
    expect(log.cleanings).toBe(1);
  });

  it('the dirtiest first, one at a time', async () => {
    const order: number[] = [];
    logs = [0.5, 1, 0.75].map((ratio, number) => {
      const log = new FakeCleanedLog();
      for (let at = 0; at < 4; at++) log.add({ key: 'a', value: 'v' });
      for (const segment of log.segments.slice(0, 4 * (1 - ratio))) segment.cleaned = true;
      const clean = log.clean.bind(log);
      log.clean = (...given) => {
        order.push(number);
        return clean(...given);
      };
      return log;
    });
    start();
    await pass();
    expect(order).toEqual([1, 2, 0]);
  });

  it('leaves logs alone whose topics are not compacted', async () => {
    compaction.compacts = false;
    logs = [new FakeCleanedLog().add({ key: 'a', value: 'v' })];
    start();
    await pass();
    expect([logs[0]?.cleanings, logs[0]?.rolls]).toEqual([0, 0]);
  });

  it('keeps tombstones from the floor on', async () => {
    const log = new FakeCleanedLog()
      .add({ key: 'a', value: '1' }, { key: 'a', value: null })
      .add({ key: 'b', value: '1' }, { key: 'b', value: null });
    log.tombstoneFloor = 2;
    logs = [log];
    start();
    await pass();
    expect(log.offsets).toEqual([3]);
  });

  it('takes as many segments as the keys of which fit into its memory, and the others in the next pass', async () => {
    const log = new FakeCleanedLog();
    for (let segment = 0; segment < 3; segment++)
      log.add(...Array.from({ length: 10 }, (_, key) => ({ key: `${segment}.${key}`, value: 'v' })), { key: `${segment}.0`, value: 'new' });
    logs = [log];
    compaction = { ...compaction, minCleanableRatio: 0 };
    start({ dedupeBufferBytes: mapBytesFor(15) });
    await pass();
    expect(log.cleanedTo).toBe(11);
    await pass();
    expect(log.cleanedTo).toBe(22);
    await pass();
    expect(log.offsets).toHaveLength(30);
  });

  it('says so when a single segment has more keys than fit, and waits before it tries again', async () => {
    const log = new FakeCleanedLog().add(...Array.from({ length: 30 }, (_, key) => ({ key: `${key}`, value: 'v' })));
    logs = [log];
    start({ dedupeBufferBytes: mapBytesFor(15) });
    await pass();
    await pass();
    expect(log.cleanings).toBe(0);
    expect(events).toEqual([
      ['not cleaned', expect.objectContaining({ advice: expect.stringContaining('log.cleaner.dedupe.buffer.size') })],
    ]);
    await pass(RETRY_MS);
    expect(events).toHaveLength(2);
  });

  it.each(['an error', 'a follower'])('lets a log alone for a while that it can not clean: %s', async (why) => {
    const log = new FakeCleanedLog().add({ key: 'a', value: '1' }, { key: 'a', value: '2' });
    const other = new FakeCleanedLog().add({ key: 'a', value: '1' }, { key: 'a', value: '2' });
    if (why === 'an error') log.failure = new Error('EIO');
    else log.pinned = true;
    logs = [log, other];
    start();
    await pass();
    expect(other.offsets).toEqual([1]);
    log.failure = undefined;
    log.pinned = false;
    await pass(RETRY_MS - 1);
    expect(log.offsets).toEqual([0, 1]);
    await pass();
    expect(log.offsets).toEqual([1]);
  });

  it('makes nothing of a log that rotted', async () => {
    const log = new FakeCleanedLog().add({ key: 'a', value: '1' }, { key: 'a', value: '2' });
    const [bytes] = log.segments[0]?.batches ?? [];
    if (bytes !== undefined) bytes[65] = (bytes[65] ?? 0) ^ 4;
    logs = [log];
    start();
    await pass();
    expect(events).toEqual([['cleaning failed', expect.objectContaining({ error: expect.stringContaining('CRC32C') })]]);
    expect(log.segments[0]?.cleaned).toBe(false);
  });

  it('reads and writes no more in a second than it may, and stops in the middle of it', async () => {
    const log = new FakeCleanedLog();
    for (let segment = 0; segment < 10; segment++) log.add({ key: `${segment}`, value: 'v'.repeat(1_000) });
    logs = [log];
    start({ ioBytesPerSecond: 1_000 });
    await pass();
    // Ten segments of 1.1 kB are read in 11 s, and then each is read and written in 2.2 s.
    for (let ms = 0; ms < 10_000; ms += 100) await pass(100);
    expect(log.cleanings).toBe(0);
    for (let ms = 0; ms < 10_000; ms += 100) await pass(100);
    const cleaned = log.segments.filter((each) => each.cleaned).length;
    expect(cleaned).toBeGreaterThan(1);
    expect(cleaned).toBeLessThan(7);
    await cleaner.stop();
    expect(log.segments.filter((each) => each.cleaned).length).toBeLessThanOrEqual(cleaned + 1);
    expect(environment.timers).toBe(0);
  });

  it('rests after each run of work while producers write, in both passes', async () => {
    const log = new FakeCleanedLog();
    for (let segment = 0; segment < 4; segment++) log.add({ key: 'a', value: 'v' });
    const [read, clean] = [log.read.bind(log), log.clean.bind(log)];
    const takes = (ms: number) => {
      written++;
      environment.now += ms;
    };
    log.read = (from, until) => {
      takes(10);
      return read(from, until);
    };
    log.clean = (through, each, signal) =>
      clean(
        through,
        (batches) => {
          takes(10);
          return each(batches);
        },
        signal,
      );
    logs = [log];
    start();
    await pass();
    for (let run = 1; run <= 4; run++) {
      expect(log.cleanings).toBe(0);
      await pass(69);
      expect(environment.timers).toBe(1);
      await pass(1);
    }
    for (let run = 1; run <= 4; run++) {
      expect(log.segments.filter(({ cleaned }) => cleaned).length).toBe(run - 1);
      await pass(70);
    }
    expect(log.offsets).toEqual([3]);
  });

  it('after a jump of the clock takes nothing for old (B41)', async () => {
    Object.assign(compaction, { minCompactionLagMs: 86_400_000, minCleanableRatio: 0 });
    const log = new FakeCleanedLog().add(
      { key: 'a', value: '1', time: environment.wallMs() },
      { key: 'a', value: '2', time: environment.wallMs() },
    );
    logs = [log];
    start();
    environment.wall += 365 * 86_400_000;
    for (let ms = 0; ms < CLOCK_PAUSE_MS; ms += BACKOFF_MS) await pass();
    expect(log.offsets).toEqual([0, 1]);
    await pass();
    expect(log.offsets).toEqual([1]);
  });
});

import { describe, expect, it } from 'vitest';
import type { FlotillaError } from '../../src/base/errors.ts';
import type { Client } from '../../src/client/client.ts';
import { type Consumer, type ConsumerOptions, OffsetOutOfRangeError } from '../../src/client/consumer.ts';
import type { ConsumerRecord } from '../../src/client/fetch-buffer.ts';
import { FakeCluster } from './fake-cluster.ts';

const code = (error: unknown) => (error as FlotillaError).code;
const textOf = (record: ConsumerRecord) => new TextDecoder().decode(record.value ?? new Uint8Array());

async function filled(count: number, partitions = 1, options: { seed?: number } = {}) {
  const cluster = new FakeCluster(options);
  const made = cluster.createTopic('t', partitions);
  const client = await cluster.client();
  await add(cluster, client, 0, count, partitions);
  return { cluster, client, partitions: made, partition: made[0]! };
}

async function add(cluster: FakeCluster, client: Client, from: number, to: number, partitions = 1): Promise<void> {
  const producer = client.producer({ maxBatchBytes: 300 });
  for (let i = from; i < to; i++) producer.enqueue('t', { value: `${i}`, partition: i % partitions, timestamp: 1000 + i });
  await cluster.settle(producer.flush());
  await cluster.settle(producer.close());
}

async function take(cluster: FakeCluster, consumer: Consumer, count: number): Promise<string[]> {
  const values: string[] = [];
  const read = async () => {
    for await (const record of consumer) {
      values.push(textOf(record));
      if (values.length === count) return;
    }
  };
  await cluster.settle(read());
  return values;
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `${from + i}`);

describe('consumer', () => {
  it('reads from the beginning, goes on with what is sent, and knows position, high watermark and lag', async () => {
    const { cluster, client } = await filled(100);
    const consumer = client.consumer({ topics: ['t'], from: 'beginning' });
    expect(await take(cluster, consumer, 60)).toEqual(range(0, 60));
    expect(consumer.position('t', 0)).toBe(60);
    expect(consumer.highWatermark('t', 0)).toBe(100);
    expect(consumer.lag()).toBe(40);
    expect(await take(cluster, consumer, 40)).toEqual(range(60, 100));
    const more = take(cluster, consumer, 10);
    await add(cluster, client, 100, 110);
    expect(await more).toEqual(range(100, 110));
    await cluster.settle(client.close());
  });

  const starts: [string, ConsumerOptions['from'], number][] = [
    ['end', 'end', 50],
    ['offset', { offset: 17 }, 17],
    ['time', { time: 1033 }, 33],
    ['time past the end', { time: 9999 }, 50],
  ];
  it.each(starts)('starts at %s', async (_name, from, first) => {
    const { cluster, client } = await filled(50);
    const consumer = client.consumer({ topics: [{ topic: 't', partitions: [0] }], from });
    await cluster.time.run(100);
    await add(cluster, client, 50, 60);
    expect(await take(cluster, consumer, 60 - first)).toEqual(range(first, 60));
    await cluster.settle(client.close());
  });

  it('keeps what lies in memory within the credit, and never stalls', async () => {
    const { cluster, client } = await filled(3000);
    const creditBytes = 2000;
    const consumer = client.consumer({ topics: ['t'], from: 'beginning', creditBytes });
    await cluster.time.run(5000);
    expect(cluster.maxUnconsumed).toBeGreaterThan(0);
    expect(await take(cluster, consumer, 3000)).toEqual(range(0, 3000));
    // One batch is always sent whole.
    expect(cluster.maxUnconsumed).toBeLessThan(creditBytes + 500);
    await cluster.settle(client.close());
  });

  it('reads a partition once that is named twice', async () => {
    const { cluster, client } = await filled(10, 2);
    const consumer = client.consumer({ topics: ['t', 't', { topic: 't', partitions: [1, 1] }], from: 'beginning' });
    expect((await take(cluster, consumer, 10)).sort()).toEqual(range(0, 10));
    const next = consumer[Symbol.asyncIterator]().next();
    await add(cluster, client, 10, 11, 2);
    expect(textOf((await cluster.settle(next)).value)).toBe('10');
    await cluster.settle(client.close());
  });

  it.each([
    ['from', { from: { offset: 1.5 } }],
    ['from', { from: { offset: 2 ** 60 } }],
    ['from', { from: { time: Number.NaN } }],
    ['creditBytes', { creditBytes: 0 }],
    ['creditBytes', { creditBytes: 1e6 / 3 }],
  ] as const)('refuses %s that is no whole number: %j', async (name, options) => {
    const { cluster, client } = await filled(1);
    expect(() => client.consumer({ topics: ['t'], ...options })).toThrow(name);
    await cluster.settle(client.close());
  });

  it('refuses to seek to what is no offset, and stays where it is', async () => {
    const { cluster, client } = await filled(10);
    const consumer = client.consumer({ topics: ['t'], from: 'beginning' });
    expect(await take(cluster, consumer, 4)).toEqual(range(0, 4));
    for (const to of [Number.NaN, 0.5, { offset: 2 ** 60 }, { time: 0.5 }]) {
      expect(code(await consumer.seek('t', 0, to).catch((error: unknown) => error))).toBe('INVALID_REQUEST');
    }
    expect(await take(cluster, consumer, 6)).toEqual(range(4, 10));
    const at = { time: 0.5 };
    const listed = client.admin.listOffsets([{ topic: 't', partition: 0, at }]).catch((error: unknown) => error);
    expect(code(await cluster.settle(listed))).toBe('INVALID_REQUEST');
    await cluster.settle(client.close());
  });

  it('does not pass over a response that is cut off in the middle of a batch', async () => {
    const { cluster, client, partition } = await filled(100);
    const [first] = partition.entries;
    const whole = first!.bytes;
    (first as { bytes: Uint8Array }).bytes = whole.subarray(0, whole.length - 5);
    const consumer = client.consumer({ topics: ['t'], from: 'beginning' });
    for (let i = 0; i < 3; i++) {
      const next = consumer[Symbol.asyncIterator]().next();
      expect(code(await cluster.settle(next.catch((error: unknown) => error)))).toBe('CORRUPT_MESSAGE');
      expect(consumer.position('t', 0)).toBe(0);
    }
    (first as { bytes: Uint8Array }).bytes = whole;
    await consumer.seek('t', 0, 0);
    expect(await take(cluster, consumer, 100)).toEqual(range(0, 100));
    await cluster.settle(client.close());
  });

  it('seeks at once, also in the middle of a batch', async () => {
    const { cluster, client } = await filled(100);
    const consumer = client.consumer({ topics: ['t'], from: 'beginning' });
    await take(cluster, consumer, 3);
    await cluster.settle(consumer.seek('t', 0, 42));
    expect(await take(cluster, consumer, 5)).toEqual(range(42, 47));
    await cluster.settle(consumer.seek('t', 0, 'beginning'));
    expect(await take(cluster, consumer, 2)).toEqual(range(0, 2));
    await cluster.settle(consumer.seek('t', 0, { time: 1090 }));
    expect(await take(cluster, consumer, 10)).toEqual(range(90, 100));
    await cluster.settle(client.close());
  });

  it('drops what an earlier generation left in flight', async () => {
    const { cluster, client, partition } = await filled(100);
    const consumer = client.consumer({ topics: ['t'], from: 'beginning' });
    await take(cluster, consumer, 1);
    await add(cluster, client, 100, 110);
    partition.commit();
    const seeking = consumer.seek('t', 0, 5);
    await cluster.settle(seeking);
    expect(await take(cluster, consumer, 105)).toEqual(range(5, 110));
    await cluster.settle(client.close());
  });

  it('pauses and resumes without a gap', async () => {
    const { cluster, client } = await filled(100, 2);
    const consumer = client.consumer({ topics: ['t'], from: 'beginning' });
    const first = await take(cluster, consumer, 5);
    await cluster.settle(consumer.pause('t', [0]));
    const odd = range(0, 100).filter((each) => Number(each) % 2 === 1);
    const left = odd.filter((each) => !first.includes(each));
    expect(await take(cluster, consumer, left.length)).toEqual(left);
    await cluster.settle(consumer.resume('t'));
    const even = range(0, 100).filter((each) => Number(each) % 2 === 0 && !first.includes(each));
    expect(await take(cluster, consumer, even.length)).toEqual(even);
    await cluster.settle(client.close());
  });

  it('yields batches whose records start at the position', async () => {
    const { cluster, client } = await filled(100);
    const consumer = client.consumer({ topics: ['t'], from: { offset: 7 } });
    const offsets: number[] = [];
    const read = async () => {
      for await (const batch of consumer.batches()) {
        offsets.push(...batch.records.map(({ offset }) => offset));
        if (offsets.at(-1) === 99) return;
      }
    };
    await cluster.settle(read());
    expect(offsets).toEqual(range(7, 100).map(Number));
    await cluster.settle(client.close());
  });

  it('throws the range when the offset is gone, or goes where it is told', async () => {
    const { cluster, client, partition } = await filled(50);
    partition.entries.splice(0, 2);
    partition.committed -= 2;
    partition.startOffset = partition.entries[0]!.baseOffset;
    const strict = client.consumer({ topics: ['t'], from: { offset: 0 } });
    const error = await take(cluster, strict, 1).catch((caught) => caught);
    expect(error).toMatchObject({ code: 'OFFSET_OUT_OF_RANGE', offset: 0, start: partition.startOffset, end: 50 });
    const lenient = client.consumer({ topics: ['t'], from: { offset: 0 }, onOutOfRange: 'beginning' });
    expect(await take(cluster, lenient, 1)).toEqual([`${partition.startOffset}`]);
    await cluster.settle(client.close());
  });

  it('never lets the high watermark go back', async () => {
    const { cluster, client, partition } = await filled(50);
    const consumer = client.consumer({ topics: ['t'], from: 'beginning' });
    await take(cluster, consumer, 50);
    for (const broker of cluster.brokers) broker.hwLag = 40;
    partition.moveTo(2);
    cluster.network.reset('client', 'broker1');
    await add(cluster, client, 50, 55);
    await take(cluster, consumer, 5);
    expect(consumer.highWatermark('t', 0)).toBe(50);
    await cluster.settle(client.close());
  });

  it('leaves a broker that is silent because it is cut off', async () => {
    const { cluster, client, partition } = await filled(10);
    const consumer = client.consumer({ topics: ['t'], from: 'beginning' });
    await take(cluster, consumer, 10);
    cluster.brokers[0]!.silent = true;
    partition.moveTo(2);
    const more = take(cluster, consumer, 5);
    await add(cluster, client, 10, 15);
    const start = cluster.time.nowMs;
    expect(await more).toEqual(range(10, 15));
    expect(cluster.time.nowMs - start).toBeLessThan(15_000);
    await cluster.settle(client.close());
  });

  it('ends on abort, on close, and throws for an unknown topic', async () => {
    const { cluster, client } = await filled(1);
    const controller = new AbortController();
    // Not settled at once: the test itself runs the time.
    const next = (consumer: AsyncIterable<unknown>) => consumer[Symbol.asyncIterator]().next();
    const aborted = next(client.consumer({ topics: ['t'], signal: controller.signal })).catch((error) => error);
    await cluster.time.run(50);
    controller.abort();
    expect(code(await cluster.settle(aborted))).toBe('ABORTED');
    const closing = client.consumer({ topics: ['t'] });
    const ended = next(closing);
    await cluster.time.run(50);
    await cluster.settle(closing.close());
    expect(await cluster.settle(ended)).toMatchObject({ done: true });
    const unknown = client.consumer({ topics: ['nowhere'] });
    expect(code(await take(cluster, unknown, 1).catch((error) => error))).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    await cluster.settle(client.close());
  });

  it('says that its topic was created again, when it has no word where to go', async () => {
    const { cluster, client } = await filled(10);
    const consumer = client.consumer({ topics: ['t'], from: 'beginning' });
    await take(cluster, consumer, 5);
    cluster.deleteTopic('t');
    cluster.createTopic('t');
    // More than the position: going on there would skip records without a word.
    const producer = client.producer();
    for (let i = 0; i < 20; i++) producer.enqueue('t', { value: `new ${i}` });
    await cluster.settle(producer.flush());
    const error = await cluster.settle(take(cluster, consumer, 100).catch((thrown: unknown) => thrown));
    expect(error).toBeInstanceOf(OffsetOutOfRangeError);
    expect(error).toMatchObject({ start: 0, message: expect.stringContaining('deleted and created again') });
    await cluster.settle(client.close());
  });

  it('reads a topic that was created again from where it was told, and nothing of the old one after that', async () => {
    const { cluster, client } = await filled(10);
    const consumer = client.consumer({ topics: ['t'], from: 'beginning', onOutOfRange: 'beginning' });
    expect(await take(cluster, consumer, 5)).toEqual(range(0, 5));
    cluster.deleteTopic('t');
    cluster.createTopic('t');
    const producer = client.producer();
    for (let i = 0; i < 20; i++) producer.enqueue('t', { value: `${100 + i}` });
    await cluster.settle(producer.flush());
    await cluster.time.run(5_000);
    expect(await take(cluster, consumer, 20)).toEqual(range(100, 120));
    await cluster.settle(client.close());
  });

  it('ends with its partition, when the topic comes back with fewer', async () => {
    const { cluster, client } = await filled(10, 2);
    const consumer = client.consumer({ topics: [{ topic: 't', partitions: [1] }], from: 'beginning' });
    await take(cluster, consumer, 5);
    cluster.deleteTopic('t');
    cluster.createTopic('t', 1);
    const error = await cluster.settle(take(cluster, consumer, 1).catch((thrown: unknown) => thrown));
    expect(code(error)).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    await cluster.settle(client.close());
  });

  it('closes with the whole cluster gone and leaves no timer', async () => {
    const { cluster, client } = await filled(10);
    const consumer = client.consumer({ topics: ['t'], from: 'beginning' });
    await take(cluster, consumer, 10);
    for (const broker of cluster.brokers) broker.stop();
    await cluster.time.run(3000);
    await cluster.settle(client.close({ deadlineMs: 500 }));
    await cluster.time.run(60_000);
    const { events } = cluster.time;
    await cluster.time.run(600_000);
    expect(cluster.time.events).toBe(events);
  });

  it.each(Array.from({ length: 20 }, (_, seed) => seed))('reads every record once and in order: schedule %i', async (seed) => {
    const { cluster, client, partitions } = await filled(60, 3, { seed });
    const { random } = cluster;
    const producer = client.producer({ maxBatchBytes: 300 });
    const consumer = client.consumer({ topics: ['t'], from: 'beginning', creditBytes: 100 + random.below(3000) });
    const got: string[][] = [[], [], []];
    let total = 0;
    const read = (async () => {
      for await (const record of consumer) {
        got[record.partition]!.push(textOf(record));
        if (++total === 300) return;
      }
    })();
    for (let i = 60; i < 300; i++) {
      producer.enqueue('t', { value: `${i}`, partition: i % 3 });
      if (random.chance(0.1)) await cluster.time.run(random.between(0, 30));
      if (random.chance(0.05)) random.pick(partitions).moveTo(1 + random.below(3));
      if (random.chance(0.05)) cluster.network.reset('client', `broker${1 + random.below(3)}`);
    }
    await cluster.settle(read);
    for (const partition of [0, 1, 2]) expect(got[partition]).toEqual(range(0, 300).filter((each) => Number(each) % 3 === partition));
    await cluster.settle(client.close());
  });
});

describe('a compacted topic', () => {
  it.each([
    ['in the middle', 2, -2],
    ['at the end', -3, undefined],
    ['everywhere', 0, undefined],
  ])('is read over what is gone, up to the end: %s', async (_where, from, to) => {
    const { cluster, client, partition } = await filled(400);
    for (const entry of partition.entries.slice(from, to)) partition.gone.add(entry);
    const consumer = client.consumer({ topics: ['t'], from: 'beginning', until: 'end' });
    expect(partition.entries.length).toBeGreaterThan(6);
    expect(await take(cluster, consumer, Number.POSITIVE_INFINITY)).toEqual(partition.values());
    expect(consumer.position('t', 0)).toBe(400);
    expect(consumer.lag()).toBe(0);
    expect(await take(cluster, consumer, 1)).toEqual([]);
    await cluster.settle(client.close());
  });

  it('is read on from within what is gone', async () => {
    const { cluster, client, partition } = await filled(400);
    for (const entry of partition.entries.slice(-3)) partition.gone.add(entry);
    const consumer = client.consumer({ topics: ['t'], from: { offset: 399 } });
    const more = take(cluster, consumer, 3);
    await add(cluster, client, 400, 403);
    expect(await more).toEqual(range(400, 403));
    await cluster.settle(client.close());
  });
});

it('of an empty topic there is nothing to wait for until its end', async () => {
  const { cluster, client } = await filled(0);
  expect(await take(cluster, client.consumer({ topics: ['t'], from: 'beginning', until: 'end' }), 1)).toEqual([]);
  await cluster.settle(client.close());
});

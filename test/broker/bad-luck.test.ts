import { create } from '@bufbuild/protobuf';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { FlotillaError } from '../../src/base/errors.ts';
import { FetchPartitionSchema, FetchRequestSchema } from '../../src/gen/flotilla/v1/data_pb.ts';
import { batch } from './batches.ts';
import { SimWorld, type Topic, textOf } from './sim-world.ts';

let world: SimWorld;
let topic: Topic;
let leader: number;
let others: readonly number[];

beforeAll(async () => {
  world = await SimWorld.start({ settings: { 'flotilla.wal.file.bytes': '4MiB' } });
});

beforeEach(async ({ task }) => {
  topic = await world.createTopic(task.id);
  leader = await world.leaderOf(topic);
  others = [1, 2, 3].filter((id) => id !== leader);
});

/** Whatever happened: every broker is there in the end, and the cluster takes records. */
afterEach(async () => {
  for (const { id } of world.cluster.machines) if (!world.cluster.isUp(id)) await world.settle(world.cluster.start(id));
  world.cluster.network.heal();
  await world.send(topic, 'last');
  world.assertAllUp();
});

afterAll(() => world[Symbol.asyncDispose]());

/** Every record that was acknowledged is there, once, in order; the rest of them are there once or not at all. */
async function expectNothingLost(acknowledged: readonly string[], maybe: readonly string[] = []): Promise<void> {
  await world.send(topic, 'end');
  const consumer = world.client.consumer({ topics: [topic.name], from: 'beginning' });
  const values: string[] = [];
  while (values.at(-1) !== 'end') values.push(...(await world.take(consumer, 1)).map(textOf));
  await world.settle(consumer.close());
  expect(values.filter((value) => !maybe.includes(value))).toEqual([...acknowledged, 'end']);
  expect(new Set(values).size).toBe(values.length);
}

describe('a majority gone', () => {
  // With the leader among the dead, nobody can be elected; with the leader alive, it has to step down by itself.
  it.each(['with the leader', 'without the leader'])(
    '%s: produce waits, then fails as retriable; consume of what is committed goes on',
    async (how) => {
      const sent = ['a', 'b', 'c'];
      await world.send(topic, ...sent);
      const survivor = how === 'with the leader' ? (others[0] as number) : leader;
      // A follower learns by the next message what is committed; one that never learned it could not serve it.
      await world.cluster.time.run(1_000);
      for (const { id } of world.cluster.machines) if (id !== survivor) world.cluster.kill(id);

      const producer = world.client.producer({ deliveryTimeoutMs: 5_000 });
      const startedMs = world.cluster.time.nowMs;
      const error = await world.refused(producer.send(topic.name, { value: 'd' }), 'REQUEST_TIMED_OUT', /not acknowledged|in time/);
      expect(error.retriable).toBe(true);
      expect(world.cluster.time.nowMs - startedMs).toBeGreaterThanOrEqual(5_000);
      await world.settle(producer.close({ deadlineMs: 1_000 }));

      expect(await world.readAll(topic, 3, { from: { offset: 0 } })).toEqual(sent);
      expect(await world.readAll(topic, 3, { from: 'beginning' })).toEqual(sent);

      for (const { id } of world.cluster.machines) if (id !== survivor) await world.settle(world.cluster.start(id));
      await world.send(topic, 'e');
      await expectNothingLost([...sent, 'e'], ['d']);
    },
  );

  it('a consumer that was reading goes on with what comes when they are back', async () => {
    const consumer = world.client.consumer({ topics: [topic.name], from: 'beginning' });
    await world.send(topic, 'a');
    expect((await world.take(consumer, 1)).map(textOf)).toEqual(['a']);
    for (const id of [leader, others[0] as number]) world.cluster.kill(id);
    const next = world.take(consumer, 1);
    await world.cluster.time.run(10_000);
    for (const id of [leader, others[0] as number]) await world.settle(world.cluster.start(id));
    await world.send(topic, 'b');
    expect((await next).map(textOf)).toEqual(['b']);
    await world.settle(consumer.close());
    await expectNothingLost(['a', 'b']);
  });

  it('topics can not be created, and come as soon as they can', async () => {
    for (const id of others) world.cluster.kill(id);
    const creation = world.client.admin.createTopic({ name: 'late', partitions: 1, replicas: 1 }, { timeoutMs: 5_000 });
    const error = await world.refused(creation, 'REQUEST_TIMED_OUT', /./);
    expect(error.retriable).toBe(true);
  });
});

describe('a minority gone', () => {
  it('costs nothing but a moment, whoever it is', async () => {
    const producer = world.client.producer();
    const sent: string[] = [];
    for (const dead of [leader, others[0] as number]) {
      const batches: Promise<unknown>[] = [];
      for (let i = 0; i < 20; i++) {
        sent.push(`${dead}: ${i}`);
        batches.push(producer.send(topic.name, { value: sent.at(-1) as string }));
        await world.cluster.time.run(5);
        if (i === 10) world.cluster.kill(dead);
      }
      await world.settle(Promise.all(batches), 10_000);
      await world.settle(world.cluster.start(dead));
    }
    await world.settle(producer.close());
    await expectNothingLost(sent);
  });
});

describe('a connection', () => {
  it('that swallows everything (half-open) holds nobody longer than the delivery timeout, and loses nothing', async () => {
    await world.send(topic, 'a');
    const producer = world.client.producer({ deliveryTimeoutMs: 5_000 });
    for (const { id } of world.cluster.machines) {
      world.cluster.network.block('client', `broker-${id}`);
      world.cluster.network.block(`broker-${id}`, 'client');
    }
    const error = await world.refused(producer.send(topic.name, { value: 'b' }), 'REQUEST_TIMED_OUT', /./);
    expect(error.retriable).toBe(true);
    world.cluster.network.heal();
    await world.settle(producer.send(topic.name, { value: 'c' }));
    await world.settle(producer.close());
    await expectNothingLost(['a', 'c'], ['b']);
  });

  it('that swallows the answers alone makes no duplicates', async () => {
    const producer = world.client.producer();
    await world.settle(producer.send(topic.name, { value: 'a' }));
    world.cluster.network.block(`broker-${leader}`, 'client');
    const sent = producer.send(topic.name, { value: 'b' });
    await world.cluster.time.run(40_000);
    world.cluster.network.heal();
    await world.settle(sent);
    await world.settle(producer.close());
    await expectNothingLost(['a', 'b']);
  });

  it('that breaks in mid-stream again and again loses and doubles nothing', async () => {
    const producer = world.client.producer();
    const sent: string[] = [];
    const acknowledged: Promise<unknown>[] = [];
    for (let i = 0; i < 60; i++) {
      sent.push(`value ${i}`);
      acknowledged.push(producer.send(topic.name, { value: sent.at(-1) as string }));
      await world.cluster.time.run(i % 3);
      if (i % 10 === 9) world.cluster.network.reset('client', `broker-${leader}`);
    }
    await world.settle(Promise.all(acknowledged));
    await world.settle(producer.close());
    await expectNothingLost(sent);
  });

  it('cut off with half of a client’s batches on their way leaves whole batches behind, in order', async () => {
    const produce = world.produceStream(leader);
    const timestamp = world.cluster.time.epochMs;
    const values = Array.from({ length: 30 }, (_, i) => `raw ${i}`);
    for (const [i, value] of values.entries()) {
      produce.send({ correlation: i, topicId: topic.topicId, recordBatch: batch(1, { value, timestamp }) });
      if (i === 20) await world.cluster.time.run(0.3);
    }
    world.cluster.network.reset('client', `broker-${leader}`);
    await world.cluster.time.run(5_000);
    expect(produce.closedWith).toBeInstanceOf(FlotillaError);
    const acknowledged = produce.results.map(({ correlation }) => `raw ${correlation}`);
    await expectNothingLost(acknowledged, values.slice(acknowledged.length));
  });
});

describe('a slow reader', () => {
  // Of answers and errors: produce.test.ts and fetch.test.ts.
  it('costs the broker no more than a stream’s buffer', async () => {
    const value = 'x'.repeat(100_000);
    const producer = world.client.producer();
    await world.settle(Promise.all(Array.from({ length: 150 }, () => producer.send(topic.name, { value }))));
    world.cluster.network.block(`broker-${leader}`, 'slow');
    const { connect } = world.cluster.client('slow');
    const reader = world.fetchStream(leader, connect);
    const set = [create(FetchPartitionSchema, { partitionHandle: 1, topicId: topic.topicId, generation: 1 })];
    reader.stream.send(create(FetchRequestSchema, { set, creditBytes: 1n << 40n }));
    await world.cluster.time.run(10_000);
    expect(world.cluster.network.bufferedBytes(`broker-${leader}`, 'slow')).toBeLessThan(8 << 20);
    await world.settle(producer.send(topic.name, { value: 'still fast' }));
    await world.settle(producer.close());
    reader.stream.cancel();
  });
});

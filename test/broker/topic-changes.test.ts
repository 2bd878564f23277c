import { describe, expect, it } from 'vitest';
import { batch } from './batches.ts';
import { SimWorld } from './sim-world.ts';

const text = (n: number) => ({ value: new TextEncoder().encode(`value ${n}`.padEnd(300, '.')) });

async function produce(world: SimWorld, from: number, to: number): Promise<void> {
  const producer = world.client.producer();
  for (let n = from; n < to; n++) await world.settle(producer.send('orders', text(n)));
}

const logsOf = (world: SimWorld, nextOffset: number) =>
  world.cluster.machines.map(({ broker }) => [...(broker?.replicas ?? [])].find(({ log }) => log.nextOffset === nextOffset)?.log);

describe('records that are deleted', () => {
  it('are gone on all brokers, by way of any of them, and the others keep their offsets', async () => {
    await using world = await SimWorld.start();
    const topic = await world.createTopic('orders', { 'segment.bytes': '2000' });
    await produce(world, 0, 40);
    const { admin } = world.client;
    expect(await world.settle(admin.deleteRecords([{ topic: 'orders', partition: 0, before: 25 }]))).toEqual([25]);
    // Below what is gone already, and to where it starts: nothing to do.
    expect(await world.settle(admin.deleteRecords([{ topic: 'orders', partition: 0, before: 3 }]))).toEqual([25]);
    const values = await world.readAll(topic, 15);
    expect(values[0]).toMatch(/^value 25\./);
    expect(values.at(-1)).toMatch(/^value 39\./);
    expect(await world.settle(admin.listOffsets([{ topic: 'orders', partition: 0, at: 'beginning' }]))).toEqual([25]);
    await world.cluster.time.run(3_000);
    for (const log of logsOf(world, 40)) {
      expect(log?.logStartOffset).toBe(25);
      expect(log?.firstReplicableIndex).toBeGreaterThan(10);
    }
    world.assertAllUp();
  });

  it('all of them: the next one goes on at the offset, over a restart of all', async () => {
    await using world = await SimWorld.start();
    await world.createTopic('orders');
    await produce(world, 0, 10);
    expect(await world.settle(world.client.admin.deleteRecords([{ topic: 'orders', partition: 0, before: 'end' }]))).toEqual([10]);
    await world.cluster.time.run(3_000);
    for (const log of logsOf(world, 10)) expect(log?.sizeBytes).toBe(0);
    await world.restartAll();
    await produce(world, 10, 11);
    const { partitions } = await world.settle(world.client.admin.describeTopic('orders'));
    expect(partitions[0]).toMatchObject({ logStartOffset: 10, highWatermark: 11 });
  });

  it('are refused above the high watermark, and of what is not there', async () => {
    await using world = await SimWorld.start();
    await world.createTopic('orders');
    await produce(world, 0, 3);
    const cut = (offset: number, partition = 0, topic = 'orders') =>
      world.client.admin.deleteRecords([{ topic, partition, before: offset }]);
    await world.refused(cut(4), 'OFFSET_OUT_OF_RANGE', /orders-0 can't start at offset 4: it holds 0 to 3/);
    await world.refused(cut(-1), 'OFFSET_OUT_OF_RANGE', /-1 is no offset/);
    await world.refused(cut(1, 7), 'UNKNOWN_TOPIC_OR_PARTITION', /no partition 7/);
    await world.refused(cut(1, 0, 'none'), 'UNKNOWN_TOPIC_OR_PARTITION', /no topic none/);
  });
});

describe('settings of a topic', () => {
  it('change while it is in use: brokers obey, restarts keep it, what is removed is the default again', async () => {
    await using world = await SimWorld.start({ settings: { 'log.retention.check.interval.ms': 1_000 } });
    await world.createTopic('orders', { 'segment.bytes': '2000', 'max.message.bytes': '1000' });
    await produce(world, 0, 40);
    const { admin } = world.client;
    const set = { 'retention.bytes': '4000', 'max.message.bytes': '2000' };
    expect(await world.settle(admin.alterTopicConfigs('orders', { set, validateOnly: true }))).toEqual({ 'segment.bytes': '2000', ...set });
    await world.cluster.time.run(3_000);
    expect(logsOf(world, 40).map((log) => log?.logStartOffset)).toEqual([0, 0, 0]);
    await world.settle(admin.alterTopicConfigs('orders', { set }));
    await world.cluster.time.run(3_000);
    for (const log of logsOf(world, 40)) expect(log?.logStartOffset).toBeGreaterThan(20);
    await world.settle(world.client.producer().send('orders', { value: new Uint8Array(1_500) }));

    expect(await world.settle(admin.alterTopicConfigs('orders', { remove: ['retention.bytes', 'segment.ms'] }))).toEqual({
      'segment.bytes': '2000',
      'max.message.bytes': '2000',
    });
    await world.restartAll();
    const { configs } = await world.settle(admin.describeTopic('orders'));
    expect(configs).toEqual({ 'segment.bytes': '2000', 'max.message.bytes': '2000' });
  });

  it('are refused with what is allowed, and then nothing of the call is done', async () => {
    await using world = await SimWorld.start();
    await world.createTopic('orders');
    const { admin } = world.client;
    const alter = (set: Record<string, string>) => admin.alterTopicConfigs('orders', { set });
    await world.refused(alter({ 'retention.ms': '1h', 'retention.byte': '1' }), 'INVALID_CONFIG', /Did you mean retention\.bytes\?/);
    await world.refused(alter({ 'retention.ms': 'soon' }), 'INVALID_CONFIG', /a duration like/);
    await world.refused(admin.alterTopicConfigs('none', { set: {} }), 'UNKNOWN_TOPIC_OR_PARTITION', /no topic 'none'/);
    expect((await world.settle(admin.describeTopic('orders'))).configs).toEqual({});
  });
});

it('a producer whose batches are all below the start is remembered over a restart: what it sends again is not appended again (B30)', async () => {
  await using world = await SimWorld.start();
  const topic = await world.createTopic('orders');
  const { topicId } = topic;
  const one = { topicId, recordBatch: batch(1, { producer: [1, 0, 0] }) };
  const others = Array.from({ length: 6 }, (_, n) => ({ topicId, recordBatch: batch(1, { producer: [2, 0, n] }) }));
  const sent = world.produceStream(await world.leaderOf(topic));
  for (const each of [one, ...others]) expect((await sent.produce(each))[0]?.error).toBeUndefined();
  expect(await world.settle(world.client.admin.deleteRecords([{ topic: 'orders', partition: 0, before: 4 }]))).toEqual([4]);
  // What a clean stop has synced is read from the segments.
  for (const { broker } of world.cluster.machines) await world.settle(broker?.stop(10_000) ?? Promise.resolve());
  await world.settle(Promise.all(world.cluster.machines.map(({ id }) => world.cluster.start(id))));
  const { signal } = new AbortController();
  await world.settle(Promise.all(world.cluster.machines.map(({ broker }) => broker?.ready(signal))));
  expect(logsOf(world, 7).map((log) => log?.logStartOffset)).toEqual([4, 4, 4]);
  await world.cluster.time.run(5_000);
  const again = world.produceStream(await world.leaderOf(topic));
  const [duplicate] = await again.produce({ topicId, recordBatch: batch(1, { producer: [1, 0, 0] }) });
  expect(duplicate?.error).toBeUndefined();
  expect(duplicate?.baseOffset).toBe(0n);
});

import { expect, test } from 'vitest';
import type { RaftReplica } from '../../src/raft/replica.ts';
import { BatchBuilder } from '../../src/record/builder.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import { SimWorld, type Topic, textOf } from './sim-world.ts';

const DELETE_RETENTION_MS = 2_000;
const compacted = {
  'cleanup.policy': 'compact',
  'segment.bytes': '2000',
  'min.cleanable.dirty.ratio': '0.01',
  'delete.retention.ms': String(DELETE_RETENTION_MS),
};
const settings = { 'log.cleaner.backoff.ms': 200 };
const text = new TextEncoder();

/** The replicas of the topic, of the brokers that are up. */
function replicasOf(world: SimWorld, { topicId }: Topic): RaftReplica[] {
  const all = world.cluster.machines.flatMap(({ id, broker }) => (world.cluster.isUp(id) ? [...(broker?.replicas ?? [])] : []));
  return (all as RaftReplica[]).filter(({ group }) => Buffer.from(group, 'latin1').subarray(0, 16).equals(Buffer.from(topicId)));
}

type KeyAndValue = readonly [key: string, value: string | null];

async function send(world: SimWorld, { name }: Topic, count: number, record: (n: number) => KeyAndValue): Promise<void> {
  const producer = world.client.producer();
  for (let n = 0; n < count; n++) {
    const [key, value] = record(n);
    await world.settle(producer.send(name, { key, value: value?.padEnd(100, '.') ?? null }));
  }
  await world.settle(producer.close());
}

/** Ends the segments of the records before: what is in the last ones is not cleaned. */
const fill = (world: SimWorld, topic: Topic) => send(world, topic, 60, (n) => [`filler ${n % 2}`, `filling ${n}`]);

const remove = (world: SimWorld, topic: Topic, key: string) => send(world, topic, 1, () => [key, null]);

/** What a consumer reads from the beginning to the end. */
async function readAll(world: SimWorld, { name }: Topic) {
  const consumer = world.client.consumer({ topics: [name], from: 'beginning', until: 'end' });
  const records: { key: string; value: string | undefined; offset: number }[] = [];
  const read = async () => {
    for await (const record of consumer) {
      const value = record.value === null ? undefined : textOf(record).replace(/\.+$/, '');
      records.push({ key: new TextDecoder().decode(record.key ?? undefined), value, offset: record.offset });
    }
  };
  await world.settle(read());
  await world.settle(consumer.close());
  return records;
}

const lastOfEach = (records: readonly { key: string; value: string | undefined; offset: number }[]) =>
  Object.fromEntries(records.map(({ key, value, offset }) => [key, [value, offset]]));

test('of a compacted topic the newest record of each key is left on all replicas, at its offset, through restarts; tombstones go in the end', async () => {
  await using world = await SimWorld.start({ settings });
  const topic = await world.createTopic('profiles', compacted);
  await send(world, topic, 100, (n) => [`k${n % 5}`, `value ${n}`]);
  await remove(world, topic, 'k0');
  await fill(world, topic);
  await world.cluster.time.run(1_000);
  const expected = { k0: [undefined, 100], k1: ['value 96', 96], k2: ['value 97', 97], k3: ['value 98', 98], k4: ['value 99', 99] };
  const early = await readAll(world, topic);
  expect(lastOfEach(early)).toMatchObject(expected);
  expect(early.length).toBeLessThan(60);
  expect(early.map(({ offset }) => offset)).toEqual(early.map(({ offset }) => offset).toSorted((a, b) => a - b));
  for (const { log } of replicasOf(world, topic)) {
    expect(log.nextOffset).toBe(161);
    expect(log.cleanedTo).toBeGreaterThan(100);
    expect(log.sizeBytes).toBeLessThan(12_000);
  }

  await world.restartAll();
  expect(lastOfEach(await readAll(world, topic))).toMatchObject(expected);

  await world.cluster.time.run(2 * DELETE_RETENTION_MS);
  for (const { log } of replicasOf(world, topic)) expect(log.tombstoneFloor).toBeGreaterThan(100);
  await fill(world, topic);
  await world.cluster.time.run(2_000);
  const { k0, ...others } = lastOfEach(await readAll(world, topic));
  expect(k0).toBeUndefined();
  expect(others).toMatchObject({ k1: expected.k1, k4: expected.k4 });
  world.assertAllUp();
});

test('while a replica is away tombstones stay on the others; when it is back it gets what they have, and they go', async () => {
  await using world = await SimWorld.start({ settings });
  const topic = await world.createTopic('profiles', compacted);
  const leader = await world.leaderOf(topic);
  await send(world, topic, 10, (n) => ['gone', `value ${n}`]);
  const away = [1, 2, 3].find((id) => id !== leader) as number;
  world.cluster.kill(away);
  await remove(world, topic, 'gone');
  await fill(world, topic);
  await world.cluster.time.run(10 * DELETE_RETENTION_MS);
  await fill(world, topic);
  await world.cluster.time.run(2_000);
  for (const { log } of replicasOf(world, topic)) {
    expect(log.cleanedTo).toBeGreaterThan(11);
    expect(log.tombstoneFloor).toBe(0);
  }
  expect(lastOfEach(await readAll(world, topic))['gone']).toEqual([undefined, 10]);

  await world.settle(world.cluster.start(away));
  const floors = () => replicasOf(world, topic).map(({ log }) => log.tombstoneFloor);
  expect(await world.cluster.time.runUntil(() => floors().length === 3 && floors().every((floor) => floor > 10), 60_000)).toBe(true);
  await fill(world, topic);
  await world.cluster.time.run(2_000);
  expect(lastOfEach(await readAll(world, topic))['gone']).toBeUndefined();
  for (const { log } of replicasOf(world, topic)) {
    const { chunks } = await world.settle(log.read(0, log.nextOffset, 1 << 20));
    expect(Buffer.concat(chunks).includes('value')).toBe(false);
  }
  world.assertAllUp();
});

test('producers are remembered whose batches are gone: a batch that is sent again is not appended again (B30)', async () => {
  await using world = await SimWorld.start({ settings });
  const topic = await world.createTopic('profiles', compacted);
  const numbered = (n: number) => {
    const builder = new BatchBuilder({ crc32c });
    builder.append(text.encode('same'), text.encode(`value ${n}`.padEnd(300, '.')), [], 1_700_000_000_000);
    builder.setProducer(4711, 0, n);
    return { topicId: topic.topicId, recordBatch: builder.build() };
  };
  let raw = world.produceStream(await world.leaderOf(topic));
  for (let n = 0; n < 12; n++) expect((await raw.produce(numbered(n)))[0]?.baseOffset).toBe(BigInt(n));
  await fill(world, topic);
  await world.cluster.time.run(1_000);
  const left = (await readAll(world, topic)).filter(({ key }) => key === 'same');
  expect(left.map(({ offset }) => offset)).toEqual([11]);
  await world.restartAll();
  await world.cluster.time.run(3_000);
  raw = world.produceStream(await world.leaderOf(topic));
  for (const n of [9, 10, 11]) expect((await raw.produce(numbered(n)))[0]).toMatchObject({ baseOffset: BigInt(n) });
  expect((await raw.produce(numbered(12)))[0]?.baseOffset).toBe(72n);
  world.assertAllUp();
});

test('a policy that is altered while the topic is in use: records without keys are refused from then on, and those that are there go', async () => {
  await using world = await SimWorld.start({ settings });
  const topic = await world.createTopic('profiles', { ...compacted, 'cleanup.policy': 'delete' });
  await world.send(topic, ...Array.from({ length: 30 }, (_, n) => `no key ${n}`.padEnd(200, '.')));
  await world.settle(world.client.admin.alterTopicConfigs(topic.name, { set: { 'cleanup.policy': 'compact,delete' } }));
  await world.cluster.time.run(500);
  await world.refused(world.client.producer().send(topic.name, { value: 'no key' }), 'INVALID_RECORD', /give every record a key/);
  await send(world, topic, 60, (n) => [`k${n % 2}`, `value ${n}`]);
  await world.cluster.time.run(1_000);
  const records = await readAll(world, topic);
  expect(records.filter(({ key }) => key === '')).toEqual([]);
  expect(lastOfEach(records)).toEqual({ k0: ['value 58', 88], k1: ['value 59', 89] });
  world.assertAllUp();
});

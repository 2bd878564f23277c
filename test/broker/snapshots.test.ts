import { create } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import { METADATA_GROUP } from '../../src/base/ids.ts';
import { FetchPartitionSchema, FetchRequestSchema } from '../../src/gen/flotilla/v1/data_pb.ts';
import type { RaftReplica } from '../../src/raft/replica.ts';
import { batch } from './batches.ts';
import { SimWorld, type Topic } from './sim-world.ts';

const PRODUCER = 4711;
const EVERYTHING = Number.MAX_SAFE_INTEGER;

function replicaOf(world: SimWorld, broker: number, group: (key: string) => boolean): RaftReplica {
  const replicas = [...(world.cluster.machine(broker).broker?.replicas ?? [])] as RaftReplica[];
  const found = replicas.find((replica) => group(replica.group));
  if (found === undefined) throw new Error(`broker ${broker} has no such replica`);
  return found;
}

const partitionOf = (world: SimWorld, broker: number, { topicId }: Topic) =>
  replicaOf(world, broker, (key) => Buffer.from(key, 'latin1').subarray(0, 16).equals(Buffer.from(topicId)));
const metadataOf = (world: SimWorld, broker: number) => replicaOf(world, broker, (key) => key === METADATA_GROUP);

const idsBut = (away: number) => [1, 2, 3].filter((id) => id !== away);

/** Restarts them, so that they hold in memory no more than their logs do; returns who leads then. */
async function restartAll(world: SimWorld, ids: readonly number[], replica: (id: number) => RaftReplica): Promise<number> {
  for (const id of ids) world.cluster.kill(id);
  await world.settle(Promise.all(ids.map((id) => world.cluster.start(id))));
  const leads = (id: number) => {
    try {
      return replica(id).leadership.ready;
    } catch {
      return false;
    }
  };
  expect(await world.cluster.time.runUntil(() => ids.some(leads), 60_000)).toBe(true);
  const { signal } = new AbortController();
  await world.settle(Promise.all(ids.map((id) => world.cluster.machine(id).broker?.ready(signal))));
  return ids.find(leads) as number;
}

/** One batch of the idempotent producer: the n-th, of one record. */
const sent = ({ topicId }: Topic, n: number) => ({
  topicId,
  recordBatch: batch(1, { producer: [PRODUCER, 0, n], value: `value ${n}`.padEnd(300, '.') }),
});

test('a broker that comes back below the start of a partition’s log gets a snapshot, and leads on: nothing doubled, all readable (B30, B36)', async () => {
  await using world = await SimWorld.start();
  const topic = await world.createTopic('orders', { 'segment.bytes': '2000' });
  let leader = await world.leaderOf(topic);
  const away = idsBut(leader)[0] as number;
  let producer = world.produceStream(leader);
  const produce = async (from: number, to: number): Promise<number[]> => {
    const offsets: number[] = [];
    for (let n = from; n < to; n++) {
      const [result] = await producer.produce(sent(topic, n));
      expect(result?.error).toBeUndefined();
      offsets.push(Number(result?.baseOffset));
    }
    return offsets;
  };
  await produce(0, 5);
  world.cluster.kill(away);
  await produce(5, 45);
  for (const id of idsBut(away)) expect(await world.settle(partitionOf(world, id, topic).log.dropBefore(30))).toBeGreaterThan(10);
  leader = await restartAll(world, idsBut(away), (id) => partitionOf(world, id, topic));
  producer = world.produceStream(leader);
  await world.settle(world.cluster.start(away));
  // Producers go on while it installs.
  const offsets = await produce(45, 60);
  const { log } = partitionOf(world, leader, topic);
  expect(await world.cluster.time.runUntil(() => partitionOf(world, away, topic).log.lastIndex >= log.lastIndex, 30_000)).toBe(true);
  const installed = partitionOf(world, away, topic);
  expect(installed.log.logStartOffset).toBeGreaterThan(5);

  await world.settle(partitionOf(world, leader, topic).transferLeadership(installed.replicaId, new AbortController().signal));
  expect(await world.cluster.time.runUntil(() => installed.leadership.ready, 10_000)).toBe(true);
  // It knows the producer from the snapshot and what followed: what was appended before is not appended again, what is missing is missed.
  const restored = world.produceStream(away);
  const [again] = await restored.produce(sent(topic, 59));
  expect(Number(again?.baseOffset)).toBe(offsets.at(-1));
  const [gap] = await restored.produce(sent(topic, 70));
  expect(gap?.error?.message).toMatch(/sequence 70/);
  const [next] = await restored.produce(sent(topic, 60));
  expect(Number(next?.baseOffset)).toBe(60);

  const start = installed.log.logStartOffset;
  const values = await world.readAll(topic, 61 - start);
  expect(values.map((value) => Number(value.replaceAll('.', '').split(' ')[1]))).toEqual(
    Array.from({ length: 61 - start }, (_, i) => start + i),
  );
  const reader = world.fetchStream(away);
  const set = [create(FetchPartitionSchema, { partitionHandle: 1, topicId: topic.topicId, offset: 0n })];
  reader.stream.send(create(FetchRequestSchema, { set, creditBytes: 1n << 20n }));
  expect(await world.cluster.time.runUntil(() => reader.results.length > 0, 10_000)).toBe(true);
  expect(reader.results[0]?.error?.message).toContain(`it holds ${start} to 61`);
  world.assertAllUp();
});

test('a controller that comes back below the start of the metadata log goes on from a checkpoint', async () => {
  await using world = await SimWorld.start();
  let leader = [1, 2, 3].find((id) => metadataOf(world, id).leadership.ready) as number;
  const away = idsBut(leader)[0] as number;
  await world.createTopic('before');
  world.cluster.kill(away);
  for (const name of ['a', 'b', 'c']) await world.createTopic(name);
  await world.cluster.time.run(1_000);
  for (const id of idsBut(away)) expect(await world.settle(metadataOf(world, id).log.dropBefore(EVERYTHING))).toBeGreaterThan(5);
  leader = await restartAll(world, idsBut(away), (id) => metadataOf(world, id));
  // What it has in its store is of no more use than its log.
  world.cluster.machine(away).stores.clear();
  await world.settle(world.cluster.start(away));
  await world.createTopic('after');
  const target = metadataOf(world, leader).log;
  expect(await world.cluster.time.runUntil(() => metadataOf(world, away).log.lastIndex >= target.lastIndex, 30_000)).toBe(true);
  expect(metadataOf(world, away).log.firstReplicableIndex).toBeGreaterThan(5);
  // It holds the replicas of all of them, as the metadata say, and can lead the quorum.
  expect(await world.cluster.time.runUntil(() => [...(world.cluster.machine(away).broker?.replicas ?? [])].length === 6, 30_000)).toBe(
    true,
  );
  // Until the leader hears it again.
  await world.cluster.time.run(1_000);
  await world.settle(metadataOf(world, leader).transferLeadership(metadataOf(world, away).replicaId, new AbortController().signal));
  await world.createTopic('by the new one'.replaceAll(' ', '-'));
  const { topics } = await world.settle(world.client.admin.describeCluster());
  expect(topics.map(({ name }) => name).sort()).toEqual(['a', 'after', 'b', 'before', 'by-the-new-one', 'c']);
  // Once more, from what it has now.
  world.cluster.kill(away);
  await world.settle(world.cluster.start(away));
  expect(await world.cluster.time.runUntil(() => [...(world.cluster.machine(away).broker?.replicas ?? [])].length === 7, 30_000)).toBe(
    true,
  );
  world.assertAllUp();
});

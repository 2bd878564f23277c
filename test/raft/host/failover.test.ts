/** The death of a broker that leads many groups: how many writes its elections take, and in which order they come. */
import { expect, test } from 'vitest';
import type { BrokerId } from '../../../src/base/ids.ts';
import { decodeFrame } from '../../../src/raft/codec.ts';
import type { Configuration } from '../../../src/raft/core/types.ts';
import { brokers, Cluster, configurationOf, groupKey, METADATA } from './cluster.ts';

const [dying, ...survivors] = brokers as [BrokerId, ...BrokerId[]];

/** The dying broker first, and each survivor second in half of the groups. */
function rotated(group: number): Configuration {
  const [first, second, third] = configurationOf(group).voters;
  const voters = group % 2 === 0 ? [first, second, third] : [first, third, second];
  return { voters: voters.filter((voter) => voter !== undefined), outgoing: [], learners: [] };
}

async function ledBy(broker: BrokerId, groups: readonly number[], cluster: Cluster, configuration = rotated): Promise<void> {
  for (const each of brokers) cluster.boot(each);
  for (const group of groups) {
    for (const each of brokers) await cluster.open(each, group, each === broker, undefined, configuration(group));
  }
  await cluster.environment.until(() => groups.every((group) => cluster.leader(group) === broker), 'one broker leads all');
}

test.each(['at rest', 'in use'])('1000 groups %s of a broker that dies have leaders, with few writes to each log', async (state) => {
  const groups = Array.from({ length: 1000 }, (_, group) => group);
  const cluster = new Cluster(state === 'at rest' ? {} : { quiesceAfterMs: 0 });
  await ledBy(dying, groups, cluster);
  await cluster.environment.run(3_000);
  expect(groups.every((group) => cluster.replica(dying, group).quiesced)).toBe(state === 'at rest');
  const flushes = () => survivors.map((broker) => cluster.node(broker).storage.wal.statistics.flushes);
  const before = flushes();
  const diedAt = cluster.environment.monotonicMs();
  cluster.kill(dying);
  await cluster.environment.until(() => groups.every((group) => cluster.leader(group) !== undefined), 'all groups have leaders');
  expect(cluster.environment.monotonicMs() - diedAt).toBeLessThan(500);
  flushes().forEach((count, at) => {
    expect(count - (before[at] ?? 0)).toBeLessThanOrEqual(10);
    expect(count - (before[at] ?? 0)).toBeGreaterThan(0);
  });
  // Both lead, and nobody campaigned twice.
  for (const broker of survivors) expect(groups.filter((group) => cluster.leader(group) === broker)).toHaveLength(500);
  for (const group of groups) expect(cluster.replica(survivors[0] as BrokerId, group).leadership.term).toBe(2);
  for (const group of groups) cluster.propose(cluster.leader(group) as BrokerId, 'x', group);
  await cluster.environment.until(
    () => groups.every((group) => survivors.every((broker) => cluster.owner(broker, group).commands.length === 1)),
    'each takes a write',
  );
  cluster.assertHealthy();
});

test('elections are paced: the metadata group first, then internal topics, then the others', async () => {
  const cluster = new Cluster({ campaignsPerPace: 10 });
  const groups = [...Array.from({ length: 30 }, (_, group) => group), METADATA];
  const internal = [7, 17, 27];
  for (const group of internal) cluster.internal.add(group);
  await ledBy(dying, groups, cluster, configurationOf);
  const order: string[] = [];
  const times: number[] = [];
  const candidate = survivors[0] as BrokerId;
  cluster.network.observe = (from, to, lane, frame) => {
    if (lane !== 'raft' || from !== candidate || to !== survivors[1]) return;
    const votes = decodeFrame(frame).filter(({ message }) => message.type === 'vote' && message.pre);
    if (votes.length > 0) times.push(cluster.environment.monotonicMs());
    order.push(...votes.map(({ group }) => group));
  };
  cluster.kill(dying);
  // All of them campaign on this broker: the other one is held back.
  cluster.pauses.get(survivors[1] as BrokerId)?.pause();
  await cluster.environment.run(400);
  const names = groups.map((group) => [groupKey(group), group] as const);
  const campaigned = order.map((key) => names.find(([name]) => name === key)?.[1]);
  expect(new Set(campaigned.slice(0, 10))).toEqual(new Set([METADATA, ...internal, 0, 1, 2, 3, 4, 5]));
  expect(new Set(campaigned.slice(10, 20))).toEqual(new Set([6, 8, 9, 10, 11, 12, 13, 14, 15, 16]));
  expect(campaigned).toHaveLength(31);
  const [first = 0] = times;
  expect(times.map((time) => time - first)).toEqual([0, 100, 200, 300]);
  cluster.pauses.get(survivors[1] as BrokerId)?.resume();
  await cluster.environment.until(() => groups.every((group) => cluster.leader(group) !== undefined), 'all groups have leaders');
  cluster.assertHealthy();
});

test('a survivor that notices the death later than the other does not hold up the elections', async () => {
  const groups = Array.from({ length: 20 }, (_, group) => group);
  const cluster = new Cluster();
  await ledBy(dying, groups, cluster);
  await cluster.environment.run(2_000);
  const [first, later] = survivors as [BrokerId, BrokerId];
  const gone = cluster.node(dying);
  gone.storage.wal.dead = true;
  cluster.nodes.delete(dying);
  cluster.network.receivers.delete(dying);
  void gone.host.stop();
  const notice = (broker: BrokerId) => {
    for (const lane of ['raft', 'heartbeat'] as const) cluster.network.receivers.get(broker)?.disconnected(dying, lane);
  };
  const diedAt = cluster.environment.monotonicMs();
  notice(first);
  await cluster.environment.run(200);
  expect(groups.some((group) => cluster.leader(group) !== undefined)).toBe(false);
  notice(later);
  await cluster.environment.until(() => groups.every((group) => cluster.leader(group) !== undefined), 'all groups have leaders');
  expect(cluster.environment.monotonicMs() - diedAt).toBeLessThan(250);
  cluster.assertHealthy();
});

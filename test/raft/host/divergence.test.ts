/** B29: a log that differs from those of the majority is found, and its replica takes no part any more. */
import { afterEach, expect, test } from 'vitest';
import type { BrokerId } from '../../../src/base/ids.ts';
import { decodeFrame } from '../../../src/raft/codec.ts';
import type { Entry } from '../../../src/raft/core/entry.ts';
import { makeEntry } from '../../../src/raft/core/entry-codec.ts';
import type { Configuration } from '../../../src/raft/core/types.ts';
import { brokers, Cluster, configurationOf, groupKey, replicaIdOf } from './cluster.ts';

let cluster: Cluster;
afterEach(() => cluster.assertHealthy());

const others = (broker: BrokerId) => brokers.filter((other) => other !== broker);

/** While the broker is down: what its disk has at `index` becomes something else, with all that checks a single entry intact. */
function damage(broker: BrokerId, index: number): void {
  const disk = cluster.disks.get(broker)!.group(groupKey(0));
  let previous: Entry | undefined;
  disk.entries = disk.entries.map((entry) => {
    const payloadChecksum = entry.index === index ? entry.payloadChecksum + 1 : entry.payloadChecksum;
    const { header: _, chainHigh: __, chainLow: ___, ...fields } = entry;
    const before = previous ?? { chainHigh: 0, chainLow: 0 };
    previous = entry.index < index ? entry : makeEntry({ ...fields, payloadChecksum, previous: before });
    return previous;
  });
}

async function restart(damaged: BrokerId, index: number, configuration?: Configuration): Promise<void> {
  cluster.kill(damaged);
  damage(damaged, index);
  cluster.boot(damaged);
  await cluster.open(damaged, 0, false, undefined, configuration);
}

async function withWrites(configuration?: Configuration): Promise<BrokerId> {
  cluster = new Cluster();
  for (const broker of brokers) cluster.boot(broker);
  for (const broker of brokers) await cluster.open(broker, 0, broker === brokers[0], undefined, configuration);
  const leader = await cluster.elected();
  for (const text of ['a', 'b', 'c']) cluster.propose(leader, text);
  for (const broker of brokers) await cluster.applied(broker, ['a', 'b', 'c']);
  return leader;
}

const untilQuarantined = (broker: BrokerId) =>
  cluster.environment.until(() => cluster.replica(broker).quarantined !== undefined, `broker ${broker} is quarantined`, 5_000);

/** It sends nothing of the group any more, and the others go on without it. */
async function takesNoPart(broker: BrokerId): Promise<void> {
  let sent = 0;
  cluster.network.observe = (from, _to, lane, frame) => {
    if (from === broker && lane === 'raft') sent += decodeFrame(frame).length;
  };
  const leader = await cluster.elected();
  expect(leader).not.toBe(broker);
  const { index } = cluster.propose(leader, 'after');
  for (const other of others(broker)) {
    await cluster.environment.until(() => cluster.owner(other).appliedIndex >= index, 'the others go on');
    expect(cluster.node(other).quarantined).toEqual([]);
  }
  await cluster.environment.run(5_000);
  expect(sent).toBe(0);
  expect(cluster.owner(broker).appliedIndex).toBeLessThan(index);
  expect(cluster.replica(leader).inSync()).not.toContain(broker);
  expect(cluster.replica(leader).durableOn(2)).toBe(index);
  expect(cluster.replica(leader).durableOn(3)).toBe(0);
}

test('B29: a damaged follower of an idle group is quarantined before the group rests, and says so', async () => {
  const leader = await withWrites();
  const damaged = others(leader)[0]!;
  await restart(damaged, 3);
  await untilQuarantined(damaged);
  const { quarantined, errors } = cluster.node(damaged);
  const reason = expect.stringMatching(/differs from that of a majority of the voters, at index \d or before/);
  expect(quarantined).toEqual([{ group: groupKey(0), replicaId: replicaIdOf(damaged), reason }]);
  expect(errors).toEqual(['replica quarantined']);
  expect(cluster.replica(damaged).describe().quarantined).toEqual(reason);
  expect(cluster.replica(damaged).leadership).toMatchObject({ role: 'follower', leader: undefined });
  await takesNoPart(damaged);
  expect(cluster.leader()).toBe(leader);
});

test('B29: a damaged follower that finds that appends do not continue its log is quarantined', async () => {
  const leader = await withWrites();
  const damaged = others(leader)[0]!;
  cluster.kill(damaged);
  damage(damaged, 4);
  for (const text of ['d', 'e']) cluster.propose(leader, text);
  await cluster.applied(leader, ['a', 'b', 'c', 'd', 'e']);
  cluster.boot(damaged);
  await cluster.open(damaged);
  await cluster.environment.until(() => cluster.replica(damaged).core.divergedIndex === 5, 'it finds out');
  await untilQuarantined(damaged);
  await takesNoPart(damaged);
});

test('B29: a damaged leader is found out by the majority, steps down and is quarantined', async () => {
  const damaged = await withWrites();
  for (const broker of brokers) cluster.kill(broker);
  damage(damaged, 3);
  for (const broker of brokers) cluster.boot(broker);
  for (const broker of brokers) await cluster.open(broker, 0, broker === damaged);
  await cluster.environment.until(() => cluster.replica(damaged).leadership.role === 'leader', 'it leads');
  await untilQuarantined(damaged);
  await takesNoPart(damaged);
});

test('B29: who is quarantined stays so after a restart, before it is found out again', async () => {
  const leader = await withWrites();
  const damaged = others(leader)[0]!;
  await restart(damaged, 3);
  await untilQuarantined(damaged);
  await cluster.environment.run(10);
  cluster.kill(damaged);
  cluster.boot(damaged);
  await expect(cluster.open(damaged)).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
});

test('B29: while a majority has not answered, nobody is quarantined, and nothing commits that differs', async () => {
  const leader = await withWrites();
  const [damaged, away] = others(leader) as [BrokerId, BrokerId];
  cluster.kill(away);
  await restart(damaged, 3);
  await cluster.environment.run(5_000);
  for (const broker of [leader, damaged]) expect(cluster.node(broker).quarantined).toEqual([]);
  cluster.boot(away);
  await cluster.open(away);
  await untilQuarantined(damaged);
  await takesNoPart(damaged);
});

test('B29: a damaged learner is quarantined too', async () => {
  const { voters } = configurationOf(0);
  const configuration: Configuration = { voters: voters.slice(0, 2), outgoing: [], learners: voters.slice(2) };
  await withWrites(configuration);
  const learner = brokers[2]!;
  await restart(learner, 2, configuration);
  await untilQuarantined(learner);
  for (const voter of others(learner)) expect(cluster.node(voter).quarantined).toEqual([]);
});

test('B29: logs in use are compared about once a second, and agree', async () => {
  const leader = await withWrites();
  let checks = 0;
  const { core } = cluster.replica(others(leader)[0]!);
  const step = core.step.bind(core);
  core.step = (message) => {
    if (message.type === 'heartbeat' && message.check !== undefined) checks++;
    step(message);
  };
  const texts = ['a', 'b', 'c'];
  for (let i = 0; i < 100; i++) {
    texts.push(`${i}`);
    cluster.propose(leader, `${i}`);
    await cluster.environment.run(50);
  }
  expect(checks).toBeGreaterThanOrEqual(4);
  expect(checks).toBeLessThanOrEqual(6);
  for (const broker of brokers) await cluster.applied(broker, texts);
  for (const broker of brokers) expect(cluster.node(broker).quarantined).toEqual([]);
});

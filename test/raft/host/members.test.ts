import { afterEach, describe, expect, test } from 'vitest';
import type { BrokerId, DirectoryId, ReplicaId } from '../../../src/base/ids.ts';
import type { Configuration, Member } from '../../../src/raft/core/types.ts';
import { brokers, Cluster, configurationOf, replicaIdOf } from './cluster.ts';

const [first, second, third] = brokers as [BrokerId, BrokerId, BrokerId];
const newcomer = 32 as ReplicaId;
let cluster: Cluster;
afterEach(() => cluster.assertHealthy());

const idsOf = (members: readonly Member[]) => members.map(({ replicaId }) => replicaId);

/** A configuration that has committed and is not joint, on the leader. */
async function settled(index: number): Promise<Configuration> {
  const leader = () => cluster.replica(cluster.leader() ?? first);
  await cluster.environment.until(() => {
    const { configurationIndex, commitIndex, configuration } = leader();
    return configurationIndex >= index && configurationIndex <= commitIndex && configuration.outgoing.length === 0;
  }, 'the change of members has committed');
  return leader().configuration;
}

describe('a wiped disk (B14)', () => {
  let directoryId: DirectoryId;
  const wiped = (): Member => ({ replicaId: newcomer, brokerId: third, directoryId });

  async function start(): Promise<BrokerId> {
    cluster = await Cluster.start();
    await cluster.replica(first).campaign();
    const leader = await cluster.elected();
    cluster.propose(leader, 'a');
    for (const broker of brokers) await cluster.applied(broker, ['a']);
    directoryId = cluster.wipe(third);
    return cluster.elected(0, third);
  }

  test('does not take part under the name of the replica that it held', async () => {
    await start();
    await expect(cluster.open(third)).rejects.toMatchObject({ code: 'DATA_DIRECTORY' });
    expect(cluster.replica(third)).toBeUndefined();
  });

  test('returns as a learner, and votes once it has caught up and a joint configuration has passed', async () => {
    const leader = await start();
    const { voters } = configurationOf(0);
    const newborn = await cluster.open(third, 0, false, newcomer);
    await settled(cluster.replica(leader).changeMembers({ voters, learners: [wiped()] }));
    await cluster.applied(third, ['a']);
    newborn.campaign();
    await cluster.environment.run(500);
    expect(newborn.leadership).toMatchObject({ role: 'follower', term: cluster.replica(leader).leadership.term });

    const target = { voters: [...voters.filter(({ brokerId }) => brokerId !== third), wiped()], learners: [] };
    const { voters: after } = await settled(cluster.replica(leader).changeMembers(target));
    expect(idsOf(after)).toEqual([replicaIdOf(first), replicaIdOf(second), newcomer]);
    cluster.kill(leader);
    const next = await cluster.elected();
    cluster.propose(next, 'b');
    await cluster.applied(third, ['a', 'b']);
  });

  test('does not count in the old half of a joint configuration, where its predecessor still is', async () => {
    const leader = await start();
    const other = leader === first ? second : first;
    const { voters } = configurationOf(0);
    await cluster.open(third, 0, false, newcomer);
    await settled(cluster.replica(leader).changeMembers({ voters, learners: [wiped()] }));
    await cluster.applied(third, ['a']);
    cluster.network.isolate(other, brokers);
    const target = { voters: [...voters.filter(({ brokerId }) => brokerId !== third), wiped()], learners: [] };
    const index = cluster.replica(leader).changeMembers(target);
    await cluster.environment.run(400);
    // The leader and the newcomer are a majority of the new voters; of the old ones the leader is alone.
    expect(cluster.replica(leader).commitIndex).toBeLessThan(index);
    cluster.network.heal();
    await settled(index);
  });
});

test('a replica moves to another broker while records come, and a leader that is left out hands over', async () => {
  cluster = await Cluster.start();
  const leader = await cluster.elected();
  const sent: string[] = [];
  const send = () => {
    sent.push(`r${sent.length}`);
    cluster.propose(cluster.leader()!, sent.at(-1)!);
  };
  for (let i = 0; i < 20; i++) send();
  const { voters } = configurationOf(0);
  const remaining = voters.filter(({ brokerId }) => brokerId !== leader);
  const index = cluster.replica(leader).changeMembers({ voters: remaining, learners: [] });
  for (let i = 0; i < 20; i++) send();
  const { voters: after } = await settled(index);
  expect(idsOf(after)).toEqual(idsOf(remaining));
  await cluster.elected(0, leader);
  send();
  for (const { brokerId } of remaining) await cluster.applied(brokerId, sent);
  expect(cluster.replica(leader).leadership.role).toBe('follower');
});

test('what a person gets wrong is said, and changes nothing', async () => {
  cluster = await Cluster.start();
  const leader = await cluster.elected();
  const replica = cluster.replica(leader);
  const { voters } = configurationOf(0);
  const stranger = { replicaId: newcomer, brokerId: third, directoryId: 'f'.repeat(32) as DirectoryId };
  const refused = (target: { voters: readonly Member[]; learners: readonly Member[] }, code: string) =>
    expect(() => replica.changeMembers(target)).toThrow(expect.objectContaining({ code }));
  refused({ voters: [], learners: [] }, 'INVALID_REQUEST');
  refused({ voters, learners: [voters[0]!] }, 'INVALID_REQUEST');
  refused({ voters: [...voters, stranger], learners: [] }, 'INVALID_REQUEST');
  refused({ voters: [voters[0]!, voters[1]!, stranger], learners: [] }, 'INELIGIBLE_REPLICA');
  refused({ voters: [{ ...voters[0]!, directoryId: 'e'.repeat(32) as DirectoryId }], learners: [] }, 'INVALID_REQUEST');
  const follower = brokers.find((broker) => broker !== leader)!;
  expect(() => cluster.replica(follower).changeMembers({ voters, learners: [] })).toThrow(
    expect.objectContaining({ code: 'NOT_LEADER_OR_FOLLOWER' }),
  );
  expect(replica.configurationIndex).toBe(0);
  replica.changeMembers({ voters: voters.slice(0, 2), learners: [] });
  refused({ voters, learners: [] }, 'REASSIGNMENT_IN_PROGRESS');
});

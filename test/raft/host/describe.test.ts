import { afterEach, expect, test } from 'vitest';
import type { BrokerId } from '../../../src/base/ids.ts';
import { brokers, Cluster, configurationOf, groupKey, replicaIdOf } from './cluster.ts';

let cluster: Cluster;
afterEach(() => cluster.assertHealthy());

const others = (broker: BrokerId) => brokers.filter((other) => other !== broker);

test('a leader and its followers describe the same group', async () => {
  cluster = await Cluster.start();
  const leader = await cluster.elected();
  for (const text of ['a', 'b']) cluster.propose(leader, text);
  for (const broker of brokers) await cluster.applied(broker, ['a', 'b']);
  // Two lag intervals, so that the followers are known to be in sync.
  await cluster.environment.run(20_000);
  const indexes = { commitIndex: 3, appliedIndex: 3, lastIndex: 3, durableIndex: 3, firstReplicableIndex: 1, nextOffset: 2 };
  const common = {
    group: groupKey(0),
    membership: 'voter',
    term: 1,
    leader: { replicaId: replicaIdOf(leader), brokerId: leader },
    ...indexes,
    quiesced: true,
    divergedIndex: 0,
    quarantined: undefined,
    damage: undefined,
    onProbation: false,
    lastSnapshot: undefined,
  };
  const follower = { membership: 'voter', matchIndex: 3, nextIndex: 4, lag: 0, state: 'replicate', inflightMessages: 0, inflightBytes: 0 };
  const described = cluster.replica(leader).describe();
  expect(described).toMatchObject({ ...common, role: 'leader', ready: true, replicaId: replicaIdOf(leader) });
  expect(described.followers).toEqual(others(leader).map((brokerId) => ({ ...follower, brokerId, replicaId: replicaIdOf(brokerId) })));
  expect([...described.inSync].sort()).toEqual(brokers);
  expect(described.configuration).toMatchObject({ ...configurationOf(0), index: 0, committed: true, joint: false });
  for (const broker of others(leader)) {
    expect(cluster.replica(broker).describe()).toMatchObject({ ...common, role: 'follower', ready: false, followers: [], inSync: [] });
  }
});

test('what a follower lacks shows, and what is on its way to it', async () => {
  cluster = await Cluster.start();
  const leader = await cluster.elected();
  const [dead] = others(leader) as [BrokerId];
  await cluster.environment.run(1_000);
  cluster.kill(dead);
  cluster.propose(leader, 'a');
  await cluster.environment.run(20);
  const lacking = () =>
    cluster
      .replica(leader)
      .describe()
      .followers.find(({ brokerId }) => brokerId === dead);
  expect(lacking()).toMatchObject({ matchIndex: 1, nextIndex: 3, lag: 1, state: 'replicate', inflightMessages: 1 });
  expect(lacking()?.inflightBytes).toBeGreaterThan(0);
  await cluster.environment.run(20_000);
  cluster.propose(leader, 'b');
  await cluster.environment.run(20_000);
  expect(cluster.replica(leader).describe().inSync).not.toContain(dead);
});

test('a configuration from the log has an index, an age, and says whether it is joint and committed', async () => {
  cluster = await Cluster.start();
  const leader = await cluster.elected();
  await cluster.environment.run(5_000);
  expect(cluster.replica(leader).describe().configuration.ageMs).toBeGreaterThanOrEqual(5_000);
  const third = others(leader)[1]!;
  const { voters } = configurationOf(0);
  const stay = voters.filter(({ brokerId }) => brokerId !== third);
  const demoted = voters.filter(({ brokerId }) => brokerId === third);
  const index = cluster.replica(leader).changeMembers({ voters: stay, learners: demoted });
  const entering = cluster.replica(leader).describe();
  expect(entering.configuration).toMatchObject({
    voters: stay,
    outgoing: voters,
    learners: demoted,
    index,
    joint: true,
    committed: false,
    ageMs: 0,
  });
  expect(entering.followers.find(({ brokerId }) => brokerId === third)?.membership).toBe('outgoing');
  await cluster.environment.run(1_000);
  const changed = cluster.replica(leader).describe();
  expect(changed.configuration).toMatchObject({ voters: stay, outgoing: [], learners: demoted, joint: false, committed: true });
  expect(changed.configuration.index).toBeGreaterThan(index);
  expect(changed.configuration.ageMs).toBeGreaterThan(500);
  expect(changed.configuration.ageMs).toBeLessThan(5_000);
  expect(changed.followers.find(({ brokerId }) => brokerId === third)).toMatchObject({ membership: 'learner', lag: 0 });
  expect(cluster.replica(third).describe()).toMatchObject({ membership: 'learner', role: 'follower' });
});

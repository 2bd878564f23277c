/** Groups with one voter: a broker that starts with thousands of them elects itself in all, at once and with few writes to the log. */
import { expect, test } from 'vitest';
import type { BrokerId } from '../../../src/base/ids.ts';
import { defaultRaftHostSettings } from '../../../src/raft/settings.ts';
import { brokers, Cluster, configurationOf } from './cluster.ts';

const [only, ...others] = brokers as [BrokerId, ...BrokerId[]];
const { tickMs, electionTicks } = defaultRaftHostSettings;
const groups = Array.from({ length: 1000 }, (_, group) => group);

test('the only voter leads without waiting for an election timeout, and a thousand elections share a few flushes', async () => {
  const cluster = await Cluster.start(groups, {}, 1, [only]);
  await cluster.environment.until(() => groups.every((group) => cluster.leader(group) === only), 'all have leaders');
  for (const group of groups) cluster.propose(only, 'x', group);
  await cluster.environment.run(1_000);
  cluster.kill(only);
  cluster.boot(only);
  await Promise.all(groups.map((group) => cluster.open(only, group)));
  const { statistics } = cluster.node(only).storage.wal;
  const before = statistics.flushes;
  await cluster.environment.run((tickMs * electionTicks) / 2);
  expect(groups.filter((group) => cluster.leader(group) === only)).toHaveLength(groups.length);
  expect(new Set(groups.map((group) => cluster.replica(only, group).leadership.term))).toEqual(new Set([2]));
  // The votes, and what the new leaders begin their terms with.
  expect(statistics.flushes - before).toBeLessThanOrEqual(10);
  cluster.assertHealthy();
});

test.each([
  ['one of three voters', configurationOf(0)],
  ['the last voter of a change that has not ended', { ...configurationOf(0, [only]), outgoing: configurationOf(0).voters }],
  ['a learner', { ...configurationOf(0, [others[0] as BrokerId]), learners: configurationOf(0, [only]).voters }],
])('%s waits as ever', async (_, configuration) => {
  const cluster = new Cluster();
  cluster.boot(only);
  const replica = await cluster.open(only, 0, false, undefined, configuration);
  await cluster.environment.run(tickMs);
  expect(replica.leadership).toMatchObject({ role: 'follower', term: 0 });
  expect(replica.core.role).toBe('follower');
  cluster.assertHealthy();
});

import { describe, expect, test } from 'vitest';
import { randomBelow } from '../../../src/base/environment.ts';
import type { BrokerId } from '../../../src/base/ids.ts';
import { decodeSnapshotMessage } from '../../../src/raft/snapshot-codec.ts';
import { brokers } from './cluster.ts';
import { StoredCluster } from './stored-cluster.ts';

/** Broker 3 is away while the others commit, and drop what it needs. */
async function awayAndBehind(cluster: StoredCluster): Promise<void> {
  await cluster.elected();
  cluster.propose(20);
  await cluster.environment.run(300);
  cluster.kill(3 as BrokerId);
  await cluster.elected();
  for (let i = 0; i < 10; i++) {
    cluster.propose(10);
    await cluster.environment.run(50);
  }
  for (const broker of [1, 2] as BrokerId[]) expect(await cluster.drop(broker, 50)).toBeGreaterThan(30);
}

/** Bytes of chunks that went to broker 3, how many of them had gone there before, and how many chunks it had already. */
function watchChunks(cluster: StoredCluster): { bytes: number; again: number; same: number } {
  const seen = { bytes: 0, again: 0, same: 0 };
  const sent = new Set<string>();
  cluster.network.observe = (_from, to, lane, frame) => {
    if (lane !== 'bulk' || to !== 3) return;
    const message = decodeSnapshotMessage(frame);
    if (message.type !== 'chunk') return;
    if (message.bytes === undefined) seen.same++;
    else {
      seen.bytes += message.bytes.length;
      const place = `${message.file}:${message.position}`;
      if (sent.has(place)) seen.again += message.bytes.length;
      sent.add(place);
    }
  };
  return seen;
}

describe('a follower below the log’s start', () => {
  test('is caught up by a snapshot while proposals go on (B36)', async () => {
    const cluster = await StoredCluster.start(1);
    await awayAndBehind(cluster);
    const chunks = watchChunks(cluster);
    await cluster.boot(3 as BrokerId);
    let committed = 0;
    for (let i = 0; i < 60 && cluster.owner(3 as BrokerId).restores === 0; i++) {
      cluster.propose(2);
      await cluster.environment.run(20);
      const { commitIndex } = cluster.replica((await cluster.elected()) as BrokerId);
      // Nobody waits for the one that installs.
      expect(commitIndex).toBeGreaterThan(committed);
      committed = commitIndex;
    }
    expect(cluster.owner(3 as BrokerId).restores).toBe(1);
    expect(chunks.bytes).toBeGreaterThan(1000);
    await cluster.converge();
    expect(cluster.replica(3 as BrokerId).describe().firstReplicableIndex).toBeGreaterThan(30);
    cluster.kill(3 as BrokerId);
    await cluster.boot(3 as BrokerId);
    await cluster.converge();
    expect(cluster.owner(3 as BrokerId).restores).toBe(0);
    expect(cluster.fatal).toEqual([]);
  });

  test('a state machine gets its checkpoint, and no segments', async () => {
    const cluster = await StoredCluster.start(2, {}, true);
    await awayAndBehind(cluster);
    await cluster.boot(3 as BrokerId);
    await cluster.environment.until(() => cluster.owner(3 as BrokerId).restores === 1, 'the snapshot is installed');
    await cluster.converge();
    expect(cluster.fatal).toEqual([]);
  });

  test('what came before the link broke does not come again, nor what a crash left of it', async () => {
    const settings = { snapshotBytesPerSecond: 20_000 };
    const whole = await StoredCluster.start(3, settings);
    await awayAndBehind(whole);
    const expected = watchChunks(whole);
    await whole.boot(3 as BrokerId);
    await whole.environment.until(() => whole.owner(3 as BrokerId).restores === 1, 'the snapshot is installed', 60_000);

    const cluster = await StoredCluster.start(3, settings);
    await awayAndBehind(cluster);
    const chunks = watchChunks(cluster);
    await cluster.boot(3 as BrokerId);
    await cluster.environment.until(() => chunks.bytes > expected.bytes / 2, 'half of it came', 60_000);
    cluster.network.isolate(3 as BrokerId, brokers);
    await cluster.environment.run(6_000);
    cluster.network.heal();
    await cluster.environment.until(() => chunks.bytes > expected.bytes * 0.7, 'more of it came', 60_000);
    expect(chunks.same).toBeGreaterThan(5);
    // What was on its way when the link broke.
    expect(chunks.again).toBeLessThan(expected.bytes / 10);
    const { same } = chunks;
    cluster.kill(3 as BrokerId);
    await cluster.boot(3 as BrokerId);
    await cluster.environment.until(() => cluster.owner(3 as BrokerId).restores === 1, 'the snapshot is installed', 60_000);
    expect(chunks.same).toBeGreaterThan(same);
    await cluster.converge();
    expect(cluster.fatal).toEqual([]);
  });

  test('gets there through power cuts, lost frames, cuts and other leaders', { timeout: 60_000 }, async () => {
    let installs = 0;
    for (let seed = 1; seed <= 8; seed++) installs += await disturbed(seed);
    expect(installs).toBeGreaterThan(5);
  });
});

/** A world with faults; returns how many snapshots took the place of a log in it. */
async function disturbed(seed: number): Promise<number> {
  const cluster = await StoredCluster.start(seed * 101, { snapshotBytesPerSecond: 50_000 });
  const { environment, network } = cluster;
  for (let step = 0; step < 40; step++) {
    const victim = brokers[randomBelow(environment, brokers.length)] as BrokerId;
    const fault = randomBelow(environment, 8);
    if (fault <= 1 && cluster.nodes.size === 3) cluster.kill(victim);
    if (fault === 2) for (const broker of brokers) if (!cluster.nodes.has(broker)) await cluster.boot(broker);
    if (fault === 3) network.isolate(victim, brokers);
    if (fault === 4) network.heal();
    if (fault === 5) network.lostPerMille = randomBelow(environment, 2) * 150;
    if (fault >= 6 && cluster.nodes.has(victim))
      await cluster.drop(victim, fault === 6 ? undefined : cluster.replica(victim).lastIndex - 30);
    for (let i = 0; i < 4; i++) {
      cluster.propose(4);
      await environment.run(randomBelow(environment, 150));
    }
    expect(cluster.fatal).toEqual([]);
  }
  network.heal();
  network.lostPerMille = 0;
  for (const broker of brokers) if (!cluster.nodes.has(broker)) await cluster.boot(broker);
  await cluster.converge();
  expect(cluster.fatal, `seed ${seed}`).toEqual([]);
  return cluster.installs;
}

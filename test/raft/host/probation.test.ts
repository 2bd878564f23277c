import { describe, expect, test } from 'vitest';
import type { BrokerId } from '../../../src/base/ids.ts';
import type { SimDisk } from '../../sim/disk.ts';
import { seeded } from '../../storage/fixture.ts';
import { brokers } from './cluster.ts';
import { StoredCluster } from './stored-cluster.ts';

/** Bits flip all over the write-ahead log: whose records these are can't be told any more. */
function rotLog(disk: SimDisk, seed: number): void {
  const random = seeded(seed);
  for (const path of disk.files().filter((each) => each.endsWith('.wal'))) {
    for (let at = 0; at < disk.sizeOf(path); at += 16) disk.corrupt(path, at, 1 + (random.uint32() % 255));
  }
}

async function world(seed: number): Promise<StoredCluster> {
  const cluster = await StoredCluster.start(seed, {}, false, true);
  await cluster.elected();
  for (let i = 0; i < 6; i++) {
    cluster.propose(6);
    await cluster.environment.run(100);
  }
  return cluster;
}

function aside(disk: SimDisk): string[] {
  return disk.files().filter((path) => path.includes('quarantine') && path.includes('.aside/'));
}

async function whole(cluster: StoredCluster, broker: BrokerId): Promise<void> {
  await cluster.environment.until(() => cluster.replica(broker)?.core.probation === 0, 'the probation ends', 30_000);
}

describe('a replica that may return, and can not prove its log whole', () => {
  test('returns empty, counts for nothing until it has all, and takes part again; what it had is kept until then', async () => {
    const cluster = await world(1);
    const leader = await cluster.elected();
    const victim = brokers.find((broker) => broker !== leader)!;
    cluster.kill(victim);
    rotLog(cluster.disks.get(victim)!, 5);
    await cluster.boot(victim);
    const replica = cluster.replica(victim);
    expect(replica.core.probation).toBeGreaterThan(0);
    expect(replica.describe().onProbation).toBe(true);
    expect(aside(cluster.disks.get(victim)!)).not.toEqual([]);
    await whole(cluster, victim);
    await cluster.environment.run(1_000);
    expect(aside(cluster.disks.get(victim)!)).toEqual([]);
    await cluster.converge();
    // It counts again: without the third nothing would commit.
    const third = brokers.find((broker) => broker !== leader && broker !== victim)!;
    cluster.kill(third);
    cluster.propose(3);
    const { lastIndex } = cluster.replica(leader);
    await cluster.environment.until(() => cluster.replica(leader).commitIndex >= lastIndex, 'it commits', 10_000);
    // And the next start finds a log that is whole.
    cluster.kill(victim);
    await cluster.boot(victim);
    expect(cluster.replica(victim).core.probation).toBe(0);
  });

  test('gives no vote, so that nobody leads without what it may have acknowledged', async () => {
    const cluster = await world(2);
    const leader = await cluster.elected();
    const [victim, third] = brokers.filter((broker) => broker !== leader) as [BrokerId, BrokerId];
    // The third has none of what the leader and the victim commit now.
    cluster.network.isolate(third, [leader, victim]);
    await cluster.environment.run(200);
    cluster.propose(5);
    const { lastIndex } = cluster.replica(leader);
    await cluster.environment.until(() => cluster.replica(leader).commitIndex >= lastIndex, 'it commits', 10_000);
    cluster.kill(leader);
    cluster.kill(victim);
    rotLog(cluster.disks.get(victim)!, 6);
    cluster.network.heal();
    await cluster.boot(victim);
    await cluster.environment.run(20_000);
    expect(cluster.leader()).toBeUndefined();
    expect(cluster.replica(victim).core.probation).toBeGreaterThan(0);
    await cluster.boot(leader);
    await whole(cluster, victim);
    expect(cluster.replica(await cluster.elected()).commitIndex).toBeGreaterThanOrEqual(lastIndex);
    await cluster.converge();
  });

  test('goes through as many lives as it takes, each with its own number', async () => {
    const cluster = await world(3);
    const leader = await cluster.elected();
    const victim = brokers.find((broker) => broker !== leader)!;
    cluster.kill(victim);
    rotLog(cluster.disks.get(victim)!, 7);
    for (let i = 0; i < 5; i++) {
      await cluster.boot(victim);
      expect(cluster.replica(victim).core.probation).toBeGreaterThan(0);
      await cluster.environment.run(2 * i);
      cluster.kill(victim);
    }
    await cluster.boot(victim);
    await whole(cluster, victim);
    await cluster.converge();
  });

  test('gets a snapshot where the beginning of the log is gone', async () => {
    const cluster = await world(4);
    const leader = await cluster.elected();
    for (const broker of brokers) await cluster.drop(broker, cluster.replica(broker).log.lastIndex - 5);
    expect(cluster.replica(leader).log.firstReplicableIndex).toBeGreaterThan(1);
    const victim = brokers.find((broker) => broker !== leader)!;
    cluster.kill(victim);
    rotLog(cluster.disks.get(victim)!, 8);
    await cluster.boot(victim);
    await whole(cluster, victim);
    expect(cluster.installs).toBeGreaterThan(0);
    await cluster.converge();
  });
});

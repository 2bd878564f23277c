/** B38: disks that stall, of one broker or of all. */
import { afterEach, expect, test } from 'vitest';
import { FlotillaError } from '../../../src/base/errors.ts';
import type { BrokerId } from '../../../src/base/ids.ts';
import { brokers, Cluster } from './cluster.ts';

const groups = [0, 1, 2, 3, 4, 5];
let cluster: Cluster;
afterEach(() => cluster.assertHealthy());

const others = (broker: BrokerId) => brokers.filter((other) => other !== broker);

function stall(broker: BrokerId): void {
  cluster.node(broker).storage.wal.stalledSince = cluster.environment.monotonicMs();
}

function goOn(broker: BrokerId): void {
  const { wal } = cluster.node(broker).storage;
  wal.stalledSince = undefined;
  wal.pump();
}

const terms = () => groups.map((group) => Math.max(...brokers.map((broker) => cluster.replica(broker, group).core.term)));

/** What was accepted, by group; a write that is refused for the moment is not in it. */
class Writes {
  readonly sent = new Map(groups.map((group) => [group, new Set<string>()]));
  #next = 0;

  propose(): number {
    let accepted = 0;
    for (const group of groups) {
      const leader = cluster.leader(group);
      if (leader === undefined) continue;
      const text = `w${this.#next++}`;
      try {
        cluster.propose(leader, text, group);
        this.sent.get(group)?.add(text);
        accepted++;
      } catch (error) {
        if (!(error instanceof FlotillaError && error.retriable)) throw error;
      }
    }
    return accepted;
  }
}

/** What any broker applied, all apply. */
async function allAgree(): Promise<void> {
  const length = (group: number, broker: BrokerId) => cluster.owner(broker, group).commands.length;
  for (const group of groups) {
    const [first = 1 as BrokerId] = brokers;
    await cluster.environment.until(() => brokers.every((broker) => length(group, broker) === length(group, first)), 'all agree');
    for (const broker of brokers) expect(cluster.owner(broker, group).commands).toEqual(cluster.owner(first, group).commands);
  }
}

test.each([5_000, 10_000, 15_000])('B38: three brokers whose disks all stall for %i ms start no election storm', async (stallMs) => {
  cluster = await Cluster.start(groups, { inSyncLagMs: 1_000 }, stallMs);
  for (const group of groups) await cluster.elected(group);
  const writes = new Writes();
  for (let i = 0; i < 20; i++) {
    writes.propose();
    await cluster.environment.run(20);
  }
  const before = terms();
  const leaders = groups.map((group) => cluster.leader(group));
  for (const broker of brokers) stall(broker);
  for (let ms = 0; ms < stallMs; ms += 100) {
    writes.propose();
    await cluster.environment.run(100);
  }
  for (const broker of brokers) goOn(broker);
  await cluster.environment.run(500);
  expect(terms()).toEqual(before);
  expect(groups.map((group) => cluster.leader(group))).toEqual(leaders);
  expect(writes.propose()).toBe(groups.length);
  await cluster.environment.run(100);
  await allAgree();
  // Nothing was refused by a leader that stepped down, so all of it committed.
  for (const group of groups) expect(cluster.owner(brokers[0]!, group).commands).toHaveLength(writes.sent.get(group)!.size);
});

test('B38: all disks stall while nobody leads: the terms stay, and there are leaders soon after', async () => {
  cluster = await Cluster.start(groups);
  for (const group of groups) await cluster.elected(group);
  for (const broker of brokers) stall(broker);
  const dead = cluster.leader(0)!;
  cluster.kill(dead);
  const alive = others(dead);
  const term = (group: number) => Math.max(...alive.map((broker) => cluster.replica(broker, group).core.term));
  const before = groups.map(term);
  await cluster.environment.run(10_000);
  for (const group of groups) expect(term(group) - before[group]!).toBeLessThanOrEqual(1);
  for (const broker of alive) goOn(broker);
  await cluster.environment.until(() => groups.every((group) => cluster.leader(group) !== undefined), 'leaders', 2_500);
});

test('B38: the leader is dead and one of the two others stalls: neither raises its term in vain', async () => {
  cluster = await Cluster.start(groups);
  for (const group of groups) await cluster.elected(group);
  const dead = cluster.leader(0)!;
  const [slow, fresh] = others(dead) as [BrokerId, BrokerId];
  stall(slow);
  await cluster.environment.run(700);
  cluster.kill(dead);
  const led = groups.filter((group) => cluster.leader(group) === undefined);
  const before = led.map((group) => cluster.replica(fresh, group).core.term);
  await cluster.environment.run(10_000);
  for (const broker of [slow, fresh]) expect(led.map((group) => cluster.replica(broker, group).core.term)).toEqual(before);
  goOn(slow);
  await cluster.environment.until(() => groups.every((group) => cluster.leader(group) !== undefined), 'leaders', 2_500);
});

test("B38: one broker's disk stalls for 5 s: its leaders are elsewhere within 3 s, and nothing is lost", async () => {
  cluster = await Cluster.start(groups);
  for (const group of groups) await cluster.elected(group);
  const slow = cluster.leader(0)!;
  const led = groups.filter((group) => cluster.leader(group) === slow);
  const writes = new Writes();
  const from = cluster.environment.monotonicMs();
  stall(slow);
  while (led.some((group) => cluster.leader(group) === slow)) {
    writes.propose();
    await cluster.environment.run(20);
  }
  expect(cluster.environment.monotonicMs() - from).toBeLessThan(3_000);
  const elsewhere = led.map((group) => cluster.leader(group));
  expect(elsewhere).not.toContain(slow);
  for (let ms = cluster.environment.monotonicMs() - from; ms < 5_000; ms += 100) {
    writes.propose();
    await cluster.environment.run(100);
  }
  goOn(slow);
  await cluster.environment.run(1_000);
  await allAgree();
  for (const group of groups) {
    const applied = new Set(cluster.owner(slow, group).commands);
    for (const text of writes.sent.get(group)!) expect(applied).toContain(text);
  }
});

test('B38: a hand-over that fails is tried with another voter', async () => {
  cluster = await Cluster.start();
  const slow = await cluster.elected();
  const [deaf, other] = others(slow);
  await cluster.environment.run(1_000);
  // Whom the leader would ask first never hears of it.
  const first = cluster.replica(slow).configuration.voters.find(({ brokerId }) => brokerId !== slow)!.brokerId;
  expect([deaf, other]).toContain(first);
  cluster.network.lose = (from, to, lane) => from === slow && to === first && lane === 'raft';
  stall(slow);
  const next = await cluster.elected(0, slow);
  expect(next).not.toBe(first);
});

test.each([1, 2, 3, 4, 5])('B38: of five brokers two stall: the one that leads hands over past the other, seed %i', async (seed) => {
  const five = [1, 2, 3, 4, 5] as BrokerId[];
  cluster = await Cluster.start([0], {}, seed, five);
  const slow = await cluster.elected();
  await cluster.environment.run(1_000);
  const { voters } = cluster.replica(slow).configuration;
  // Whom the leader would ask first, if it asked anybody.
  const alsoSlow = voters.find(({ brokerId }) => brokerId !== slow)!.brokerId;
  stall(alsoSlow);
  await cluster.environment.run(1_000);
  stall(slow);
  const from = cluster.environment.monotonicMs();
  const next = await cluster.elected(0, slow);
  expect(cluster.environment.monotonicMs() - from).toBeLessThan(3_000);
  expect([slow, alsoSlow]).not.toContain(next);
});

test('B38: nobody is asked to take over while no majority of the disks could elect', async () => {
  cluster = await Cluster.start();
  const slow = await cluster.elected();
  const [alsoSlow] = others(slow);
  await cluster.environment.run(1_000);
  const { term } = cluster.replica(slow).leadership;
  stall(slow);
  stall(alsoSlow!);
  cluster.propose(slow, 'a');
  await cluster.environment.run(10_000);
  expect(cluster.replica(slow).leadership).toMatchObject({ role: 'leader', term });
  goOn(alsoSlow!);
  // Now there is one: the leader, still stalled, hands over.
  await cluster.elected(0, slow);
  goOn(slow);
  for (const broker of brokers) await cluster.applied(broker, ['a']);
});

test('B38: both followers stall: the leader goes on leading, and commits what waited', async () => {
  cluster = await Cluster.start();
  const leader = await cluster.elected();
  const { term } = cluster.replica(leader).leadership;
  await cluster.environment.run(1_000);
  for (const broker of others(leader)) stall(broker);
  cluster.propose(leader, 'a');
  await cluster.environment.run(8_000);
  expect(cluster.owner(leader).commands).toEqual([]);
  for (const broker of others(leader)) goOn(broker);
  for (const broker of brokers) await cluster.applied(broker, ['a']);
  expect(cluster.replica(leader).leadership).toMatchObject({ role: 'leader', term });
});

test('B38: a follower out of reach is not one that stalls: without a majority the leader steps down', async () => {
  cluster = await Cluster.start();
  const leader = await cluster.elected();
  for (const broker of others(leader)) stall(broker);
  await cluster.environment.run(400);
  cluster.network.isolate(leader, others(leader));
  cluster.propose(leader, 'a');
  await cluster.environment.until(() => cluster.replica(leader).leadership.role !== 'leader', 'it steps down', 3_000);
});

test('B38: a disk that stalls for too long ends the process, with a word; a process that was stopped is no such case', async () => {
  cluster = await Cluster.start();
  const slow = await cluster.elected();
  const { wal } = cluster.node(slow).storage;
  // Stopped in the middle of a flush: when it goes on, the flush looks 30 s old.
  stall(slow);
  cluster.pauses.get(slow)!.pause();
  await cluster.environment.run(30_000);
  cluster.pauses.get(slow)!.resume();
  await cluster.environment.run(100);
  expect(cluster.node(slow).fatal).toEqual([]);
  goOn(slow);
  await cluster.environment.run(1_000);
  stall(slow);
  await cluster.environment.run(19_900);
  expect(cluster.node(slow).fatal).toEqual([]);
  await cluster.environment.run(300);
  const [error] = cluster.node(slow).fatal;
  expect(error).toMatchObject({
    code: 'STORAGE_ERROR',
    message: expect.stringMatching(/has not finished a flush .* for 20 s.*start the broker again/),
  });
  expect(wal.stalledMs()).toBeGreaterThan(20_000);
  cluster.kill(slow);
  await cluster.elected(0, slow);
});

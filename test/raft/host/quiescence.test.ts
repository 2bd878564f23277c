import { afterEach, describe, expect, test } from 'vitest';
import { concat } from '../../../src/base/bytes.ts';
import type { BrokerId } from '../../../src/base/ids.ts';
import { encodeFrames } from '../../../src/raft/codec.ts';
import type { Configuration, Message } from '../../../src/raft/core/types.ts';
import { decodeHeartbeat } from '../../../src/raft/heartbeat-codec.ts';
import type { Lane } from '../../../src/raft/types.ts';
import { brokers, Cluster, configurationOf, groupKey, replicaIdOf } from './cluster.ts';

const never = new AbortController().signal;
let cluster: Cluster;
afterEach(() => cluster.assertHealthy());

const others = (broker: BrokerId) => brokers.filter((other) => other !== broker);
const rests = (broker: BrokerId, group = 0) => cluster.replica(broker, group)?.quiesced === true;
const allRest = (groups: readonly number[] = [0], on: readonly BrokerId[] = brokers) =>
  groups.every((group) => on.every((broker) => rests(broker, group)));

async function untilAllRest(groups: readonly number[] = [0], on: readonly BrokerId[] = brokers): Promise<void> {
  await cluster.environment.until(() => allRest(groups, on), 'all rest', 5_000);
}

/** A cluster whose groups rest, and who leads group 0. */
async function resting(groups: readonly number[] = [0]): Promise<BrokerId> {
  cluster = await Cluster.start(groups);
  for (const group of groups) await cluster.elected(group);
  await untilAllRest(groups);
  return cluster.elected();
}

/** A new leader other than `not` takes a write that the brokers up apply. */
async function moves(not: BrokerId, within: number): Promise<BrokerId> {
  const from = cluster.environment.monotonicMs();
  const next = await cluster.elected(0, not);
  expect(cluster.environment.monotonicMs() - from).toBeLessThan(within);
  const { index } = cluster.propose(next, 'after');
  await cluster.environment.until(() => cluster.owner(next).appliedIndex >= index, 'the new leader commits');
  return next;
}

function groupMessages(frame: Uint8Array, lane: Lane): number {
  return lane === 'heartbeat' ? decodeHeartbeat(frame).messages.length : 1;
}

describe('rest', () => {
  test('an idle group rests on leader and followers, costs no tick and no byte, and a proposal wakes it', async () => {
    const groups = [0, 1, 2, 3, 4];
    const leader = await resting(groups);
    let sent = 0;
    let frames = 0;
    cluster.network.observe = (_from, _to, lane, frame) => {
      frames++;
      sent += groupMessages(frame, lane);
      expect(frame.length).toBe(32);
    };
    let ticks = 0;
    for (const broker of brokers) {
      const { core } = cluster.replica(broker);
      const tick = core.tick.bind(core);
      core.tick = () => {
        ticks++;
        tick();
      };
    }
    const { term } = cluster.replica(leader).leadership;
    await cluster.environment.run(10_000);
    expect(sent).toBe(0);
    expect(ticks).toBe(0);
    expect(frames).toBeGreaterThan(500);
    expect(allRest(groups)).toBe(true);
    cluster.network.observe = () => {};
    cluster.propose(leader, 'a');
    for (const broker of brokers) await cluster.applied(broker, ['a']);
    expect(brokers.some((broker) => rests(broker))).toBe(false);
    await untilAllRest(groups);
    expect(ticks).toBeGreaterThan(10);
    expect(cluster.leader()).toBe(leader);
    expect(cluster.replica(leader).leadership.term).toBe(term);
  });

  test('a group that is in use now and then, between ticks, does not rest', async () => {
    const leader = await resting();
    const replica = cluster.replica(leader);
    for (const use of [() => cluster.propose(leader, 'x'), () => replica.readIndex(never)]) {
      for (let i = 0; i < 20; i++) {
        void use();
        await cluster.environment.run(120);
        expect(brokers.some((broker) => rests(broker))).toBe(false);
      }
      await untilAllRest();
    }
  });

  test('a leader at rest is ready, has all in sync, confirms reads and hands over', async () => {
    const leader = await resting();
    const replica = cluster.replica(leader);
    await cluster.environment.run(20_000);
    expect(replica.leadership).toMatchObject({ role: 'leader', ready: true });
    expect([...replica.inSync()].sort()).toEqual(brokers);
    expect(replica.durableOn(3)).toBe(replica.lastIndex);
    const read = replica.readIndex(never);
    await cluster.environment.run(2);
    expect(await read).toBe(replica.commitIndex);
    await untilAllRest();
    const to = others(leader)[0]!;
    const moved = replica.transferLeadership(replicaIdOf(to), never);
    expect(await cluster.elected(0, leader)).toBe(to);
    await moved;
    await untilAllRest();
  });

  test('it rests without a member whose broker is down, which gets what it lacks when it is back; none boots at rest', async () => {
    const leader = await resting();
    const away = others(leader)[0]!;
    cluster.kill(away);
    const there = brokers.filter((broker) => broker !== away);
    await cluster.environment.run(2_000);
    expect(allRest([0], there)).toBe(true);
    cluster.propose(leader, 'missed');
    for (const broker of there) await cluster.applied(broker, ['missed']);
    await untilAllRest([0], there);
    await cluster.environment.run(5_000);
    expect(allRest([0], there)).toBe(true);
    expect(cluster.leader()).toBe(leader);
    expect(cluster.replica(leader).inSync()).not.toContain(away);
    cluster.boot(away);
    await cluster.open(away);
    expect(rests(away)).toBe(false);
    await cluster.applied(away, ['missed']);
    await untilAllRest();
    expect(cluster.leader()).toBe(leader);
  });

  test('it does not rest without a majority', async () => {
    const leader = await resting();
    for (const away of others(leader)) cluster.kill(away);
    await cluster.environment.run(300);
    expect(rests(leader)).toBe(false);
    await cluster.environment.run(3_000);
    expect(rests(leader)).toBe(false);
    expect(cluster.replica(leader).leadership.role).not.toBe('leader');
  });

  test('a member that is only cut off for a while gets what it lacks when its broker is heard again', async () => {
    const leader = await resting();
    const away = others(leader)[0]!;
    const there = brokers.filter((broker) => broker !== away);
    cluster.network.isolate(away, there);
    await cluster.environment.run(1_000);
    cluster.propose(cluster.leader() ?? leader, 'missed');
    for (const broker of there) await cluster.applied(broker, ['missed']);
    cluster.network.heal();
    await cluster.applied(away, ['missed']);
    await untilAllRest();
  });

  test('what a group at rest keeps in memory is what segments do not hold', async () => {
    const leader = await resting();
    cluster.propose(leader, 'x');
    for (const broker of brokers) await cluster.applied(broker, ['x']);
    await untilAllRest();
    for (const broker of brokers) expect(cluster.replica(broker).core.entriesBetween(2, 2)).toBeUndefined();
    cluster.propose(leader, 'y');
    for (const broker of brokers) await cluster.applied(broker, ['x', 'y']);
  });

  test('a learner rests with the voters, and wakes with them', async () => {
    cluster = new Cluster();
    for (const broker of brokers) cluster.boot(broker);
    const { voters } = configurationOf(0);
    const configuration: Configuration = { voters: voters.slice(0, 2), outgoing: [], learners: voters.slice(2) };
    for (const broker of brokers) await cluster.open(broker, 0, broker === brokers[0], undefined, configuration);
    const leader = await cluster.elected();
    await untilAllRest();
    await cluster.environment.run(3_000);
    expect(allRest()).toBe(true);
    cluster.propose(leader, 'a');
    for (const broker of brokers) await cluster.applied(broker, ['a']);
    await untilAllRest();
    cluster.kill(brokers[2]!);
    await cluster.environment.run(2_000);
    expect(cluster.leader()).toBe(leader);
    expect(rests(leader)).toBe(true);
  });

  test('a group rests before and after a change of its members, and never in a joint configuration', async () => {
    cluster = new Cluster();
    for (const broker of brokers) cluster.boot(broker);
    const { voters } = configurationOf(0);
    const configuration: Configuration = { voters: voters.slice(0, 2), outgoing: [], learners: voters.slice(2) };
    for (const broker of brokers) await cluster.open(broker, 0, broker === brokers[0], undefined, configuration);
    const leader = await cluster.elected();
    await untilAllRest();
    cluster.replica(leader).changeMembers({ voters, learners: [] });
    const isJoint = (broker: BrokerId) => cluster.replica(broker).configuration.outgoing.length > 0;
    expect(isJoint(leader)).toBe(true);
    while (brokers.some(isJoint)) {
      for (const broker of brokers) expect(isJoint(broker) && rests(broker)).toBe(false);
      await cluster.environment.run(0.1);
    }
    await untilAllRest();
    for (const broker of brokers) expect(cluster.replica(broker).configuration).toEqual({ voters, outgoing: [], learners: [] });
  });

  test('a group of one rests, and wakes for a proposal', async () => {
    cluster = new Cluster();
    cluster.boot(brokers[0]!);
    const configuration = { voters: configurationOf(0).voters.slice(0, 1), outgoing: [], learners: [] };
    await cluster.open(brokers[0]!, 0, true, undefined, configuration);
    await cluster.elected();
    await untilAllRest([0], [brokers[0]!]);
    cluster.propose(brokers[0]!, 'a');
    await cluster.applied(brokers[0]!, ['a']);
    await untilAllRest([0], [brokers[0]!]);
  });
});

describe('B39: a group at rest is never stuck', () => {
  test('the leader dies at rest', async () => {
    const leader = await resting();
    cluster.kill(leader);
    await moves(leader, 500);
  });

  test('the leader is cut off at rest: another takes over, and it steps down itself', async () => {
    const leader = await resting();
    cluster.network.isolate(leader, others(leader));
    await moves(leader, 2_000);
    await cluster.environment.until(() => cluster.replica(leader).leadership.role !== 'leader', 'the old leader steps down', 2_000);
    cluster.network.heal();
    await untilAllRest();
  });

  test('a follower misses the quiesce', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    const deaf = others(leader)[0]!;
    let missed = 0;
    cluster.network.lose = (from, to, lane, frame) => {
      if (from !== leader || to !== deaf || lane !== 'heartbeat' || missed > 0) return false;
      const quiesce = decodeHeartbeat(frame).messages.some(({ message }) => message.type === 'heartbeat' && message.quiesce);
      if (quiesce) missed++;
      return quiesce;
    };
    const { term } = cluster.replica(leader).leadership;
    const before = new Map(brokers.map((broker) => [broker, cluster.owner(broker).events.length]));
    await cluster.environment.until(() => missed > 0, 'a quiesce is lost');
    await cluster.environment.run(1);
    expect([rests(leader), rests(deaf)]).toEqual([true, false]);
    await cluster.environment.until(() => !rests(leader), 'the leader wakes', 400);
    await untilAllRest();
    expect(cluster.replica(leader).leadership).toMatchObject({ role: 'leader', term });
    for (const broker of brokers) expect(cluster.owner(broker).events.slice(before.get(broker))).toEqual([]);
  });

  test('a follower restarts so fast that nobody missed it', async () => {
    const leader = await resting();
    const follower = others(leader)[0]!;
    const { term } = cluster.replica(leader).leadership;
    cluster.node(follower).storage.wal.dead = true;
    void cluster.node(follower).host.stop();
    cluster.nodes.delete(follower);
    cluster.boot(follower);
    await cluster.open(follower);
    await cluster.environment.until(() => !rests(leader), 'the leader wakes', 400);
    await untilAllRest();
    expect(cluster.leader()).toBe(leader);
    expect(cluster.replica(leader).leadership.term).toBe(term);
  });

  test('the leader restarts so fast that nobody missed it', async () => {
    const leader = await resting();
    cluster.node(leader).storage.wal.dead = true;
    void cluster.node(leader).host.stop();
    cluster.nodes.delete(leader);
    cluster.boot(leader);
    await cluster.open(leader);
    const next = await cluster.elected();
    expect(cluster.environment.monotonicMs()).toBeLessThan(4_000);
    cluster.propose(next, 'a');
    for (const broker of brokers) await cluster.applied(broker, ['a']);
    await untilAllRest();
  });

  test("the leader's replica is closed while its broker lives", async () => {
    const groups = [0, 1, 2];
    const leader = await resting(groups);
    const closing = cluster.node(leader).host.close(groupKey(0));
    await cluster.environment.run(5);
    await closing;
    await moves(leader, 2_500);
    await untilAllRest([1, 2]);
  });

  test("a follower's replica is closed while its broker lives: the leader wakes and goes on with the majority", async () => {
    const leader = await resting();
    const closed = others(leader)[0]!;
    const closing = cluster.node(closed).host.close(groupKey(0));
    await cluster.environment.run(5);
    await closing;
    await cluster.environment.until(() => !rests(leader), 'the leader wakes', 1_000);
    for (let i = 0; i < 100; i++) {
      await cluster.environment.run(30);
      expect(rests(leader)).toBe(false);
    }
    expect(cluster.leader()).toBe(leader);
  });

  test('the leader steps down and the followers do not hear of it', async () => {
    const leader = await resting();
    const follower = others(leader)[0]!;
    const { term } = cluster.replica(leader).leadership;
    const response = { rejected: true, matchIndex: 0, rejectedIndex: 0, hintIndex: 0, hintTerm: 0, probation: 0 };
    const message: Message = { type: 'appendResponse', from: replicaIdOf(follower), to: replicaIdOf(leader), term: term + 1, ...response };
    for (const frame of encodeFrames([{ group: groupKey(0), message }]))
      cluster.network.receivers.get(leader)!.frame(follower, 'raft', concat(frame));
    await cluster.environment.run(1);
    expect(cluster.replica(leader).leadership.role).toBe('follower');
    expect(others(leader).every((broker) => rests(broker))).toBe(true);
    const from = cluster.environment.monotonicMs();
    const next = await cluster.elected();
    expect(cluster.environment.monotonicMs() - from).toBeLessThan(2_500);
    cluster.propose(next, 'a');
    for (const broker of brokers) await cluster.applied(broker, ['a']);
    await untilAllRest();
  });

  test.each([
    ['hears nobody', (one: BrokerId, other: BrokerId) => `${other}>${one}`],
    ['is heard by nobody', (one: BrokerId, other: BrokerId) => `${one}>${other}`],
  ])('a link goes one way for good: the leader %s', async (_what, link) => {
    const leader = await resting();
    for (const other of others(leader)) cluster.network.cut.add(link(leader, other));
    await moves(leader, 3_000);
    await cluster.environment.until(() => cluster.replica(leader).leadership.role !== 'leader', 'the old leader steps down', 3_000);
  });

  test.each([
    ['hears nobody', (one: BrokerId, other: BrokerId) => `${other}>${one}`],
    ['is heard by nobody', (one: BrokerId, other: BrokerId) => `${one}>${other}`],
  ])('a link goes one way for good: a follower %s', async (_what, link) => {
    const leader = await resting();
    const follower = others(leader)[0]!;
    const { term } = cluster.replica(leader).leadership;
    for (const other of others(follower)) cluster.network.cut.add(link(follower, other));
    await cluster.environment.run(5_000);
    expect(cluster.leader()).toBe(leader);
    expect(cluster.replica(leader).leadership.term).toBe(term);
    cluster.propose(leader, 'a');
    await cluster.applied(leader, ['a']);
    cluster.network.heal();
    await untilAllRest();
    expect(cluster.leader()).toBe(leader);
  });

  test('with frames lost and groups in use, all come to rest once it is calm', async () => {
    const groups = [0, 1, 2, 3, 4, 5, 6, 7];
    cluster = await Cluster.start(groups, {}, 11);
    for (const group of groups) await cluster.elected(group);
    cluster.network.lostPerMille = 300;
    for (let round = 0; round < 60; round++) {
      const group = groups[round % groups.length]!;
      const leader = cluster.leader(group);
      if (leader !== undefined && cluster.replica(leader, group).leadership.ready) {
        try {
          cluster.propose(leader, `${round}`, group);
        } catch {}
      }
      await cluster.environment.run(150);
    }
    cluster.network.lostPerMille = 0;
    await untilAllRest(groups);
    for (const group of groups) {
      const leader = await cluster.elected(group);
      const commands = cluster.owner(leader, group).commands;
      for (const broker of brokers) expect(cluster.owner(broker, group).commands).toEqual(commands);
    }
  });
});

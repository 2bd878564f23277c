import { afterEach, describe, expect, test } from 'vitest';
import type { BrokerId, ReplicaId } from '../../../src/base/ids.ts';
import { decodeFrame } from '../../../src/raft/codec.ts';
import { brokers, Cluster, replicaIdOf } from './cluster.ts';

const never = new AbortController().signal;
let cluster: Cluster;
afterEach(() => cluster.assertHealthy());

const others = (broker: BrokerId) => brokers.filter((other) => other !== broker);

describe('leadership', () => {
  test('the death of a leader is noticed by its connections, and another leads within half a second', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    cluster.propose(leader, 'a');
    for (const broker of brokers) await cluster.applied(broker, ['a']);
    cluster.kill(leader);
    const diedAt = cluster.environment.monotonicMs();
    const next = await cluster.elected();
    expect(cluster.environment.monotonicMs() - diedAt).toBeLessThan(500);
    cluster.propose(next, 'b');
    for (const broker of others(leader)) await cluster.applied(broker, ['a', 'b']);
  });

  test('a leader that falls silent is replaced, steps down, and drops what did not commit', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    cluster.network.isolate(leader, others(leader));
    const { index } = cluster.propose(leader, 'lost');
    const from = cluster.environment.monotonicMs();
    const next = await cluster.elected(0, leader);
    expect(cluster.environment.monotonicMs() - from).toBeLessThan(3000);
    cluster.propose(next, 'kept');
    await cluster.environment.until(() => cluster.replica(leader).leadership.role !== 'leader', 'the old leader steps down', 3000);
    expect(() => cluster.propose(leader, 'x')).toThrow(/does not lead/);
    cluster.network.heal();
    await cluster.applied(leader, ['kept']);
    const { events } = cluster.owner(leader);
    const truncated = events.findIndex((event) => event.startsWith(`truncated ${index - 1} `));
    expect(truncated).toBeGreaterThan(0);
    expect(events.slice(0, truncated)).toContain('follower');
    expect(events[truncated + 1]).toMatch(/^appended/);
  });

  test('leadership moves on demand', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    const to = others(leader)[1]!;
    const moved = cluster.replica(leader).transferLeadership(replicaIdOf(to), never);
    const next = await cluster.elected(0, leader);
    await moved;
    expect(next).toBe(to);
    await expect(cluster.replica(leader).transferLeadership(replicaIdOf(to), never)).rejects.toMatchObject({
      code: 'NOT_LEADER_OR_FOLLOWER',
    });
  });

  test('a transfer to nobody is refused, to a voter that dies ends with it, and can be aborted', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    const replica = cluster.replica(leader);
    await expect(replica.transferLeadership(999 as ReplicaId, never)).rejects.toMatchObject({ code: 'INVALID_REQUEST' });
    const dead = others(leader)[0]!;
    const abort = new AbortController();
    const aborted = replica.transferLeadership(replicaIdOf(dead), abort.signal);
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' });
    const lost = replica.transferLeadership(replicaIdOf(dead), never);
    const outcome = expect(lost).rejects.toMatchObject({ code: 'BROKER_NOT_AVAILABLE' });
    cluster.kill(dead);
    // As soon as it is known to be down, long before transferTimeoutMs.
    await cluster.environment.run(1_000);
    await outcome;
    await expect(replica.transferLeadership(replicaIdOf(dead), never)).rejects.toMatchObject({ code: 'BROKER_NOT_AVAILABLE' });
  });

  test('a leader with a stalled disk hands over to a voter whose disk is fresh', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    await cluster.environment.run(300);
    cluster.node(leader).storage.wal.stalledSince = cluster.environment.monotonicMs();
    const next = await cluster.elected(0, leader);
    expect(next).not.toBe(leader);
  });

  test('a broker that was cut off does not disturb the others when it is back', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    const away = others(leader)[0]!;
    const { term } = cluster.replica(leader).leadership;
    cluster.network.isolate(away, others(away));
    await cluster.environment.run(5000);
    cluster.network.heal();
    await cluster.environment.run(3000);
    expect(cluster.leader()).toBe(leader);
    expect(cluster.replica(leader).leadership.term).toBe(term);
  });

  test('a stopped leader is replaced within three seconds, and follows when it goes on', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    cluster.pauses.get(leader)!.pause();
    const from = cluster.environment.monotonicMs();
    const next = await cluster.elected(0, leader);
    expect(cluster.environment.monotonicMs() - from).toBeLessThan(3000);
    const { term } = cluster.replica(next).leadership;
    await cluster.environment.run(5000);
    cluster.pauses.get(leader)!.resume();
    await cluster.environment.run(3000);
    expect(cluster.replica(leader).leadership).toMatchObject({ role: 'follower', term, leader: { brokerId: next } });
    expect(cluster.replica(next).leadership).toMatchObject({ role: 'leader', term });
  });

  test('a stopped follower that goes on sees no peer as down', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    const stopped = others(leader)[0]!;
    await cluster.environment.run(300);
    cluster.pauses.get(stopped)!.pause();
    await cluster.environment.run(5000);
    const { events } = cluster.owner(stopped);
    const before = events.length;
    cluster.pauses.get(stopped)!.resume();
    await cluster.environment.run(2000);
    expect(events.slice(before)).toEqual([]);
    expect(cluster.node(stopped).host.isAlive(leader)).toBe(true);
    expect(cluster.leader()).toBe(leader);
  });
});

describe('reads', () => {
  test('a leader confirms reads with a majority, and readers of one turn share a round', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    const { index } = cluster.propose(leader, 'a');
    await cluster.applied(leader, ['a']);
    await cluster.environment.run(10);
    let rounds = 0;
    cluster.network.observe = (from, _to, lane, frame) => {
      if (lane !== 'raft' || from !== leader) return;
      rounds += decodeFrame(frame).filter(({ message }) => message.type === 'heartbeat' && message.readContext > 0).length;
    };
    const reads = Promise.all([1, 2, 3].map(() => cluster.replica(leader).readIndex(never)));
    await cluster.environment.run(1);
    expect(await reads).toEqual([index, index, index]);
    expect(rounds).toBe(2);
  });

  test('a follower refuses; a leader without a majority does not answer, and says so when it is deposed', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    await expect(cluster.replica(others(leader)[0]!).readIndex(never)).rejects.toMatchObject({ code: 'NOT_LEADER_OR_FOLLOWER' });
    cluster.network.isolate(leader, others(leader));
    let answered = false;
    const read = cluster
      .replica(leader)
      .readIndex(never)
      .finally(() => {
        answered = true;
      });
    const outcome = expect(read).rejects.toMatchObject({ code: 'NOT_LEADER_OR_FOLLOWER' });
    await cluster.environment.run(100);
    expect(answered).toBe(false);
    await cluster.environment.run(4000);
    await outcome;
  });
});

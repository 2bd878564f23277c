import { afterEach, describe, expect, test } from 'vitest';
import { concat } from '../../../src/base/bytes.ts';
import type { BrokerId, DirectoryId, ReplicaId } from '../../../src/base/ids.ts';
import { decodeFrame, encodeFrames } from '../../../src/raft/codec.ts';
import { EntryKind } from '../../../src/raft/core/entry.ts';
import { makeEntry } from '../../../src/raft/core/entry-codec.ts';
import type { Configuration, Message } from '../../../src/raft/core/types.ts';
import { brokers, Cluster, command, configurationOf, groupKey, replicaIdOf } from './cluster.ts';

const never = new AbortController().signal;
let cluster: Cluster;
afterEach(() => cluster.assertHealthy());

const others = (broker: BrokerId) => brokers.filter((other) => other !== broker);

describe('replication', () => {
  test('elects, replicates, and tells every owner in the order of the log', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    const placed = ['a', 'b', 'c'].map((text) => cluster.propose(leader, text));
    expect(placed.map(({ index }) => index)).toEqual([2, 3, 4]);
    expect(placed.map(({ nextOffset }) => nextOffset)).toEqual([1, 2, 3]);
    for (const broker of brokers) await cluster.applied(broker, ['a', 'b', 'c']);
    const { events } = cluster.owner(leader);
    expect(events.indexOf('leader')).toBeLessThan(events.indexOf('appended 1'));
    expect(events.indexOf('apply 1')).toBeLessThan(events.indexOf('leader ready'));
  });

  test('a chosen first leader campaigns at once, even before its peers opened the group', async () => {
    cluster = new Cluster();
    for (const broker of brokers) cluster.boot(broker);
    await cluster.open(brokers[1]!, 0, true);
    await cluster.environment.run(5);
    for (const broker of others(brokers[1]!)) await cluster.open(broker);
    await cluster.environment.run(20);
    expect(cluster.leader()).toBe(brokers[1]);
  });

  test('appended is called inside propose, so that the next proposal can build on it', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    const { index } = cluster.propose(leader, 'x');
    expect(cluster.owner(leader).appendedIndex).toBe(index);
    expect(cluster.owner(leader).appliedIndex).toBe(index - 1);
  });

  test('one record alone is sent within its task, and what comes while a flush is in flight shares one frame and one flush', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    await cluster.environment.run(30);
    const appends: number[] = [];
    cluster.network.observe = (from, to, lane, frame) => {
      if (from !== leader || lane !== 'raft' || to !== others(leader)[0]) return;
      const entries = decodeFrame(frame).flatMap(({ message }) => (message.type === 'append' ? message.entries : []));
      if (entries.length > 0) appends.push(entries.length);
    };
    const before = cluster.node(leader).storage.wal.statistics.flushes;
    cluster.propose(leader, 'alone');
    await cluster.environment.run(0);
    expect(appends).toEqual([1]);
    for (let i = 0; i < 50; i++) cluster.propose(leader, `${i}`);
    await cluster.environment.run(0);
    expect(appends).toEqual([1, 50]);
    await cluster.environment.run(10);
    expect(cluster.node(leader).storage.wal.statistics.flushes - before).toBe(2);
  });

  test('the groups of a turn share one frame a peer and one flush', async () => {
    const groups = Array.from({ length: 20 }, (_, i) => i);
    cluster = await Cluster.start([]);
    for (const group of groups) for (const broker of brokers) await cluster.open(broker, group, broker === brokers[0]);
    for (const group of groups) await cluster.elected(group);
    await cluster.environment.run(200);
    const leader = brokers[0]!;
    expect(groups.every((group) => cluster.leader(group) === leader)).toBe(true);
    let frames = 0;
    cluster.network.observe = (from, _to, lane) => {
      if (from === leader && lane === 'raft') frames++;
    };
    const before = cluster.node(leader).storage.wal.statistics.flushes;
    for (const group of groups) cluster.propose(leader, 'x', group);
    await cluster.environment.run(0);
    expect(frames).toBe(2);
    await cluster.environment.run(0.25);
    expect(cluster.node(leader).storage.wal.statistics.flushes - before).toBe(1);
    for (const group of groups) for (const broker of brokers) await cluster.applied(broker, ['x'], group);
  });

  test('a follower that was away catches up from segments, over read errors', async () => {
    cluster = await Cluster.start([0], { maxAppendBytes: 2000, maxWindowBytes: 0 });
    const leader = await cluster.elected();
    const away = others(leader)[0]!;
    cluster.kill(away);
    const commands = Array.from({ length: 200 }, (_, i) => `${i}`.padStart(100, '.'));
    for (const text of commands) {
      cluster.propose(leader, text);
      await cluster.environment.run(2);
    }
    await cluster.applied(leader, commands);
    const { log } = cluster.replica(leader);
    let failures = 3;
    let reads = 0;
    const readEntries = log.readEntries.bind(log);
    log.readEntries = async (from, maxBytes) => {
      reads++;
      if (failures-- > 0) throw new Error('EIO');
      return readEntries(from, maxBytes);
    };
    cluster.boot(away);
    await cluster.open(away);
    await cluster.applied(away, commands);
    // Three that failed, one of a probe, and then as much as may be in flight.
    expect(reads).toBeGreaterThan(3);
    expect(reads).toBeLessThan(8);
  });
});

describe('durability', () => {
  test('nothing is acknowledged, and no vote leaves, before it is durable', async () => {
    cluster = await Cluster.start([]);
    const promised: string[] = [];
    cluster.network.observe = (from, _to, lane, frame) => {
      if (lane !== 'raft') return;
      const disk = cluster.disks.get(from)!.group(groupKey(0));
      for (const { message } of decodeFrame(frame)) {
        if (message.type === 'voteResponse' && message.granted && !message.pre) {
          expect(disk.hardState).toMatchObject({ term: message.term, vote: message.to });
          promised.push('vote');
        }
        if (message.type === 'vote' && !message.pre) expect(disk.hardState).toMatchObject({ term: message.term, vote: message.from });
        if (message.type === 'appendResponse' && !message.rejected && message.matchIndex > 0) {
          expect(disk.entries.at(-1)?.index).toBeGreaterThanOrEqual(message.matchIndex);
          promised.push('append');
        }
      }
    };
    for (const broker of brokers) await cluster.open(broker);
    const leader = await cluster.elected();
    for (let i = 0; i < 20; i++) {
      cluster.propose(leader, `${i}`);
      await cluster.environment.run(i % 3 === 0 ? 0 : 0.15);
    }
    await cluster.environment.run(50);
    expect(cluster.owner(leader).commands).toHaveLength(20);
    expect(new Set(promised)).toEqual(new Set(['vote', 'append']));
  });

  test('a failed write ends the process, once', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    const node = cluster.node(leader);
    node.storage.wal.failWith = new Error('EIO');
    cluster.propose(leader, 'a');
    await cluster.environment.run(0);
    cluster.propose(leader, 'b');
    await cluster.environment.run(20);
    expect(node.fatal).toHaveLength(1);
    expect(cluster.owner(leader).commands).toEqual([]);
    cluster.kill(leader);
    const next = await cluster.elected();
    cluster.propose(next, 'c');
    await cluster.environment.until(() => cluster.owner(next).commands.includes('c'), 'c commits');
  });

  test('what was acknowledged survives the death of every broker', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    for (const text of ['a', 'b', 'c']) cluster.propose(leader, text);
    await cluster.applied(leader, ['a', 'b', 'c']);
    for (const broker of brokers) cluster.kill(broker);
    for (const broker of brokers) {
      cluster.boot(broker);
      await cluster.open(broker);
    }
    for (const broker of brokers) await cluster.applied(broker, ['a', 'b', 'c']);
  });

  test('after a clean stop the owner gets only what follows the segments, and replays the rest by itself', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    for (const text of ['a', 'b']) cluster.propose(leader, text);
    for (const broker of brokers) await cluster.applied(broker, ['a', 'b']);
    for (const broker of brokers) {
      const stopped = cluster.node(broker).host.stop();
      await cluster.environment.run(10);
      await stopped;
      cluster.nodes.delete(broker);
    }
    for (const broker of brokers) {
      cluster.boot(broker);
      await cluster.open(broker);
    }
    const next = await cluster.elected();
    cluster.propose(next, 'c');
    await cluster.applied(next, ['c']);
    const stored = await cluster.replica(next).log.readEntries(1, 1 << 20);
    expect(stored.slice(0, 3).map(({ index }) => index)).toEqual([1, 2, 3]);
  });

  test('a replica that cannot prove its log whole, or that belongs to another directory, is not opened', async () => {
    cluster = await Cluster.start();
    await cluster.elected();
    cluster.kill(brokers[0]!);
    const { host } = cluster.boot(brokers[0]!);
    cluster.disks.get(brokers[0]!)!.group(groupKey(0)).whole = false;
    await expect(cluster.open(brokers[0]!)).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    const onto = (configuration: Configuration, replicaId: ReplicaId) =>
      host.open({
        group: groupKey(1),
        replicaId,
        configuration,
        settings: { segmentBytes: 1 },
        campaign: false,
        owner: () => {
          throw new Error('no owner for what is not opened');
        },
      });
    const here = configurationOf(1);
    await expect(onto(here, replicaIdOf(brokers[1]!, 1))).rejects.toMatchObject({ code: 'DATA_DIRECTORY' });
    // The broker is the same, and its disk another (B14).
    const voters = here.voters.map((member) => ({ ...member, directoryId: 'f'.repeat(32) as DirectoryId }));
    await expect(onto({ ...here, voters }, replicaIdOf(brokers[0]!, 1))).rejects.toMatchObject({ code: 'DATA_DIRECTORY' });
    expect([...host.replicas]).toEqual([]);
  });
});

describe('bounds', () => {
  test('proposals are refused while the disk is behind', async () => {
    cluster = await Cluster.start([0], { maxPendingDiskBytes: 1000 });
    const leader = await cluster.elected();
    const { storage } = cluster.node(leader);
    const refused = expect.objectContaining({ code: 'THROTTLING_QUOTA_EXCEEDED', retriable: true });
    storage.wal.pendingBytes = 1001;
    expect(() => cluster.propose(leader, 'x')).toThrow(refused);
    storage.wal.pendingBytes = 0;
    storage.unwrittenBytes = 1001;
    expect(() => cluster.propose(leader, 'x')).toThrow(refused);
    storage.unwrittenBytes = 0;
    cluster.propose(leader, 'x');
  });

  test('a follower whose disk is behind takes no more appends than it may hold, and catches up afterwards', async () => {
    const groups = [0, 1, 2, 3, 4, 5, 6, 7];
    const bound = 8_000;
    cluster = await Cluster.start(groups, { maxInflightBytes: 4_000, maxPendingAppendBytes: bound });
    for (const group of groups) await cluster.elected(group);
    const slow = brokers.find((broker) => groups.every((group) => cluster.leader(group) !== broker)) ?? others(cluster.leader(0)!)[0]!;
    const { wal } = cluster.node(slow).storage;
    wal.stalledSince = cluster.environment.monotonicMs();
    const texts = Array.from({ length: 100 }, (_, i) => `${i}`.padStart(100, '.'));
    const led = groups.filter((group) => cluster.leader(group) !== slow);
    let most = 0;
    for (const text of texts) {
      for (const group of led) cluster.propose(cluster.leader(group)!, text, group);
      await cluster.environment.run(2);
      most = Math.max(most, wal.pendingBytes);
    }
    expect(most).toBeGreaterThan(bound / 2);
    expect(most).toBeLessThanOrEqual(bound + 2 * 4_000);
    wal.stalledSince = undefined;
    wal.pump();
    for (const group of led) await cluster.applied(slow, texts, group);
  });

  test('proposals are refused while too much is uncommitted', async () => {
    cluster = await Cluster.start([0], { maxUncommittedBytes: 1000 });
    const leader = await cluster.elected();
    const fill = () => {
      for (let i = 0; i < 100; i++) cluster.replica(leader).propose(command('0123456789'));
    };
    expect(fill).toThrow(expect.objectContaining({ code: 'THROTTLING_QUOTA_EXCEEDED' }));
  });

  test("a member's message from another broker, or for another replica, is dropped", async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    const [real, other] = others(leader);
    const { term } = cluster.replica(leader).leadership;
    const from = replicaIdOf(real!);
    const send = (sender: BrokerId, to: ReplicaId) => {
      const message = {
        type: 'appendResponse',
        from,
        to,
        term: term + 1,
        rejected: true,
        matchIndex: 0,
        rejectedIndex: 0,
        hintIndex: 0,
        hintTerm: 0,
        probation: 0,
      } as const;
      cluster.network.receivers.get(leader)!.frame(sender, 'raft', concat(encodeFrames([{ group: groupKey(0), message }])[0]!));
    };
    send(other!, replicaIdOf(leader));
    send(real!, replicaIdOf(other!));
    expect(cluster.replica(leader).core.term).toBe(term);
    send(real!, replicaIdOf(leader));
    expect(cluster.replica(leader).core.term).toBe(term + 1);
  });

  test('garbage from a peer is dropped', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    for (const lane of ['raft', 'heartbeat'] as const) {
      cluster.network.receivers.get(leader)!.frame(others(leader)[0]!, lane, Uint8Array.of(1, 2, 3));
    }
    cluster.propose(leader, 'a');
    await cluster.applied(leader, ['a']);
  });

  test('stop ends within its deadline even when the disk does not answer', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    const { host, storage } = cluster.node(leader);
    storage.wal.stalledSince = cluster.environment.monotonicMs();
    cluster.propose(leader, 'a');
    cluster.network.isolate(leader, others(leader));
    const read = expect(cluster.replica(leader).readIndex(never)).rejects.toMatchObject({ code: 'NOT_LEADER_OR_FOLLOWER' });
    await cluster.environment.run(1);
    let stopped = false;
    const stop = host.stop().then(() => {
      stopped = true;
    });
    await cluster.environment.run(6000);
    expect(stopped).toBe(true);
    await stop;
    await read;
    await expect(cluster.open(leader, 5)).rejects.toMatchObject({ code: 'CLOSED' });
    cluster.nodes.delete(leader);
  });

  test('a closed group keeps its data, a removed one does not', async () => {
    cluster = await Cluster.start();
    const leader = await cluster.elected();
    cluster.propose(leader, 'a');
    for (const broker of brokers) await cluster.applied(broker, ['a']);
    const [kept, gone] = others(leader);
    const closing = Promise.all([cluster.node(kept!).host.close(groupKey(0)), cluster.node(gone!).host.remove(groupKey(0))]);
    await cluster.environment.run(10);
    await closing;
    expect(cluster.node(kept!).host.get(groupKey(0))).toBeUndefined();
    expect(cluster.disks.get(kept!)!.groups.get(groupKey(0))?.segments).toHaveLength(2);
    expect(cluster.disks.get(gone!)!.groups.has(groupKey(0))).toBe(false);
    await cluster.open(kept!);
    expect(cluster.replica(kept!).lastIndex).toBe(2);
  });
});

test('an owner hears that its own proposal was cut off, though no turn had come to it (B30)', async () => {
  cluster = await Cluster.start();
  const leader = await cluster.elected();
  cluster.propose(leader, 'kept');
  for (const broker of brokers) await cluster.applied(broker, ['kept']);
  const other = brokers.find((broker) => broker !== leader) as BrokerId;
  const { core } = cluster.replica(leader);
  const [previous] = core.entriesBetween(core.lastIndex, core.lastIndex) ?? [];
  if (previous === undefined) throw new Error('the last entry is in memory');
  // In one iteration of the event loop: a proposal, and the first append of a leader that the others elected meanwhile.
  const { index, term } = cluster.propose(leader, 'lost');
  const { nextOffset } = previous;
  const entry = makeEntry({
    index,
    term: term + 1,
    kind: EntryKind.batch,
    nextOffset: nextOffset + 3,
    recordCount: 3,
    payloadChecksum: 0,
    payload: new Uint8Array(0),
    previous,
  });
  const message: Message = {
    type: 'append',
    from: replicaIdOf(other),
    to: replicaIdOf(leader),
    term: term + 1,
    prevIndex: previous.index,
    prevTerm: previous.term,
    commit: index,
    entries: [entry],
  };
  for (const frame of encodeFrames([{ group: groupKey(0), message }])) {
    cluster.network.receivers.get(leader)?.frame(other, 'raft', concat(frame));
  }
  const owner = cluster.owner(leader);
  await cluster.environment.until(() => owner.appliedIndex === index, 'the new leader’s entry is applied');
  cluster.assertHealthy();
  expect(owner.events.slice(-4)).toEqual(['follower', `truncated ${index - 1} ${nextOffset}`, `appended ${index}`, `apply ${index}`]);
});

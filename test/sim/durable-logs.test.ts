import { afterEach, expect, test, vi } from 'vitest';
import type { BrokerId, DirectoryId, ReplicaId } from '../../src/base/ids.ts';
import { encodeFrames } from '../../src/raft/codec.ts';
import { A, chainOf, Fixture, REPLICA, settings, write } from '../storage/fixture.ts';
import { Inode } from './disk-inode.ts';
import { DurableLogs } from './durable-logs.ts';
import { simulate } from './run.ts';

afterEach(() => vi.restoreAllMocks());

/** A net that finds nothing must be known to find something. */
test('disks that say that they have synced, and have not, are found out', async () => {
  const { synced } = Inode.prototype;
  let syncs = 0;
  vi.spyOn(Inode.prototype, 'synced').mockImplementation(function (this: Inode, changes, failed, durable) {
    synced.call(this, changes, failed || ++syncs > 150, durable);
  });
  await expect(simulate({ seed: 1, safetyMs: 2_000, faults: ['reset'], untilItCounts: false })).rejects.toThrow(
    /committed with durable copies on|which is not durable|durable is/,
  );
});

/** Seed 556: its acknowledgement came before its disk was lost, and the entry committed after. */
test('what a disk held before it was lost still counts for what commits; what it never held does not', async () => {
  const failures: string[] = [];
  const logs = new DurableLogs((message) => failures.push(message));
  const fixture = new Fixture();
  const { disk } = fixture;
  disk.onDurable = (path, inode, position, length) => logs.durable(4, path, inode, position, length);
  const storage = await fixture.open();
  await storage.openLog(A, settings, REPLICA);
  await storage.wal.append([write(chainOf(3))]);
  logs.wiped(4);
  const voter = { replicaId: REPLICA, brokerId: 4 as BrokerId, directoryId: '4'.repeat(32) as DirectoryId };
  const commits = (index: number) => logs.mustHold(A, index, 1, { voters: [voter], outgoing: [], learners: [] }, 'broker 1');
  commits(3);
  expect(failures).toEqual([]);
  commits(4);
  expect(failures).toEqual(['broker 1: entry 4 of term 1 committed with durable copies on [] of [4]']);
});

/** Seed 41015: one flush had a replica's last entries and that it was given up, and their acknowledgement left after it. */
test('what a replica acknowledges counts by what it held when it was given up; the one that takes its place must hold its own', async () => {
  const failures: string[] = [];
  const logs = new DurableLogs((message) => failures.push(message));
  const fixture = new Fixture();
  fixture.disk.onDurable = (path, inode, position, length) => logs.durable(4, path, inode, position, length);
  const storage = await fixture.open();
  await storage.openLog(A, settings, REPLICA);
  const acknowledges = (from: ReplicaId, matchIndex: number) => {
    const answer = { rejected: false, matchIndex, rejectedIndex: 0, hintIndex: 0, hintTerm: 0, probation: 0 };
    const message = { type: 'appendResponse' as const, from, to: 99 as ReplicaId, term: 1, ...answer };
    const [parts] = encodeFrames([{ group: A, message }]);
    logs.sent(4, Buffer.concat([...parts!]));
  };
  acknowledges(REPLICA, 0);
  await storage.wal.append([write(chainOf(3))]);
  await storage.wal.forget(A);
  acknowledges(REPLICA, 3);
  expect(failures).toEqual([]);
  acknowledges((REPLICA + 1) as ReplicaId, 3);
  acknowledges(REPLICA, 4);
  const lacks = (index: number) => expect.stringContaining(`acknowledged entry ${index}, which is not durable`);
  expect(failures).toEqual([lacks(3), lacks(4)]);
});

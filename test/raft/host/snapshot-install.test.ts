import { expect, test } from 'vitest';
import type { ReplicaId } from '../../../src/base/ids.ts';
import type { RaftReplica } from '../../../src/raft/replica.ts';
import { installSnapshot, type SnapshotInstallOptions } from '../../../src/raft/snapshot-install.ts';
import { groupKey } from './cluster.ts';

/** A replica with so many writes under way, each of which ends when the log is drained; what happens is noted in order. */
function world(writes: number, { mayInstall = true, hasCommitted = false } = {}) {
  const events: string[] = [];
  let left = writes;
  const replica = {
    group: groupKey(0),
    replicaId: 7 as ReplicaId,
    options: { settings: {} },
    closed: false,
    paused: false,
    mayInstall: () => mayInstall,
    hasCommitted: () => hasCommitted,
    replace: async () => void events.push(`replaced${replica.paused ? ', paused' : ''}`),
  };
  const options = {
    storage: {
      installSnapshot: async () => {
        events.push(`installed with ${left} writes under way`);
        return { log: {} };
      },
      discardStaged: async () => void events.push('discarded'),
    },
    loop: {
      isIdle: () => left === 0,
      schedule: () => {},
      drained: async () => {
        left--;
      },
      guard: (inputs: () => void) => inputs(),
    },
    scheduler: { nextTurn: (task: () => void) => setImmediate(task) },
    schedule: () => void events.push(`goes on${replica.paused ? ', paused' : ''}`),
    newCore: () => ({}),
    replaced: () => {},
    abandon: async () => void events.push('abandoned'),
  };
  const install = () =>
    installSnapshot(options as unknown as SnapshotInstallOptions, replica as unknown as RaftReplica, { lastIndex: 9, lastTerm: 2 });
  return { events, replica, install };
}

test('a snapshot takes the place of a log once its writes have ended, while the replica stands still (B27)', async () => {
  const { events, install } = world(3);
  await expect(install()).resolves.toBe(true);
  expect(events).toEqual(['installed with 0 writes under way', 'replaced, paused', 'goes on']);
});

test('not of one that may lead meanwhile, or that has all that the snapshot has', async () => {
  const leads = world(1, { mayInstall: false });
  await expect(leads.install()).resolves.toBe(false);
  expect(leads.events).toEqual(['goes on']);
  const whole = world(1, { hasCommitted: true });
  await expect(whole.install()).resolves.toBe(true);
  expect(whole.events).toEqual(['discarded', 'goes on']);
});

test('not of one that is closed meanwhile', async () => {
  const { events, replica, install } = world(2);
  const installed = install();
  replica.closed = true;
  await expect(installed).resolves.toBe(false);
  expect(events).toEqual([]);
});

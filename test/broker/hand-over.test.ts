import { expect, it } from 'vitest';
import { silentLogger } from '../../src/base/environment.ts';
import { type BrokerId, METADATA_GROUP, type ReplicaId } from '../../src/base/ids.ts';
import { JOIN_PATIENCE_MS, passOnUntil } from '../../src/broker/hand-over.ts';
import type { RaftHost } from '../../src/raft/types.ts';
import { FakeReplica } from './fake-replica.ts';
import { ManualEnvironment } from './manual-environment.ts';

it('a broker that does not get to join passes on what it leads, except the metadata’s group, until it has joined', async () => {
  const environment = new ManualEnvironment();
  const moved: [group: string, to: ReplicaId][] = [];
  const led = (fake: FakeReplica) => {
    const transferLeadership = async (to: ReplicaId) => {
      moved.push([fake.group, to]);
      fake.leadership = { ...fake.leadership, role: 'follower' };
    };
    return Object.assign(fake, { transferLeadership });
  };
  const partition = led(new FakeReplica());
  const metadata = Object.assign(led(new FakeReplica()), { group: METADATA_GROUP });
  const host = { replicas: [partition.replica, metadata.replica], isAlive: (id: BrokerId) => id !== 2 } as unknown as RaftHost;
  const joined = new AbortController();
  passOnUntil(joined.signal, { host, brokerId: 1 as BrokerId, environment, log: silentLogger });
  const pass = async (ms: number) => {
    environment.advance(ms);
    await new Promise((resolve) => setImmediate(resolve));
  };
  await pass(JOIN_PATIENCE_MS - 1);
  expect(moved).toEqual([]);
  await pass(1);
  expect(moved).toEqual([[partition.group, 3]]);
  // Elected once more.
  partition.become({ role: 'leader' });
  await pass(JOIN_PATIENCE_MS);
  expect(moved).toHaveLength(2);
  partition.become({ role: 'leader' });
  joined.abort();
  await pass(10 * JOIN_PATIENCE_MS);
  expect(moved).toHaveLength(2);
  expect(environment.timers).toBe(0);
});

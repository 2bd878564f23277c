/** Three real brokers, and the disk of one hangs in every sync: who led there is led elsewhere, once, and records go on being acknowledged. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Cluster } from '../jepsen-lite/cluster.ts';
import { until } from '../processes.ts';
import { DiskFaults } from './disk-faults.ts';
import { Ledger } from './ledger.ts';

const PARTITIONS = 12;
/** Longer than a sync may take before leaderships move (2 s), shorter than before the broker ends itself. */
const SLOW_MS = 4_000;
/** Several election timeouts. */
const WATCHED_MS = 10_000;

test('leaderships leave a slow disk, and no storm of elections follows', async () => {
  // Brokers inherit the environment; their directories tell them apart.
  using faults = new DiskFaults(join(tmpdir(), 'flotilla-jepsen-'));
  Object.assign(process.env, faults.environment);
  await using cluster = await Cluster.start();
  for (const name of Object.keys(faults.environment)) delete process.env[name];
  await using ledger = await Ledger.open(cluster.bootstrap, { partitions: PARTITIONS, replicas: 3 });
  const partitions = async () => (await ledger.client.admin.describeTopic('ledger')).partitions;
  const ledBy = async (broker: number) => (await partitions()).filter(({ leader }) => leader === broker);
  await until(async () => (await ledBy(0)).length === 0 && (await partitions()).every(({ leader }) => leader !== undefined));
  const slow = (await partitions())[0]?.leader as number;
  ledger.press();

  faults.set(`sync broker-${slow}/ slow ${SLOW_MS}`);
  await until(async () => (await ledBy(slow)).length === 0);
  const moved = await partitions();
  const before = ledger.acknowledged.length;
  await setTimeout(WATCHED_MS);
  const later = await partitions();
  const elections = later.map(({ leaderEpoch }, at) => leaderEpoch - (moved[at]?.leaderEpoch ?? 0));
  expect(Math.max(...elections), `terms that passed while nothing changed: ${elections.join(' ')}`).toBeLessThanOrEqual(1);
  expect(ledger.acknowledged.length, 'acknowledged since the leaderships moved').toBeGreaterThan(before);

  faults.set();
  await ledger.relax();
  await ledger.verify();
  expect(cluster.crashes).toEqual([]);
});

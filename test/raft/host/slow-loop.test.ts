/** B38 of the processor instead of the disk: a broker whose event loop is always late is no leader, though its heartbeats go out (broker seed 711). */
import { afterEach, expect, test } from 'vitest';
import type { BrokerId } from '../../../src/base/ids.ts';
import { brokers, Cluster } from './cluster.ts';

const groups = [0, 1, 2, 3];
let cluster: Cluster;
afterEach(() => cluster.assertHealthy());

/** One turn each `everyMs`: less than a follower waits for a heartbeat. */
async function crawl(slow: readonly BrokerId[], everyMs: number, forMs: number): Promise<void> {
  const pauses = slow.map((broker) => cluster.pauses.get(broker)!);
  for (let ms = 0; ms < forMs; ms += everyMs) {
    for (const pause of pauses) pause.pause();
    await cluster.environment.run(everyMs);
    for (const pause of pauses) pause.resume();
  }
}

const term = (group: number) => Math.max(...brokers.map((broker) => cluster.replica(broker, group).core.term));

async function begin(): Promise<{ slow: BrokerId; led: number[]; terms: number[] }> {
  cluster = await Cluster.start(groups);
  for (const group of groups) await cluster.elected(group);
  const slow = cluster.leader(0)!;
  const led = groups.filter((group) => cluster.leader(group) === slow);
  return { slow, led, terms: led.map(term) };
}

test('a leader whose loop is late for 2 s hands over, each group once', async () => {
  const { slow, led, terms } = await begin();
  await crawl([slow], 300, 4_000);
  for (const group of led) {
    expect(cluster.leader(group), `group ${group}`).toBeDefined();
    expect(cluster.leader(group), `group ${group}`).not.toBe(slow);
  }
  expect(led.map(term)).toEqual(terms.map((before) => before + 1));
});

test('one long pause is no slow loop', async () => {
  const { slow, led, terms } = await begin();
  for (let i = 0; i < 5; i++) {
    await crawl([slow], 480, 480);
    await cluster.environment.run(200);
  }
  for (const group of led) expect(cluster.leader(group)).toBe(slow);
  expect(led.map(term)).toEqual(terms);
});

test('where all loops are late nobody hands over to anybody', async () => {
  const { slow, led, terms } = await begin();
  await crawl(brokers, 300, 6_000);
  for (const group of led) expect(cluster.leader(group)).toBe(slow);
  expect(led.map(term)).toEqual(terms);
});

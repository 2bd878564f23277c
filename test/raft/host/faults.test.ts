import { expect, test } from 'vitest';
import { randomBelow } from '../../../src/base/environment.ts';
import { FlotillaError } from '../../../src/base/errors.ts';
import type { BrokerId } from '../../../src/base/ids.ts';
import { brokers, Cluster } from './cluster.ts';

const seeds = [1, 2, 3, 5, 8, 13, 21, 34];

/** What was applied anywhere may have been acknowledged, so it may never change or be lost. */
class Workload {
  /** What was applied at each index, by anyone, ever. */
  readonly history = new Map<number, string>();
  #next = 0;

  propose(cluster: Cluster): void {
    for (const broker of cluster.nodes.keys()) {
      try {
        cluster.propose(broker, `c${this.#next++}`);
      } catch (error) {
        if (!(error instanceof FlotillaError && error.retriable)) throw error;
      }
    }
  }

  observe(cluster: Cluster): void {
    for (const broker of cluster.nodes.keys()) {
      for (const { index, term, payload } of cluster.owner(broker).applied) {
        const applied = `${term} ${new TextDecoder().decode(payload)}`;
        expect(this.history.get(index) ?? applied).toBe(applied);
        this.history.set(index, applied);
      }
    }
  }
}

async function disturb(cluster: Cluster): Promise<void> {
  const { environment, network } = cluster;
  const victim = brokers[randomBelow(environment, brokers.length)] as BrokerId;
  const fault = randomBelow(environment, 6);
  if (fault === 0 && cluster.nodes.has(victim)) cluster.kill(victim);
  else if (fault === 1 && !cluster.nodes.has(victim)) {
    cluster.boot(victim);
    await cluster.open(victim);
  } else if (fault === 2) network.isolate(victim, brokers);
  else if (fault === 3) network.heal();
  else if (fault === 4) network.lostPerMille = randomBelow(environment, 2) * 200;
  else network.maxDelayMs = 0.1 + randomBelow(environment, 2) * 20;
}

test.each(seeds)('with kills, partitions, loss and delay, nothing acknowledged is lost and logs agree (seed %i)', async (seed) => {
  const cluster = await Cluster.start([0], { maxAppendBytes: 300, maxWindowBytes: 1000 }, seed * 7919);
  const workload = new Workload();
  for (let step = 0; step < 60; step++) {
    await disturb(cluster);
    for (let i = 0; i < 5; i++) {
      workload.propose(cluster);
      await cluster.environment.run(randomBelow(cluster.environment, 60));
    }
    workload.observe(cluster);
    cluster.assertHealthy();
  }
  cluster.network.heal();
  cluster.network.lostPerMille = 0;
  for (const broker of brokers) {
    if (cluster.nodes.has(broker)) continue;
    cluster.boot(broker);
    await cluster.open(broker);
  }
  const leader = await cluster.elected();
  const { index } = cluster.propose(leader, 'last');
  for (const broker of brokers) {
    await cluster.environment.until(() => cluster.owner(broker).appliedIndex >= index, `broker ${broker} catches up`);
  }
  workload.observe(cluster);
  for (const broker of brokers) {
    const log = await cluster.replica(broker).log.readEntries(1, Number.POSITIVE_INFINITY);
    const logged = new Map(log.map(({ index: at, term, payload }) => [at, `${term} ${new TextDecoder().decode(payload)}`]));
    for (const [at, applied] of workload.history) expect(logged.get(at)).toBe(applied);
  }
  expect(workload.history.size).toBeGreaterThan(20);
  cluster.assertHealthy();
});

import type { DevCluster } from '../../bench/dev-cluster.ts';
import type { SeededRandom } from '../sim/random.ts';

/** A fault and its healing: resolves when the cluster has all its processes again. */
export type Nemesis = (cluster: DevCluster, random: SeededRandom) => Promise<void>;

const anyBroker = (cluster: DevCluster, random: SeededRandom) => 1 + random.below(cluster.brokers);
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export const nemeses: Readonly<Record<string, Nemesis>> = {
  /** kill -9 of one broker, away for a while. */
  async kill(cluster, random) {
    const broker = anyBroker(cluster, random);
    cluster.signal(broker, 'SIGKILL');
    await sleep(random.between(200, 3000));
    await cluster.restart(broker);
  },
  /** SIGSTOP of one broker, sometimes for longer than an election. */
  async pause(cluster, random) {
    const broker = anyBroker(cluster, random);
    cluster.signal(broker, 'SIGSTOP');
    await sleep(random.between(200, 4000));
    cluster.signal(broker, 'SIGCONT');
  },
  /** kill -9 of all brokers at once. */
  async 'kill-all'(cluster, random) {
    for (let broker = 1; broker <= cluster.brokers; broker++) cluster.signal(broker, 'SIGKILL');
    await sleep(random.between(100, 1000));
    for (let broker = 1; broker <= cluster.brokers; broker++) await cluster.restart(broker);
  },
};

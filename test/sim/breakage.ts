/** What stays broken for good in the liveness phase, while a majority is healed and must make progress. */
import { hostOf, type SimCluster } from './cluster.ts';
import { otherBrokers } from './faults/fault.ts';
import { allButChain, allButStar, bothWays } from './faults/network.ts';
import { SeededRandom } from './random.ts';

const MACHINE_BREAKAGES = ['down', 'paused', 'isolated', 'cut from its peers', 'deaf', 'mute', 'stalled disk', 'slow loop'] as const;
const NETWORK_BREAKAGES = ['one-way link', 'hub', 'chain'] as const;

export interface Breakage {
  readonly machines: ReadonlyMap<number, (typeof MACHINE_BREAKAGES)[number]>;
  /** Of links between whole machines, where no machine is broken: some broker still reaches all others, or its neighbours. */
  readonly links: (typeof NETWORK_BREAKAGES)[number] | undefined;
  readonly seed: number;
}

/** At most as many machines as leave every group its majority: `replicas` is the size of the smallest group. */
export function drawBreakage(random: SeededRandom, brokers: number, replicas: number): Breakage {
  const machines = new Map<number, (typeof MACHINE_BREAKAGES)[number]>();
  const most = Math.floor((replicas - 1) / 2);
  // Where a group lives on some of the brokers alone, its own may not be neighbours.
  const shapes = replicas === brokers ? NETWORK_BREAKAGES : NETWORK_BREAKAGES.slice(0, 1);
  const links = most > 0 && random.chance(0.25) ? random.pick(shapes) : undefined;
  const count = links === undefined ? most : 0;
  while (machines.size < count) machines.set(1 + random.below(brokers), random.pick(MACHINE_BREAKAGES));
  return { machines, links, seed: random.uint32() };
}

export function describeBreakage({ machines, links }: Breakage): string {
  const broken = [...machines].map(([id, how]) => `broker ${id} is ${how}`);
  if (links !== undefined) broken.push(links);
  return broken.length === 0 ? 'healed' : `healed but for good: ${broken.join(', ')}`;
}

/** Returns how each of them ends after all. */
export function breakForGood(cluster: SimCluster, { machines, links, seed }: Breakage): (() => void)[] {
  const random = new SeededRandom(seed);
  const { network } = cluster;
  const blocked = { blocked: true };
  const ends: (() => void)[] = [];
  if (links === 'hub') ends.push(network.impose(allButStar(cluster, 1 + random.below(cluster.machines.length)), blocked));
  if (links === 'chain') ends.push(network.impose(allButChain(cluster, random), blocked));
  if (links === 'one-way link') {
    const from = 1 + random.below(cluster.machines.length);
    ends.push(network.impose([[hostOf(from), random.pick(otherBrokers(cluster, from))]], blocked));
  }
  for (const [id, how] of machines) {
    const host = hostOf(id);
    const peers = otherBrokers(cluster, id);
    const { environment, disk } = cluster.machine(id);
    switch (how) {
      case 'down':
        cluster.kill(id);
        break;
      case 'paused':
        cluster.pause(id, Number.MAX_SAFE_INTEGER);
        break;
      case 'isolated':
        ends.push(network.isolate(host));
        break;
      case 'cut from its peers':
        ends.push(network.impose(bothWays(host, peers), blocked));
        break;
      case 'deaf':
        ends.push(
          network.impose(
            peers.map((peer) => [peer, host] as const),
            blocked,
          ),
        );
        break;
      case 'mute':
        ends.push(
          network.impose(
            peers.map((peer) => [host, peer] as const),
            blocked,
          ),
        );
        break;
      case 'stalled disk':
        ends.push(disk.stall());
        break;
      case 'slow loop':
        if (environment !== undefined) environment.turnMs = () => 40;
        break;
    }
  }
  return ends;
}

import { hostOf, type SimCluster } from '../cluster.ts';
import type { SeededRandom } from '../random.ts';
import { type Fault, type Occurrence, otherBrokers, victimOf } from './fault.ts';

type Directions = readonly (readonly [from: string, to: string])[];

/** What happens between machines. Inside a connection nothing is lost, doubled or reordered (ADR 4). */
export const networkFaults: readonly Fault[] = [
  {
    name: 'isolate',
    about: 'a broker hears nobody and is heard by nobody',
    inflict: (occurrence) => cut(occurrence, bothWays(hostOf(victimOf(occurrence).id), others(occurrence))),
  },
  {
    name: 'cutPeers',
    about: 'a broker is cut off from the others and not from clients, whom it must not answer once the others may have another leader',
    inflict: (occurrence) => {
      const { id } = victimOf(occurrence);
      cut(occurrence, bothWays(hostOf(id), otherBrokers(occurrence.cluster, id)));
    },
  },
  { name: 'halves', about: 'the brokers fall into two parts', inflict: (occurrence) => cut(occurrence, halves(occurrence)) },
  { name: 'oneWay', about: 'links to and from a broker carry one way only', inflict: (occurrence) => cut(occurrence, oneWays(occurrence)) },
  {
    name: 'cutLinks',
    about: 'some links of a broker fail, some of them one way',
    inflict: (occurrence) => cut(occurrence, someLinks(occurrence)),
  },
  {
    name: 'hub',
    about: 'all brokers hear one and no other (quorum loss, OmniPaxos)',
    inflict: (occurrence) => cut(occurrence, allButStar(occurrence.cluster, victimOf(occurrence).id)),
  },
  {
    name: 'chain',
    about: 'each broker hears its two neighbours in a row (chained, OmniPaxos)',
    inflict: (occurrence) => cut(occurrence, allButChain(occurrence.cluster, occurrence.random)),
  },
  {
    name: 'constrained',
    about: 'only a broker whose log is stale hears a majority (constrained election, OmniPaxos)',
    inflict: constrained,
  },
  { name: 'slowLinks', about: 'the links of a broker are slow', inflict: (occurrence) => slow(occurrence, 400) },
  { name: 'jitter', about: 'each delivery of a broker takes up to so long', inflict: jitter },
  { name: 'narrowLinks', about: 'the links of a broker carry a few bytes a millisecond', inflict: narrow },
  { name: 'reset', about: 'connections of a broker break', inflict: (occurrence) => connections(occurrence, 'reset') },
  {
    name: 'halfOpen',
    about: 'connections of a broker go silent for ever, and new ones work',
    inflict: (occurrence) => connections(occurrence, 'silence'),
  },
];

/** All directions but those to and from one broker. */
export function allButStar(cluster: SimCluster, hub: number): Directions {
  return pairs(cluster, (a, b) => a !== hub && b !== hub);
}

/** All directions but those between neighbours in a random row. */
export function allButChain(cluster: SimCluster, random: SeededRandom): Directions {
  const row = shuffled(
    cluster.machines.map(({ id }) => id),
    random,
  );
  return pairs(cluster, (a, b) => Math.abs(row.indexOf(a) - row.indexOf(b)) !== 1);
}

export function bothWays(host: string, others: readonly string[]): Directions {
  return others.flatMap((other) => [[host, other] as const, [other, host] as const]);
}

function pairs(cluster: SimCluster, wanted: (from: number, to: number) => boolean): Directions {
  const ids = cluster.machines.map(({ id }) => id);
  return ids.flatMap((from) => ids.filter((to) => from !== to && wanted(from, to)).map((to) => [hostOf(from), hostOf(to)] as const));
}

function others(occurrence: Occurrence, id = -1): string[] {
  return [...otherBrokers(occurrence.cluster, id), ...occurrence.clients];
}

function cut({ cluster, bite, until }: Occurrence, directions: Directions): void {
  until(cluster.network.impose(directions, { blocked: true, bite }));
}

function halves({ cluster, random }: Occurrence): Directions {
  const side = new Set(cluster.machines.filter(() => random.chance(0.5)).map(({ id }) => id));
  return pairs(cluster, (from, to) => side.has(from) !== side.has(to));
}

function oneWays(occurrence: Occurrence): Directions {
  const { random } = occurrence;
  const { id } = victimOf(occurrence);
  const host = hostOf(id);
  return others(occurrence, id).flatMap((other) => {
    if (random.chance(0.3)) return [];
    return [random.chance(0.5) ? ([host, other] as const) : ([other, host] as const)];
  });
}

function someLinks(occurrence: Occurrence): Directions {
  const { random } = occurrence;
  const { id } = victimOf(occurrence);
  const host = hostOf(id);
  return others(occurrence, id).flatMap((other) => {
    if (random.chance(0.5)) return [];
    return random.chance(0.7) ? bothWays(host, [other]) : [[host, other] as const];
  });
}

/** First the broker falls behind, then it is the only one that others hear; a leader of before is out of reach. */
function constrained(occurrence: Occurrence): void {
  const { cluster, random, ms, bite, until } = occurrence;
  if (cluster.machines.length < 3) return;
  const { network } = cluster;
  const [hub = 1, gone = 2] = shuffled(
    cluster.machines.map(({ id }) => id),
    random,
  );
  const first = network.impose(bothWays(hostOf(hub), otherBrokers(cluster, hub)), { blocked: true, bite });
  until(() => {
    first();
    const star = pairs(cluster, (a, b) => (a !== hub && b !== hub) || a === gone || b === gone);
    until(network.impose(star, { blocked: true, bite }), (ms * 2) / 3);
  }, ms / 3);
}

function ofVictim(occurrence: Occurrence): Directions {
  const { id } = victimOf(occurrence);
  return bothWays(hostOf(id), others(occurrence, id));
}

function slow(occurrence: Occurrence, most: number): void {
  const { cluster, random, bite, until } = occurrence;
  for (const direction of ofVictim(occurrence)) {
    const extra = random.between(0, most);
    until(cluster.network.impose([direction], { extraMs: () => extra, bite }));
  }
}

function jitter(occurrence: Occurrence): void {
  const { cluster, random, bite, until } = occurrence;
  const most = random.pick([20, 200, 1_000]);
  until(cluster.network.impose(ofVictim(occurrence), { extraMs: () => random.between(0, most), bite }));
}

function narrow(occurrence: Occurrence): void {
  const { cluster, random, bite, until } = occurrence;
  const bytesPerMs = random.pick([2, 20, 200]);
  until(cluster.network.impose(ofVictim(occurrence), { bytesPerMs, bite }));
}

function connections(occurrence: Occurrence, how: 'reset' | 'silence'): void {
  const { cluster, random, bite } = occurrence;
  const { id } = victimOf(occurrence);
  for (const other of others(occurrence, id)) {
    if (random.chance(0.5) && cluster.network[how](hostOf(id), other) > 0) bite();
  }
}

function shuffled(items: readonly number[], random: SeededRandom): number[] {
  const left = [...items];
  return items.map(() => left.splice(random.below(left.length), 1)[0] ?? 0);
}

/**
 * Where the replicas of a new topic go. Deterministic given the seed.
 *
 * - No two replicas of a partition on one broker.
 * - On as many racks as there are, and evenly over them; a broker without a rack is a rack of its own.
 * - Racks of equal size (or no racks): replicas a broker differ by at most one, and so do preferred leaders, unless they differed by more
 *   before. Racks of unequal size: spreading over racks comes first, so the brokers of small racks hold more.
 *
 * A replica goes to the rack with the fewest of this partition's replicas, then the least load, and there to the least loaded broker.
 * With the replicas in place, the first of each (the preferred leader) is chosen so that leaderships are even: partitions are edges
 * along which leaderships move from brokers with more to brokers with fewer, until no path is left. As long as replicas
 * are even within one, so can leaders be (a flow with capacities d/R has an integral rounding).
 */
import { assert, must } from '../base/assert.ts';
import type { BrokerId } from '../base/ids.ts';

export interface PlacementBroker {
  readonly brokerId: BrokerId;
  readonly rack: string | undefined;
  /** Replicas and preferred leaderships that it has already. */
  readonly replicas: number;
  readonly leaders: number;
}

interface Candidate {
  readonly brokerId: BrokerId;
  replicas: number;
  leaders: number;
}

interface Rack {
  readonly brokers: Candidate[];
  replicas: number;
}

/** For each partition its brokers, the preferred leader first. `replicas` is at most the number of brokers. */
export function placeReplicas(brokers: readonly PlacementBroker[], partitions: number, replicas: number, seed: number): BrokerId[][] {
  assert(replicas >= 1 && replicas <= brokers.length, 'replicas fit on the brokers', { replicas, brokers: brokers.length });
  const draw = generator(seed);
  // Only differences count: an old imbalance of thousands is worked off over the next topics, not by this one alone.
  const leastReplicas = Math.min(...brokers.map((broker) => broker.replicas));
  const leastLeaders = Math.min(...brokers.map((broker) => broker.leaders));
  const carried = (load: number): number => Math.min(load, 1);
  const racks = new Map<string, Rack>();
  const candidates: Candidate[] = [];
  for (const { brokerId, rack, ...load } of [...brokers].sort((a, b) => a.brokerId - b.brokerId)) {
    const candidate = { brokerId, replicas: carried(load.replicas - leastReplicas), leaders: carried(load.leaders - leastLeaders) };
    candidates.push(candidate);
    const key = rack === undefined ? `broker ${brokerId}` : `rack ${rack}`;
    const members = racks.get(key) ?? { brokers: [], replicas: 0 };
    members.brokers.push(candidate);
    members.replicas += candidate.replicas;
    racks.set(key, members);
  }
  const placed = Array.from({ length: partitions }, () => placeOne([...racks.values()], replicas, draw));
  chooseLeaders(placed, candidates, draw);
  return placed.map((chosen) => chosen.map((candidate) => candidate.brokerId));
}

function placeOne(racks: readonly Rack[], replicas: number, draw: () => number): Candidate[] {
  const chosen: Candidate[] = [];
  const used = new Map<Rack, number>();
  while (chosen.length < replicas) {
    const open = racks.filter((rack) => (used.get(rack) ?? 0) < rack.brokers.length);
    const rack = least(
      open,
      draw,
      (a, b) => (used.get(a) ?? 0) - (used.get(b) ?? 0) || a.replicas / a.brokers.length - b.replicas / b.brokers.length,
    );
    const free = rack.brokers.filter((broker) => !chosen.includes(broker));
    const broker = least(free, draw, (a, b) => a.replicas - b.replicas);
    used.set(rack, (used.get(rack) ?? 0) + 1);
    rack.replicas++;
    broker.replicas++;
    chosen.push(broker);
  }
  return chosen;
}

/** The least by the comparison; one of several equals by lot. */
function least<T>(items: readonly T[], draw: () => number, compare: (a: T, b: T) => number): T {
  let ties: T[] = [];
  for (const item of items) {
    const best = ties[0];
    const order = best === undefined ? -1 : compare(item, best);
    if (order < 0) ties = [item];
    else if (order === 0) ties.push(item);
  }
  return must(ties[draw() % ties.length], 'least of none');
}

/** Moves each partition's leader to the front of its replicas. */
function chooseLeaders(placed: readonly Candidate[][], candidates: readonly Candidate[], draw: () => number): void {
  const led = new Map<Candidate, Set<Candidate[]>>(candidates.map((candidate) => [candidate, new Set()]));
  const lead = (partition: Candidate[], leader: Candidate): void => {
    const old = must(partition[0], 'a partition has replicas');
    if (led.get(old)?.delete(partition)) old.leaders--;
    partition[partition.indexOf(leader)] = old;
    partition[0] = leader;
    leader.leaders++;
    led.get(leader)?.add(partition);
  };
  for (const partition of placed) {
    lead(
      partition,
      least(partition, draw, (a, b) => a.leaders - b.leaders),
    );
  }
  const fewest = (): number => Math.min(...candidates.map((candidate) => candidate.leaders));
  for (let path = anyPath(candidates, fewest(), led); path !== undefined; path = anyPath(candidates, fewest(), led)) {
    for (const { partition, to } of path) lead(partition, to);
  }
}

function anyPath(
  candidates: readonly Candidate[],
  fewest: number,
  led: ReadonlyMap<Candidate, ReadonlySet<Candidate[]>>,
): Move[] | undefined {
  for (const from of candidates) {
    const path = from.leaders - fewest >= 2 ? pathToFewer(from, led) : undefined;
    if (path !== undefined) return path;
  }
  return undefined;
}

interface Move {
  readonly partition: Candidate[];
  readonly to: Candidate;
}

/** The shortest row of moves that takes one leadership from the broker and gives one to a broker with at least two fewer. */
function pathToFewer(from: Candidate, led: ReadonlyMap<Candidate, ReadonlySet<Candidate[]>>): Move[] | undefined {
  const reachedBy = new Map<Candidate, { move: Move; before: Candidate } | undefined>([[from, undefined]]);
  for (const at of reachedBy.keys()) {
    if (from.leaders - at.leaders >= 2) {
      const path: Move[] = [];
      for (let step = reachedBy.get(at); step !== undefined; step = reachedBy.get(step.before)) path.push(step.move);
      return path;
    }
    for (const partition of led.get(at) ?? []) {
      for (const to of partition) if (!reachedBy.has(to)) reachedBy.set(to, { move: { partition, to }, before: at });
    }
  }
  return undefined;
}

/** xorshift32 of a well mixed seed. */
function generator(seed: number): () => number {
  let state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

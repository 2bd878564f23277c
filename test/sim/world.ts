/** What a seed decides before anything happens: the cluster, its configuration, the load, and how everything may break. */
import { type Breakage, drawBreakage } from './breakage.ts';
import { FAULTS } from './faults/faults.ts';
import type { NetworkShape } from './network.ts';
import { SeededRandom } from './random.ts';
import { drawCompaction, drawWorkload, type WorkloadShape } from './workload-shape.ts';

/** A seed's faults: which exist, and how dense they come (swarm testing: what is absent in a seed lets the others go further). */
export interface Weather {
  /** One that comes twice comes twice as often. */
  readonly faults: readonly string[];
  /** Drawn like the others, and not inflicted: so that all others stay as they were. */
  readonly without: ReadonlySet<string>;
  /** Occurrences, by their number, that are not inflicted. */
  readonly muted: ReadonlySet<number>;
  /** Milliseconds between the beginnings of two faults, on average. */
  readonly everyMs: number;
  /** Milliseconds that a fault lasts, at most. */
  readonly lastMs: number;
}

export interface DiskShape {
  /** Milliseconds of an operation, at most; 0: none. */
  readonly latencyMs: number;
  readonly disorderly: boolean;
}

export interface World {
  readonly seed: number;
  readonly brokers: number;
  readonly controllers: number;
  readonly settings: Readonly<Record<string, string | number>>;
  readonly network: NetworkShape;
  readonly disk: DiskShape;
  readonly weather: Weather;
  readonly workload: WorkloadShape;
  /** Simulated milliseconds under faults, at least. */
  readonly safetyMs: number;
  readonly breakage: Breakage;
  /** Once all is healed and delivered, all machines lose their power before everything is read. */
  readonly lastPowerCut: boolean;
  /** Of what happens once it runs: see run.ts. */
  readonly seeds: { readonly cluster: number; readonly workload: number; readonly nemesis: number };
}

/** Instead of what the seed draws: to search near a suspicion, and to make a failing case smaller. */
export interface Overrides {
  readonly brokers?: number | undefined;
  readonly safetyMs?: number | undefined;
  readonly faults?: readonly string[] | undefined;
  readonly without?: readonly string[] | undefined;
  readonly muted?: readonly number[] | undefined;
  /** False: one standard cluster, and all faults that there are. */
  readonly swarm?: boolean | undefined;
  readonly workload?: Partial<WorkloadShape> | undefined;
}

/** A seed counts with so many simulated milliseconds. */
export const DEFAULT_SAFETY_MS = 60_000;

/** Every part has a source of its own, so that what replaces one shifts no other. */
export function drawWorld(seed: number, overrides: Overrides = {}): World {
  const random = new SeededRandom(seed);
  const parts = Array.from({ length: 9 }, () => random.fork()) as [Part, Part, Part, Part, Part, Part, Part, Part, Part];
  const [ofCluster, ofSettings, ofNetwork, ofDisk, ofWeather, ofWorkload, ofBreakage, ofSeeds, ofCompaction] = parts;
  const swarm = overrides.swarm ?? true;
  const drawnBrokers = ofCluster.pick([1, 2, 3, 3, 3, 3, 4, 4, 5, 5]);
  const brokers = overrides.brokers ?? (swarm ? drawnBrokers : 3);
  const controllers = Math.min(brokers, ofCluster.pick([3, 3, 3, 5]));
  const latencyMs = ofDisk.pick([0, 0.3, 2, 10]);
  const compaction = ofCompaction.chance(0.3) ? drawCompaction(ofCompaction) : undefined;
  const workload = { ...keepingUp(drawWorkload(ofWorkload, brokers), latencyMs), compaction, ...overrides.workload };
  return {
    seed,
    brokers,
    controllers,
    settings: { ...drawSettings(ofSettings, swarm), ...(workload.compaction !== undefined && drawCleaner(ofCompaction)) },
    network: swarm ? drawNetwork(ofNetwork) : { minDelayMs: 0.05, maxDelayMs: 0.5, loss: 0 },
    disk: { latencyMs, disorderly: ofDisk.chance(0.5) },
    weather: drawWeather(ofWeather, swarm, { ...overrides, without: [...(overrides.without ?? []), ...tooMuchFor(workload)] }),
    workload,
    safetyMs: overrides.safetyMs ?? DEFAULT_SAFETY_MS,
    breakage: drawBreakage(ofBreakage, brokers, Math.min(controllers, workload.replicas)),
    lastPowerCut: ofBreakage.chance(0.3),
    seeds: { cluster: ofSeeds.uint32(), workload: ofSeeds.uint32(), nemesis: ofSeeds.uint32() },
  };
}
type Part = SeededRandom;

/** With two replicas nobody can tell what the one that rotted had acknowledged; also where no broker is up to say how many there are. */
function tooMuchFor({ replicas }: WorkloadShape): readonly string[] {
  return replicas < 3 ? ['rot', 'misdirect'] : [];
}

/** A segment every other record is more than a disk can make in time, or than a world can hold: what such a cluster does late says nothing. */
const LEAST_SEGMENT_VALUES = 10;
const LEAST_SEGMENT_BYTES_ON_SLOW_DISK = 50_000;
const SLOW_DISK_MS = 10;

function keepingUp(shape: WorkloadShape, latencyMs: number): WorkloadShape {
  const least = Math.max(LEAST_SEGMENT_VALUES * shape.valueBytes, latencyMs < SLOW_DISK_MS ? 0 : LEAST_SEGMENT_BYTES_ON_SLOW_DISK);
  return { ...shape, segmentBytes: Math.max(shape.segmentBytes, least) };
}

function drawSettings(random: SeededRandom, swarm: boolean): Record<string, string | number> {
  const election = random.pick([300, 1_000, 1_000, 2_000]);
  const drawn = {
    'flotilla.wal.file.bytes': random.pick(['1MiB', '1MiB', '2MiB']),
    'flotilla.wal.file.count': random.pick([2, 3, 4]),
    'flotilla.raft.election.timeout.ms': election,
    'flotilla.raft.heartbeat.interval.ms': election / 10,
    'broker.heartbeat.interval.ms': random.pick([200, 500]),
    'broker.session.timeout.ms': random.pick([2_000, 3_000, 9_000]),
    'request.timeout.ms': random.pick([3_000, 30_000]),
    'message.max.bytes': random.pick([100_000, 500_000]),
    'log.retention.check.interval.ms': random.pick([500, 5_000]),
  };
  return swarm ? drawn : { 'flotilla.wal.file.bytes': '1MiB' };
}

function drawCleaner(random: SeededRandom): Record<string, string | number> {
  return {
    'log.cleaner.backoff.ms': random.pick([100, 500, 2_000]),
    'log.cleaner.dedupe.buffer.size': random.pick(['4KiB', '1MiB']),
    'log.cleaner.io.max.bytes.per.second': random.pick(['20KiB', '1MiB', '100MiB']),
  };
}

function drawNetwork(random: SeededRandom): NetworkShape {
  const minDelayMs = random.pick([0.05, 0.05, 0.5, 5]);
  return {
    minDelayMs,
    // A tenth of the shortest election timeout: more is a fault, and not a network.
    maxDelayMs: Math.min(30, minDelayMs * random.pick([1.1, 10, 10, 50])),
    loss: random.pick([0, 0, 0, 0.001, 0.01]),
  };
}

function drawWeather(random: SeededRandom, swarm: boolean, { faults, without = [], muted = [] }: Overrides): Weather {
  const drawn: string[] = [];
  while (drawn.length < 2) {
    for (const fault of FAULTS.keys())
      if (random.chance(0.25)) for (let share = random.pick([1, 1, 3]); share > 0; share--) drawn.push(fault);
  }
  const everyMs = random.pick([300, 700, 1_500, 3_000]);
  const lastMs = random.pick([500, 2_000, 6_000]);
  return {
    faults: faults ?? (swarm ? drawn : [...FAULTS.keys()]),
    without: new Set(without),
    muted: new Set(muted),
    everyMs: swarm ? everyMs : 1_500,
    lastMs: swarm ? lastMs : 2_000,
  };
}

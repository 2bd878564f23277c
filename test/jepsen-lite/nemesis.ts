/**
 * The faults. Two storms run beside each other, each with one fault at a time: one on processes, one on the network, so that every fault of the
 * one meets every fault of the other. The seed decides what is done and when; what the cluster makes of it does not repeat exactly.
 */
import { setTimeout } from 'node:timers/promises';
import type { SeededRandom } from '../sim/random.ts';
import type { Cluster } from './cluster.ts';
import type { Gaps } from './gaps.ts';
import { CLIENTS, type LinkMode } from './proxy.ts';

export interface World {
  readonly cluster: Cluster;
  readonly random: SeededRandom;
  /** The leader of partition 0 of the workload, as the cluster says. */
  readonly leader: () => Promise<number>;
}

/** Breaks something, waits, and heals it. Resolves when all processes are there again, with a network that is whole. */
interface Fault {
  readonly storm: 'processes' | 'network';
  readonly inflict: (world: World) => Promise<void>;
}

/** What a leader's failure is measured by: longer than any client waits for another. */
const MEASURED_MS = 6_000;

const faults = {
  /** kill -9. */
  kill: onProcesses(async ({ cluster, random }) => {
    const broker = random.pick(cluster.ids);
    await cluster.broker(broker).kill();
    await setTimeout(random.between(200, 4_000));
    await cluster.start(broker);
  }),
  'kill-leader': onProcesses(async (world) => {
    const broker = await world.leader();
    await world.cluster.broker(broker).kill();
    await setTimeout(MEASURED_MS);
    await world.cluster.start(broker);
  }),
  'kill-all': onProcesses(async ({ cluster, random }) => {
    await Promise.all(cluster.brokers.map((broker) => broker.kill()));
    await setTimeout(random.between(100, 1_000));
    await Promise.all(cluster.ids.map((id) => setTimeout(random.between(0, 1_000)).then(() => cluster.start(id))));
  }),
  /** SIGTERM, with its handing over. */
  stop: onProcesses(async ({ cluster, random }) => {
    const broker = random.pick(cluster.ids);
    await cluster.broker(broker).stop(15_000);
    await setTimeout(random.between(0, 2_000));
    await cluster.start(broker);
  }),
  /** SIGSTOP, sometimes for longer than an election. */
  pause: onProcesses(async ({ cluster, random }) => {
    await paused(cluster, [random.pick(cluster.ids)], random.between(200, 6_000));
  }),
  'pause-leader': onProcesses(async (world) => paused(world.cluster, [await world.leader()], MEASURED_MS)),
  'pause-all': onProcesses(async ({ cluster, random }) => paused(cluster, cluster.ids, random.between(200, 3_000))),
  /** One broker and the rest do not hear each other; sometimes clients do not reach it either. */
  isolate: onNetwork(async ({ cluster, random }) => {
    const alone = random.pick(cluster.ids);
    const withClients = random.chance(0.5) ? [CLIENTS] : [];
    const mode = brokenMode(random);
    await broken(cluster, random, between([alone], [...others(cluster, alone), ...withClients]), mode);
  }),
  /** A minority and a majority do not hear each other; clients reach both. */
  halves: onNetwork(async ({ cluster, random }) => {
    const shuffled = shuffle(cluster.ids, random);
    const minority = shuffled.splice(0, Math.floor(shuffled.length / 2));
    await broken(cluster, random, between(minority, shuffled), brokenMode(random));
  }),
  /** Two brokers do not hear each other, the others hear both. */
  bridge: onNetwork(async ({ cluster, random }) => {
    const [a = 1, b = 2] = shuffle(cluster.ids, random);
    await broken(cluster, random, between([a], [b]), brokenMode(random));
  }),
  /** What one broker says does not arrive, or it does not hear what the others say. */
  'one-way': onNetwork(async ({ cluster, random }) => {
    const one = random.pick(cluster.ids);
    const rest = others(cluster, one);
    const pairs = random.chance(0.5) ? rest.map((other) => [one, other] as const) : rest.map((other) => [other, one] as const);
    await broken(cluster, random, pairs, random.pick(['hold', 'swallow']));
  }),
  /** Everything to and from one broker disappears, and nobody is told: its machine lost its power. */
  swallow: onNetwork(async ({ cluster, random }) => {
    const one = random.pick(cluster.ids);
    await broken(cluster, random, between([one], [...others(cluster, one), CLIENTS]), 'swallow');
  }),
  'swallow-leader': onNetwork(async (world) => {
    const { cluster } = world;
    const one = await world.leader();
    await broken(cluster, world.random, between([one], [...others(cluster, one), CLIENTS]), 'swallow', MEASURED_MS);
  }),
  /** The same, but clients still reach it. */
  'isolate-leader': onNetwork(async (world) => {
    const { cluster } = world;
    const one = await world.leader();
    await broken(cluster, world.random, between([one], others(cluster, one)), 'swallow', MEASURED_MS);
  }),
  /** All connections of one broker break, and are made again. */
  reset: onNetwork(async ({ cluster, random }) => {
    const one = random.pick(cluster.ids);
    await broken(cluster, random, between([one], [...others(cluster, one), CLIENTS]), 'cut', 0);
  }),
  /** The links of one broker, or of all, are slow. */
  slow: onNetwork(async ({ cluster, random }) => {
    const pairs = random.chance(0.5)
      ? between([random.pick(cluster.ids)], [...cluster.ids, CLIENTS])
      : between(cluster.ids, [...cluster.ids, CLIENTS]);
    const delayMs = random.between(5, 300);
    for (const [from, to] of pairs) cluster.network.set(from, to, 'flow', delayMs);
    await setTimeout(random.between(1_000, 6_000));
    cluster.network.heal();
  }),
} satisfies Record<string, Fault>;

export type FaultName = keyof typeof faults;

/** Names that stand for several. */
const families: Readonly<Record<string, readonly FaultName[]>> = {
  partition: ['isolate', 'halves', 'bridge', 'one-way'],
  all: ['kill', 'kill-all', 'stop', 'pause', 'pause-all', 'isolate', 'halves', 'bridge', 'one-way', 'swallow', 'reset', 'slow'],
  leader: ['kill-leader', 'pause-leader', 'swallow-leader', 'isolate-leader'],
};

export const nemesisNames: readonly string[] = [...Object.keys(faults), ...Object.keys(families)];

/** The faults that a list of names stands for. Errors: a name that is none. */
export function faultsOf(list: string): readonly FaultName[] {
  return list.split(',').flatMap((name) => {
    const family = families[name];
    if (family !== undefined) return family;
    if (name in faults) return [name as FaultName];
    throw new Error(`there is no nemesis ${name}; there are ${nemesisNames.join(', ')}`);
  });
}

export interface StormOptions {
  readonly names: readonly FaultName[];
  readonly gaps: Gaps;
  readonly say: (text: string) => void;
}

/** Inflicts faults until the signal. Resolves when everything is healed. A leader's faults come one after another, so that each is measured alone. */
export async function storm(world: World, options: StormOptions, signal: AbortSignal): Promise<void> {
  const { names } = options;
  const alone = names.some((name) => name.endsWith('-leader'));
  const groups = alone ? [names] : (['processes', 'network'] as const).map((kind) => names.filter((name) => faults[name].storm === kind));
  await Promise.all(
    groups
      .filter((group) => group.length > 0)
      .map((group) => oneByOne({ ...world, random: world.random.fork() }, { ...options, names: group }, signal)),
  );
  world.cluster.network.heal();
}

async function oneByOne(world: World, { names, gaps, say }: StormOptions, signal: AbortSignal): Promise<void> {
  for (let turn = 0; ; turn++) {
    await setTimeout(world.random.between(1_000, 4_000), undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    // Each once before any of them comes again, so that a short run has them all.
    const name = turn < names.length ? (names[turn] as FaultName) : world.random.pick(names);
    say(name);
    const end = gaps.begin(name);
    try {
      await faults[name].inflict(world);
    } finally {
      end();
    }
  }
}

function onProcesses(inflict: Fault['inflict']): Fault {
  return { storm: 'processes', inflict };
}

function onNetwork(inflict: Fault['inflict']): Fault {
  return { storm: 'network', inflict };
}

async function paused(cluster: Cluster, brokers: readonly number[], ms: number): Promise<void> {
  for (const broker of brokers) cluster.signal(broker, 'SIGSTOP');
  await setTimeout(ms);
  for (const broker of brokers) cluster.signal(broker, 'SIGCONT');
}

type Pair = readonly [from: number, to: number];

async function broken(
  cluster: Cluster,
  random: SeededRandom,
  pairs: readonly Pair[],
  mode: LinkMode,
  ms = random.between(500, 8_000),
): Promise<void> {
  for (const [from, to] of pairs) cluster.network.set(from, to, mode);
  await setTimeout(ms);
  cluster.network.heal();
}

function brokenMode(random: SeededRandom): LinkMode {
  return random.pick(['hold', 'swallow', 'cut']);
}

/** Both directions between each of the one and each of the other side. */
function between(one: readonly number[], other: readonly number[]): Pair[] {
  return one.flatMap((a) =>
    other
      .filter((b) => b !== a)
      .flatMap((b): Pair[] => [
        [a, b],
        [b, a],
      ]),
  );
}

function others(cluster: Cluster, one: number): number[] {
  return cluster.ids.filter((id) => id !== one);
}

function shuffle<T>(items: readonly T[], random: SeededRandom): T[] {
  const rest = [...items];
  return items.map(() => rest.splice(random.below(rest.length), 1)[0] as T);
}

/** The faults: each breaks something, waits, and heals it. */
import { setTimeout } from 'node:timers/promises';
import type { SeededRandom } from '../sim/random.ts';
import type { Cluster } from './cluster.ts';
import { CLIENTS, type LinkMode } from './proxy.ts';

export interface World {
  readonly cluster: Cluster;
  readonly random: SeededRandom;
  /** The leader of partition 0 of the workload, as the cluster says. */
  readonly leader: () => Promise<number>;
  readonly say: (text: string) => void;
}

export interface Fault {
  readonly of: 'processes' | 'network';
  /** Resolves when what it broke is whole again. */
  readonly inflict: (world: World) => Promise<void>;
}

/** How long a leader's failure lasts that is measured: longer than any client should wait for another leader. */
export const MEASURED_MS = 6_000;

export const faults = {
  /** kill -9. */
  kill: processes((world) => killed(world, [anyBroker(world)], world.random.between(200, 4_000))),
  'kill-leader': processes(async (world) => killed(world, [await world.leader()], MEASURED_MS)),
  'kill-all': processes((world) => killed(world, world.cluster.ids, world.random.between(100, 1_000))),
  /** SIGTERM: leaderships are handed over. */
  stop: processes((world) => stopped(world, anyBroker(world), world.random.between(0, 2_000))),
  /** SIGSTOP, sometimes for longer than an election takes. */
  pause: processes((world) => paused(world, [anyBroker(world)], world.random.between(200, 6_000))),
  'pause-leader': processes(async (world) => paused(world, [await world.leader()], MEASURED_MS)),
  'pause-all': processes((world) => paused(world, world.cluster.ids, world.random.between(200, 3_000))),

  /** One broker and the others do not hear each other; sometimes clients do not reach it either. */
  isolate: network(async (world) => {
    const one = anyBroker(world);
    const clients = world.random.chance(0.5) ? [CLIENTS] : [];
    await broken(world, between([one], [...others(world, one), ...clients]), anyMode(world), someTime(world));
  }),
  /** A minority and a majority do not hear each other; clients reach both. */
  halves: network(async (world) => {
    const majority = shuffled(world);
    const minority = majority.splice(0, Math.floor((majority.length - 1) / 2));
    await broken(world, between(minority, majority), anyMode(world), someTime(world));
  }),
  /** Two brokers do not hear each other, the others hear both. */
  bridge: network(async (world) => {
    const [a = 1, b = 2] = shuffled(world);
    await broken(world, between([a], [b]), anyMode(world), someTime(world));
  }),
  /** What one broker says does not arrive, or it does not hear what the others say. */
  'one-way': network(async (world) => {
    const one = anyBroker(world);
    const saying = world.random.chance(0.5);
    const links = others(world, one).map((other): Link => (saying ? [one, other] : [other, one]));
    await broken(world, links, world.random.pick(['hold', 'swallow']), someTime(world));
  }),
  /** Everything to and from one broker disappears, and nobody is told: as if its machine had lost its power. */
  swallow: network((world) => unplugged(world, anyBroker(world), someTime(world))),
  'swallow-leader': network(async (world) => unplugged(world, await world.leader(), MEASURED_MS)),
  /** The same among brokers, while clients still reach it. */
  'isolate-leader': network(async (world) => {
    const one = await world.leader();
    await broken(world, between([one], others(world, one)), 'swallow', MEASURED_MS);
  }),
  /** All connections of one broker break, and are made again at once. */
  reset: network(async (world) => {
    const one = anyBroker(world);
    await broken(world, between([one], [...others(world, one), CLIENTS]), 'cut', 0);
  }),
  /** The links of one broker, or all links, are slow. */
  slow: network(async (world) => {
    const { cluster, random } = world;
    const links = between(random.chance(0.5) ? [anyBroker(world)] : cluster.ids, [...cluster.ids, CLIENTS]);
    await broken(world, links, 'flow', someTime(world), random.between(5, 300));
  }),
} satisfies Record<string, Fault>;

export type FaultName = keyof typeof faults;

type Link = readonly [from: number, to: number];

function processes(inflict: Fault['inflict']): Fault {
  return { of: 'processes', inflict };
}

function network(inflict: Fault['inflict']): Fault {
  return { of: 'network', inflict };
}

async function killed({ cluster, random, say }: World, brokers: readonly number[], ms: number): Promise<void> {
  say(`kill -9 of ${brokers.join(', ')} for ${seconds(ms)}`);
  await Promise.all(brokers.map((id) => cluster.broker(id).kill()));
  await setTimeout(ms);
  // Not all in the same moment.
  await Promise.all(brokers.map((id) => setTimeout(random.between(0, (brokers.length - 1) * 500)).then(() => cluster.start(id))));
}

async function stopped({ cluster, say }: World, id: number, ms: number): Promise<void> {
  say(`SIGTERM to ${id}, away for ${seconds(ms)}`);
  await cluster.broker(id).stop(15_000);
  await setTimeout(ms);
  await cluster.start(id);
}

async function paused({ cluster, say }: World, brokers: readonly number[], ms: number): Promise<void> {
  say(`SIGSTOP to ${brokers.join(', ')} for ${seconds(ms)}`);
  for (const id of brokers) cluster.signal(id, 'SIGSTOP');
  await setTimeout(ms);
  for (const id of brokers) cluster.signal(id, 'SIGCONT');
}

function unplugged(world: World, one: number, ms: number): Promise<void> {
  return broken(world, between([one], [...others(world, one), CLIENTS]), 'swallow', ms);
}

async function broken({ cluster, say }: World, links: readonly Link[], mode: LinkMode, ms: number, delayMs = 0): Promise<void> {
  const what = mode === 'flow' ? `a delay of ${seconds(delayMs)} on` : mode;
  const names = links.map(([from, to]) => `${from}→${to}`).join(' ');
  say(`${what} ${names} for ${seconds(ms)} (${CLIENTS}: clients)`);
  for (const [from, to] of links) cluster.network.set(from, to, mode, delayMs);
  await setTimeout(ms);
  cluster.network.heal();
}

function anyBroker({ cluster, random }: World): number {
  return random.pick(cluster.ids);
}

function others({ cluster }: World, one: number): number[] {
  return cluster.ids.filter((id) => id !== one);
}

function anyMode({ random }: World): LinkMode {
  return random.pick(['hold', 'swallow', 'cut']);
}

function someTime({ random }: World): number {
  return random.between(500, 8_000);
}

function shuffled({ cluster, random }: World): number[] {
  const rest = [...cluster.ids];
  return cluster.ids.map(() => rest.splice(random.below(rest.length), 1)[0] as number);
}

/** Both directions between each of the one and each of the other side. */
function between(one: readonly number[], other: readonly number[]): Link[] {
  const pairs = one.flatMap((a) => other.map((b): Link => [a, b])).filter(([a, b]) => a !== b);
  const links = pairs.flatMap(([a, b]): Link[] => [
    [a, b],
    [b, a],
  ]);
  return [...new Map(links.map((link) => [link.join(), link])).values()];
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

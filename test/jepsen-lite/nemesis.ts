/**
 * What is broken when. Two storms run beside each other, each with one fault at a time: one breaks processes, one the network, so that every fault
 * of the one meets every fault of the other. The seed decides what is done; what the cluster makes of it does not repeat exactly.
 */
import { setTimeout } from 'node:timers/promises';
import { type Fault, type FaultName, faults, type World } from './faults.ts';
import type { Gaps } from './gaps.ts';

/** Names that stand for several. */
const families: Readonly<Record<string, readonly FaultName[]>> = {
  partition: ['isolate', 'halves', 'bridge', 'one-way'],
  all: ['kill', 'kill-all', 'stop', 'pause', 'pause-all', 'isolate', 'halves', 'bridge', 'one-way', 'swallow', 'reset', 'slow'],
  leader: ['kill-leader', 'pause-leader', 'swallow-leader', 'isolate-leader'],
};

export const nemesisNames: readonly string[] = [...Object.keys(faults), ...Object.keys(families)];

/** The faults that a comma-separated list stands for. Errors: a name that is none. */
export function faultsOf(list: string): readonly FaultName[] {
  return list.split(',').flatMap((name) => {
    const family = families[name];
    if (family !== undefined) return family;
    if (name in faults) return [name as FaultName];
    throw new Error(`there is no nemesis ${name}; there are ${nemesisNames.join(', ')}`);
  });
}

/** Inflicts faults until the signal, then heals. A leader's faults come one after another, since each is measured alone. */
export async function storm(world: World, names: readonly FaultName[], gaps: Gaps, signal: AbortSignal): Promise<void> {
  const together = names.some((name) => name.endsWith('-leader'));
  const of = (kind: Fault['of']) => names.filter((name) => faults[name].of === kind);
  const storms = together ? [names] : [of('processes'), of('network')].filter((some) => some.length > 0);
  const worlds = storms.map(() => ({ ...world, random: world.random.fork() }));
  await Promise.all(storms.map((some, at) => oneByOne(worlds[at] as World, some, gaps, signal)));
}

async function oneByOne(world: World, names: readonly FaultName[], gaps: Gaps, signal: AbortSignal): Promise<void> {
  for (let turn = 0; ; turn++) {
    await setTimeout(world.random.between(1_000, 4_000), undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    // Each once before any of them comes again, so that a short run has them all.
    const name = names[turn] ?? world.random.pick(names);
    const end = gaps.begin(name);
    await faults[name].inflict({ ...world, say: (details) => world.say(`${name}: ${details}`) });
    end();
    world.say(`${name} is over`);
  }
}

/** Makes a failing seed small: what can be left out, so that it still fails, is left out. Greedy: kinds of faults, occurrences, time, brokers. */
import { replayCommand } from './options.ts';
import { simulate } from './run.ts';
import type { Overrides } from './world.ts';

interface Failure {
  readonly overrides: Overrides;
  readonly message: string;
  /** The occurrences that were inflicted. */
  readonly occurrences: readonly number[];
  readonly kinds: readonly string[];
  readonly atMs: number;
}

/** Prints each step, and at last the command that replays what is left. Returns the exit code. */
export async function shrink(seed: number, overrides: Overrides, minutes: number): Promise<number> {
  const endMs = performance.now() + minutes * 60_000;
  let runs = 0;
  const fails = async (tried: Overrides): Promise<Failure | undefined> => {
    if (performance.now() > endMs) return undefined;
    runs++;
    return await attempt(seed, tried);
  };
  let smallest = await fails(overrides);
  if (smallest === undefined) {
    console.log(`seed ${seed} does not fail`);
    return 0;
  }
  const better = async (change: Overrides, what: string): Promise<boolean> => {
    const failure = smallest && (await fails({ ...smallest.overrides, ...change }));
    if (failure === undefined) return false;
    smallest = failure;
    console.log(
      `still fails ${what}: ${failure.occurrences.length} faults of ${failure.kinds.length} kinds, at ${failure.atMs.toFixed(0)} ms`,
    );
    return true;
  };
  console.log(`fails with ${smallest.occurrences.length} faults of ${smallest.kinds.length} kinds, at ${smallest.atMs.toFixed(0)} ms`);
  // Nothing after the failure matters.
  await better({ safetyMs: Math.ceil(smallest.atMs) }, 'when it ends there');
  for (const kind of smallest.kinds) await better({ without: [...(smallest.overrides.without ?? []), kind] }, `without ${kind}`);
  await leaveOut(
    () => smallest?.occurrences ?? [],
    (muted) => better({ muted: [...(smallest?.overrides.muted ?? []), ...muted] }, `without ${muted.length} more`),
  );
  for (const part of [0.5, 0.75, 0.9])
    await better({ safetyMs: Math.ceil((smallest.overrides.safetyMs ?? smallest.atMs) * part) }, `in ${part} of the time`);
  for (const brokers of [1, 2, 3, 4]) if (await better({ brokers }, `with ${brokers} brokers`)) break;
  console.log(`\n${runs} runs\n${smallest.message}\nreplay: ${replayCommand('broker', seed, smallest.overrides)}`);
  return 1;
}

/** Halves, quarters and so on of what is left, down to one by one. */
async function leaveOut(all: () => readonly number[], without: (some: readonly number[]) => Promise<boolean>): Promise<void> {
  for (let size = Math.ceil(all().length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < all().length; ) {
      const gone = await without(all().slice(at, at + size));
      if (!gone) at += size;
    }
  }
}

async function attempt(seed: number, overrides: Overrides): Promise<Failure | undefined> {
  const occurrences: number[] = [];
  const kinds = new Set<string>();
  let atMs = 0;
  const narrate = (line: string) => {
    atMs = Number.parseFloat(line);
    const [, number, kind] = /fault (\d+): (\w+)/.exec(line) ?? [];
    if (number === undefined || kind === undefined) return;
    occurrences.push(Number(number));
    kinds.add(kind);
  };
  try {
    await simulate({ ...overrides, seed, narrate, untilItCounts: overrides.safetyMs === undefined });
    return undefined;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { overrides, message, occurrences, kinds: [...kinds], atMs: Number(/at ([\d.]+) ms/.exec(message)?.[1] ?? atMs) };
  }
}

/** One seed run, in the form that workers send and the summary adds up. */
import { simulateCore } from './core/simulate.ts';
import type { Kind } from './options.ts';
import { simulate } from './run.ts';
import type { Overrides } from './world.ts';

export interface SeedReport {
  readonly seed: number;
  /** What broke. Undefined: nothing. */
  readonly failure: string | undefined;
  readonly counts: boolean;
  readonly figures: Readonly<Record<string, number>>;
  /** Occurrences that took effect, by fault. */
  readonly effects: Readonly<Record<string, number>>;
}

export interface SeedOrder {
  readonly kind: Kind;
  readonly seed: number;
  readonly overrides: Overrides;
  readonly steps: number | undefined;
}

/** So often a seed runs twice. */
const TWICE_EVERY = 100;

export async function runSeed(order: SeedOrder): Promise<SeedReport> {
  try {
    const report = await runOnce(order);
    if (order.seed % TWICE_EVERY !== 0) return report.report;
    const again = await runOnce(order);
    if (again.hash === report.hash) return report.report;
    return failed(order.seed, `seed ${order.seed} is two worlds: ${report.hash} and ${again.hash}`);
  } catch (error) {
    return failed(order.seed, error instanceof Error ? error.message : String(error));
  }
}

export function failed(seed: number, failure: string): SeedReport {
  return { seed, failure, counts: false, figures: {}, effects: {} };
}

async function runOnce({ kind, seed, overrides, steps }: SeedOrder): Promise<{ hash: string | number; report: SeedReport }> {
  if (kind === 'core') {
    const { hash, committed, terms, reads, crashes } = simulateCore(seed, steps === undefined ? {} : { steps });
    return { hash, report: { seed, failure: undefined, counts: true, figures: { committed, terms, reads, crashes }, effects: {} } };
  }
  const result = await simulate({ ...overrides, seed, untilItCounts: overrides.safetyMs === undefined });
  const { hash, counts, simulatedMs, operations, effective, elections, deleted, compacted, events, messages, effects } = result;
  const figures = {
    'simulated seconds': simulatedMs / 1000,
    operations,
    'faults that took effect': effective,
    elections,
    deleted,
    compacted,
    events,
    messages,
  };
  return { hash, report: { seed, failure: undefined, counts, figures, effects } };
}

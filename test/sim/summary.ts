/** Many seeds added up: distributions that can be added again, so that campaigns add up. */
import type { SeedReport } from './seed-report.ts';

/** Values to two digits, each with its number of seeds. */
export type Distribution = Readonly<Record<string, number>>;

export interface SummaryData {
  readonly seeds: number;
  readonly counted: number;
  readonly failed: readonly number[];
  readonly figures: Readonly<Record<string, Distribution>>;
  readonly effects: Readonly<Record<string, number>>;
}

export const EMPTY: SummaryData = { seeds: 0, counted: 0, failed: [], figures: {}, effects: {} };

export function summaryOf(report: SeedReport): SummaryData {
  return {
    seeds: 1,
    counted: report.counts ? 1 : 0,
    failed: report.failure === undefined ? [] : [report.seed],
    figures: Object.fromEntries(Object.entries(report.figures).map(([name, value]) => [name, { [rounded(value)]: 1 }])),
    effects: report.effects,
  };
}

export function add(a: SummaryData, b: SummaryData): SummaryData {
  const figures: Record<string, Distribution> = { ...a.figures };
  for (const [name, distribution] of Object.entries(b.figures)) figures[name] = sum(figures[name] ?? {}, distribution);
  return {
    seeds: a.seeds + b.seeds,
    counted: a.counted + b.counted,
    failed: [...a.failed, ...b.failed],
    figures,
    effects: sum(a.effects, b.effects),
  };
}

/** The smallest value that so great a part of the seeds does not exceed. */
export function percentile(distribution: Distribution, part: number): number {
  const values = Object.entries(distribution)
    .map(([value, count]) => [Number(value), count] as const)
    .sort(([x], [y]) => x - y);
  const total = values.reduce((count, [, more]) => count + more, 0);
  let seen = 0;
  for (const [value, count] of values) {
    seen += count;
    if (seen >= total * part) return value;
  }
  return 0;
}

/** For a person. */
export function table({ seeds, counted, failed, figures, effects }: SummaryData): string {
  const lines = [
    `${seeds} seeds, ${counted} count, ${failed.length} failed${failed.length === 0 ? '' : `: ${failed.slice(0, 20).join(', ')}`}`,
  ];
  if (Object.keys(figures).length > 0) lines.push(`${''.padEnd(24)}${['p10', 'p50', 'p90'].map((name) => name.padStart(10)).join('')}`);
  for (const [name, distribution] of Object.entries(figures)) {
    const cells = [0.1, 0.5, 0.9].map((part) => percentile(distribution, part).toString().padStart(10));
    lines.push(`${name.padEnd(24)}${cells.join('')}`);
  }
  const counts = Object.entries(effects).sort(([a], [b]) => (a < b ? -1 : 1));
  if (counts.length > 0) lines.push(`took effect: ${counts.map(([name, count]) => `${name} ${count}`).join(', ')}`);
  return lines.join('\n');
}

function sum(a: Readonly<Record<string, number>>, b: Readonly<Record<string, number>>): Record<string, number> {
  const total = { ...a };
  for (const [key, count] of Object.entries(b)) total[key] = (total[key] ?? 0) + count;
  return total;
}

function rounded(value: number): string {
  return String(Number(value.toPrecision(2)));
}

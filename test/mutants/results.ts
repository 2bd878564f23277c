/** What the last runs found, `results.json`, and the table of it in docs/testing.md. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Hunt } from './hunters.ts';
import { type Mutant, readMutants } from './mutant.ts';
import { HAZARDS, WAITING } from './waiting.ts';

export interface Result {
  readonly mutant: string;
  /** Of the sources and tests that it ran on (tree.ts). */
  readonly tree: string;
  /** In the order of the hunt, up to the first kill, or of all hunters. */
  readonly hunts: readonly Hunt[];
}

const FILE = join(import.meta.dirname, 'results.json');

/** By mutant. */
export function readResults(): Map<string, Result> {
  const results = existsSync(FILE) ? (JSON.parse(readFileSync(FILE, 'utf8')) as Result[]) : [];
  return new Map(results.map((result) => [result.mutant, result]));
}

/** Keeps the results of the mutants that there are. */
export function writeResults(results: ReadonlyMap<string, Result>): void {
  const lines = readMutants().flatMap(({ name }) => {
    const result = results.get(name);
    return result === undefined ? [] : `  ${JSON.stringify(result)}`;
  });
  writeFileSync(FILE, `[\n${lines.join(',\n')}\n]\n`);
}

export const killOf = (result: Result | undefined): Hunt | undefined => result?.hunts.find(({ killed }) => killed);

export interface Counts {
  readonly killed: number;
  readonly survived: number;
  readonly notRun: number;
  /** Hazards: killed whole, there at all, of all. */
  readonly hazardsKilled: number;
  readonly hazardsThere: number;
  readonly hazards: number;
}

export function count(mutants: readonly Mutant[], results: ReadonlyMap<string, Result>): Counts {
  const killed = mutants.filter(({ name }) => killOf(results.get(name)) !== undefined);
  const notRun = mutants.filter(({ name }) => !results.has(name));
  const there = new Set(mutants.map(({ hazard }) => hazard));
  const whole = [...there].filter((hazard) => mutants.every((mutant) => mutant.hazard !== hazard || killed.includes(mutant)));
  return {
    killed: killed.length,
    survived: mutants.length - killed.length - notRun.length,
    notRun: notRun.length,
    hazardsKilled: whole.length,
    hazardsThere: there.size,
    hazards: HAZARDS,
  };
}

/** The sentences above the table. */
export function summary({ killed, survived, notRun, hazardsKilled, hazardsThere, hazards }: Counts): string {
  const all = killed + survived + notRun;
  const waiting = hazards - hazardsThere;
  return (
    `Mutants: ${all}, killed ${killed} (${percent(killed, all)}), survived ${survived}, not run ${notRun}. ` +
    `Hazards: of ${hazards}, ${waiting} wait for what they are about; of the other ${hazardsThere}, all mutants of ${hazardsKilled} are killed ` +
    `(${percent(hazardsKilled, hazardsThere)}; of all ${hazards}: ${percent(hazardsKilled, hazards)}).`
  );
}

const percent = (part: number, whole: number): string => (whole === 0 ? 'none' : `${Math.floor((part / whole) * 100)}%`);

/** The generated part of docs/testing.md. */
export function mutantTable(): string {
  const mutants = readMutants();
  const results = readResults();
  const rows = mutants.map((mutant) => {
    const files = [...new Set(mutant.edits.map(({ file }) => `\`${file}\``))].join(', ');
    const result = results.get(mutant.name);
    return [mutant.name, mutant.title, files, mutant.why, mutant.harm, ...outcome(result)];
  });
  const trees = new Set([...results.values()].map(({ tree }) => tree));
  const waiting = Object.entries(WAITING).map(([hazard, what]) => [hazard, what]);
  return [
    `${summary(count(mutants, results))} Sources and tests: ${[...trees].map((tree) => `\`${tree}\``).join(', ') || 'none'}.`,
    '',
    table(['mutant', 'planted', 'file', 'why it breaks the rule', 'harm', 'killed by', 'after'], rows),
    'Waiting:',
    '',
    table(['hazard', 'waits for'], waiting),
  ].join('\n');
}

/** Killed by, and after. */
function outcome(result: Result | undefined): [string, string] {
  if (result === undefined) return ['not run', ''];
  const kills = result.hunts.filter(({ killed }) => killed);
  if (kills.length === 0)
    return [
      '**survived**',
      result.hunts.map(({ hunter, seeds }) => (seeds === undefined ? hunter : `${seeds} seeds of ${hunter}`)).join(', '),
    ];
  return [
    kills.map(({ hunter, what }) => (hunter === 'tests' ? what : `${hunter}: ${what}`)).join('; '),
    kills.map(({ seeds, seconds }) => (seeds === undefined ? `${seconds} s` : `seed ${seeds}`)).join('; '),
  ];
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
  const line = (cells: readonly string[]) => `| ${cells.map(cell).join(' | ')} |`;
  return [line(head), `|${'---|'.repeat(head.length)}`, ...rows.map(line), ''].join('\n');
}

/**
 * A mutant: a bug that a real system shipped, planted in our source. One file each, `patches/B05-….patch`:
 *
 *   a leader commits an older term's entry by counting copies      the first line: what is planted
 *   why: …                    why the patch breaks the rule of its hazard, in one line
 *   harm: loss                what it costs: loss, doubles, stale, stall (see HARMS)
 *   tests: a.test.ts, b.test.ts   unit tests that should notice, run first
 *   core: 300                 seeds of the core simulator, then; absent: the mutant is none of its business
 *   broker: 20                seeds of the broker simulator, last; absent: likewise
 *
 *   --- src/raft/core/leader.ts
 *   @@
 *    context
 *   -what goes
 *   +what comes
 *
 * The hunks are those of a unified diff, but found by their text, which must occur exactly once: so they stand where the code moves, and fail where it changes.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/**
 * loss: acknowledged records can vanish or change. doubles: a record can be there twice. stale: a reader can see less than was acknowledged before it asked.
 * stall: nothing wrong is said, but something that must go on stands still. The first three must all be killed.
 */
export const HARMS = ['loss', 'doubles', 'stale', 'stall'] as const;
export type Harm = (typeof HARMS)[number];

export interface Edit {
  readonly file: string;
  readonly before: string;
  readonly after: string;
}

export interface Mutant {
  /** `B05-commit-by-count`. */
  readonly name: string;
  /** `B05`. */
  readonly hazard: string;
  readonly title: string;
  readonly why: string;
  readonly harm: Harm;
  readonly tests: readonly string[];
  /** Seeds, 0: not hunted there. */
  readonly core: number;
  readonly broker: number;
  readonly edits: readonly Edit[];
}

const PATCHES = join(import.meta.dirname, 'patches');
const FIELDS = ['why', 'harm', 'tests', 'core', 'broker'];

/** All mutants, by name. */
export function readMutants(): readonly Mutant[] {
  return readdirSync(PATCHES)
    .filter((file) => file.endsWith('.patch'))
    .sort()
    .map((file) => parseMutant(basename(file, '.patch'), readFileSync(join(PATCHES, file), 'utf8')));
}

export function parseMutant(name: string, text: string): Mutant {
  const lines = text.trimEnd().split('\n');
  const body = lines.findIndex((line) => line.startsWith('--- '));
  const [title = '', ...head] = lines.slice(0, Math.max(0, body)).filter((line) => line !== '');
  const fields = new Map(head.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]));
  const unknown = [...fields.keys()].filter((key) => !FIELDS.includes(key));
  const hazard = name.slice(0, 3);
  const harm = HARMS.find((known) => known === fields.get('harm'));
  const why = fields.get('why') ?? '';
  if (body < 0 || !/^B\d\d-/.test(name) || title === '' || why === '' || harm === undefined || unknown.length > 0) {
    throw new Error(
      `${name}: not a mutant: a title, why, harm (${HARMS.join(', ')}) and hunks are needed; not known: ${unknown.join(', ') || 'none'}`,
    );
  }
  const tests = (fields.get('tests') ?? '').split(',').flatMap((file) => file.trim() || []);
  const seeds = (key: string) => Number(fields.get(key) ?? 0);
  return {
    name,
    hazard,
    title,
    why,
    harm,
    tests,
    core: seeds('core'),
    broker: seeds('broker'),
    edits: parseEdits(name, lines.slice(body)),
  };
}

function parseEdits(name: string, lines: readonly string[]): Edit[] {
  const edits: { file: string; before: string[]; after: string[] }[] = [];
  let file = '';
  for (const line of lines) {
    const edit = edits.at(-1);
    if (line.startsWith('--- ')) file = line.slice(4);
    else if (line.startsWith('@@')) edits.push({ file, before: [], after: [] });
    else if (edit === undefined) throw new Error(`${name}: '${line}' before the first @@`);
    else {
      const [mark = ' '] = line;
      if (mark !== '+') edit.before.push(line.slice(1));
      if (mark !== '-') edit.after.push(line.slice(1));
      if (!' +-'.includes(mark)) throw new Error(`${name}: '${line}' is no line of a hunk`);
    }
  }
  return edits.map(({ file, before, after }) => ({ file, before: before.join('\n'), after: after.join('\n') }));
}

/** The files as the mutant leaves them, by path; `read` gives them as they are. @throws when a hunk does not fit exactly once. */
export function mutate(mutant: Mutant, read: (file: string) => string): Map<string, string> {
  const files = new Map<string, string>();
  for (const { file, before, after } of mutant.edits) {
    const text = `\n${files.get(file) ?? read(file)}`;
    const parts = text.split(`\n${before}\n`);
    if (parts.length !== 2 || before === after) {
      throw new Error(
        `${mutant.name} does not apply any more: a hunk fits ${parts.length - 1} places of ${file}, which must be one:\n${before}`,
      );
    }
    files.set(file, parts.join(`\n${after}\n`).slice(1));
  }
  return files;
}

/** `npm run mutants`: plants bugs in a copy of the sources, one at a time, and says what finds them. USAGE is its manual. */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { type Bounds, compile, endAll, type Hunt, type HunterName, hunt } from './hunters.ts';
import { type Mutant, readMutants } from './mutant.ts';
import { count, killOf, type Result, readResults, summary, writeResults } from './results.ts';
import { Tree, treeHash } from './tree.ts';
import { WAITING } from './waiting.ts';

const USAGE = `npm run mutants: plants known bugs one at a time, and says which test or simulation finds each

  npm run mutants                        all of them; each up to its first kill
  npm run mutants -- --only B05,B07-aba  those whose names begin so
  npm run mutants -- --each              not only the first kill: what every hunter says
  npm run mutants -- --resume            only those that have no result of these sources and tests
  npm run mutants -- --list              what is planted, and what waits

  --hunters a,b  these alone, of tests, core, broker
  --seeds N      at most so many seeds of a simulator for each, whatever its patch says
  --seconds N    at most so long for each hunter (default 90)
  --minutes N    begin no further mutant after so many minutes
  --jobs N       mutants at a time, 1 or 2 (default 1)
  --smoke        a few of the quickest to kill, and nothing is written
  --json         the results as JSON on stdout

Writes test/mutants/results.json; \`node scripts/docs.ts\` makes the table in docs/testing.md of it.
Exit 0: all that ran were killed; 1: some survived, or a patch does not apply, or what is not mutated fails; 2: the command was not understood.`;

const OPTIONS = {
  only: { type: 'string' },
  each: { type: 'boolean', default: false },
  resume: { type: 'boolean', default: false },
  list: { type: 'boolean', default: false },
  smoke: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  hunters: { type: 'string' },
  seeds: { type: 'string' },
  seconds: { type: 'string', default: '90' },
  minutes: { type: 'string' },
  jobs: { type: 'string', default: '1' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;
/** Quick to kill, each by another net. */
const SMOKE: readonly string[] = ['B02-vote', 'B05-commit', 'B06-empty', 'B24-orphans', 'B30-duplicate', 'B34-answer-before'];
/** From the cheapest on. */
const HUNTERS: readonly HunterName[] = ['tests', 'core', 'broker'];

const values = parsed();
const say = (line: string) => (values.json ? console.error(line) : console.log(line));
const started = performance.now();
const results = readResults();
const hash = treeHash();

function parsed() {
  try {
    return parseArgs({ options: OPTIONS }).values;
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}; npm run mutants -- --help tells the options`);
    process.exit(2);
  }
}

function chosen(): readonly Mutant[] {
  const wanted = values.smoke ? SMOKE : values.only?.split(',');
  const mutants = readMutants().filter(({ name }) => wanted === undefined || wanted.some((part) => name.startsWith(part)));
  const nobody = wanted?.filter((part) => !mutants.some(({ name }) => name.startsWith(part))) ?? [];
  if (nobody.length > 0) {
    console.error(`no mutant is called ${nobody.join(', ')}; npm run mutants -- --list tells their names`);
    process.exit(2);
  }
  if (!values.resume) return mutants;
  return mutants.filter(({ name }) => results.get(name)?.tree !== hash || killOf(results.get(name)) === undefined);
}

function boundsOf(mutants: readonly Mutant[]): Bounds {
  const most = Number(values.seeds ?? Number.POSITIVE_INFINITY);
  const seeds = (of: 'core' | 'broker') => Math.min(most, Math.max(0, ...mutants.map((mutant) => mutant[of])));
  const tests = [...new Set(mutants.flatMap((mutant) => mutant.tests))];
  return { tests, core: seeds('core'), broker: seeds('broker'), seconds: Number(values.seconds) };
}

const huntersFor = ({ tests, core, broker }: Bounds): readonly HunterName[] =>
  HUNTERS.filter(
    (name) =>
      (values.hunters?.split(',').includes(name) ?? true) && (name === 'tests' ? tests.length > 0 : (name === 'core' ? core : broker) > 0),
  );

/** What is not mutated must pass all that the mutants are to fail, or a kill says nothing. */
async function baseline(tree: Tree, mutants: readonly Mutant[]): Promise<void> {
  const bounds = { ...boundsOf(mutants), seconds: 600 };
  for (const hunter of huntersFor(bounds)) {
    const { killed, what, seconds } = await hunt(hunter, tree.path, bounds);
    if (killed) throw new Error(`without any mutant, ${hunter} fail: ${what}`);
    say(`without any mutant: ${hunter} pass (${seconds} s)`);
  }
}

async function audit(tree: Tree, mutant: Mutant): Promise<Result> {
  tree.plant(mutant);
  const errors = await compile(tree.path);
  if (errors !== undefined) throw new Error(`${mutant.name}: the patch leaves no program:\n${errors}`);
  const hunts: Hunt[] = [];
  const bounds = boundsOf([mutant]);
  for (const hunter of huntersFor(bounds)) {
    const found = await hunt(hunter, tree.path, bounds).catch((error: Error) => {
      throw new Error(`${mutant.name}: ${error.message}`);
    });
    hunts.push(found);
    if (found.killed && !values.each) break;
  }
  return { mutant: mutant.name, tree: hash, hunts };
}

/** Each of `jobs` takes the next mutant, in a tree of its own. */
async function auditAll(mutants: readonly Mutant[]): Promise<{ ran: Result[]; failed: string[] }> {
  const ran: Result[] = [];
  const failed: string[] = [];
  const left = [...mutants];
  const minutes = Number(values.minutes ?? Number.POSITIVE_INFINITY);
  const work = async (tree: Tree) => {
    for (let mutant = left.shift(); mutant !== undefined; mutant = left.shift()) {
      if (performance.now() - started > minutes * 60_000) break;
      try {
        const result = await audit(tree, mutant);
        ran.push(result);
        say(lineOf(result));
        results.set(mutant.name, result);
        if (!values.smoke) writeResults(results);
      } catch (error) {
        failed.push(error instanceof Error ? error.message : String(error));
        say(failed.at(-1) ?? '');
      }
    }
  };
  const jobs = Math.max(1, Math.min(Number(values.jobs), 2, availableParallelism()));
  const trees = Array.from({ length: Math.min(jobs, Math.max(1, mutants.length)) }, () => new Tree());
  const end = () => {
    endAll();
    for (const tree of trees) tree.remove();
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      end();
      process.exit(130);
    });
  }
  try {
    await baseline(trees[0] as Tree, mutants);
    await Promise.all(trees.map(work));
  } finally {
    end();
  }
  return { ran, failed };
}

function lineOf({ mutant, hunts }: Result): string {
  const parts = hunts.map(({ hunter, killed, what, seeds, seconds }) => {
    const after = seeds === undefined ? '' : killed ? ` at seed ${seeds}` : ` ${seeds} seeds`;
    return `${hunter}${after}${killed ? `: ${what}` : ' pass'} (${seconds} s)`;
  });
  return `${hunts.some(({ killed }) => killed) ? 'killed  ' : 'SURVIVED'} ${mutant}  ${parts.join('; ')}`;
}

function list(mutants: readonly Mutant[]): void {
  for (const { name, title, harm } of mutants) console.log(`${name.padEnd(40)} ${harm.padEnd(8)} ${title}`);
  for (const [hazard, what] of Object.entries(WAITING)) console.log(`${hazard.padEnd(40)} waiting  ${what}`);
}

async function main(): Promise<number> {
  const mutants = chosen();
  if (values.list) {
    list(mutants);
    return 0;
  }
  const { ran, failed } = await auditAll(mutants);
  const all = readMutants();
  if (values.json) console.log(JSON.stringify(ran, undefined, 2));
  say(summary(count(all, results)));
  const survived = ran.filter((result) => killOf(result) === undefined).map(({ mutant }) => mutant);
  if (survived.length > 0) say(`survived: ${survived.join(', ')}`);
  for (const line of failed) say(`failed: ${line}`);
  return survived.length + failed.length > 0 ? 1 : 0;
}

if (values.help) {
  console.log(USAGE);
  process.exit();
}
try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

/** What hunts mutants: unit tests, then the simulators, each in a process of its own that runs in the mutant's tree. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { root, tool } from '../../scripts/steps.ts';

export type HunterName = 'tests' | 'core' | 'broker';

/** What one hunter found. */
export interface Hunt {
  readonly hunter: HunterName;
  readonly killed: boolean;
  /** The test, or how the world broke. */
  readonly what?: string;
  /** Seeds until then, the last one included; of `tests` none. */
  readonly seeds?: number;
  readonly seconds: number;
}

export interface Bounds {
  readonly tests: readonly string[];
  readonly core: number;
  readonly broker: number;
  readonly seconds: number;
}

/** Broken patches look like this: the code they leave is none. A hunter that fails for such a reason proves nothing. */
const NO_CODE =
  /^(SyntaxError|ReferenceError)\b|is not a function|is not a constructor|does not provide an export|Cannot find (module|name)/m;
const NODE_FLAGS = ['--max-old-space-size=1500'];
/** Beyond its own bound, for what hangs. */
const GRACE_SECONDS = 45;
const MAX_WORDS = 160;

interface Ended {
  readonly output: string;
  readonly status: number | null;
  readonly hung: boolean;
}

/** The mutant's sources are a program still. @returns what the compiler says against it. */
export async function compile(path: string): Promise<string | undefined> {
  const { status, output } = await run(path, [...tool('typescript', 'tsc'), '-p', 'tsconfig.mutant.json'], 120);
  return status === 0 ? undefined : output.trim();
}

export async function hunt(hunter: HunterName, path: string, bounds: Bounds): Promise<Hunt> {
  const started = performance.now();
  const found = hunter === 'tests' ? await runTests(path, bounds) : await runSeeds(hunter, path, bounds);
  if (found.what !== undefined && NO_CODE.test(found.what)) throw new Error(`the patch leaves no program: ${found.what}`);
  return { hunter, ...found, seconds: Math.round((performance.now() - started) / 100) / 10 };
}

interface TestReport {
  readonly numPassedTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

async function runTests(path: string, { tests, seconds }: Bounds): Promise<Pick<Hunt, 'killed' | 'what'>> {
  const missing = tests.filter((file) => !existsSync(join(root, file)));
  if (missing.length > 0) throw new Error(`there is no ${missing.join(', ')}`);
  const file = join(path, 'report.json');
  rmSync(file, { force: true });
  const command = [...tool('vitest', 'vitest'), 'run', '--bail=1', '--reporter=json', `--outputFile=${file}`, ...tests];
  const { status, hung, output } = await run(path, command, seconds + GRACE_SECONDS);
  if (hung) return { killed: true, what: `${tests.join(', ')}: still runs after ${seconds + GRACE_SECONDS} s` };
  if (!existsSync(file)) throw new Error(`vitest wrote no report: ${output.slice(-2000)}`);
  const report = JSON.parse(readFileSync(file, 'utf8')) as TestReport;
  for (const { name, assertionResults, status: ofFile, message } of report.testResults) {
    const failed = assertionResults.find(({ status }) => status === 'failed');
    const test = relative(path, name);
    if (failed !== undefined) {
      checkFailure(failed.failureMessages[0] ?? '');
      return { killed: true, what: `${test}: ${failed.fullName}` };
    }
    // An error outside of any test: of an import it is a broken patch, else it is the mutant's.
    if (ofFile === 'failed' && message !== '') {
      checkFailure(message);
      return { killed: true, what: `${test}: ${words(message)}` };
    }
  }
  if (status === 0 && report.numPassedTests > 0) return { killed: false };
  if (/Unhandled/.test(output)) return { killed: true, what: `${tests.join(', ')}: ${words(output.slice(output.indexOf('Unhandled')))}` };
  throw new Error(`vitest neither passed nor failed (exit ${status}): ${output.slice(-2000)}`);
}

function checkFailure(message: string): void {
  const [first = ''] = message.split('\n');
  if (NO_CODE.test(first)) throw new Error(`the patch leaves no program: ${first}`);
}

async function runSeeds(world: 'core' | 'broker', path: string, bounds: Bounds): Promise<Pick<Hunt, 'killed' | 'what' | 'seeds'>> {
  const args = ['test/mutants/seeds.ts', world, '1', String(bounds[world]), String(bounds.seconds)];
  const { output, status, hung } = await run(path, [process.execPath, ...NODE_FLAGS, ...args], bounds.seconds + GRACE_SECONDS);
  const lines = output.split('\n').filter((line) => line.startsWith('{'));
  const last = JSON.parse(lines.at(-1) ?? '{}') as { seed?: number; failed?: number; passed?: number; message?: string };
  if (last.passed !== undefined) return { killed: false, seeds: last.passed };
  if (last.failed !== undefined) return { killed: true, seeds: last.failed, what: words(last.message ?? '') };
  if (last.seed === undefined) throw new Error(`the ${world} simulator did not start (exit ${status}): ${output.slice(-2000)}`);
  return {
    killed: true,
    seeds: last.seed,
    what: hung ? 'the world stands still' : `the process ended: ${words(output.replaceAll(/^\{.*$/gm, '').trim())}`,
  };
}

/** The first line of a message, short enough for a table. */
function words(message: string): string {
  const [line = ''] = message.split('\n');
  return line.length > MAX_WORDS ? `${line.slice(0, MAX_WORDS)}…` : line;
}

const children = new Set<number>();
/** Ends what still runs; for when this process is told to end. */
export function endAll(): void {
  for (const pid of children) process.kill(-pid, 'SIGKILL');
}

/** Runs a command in a process group of its own, which is ended after `seconds`. */
function run(cwd: string, [file = '', ...args]: readonly string[], seconds: number): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { cwd, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    const { pid } = child;
    if (pid === undefined) return reject(new Error(`${file} did not start`));
    children.add(pid);
    let output = '';
    let hung = false;
    const take = (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-(1 << 20));
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    const timer = setTimeout(() => {
      hung = true;
      process.kill(-pid, 'SIGKILL');
    }, seconds * 1000);
    child.on('error', reject);
    child.on('close', (status) => {
      clearTimeout(timer);
      children.delete(pid);
      resolve({ output, status, hung });
    });
  });
}

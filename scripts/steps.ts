import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** A command of a package in node_modules, run on this Node: no shell, no PATH, the same on every platform. */
export function tool(packageName: string, command: string): string[] {
  const require = createRequire(import.meta.url);
  const manifestPath = join(root, 'node_modules', packageName, 'package.json');
  const manifest = require(manifestPath) as { bin: string | Record<string, string> };
  const bin = typeof manifest.bin === 'string' ? manifest.bin : manifest.bin[command];
  if (bin === undefined) throw new Error(`${packageName} has no command ${command}`);
  return [process.execPath, join(dirname(manifestPath), bin)];
}

export interface Step {
  readonly name: string;
  readonly command: readonly string[];
  /** How a person runs it alone. Default: the command as it is. */
  readonly alone?: string;
}

/** What a step prints at the start of a line when it leaves a part out. */
export const SKIPPED = 'skipped: ';
/** And of a line that says how much it did. */
const RAN = 'ran: ';
const MAX_OUTPUT_BYTES = 256 * 2 ** 20;

/**
 * Runs steps in turn; a line with its time for each. One that passes is otherwise silent, except for what it says that it skipped, or how much it ran; one that fails
 * shows its output and how to run it alone, and the process ends with exit 1: at once, or after the others with `keepGoing`.
 */
export function runSteps(steps: readonly Step[], { keepGoing = false } = {}): void {
  const started = performance.now();
  const failed: string[] = [];
  for (const step of steps) {
    const failure = run(step);
    if (failure === undefined) continue;
    failed.push(failure);
    if (!keepGoing) break;
  }
  if (failed.length > 0) console.error(`\nfailed:\n${failed.map((line) => `  ${line}`).join('\n')}`);
  else console.log(`all ${steps.length} steps ok, ${secondsSince(started)} s`);
  process.exitCode = failed.length > 0 ? 1 : 0;
}

/** Undefined: it passed. */
function run(step: Step): string | undefined {
  const started = performance.now();
  const [file, ...args] = step.command;
  if (file === undefined) throw new Error(`${step.name}: no command`);
  const { status, signal, error, stdout, stderr } = spawnSync(file, args, { cwd: root, encoding: 'utf8', maxBuffer: MAX_OUTPUT_BYTES });
  const seconds = secondsSince(started);
  if (status === 0) {
    console.log(`${step.name}: ok, ${seconds} s`);
    for (const line of stdout.split('\n')) if (line.startsWith(SKIPPED) || line.startsWith(RAN)) console.log(`  ${line}`);
    return undefined;
  }
  console.error(`${stdout ?? ''}${stderr ?? ''}`);
  const why = error?.message ?? signal ?? `exit ${status}`;
  console.error(`${step.name}: FAILED after ${seconds} s (${why})`);
  return `${step.name}: ${step.alone ?? step.command.join(' ')}`;
}

function secondsSince(started: number): string {
  return ((performance.now() - started) / 1000).toFixed(1);
}

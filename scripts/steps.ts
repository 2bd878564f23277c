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
}

/** Runs steps in turn, stops at the first that fails, says how long each took. */
export function runSteps(steps: readonly Step[]): void {
  for (const step of steps) {
    const started = performance.now();
    const [file, ...args] = step.command;
    if (file === undefined) throw new Error(`${step.name}: no command`);
    const result = spawnSync(file, args, { cwd: root, stdio: 'inherit' });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    if (result.status !== 0) {
      console.error(`\n${step.name} failed after ${seconds} s: ${step.command.join(' ')}`);
      process.exit(1);
    }
    console.log(`${step.name}: ok, ${seconds} s`);
  }
}

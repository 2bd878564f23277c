/**
 * `npm test`: everything that is tested, real processes included, in under 5 minutes; closes with the counts. Arguments go to vitest.
 * What needs a Docker engine runs apart from these (`npm run test:docker`); the last lines say so.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hasEngine } from './engine.ts';
import { root, tool } from './steps.ts';

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
}

const directory = mkdtempSync(join(tmpdir(), 'flotilla-test-'));
const file = join(directory, 'report.json');
const [node, ...vitest] = tool('vitest', 'vitest');
const result = spawnSync(
  node as string,
  [...vitest, 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${file}`, ...process.argv.slice(2)],
  {
    cwd: root,
    stdio: 'inherit',
  },
);
let report: Report | undefined;
try {
  report = JSON.parse(readFileSync(file, 'utf8')) as Report;
} catch {
  console.error('vitest wrote no report');
}
rmSync(directory, { recursive: true, force: true });
if (report === undefined) process.exit(1);
const skipped = report.numPendingTests === 0 ? '' : `, ${report.numPendingTests} skipped`;
console.log(hasEngine() ? 'docker tests: not run here, npm run test:docker runs them' : 'docker tests: not run, no engine');
console.log(`${report.numPassedTests} passed, ${report.numFailedTests} failed${skipped}`);
process.exit(result.status ?? 1);

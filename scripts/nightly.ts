/**
 * `npm run nightly [-- HOURS]`: campaigns of the simulators for hours (default 8), which add up in test/sim/ledger.ndjson. Ctrl-C ends the one that runs
 * with the seeds that are under way, and all; what was run is written down, and the next night goes on there.
 */
import { spawn } from 'node:child_process';
import { root } from './steps.ts';

const hours = Number(process.argv[2] ?? 8);
if (!(hours > 0)) {
  console.error(`nightly takes hours, not '${process.argv[2]}'`);
  process.exit(2);
}

/** Parts of the night. The core is fast: it needs the smaller one. */
const campaigns: readonly { readonly name: string; readonly share: number; readonly args: readonly string[] }[] = [
  { name: 'the Raft core', share: 0.2, args: ['--core'] },
  { name: 'the broker', share: 0.8, args: [] },
];

let stopped = false;
// The campaign has it as well, from the terminal, and ends in order.
process.on('SIGINT', () => {
  stopped = true;
});

let failed = 0;
for (const { name, share, args } of campaigns) {
  if (stopped) break;
  const minutes = Math.max(1, Math.round(hours * share * 60));
  console.log(`\n${name}: ${minutes} min`);
  const sim = ['test/sim/main.ts', '--campaign', '--keep-going', '--minutes', String(minutes), ...args];
  const code = await new Promise((resolve) => spawn(process.execPath, sim, { cwd: root, stdio: 'inherit' }).on('exit', resolve));
  if (code !== 0) failed++;
}
console.log('');
await new Promise((resolve) =>
  spawn(process.execPath, ['test/sim/main.ts', 'ledger'], { cwd: root, stdio: 'inherit' }).on('exit', resolve),
);
process.exitCode = failed === 0 ? 0 : 1;

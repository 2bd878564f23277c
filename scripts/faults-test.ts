/** `npm run test:faults`: real brokers on disks that fail, hang and fill up. Says what is left out where there is no C compiler, or nobody may mount. */
import { spawnSync } from 'node:child_process';
import { SmallFileSystem } from '../test/faults/small-file-system.ts';
import { root, SKIPPED, tool } from './steps.ts';

const hasCompiler = spawnSync('cc', ['--version']).status === 0;
const cannotMount = SmallFileSystem.missing();
const files = [...(hasCompiler ? ['failing-disk', 'slow-disk'] : []), ...(cannotMount === undefined ? ['small-disk'] : [])];
if (!hasCompiler) console.log(`${SKIPPED}faults below a process: no C compiler, cc (apt-get install gcc libc6-dev)`);
if (cannotMount !== undefined)
  console.log(`${SKIPPED}full file systems: none can be mounted, neither by root nor in a user namespace: ${cannotMount}`);
if (files.length > 0) {
  const [node, ...vitest] = tool('vitest', 'vitest');
  const args = [...vitest, 'run', '--config', 'test/faults/vitest.config.ts', ...files, ...process.argv.slice(2)];
  process.exitCode = spawnSync(node as string, args, { cwd: root, stdio: 'inherit' }).status ?? 1;
}

/**
 * `npm run test:install`: the repository as a stranger gets it. The tracked files are copied to an empty directory, `npm ci` installs from the
 * lock file, and the command runs: here, and in a container with the oldest Node that is supported, where there is an engine with its image.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { hasEngine, hasImage } from './engine.ts';
import { root, SKIPPED } from './steps.ts';

const OLDEST_NODE_IMAGE = 'node:20-bookworm-slim';
const COMMANDS = ['npm ci --no-audit --no-fund', 'npx flotilla --help', 'npx flotilla config --set node.id=1'];
/** Of the help, and of the printed configuration. */
const EXPECTED = [/flotilla topic create/, /controller\.quorum\.voters/];

const directory = mkdtempSync(join(tmpdir(), 'flotilla-install-'));
try {
  copyTracked(directory);
  judge('here', run('sh', ['-c', script()], bareEnvironment()));
  if (!hasEngine()) console.log(`${SKIPPED}install in ${OLDEST_NODE_IMAGE}: no docker engine`);
  else if (!hasImage(OLDEST_NODE_IMAGE)) console.log(`${SKIPPED}install in ${OLDEST_NODE_IMAGE}: the engine does not have that image`);
  else {
    rmSync(join(directory, 'node_modules'), { recursive: true });
    const mount = ['--volume', `${directory}:/flotilla`, '--workdir', '/flotilla', '--network', 'host'];
    judge(OLDEST_NODE_IMAGE, run('docker', ['run', '--rm', ...mount, OLDEST_NODE_IMAGE, 'sh', '-c', script()], process.env));
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}

/** The tracked files as they are now; without git, everything that git would not leave out. */
function copyTracked(to: string): void {
  for (const name of trackedFiles()) cpSync(join(root, name), join(to, name), { recursive: true });
}

function trackedFiles(): readonly string[] {
  try {
    return execFileSync('git', ['ls-files', '-z'], { cwd: root, encoding: 'utf8' }).split('\0').filter(Boolean);
  } catch {
    return readdirSync(root).filter((name) => name !== 'node_modules' && name !== '.git');
  }
}

function script(): string {
  return COMMANDS.map((command) => `echo '> ${command}' && ${command}`).join(' && ');
}

function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv): { status: number | null; output: string } {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: directory, env, encoding: 'utf8' });
  return { status, output: error?.message ?? `${stdout}${stderr}` };
}

function judge(where: string, { status, output }: { status: number | null; output: string }): void {
  const missing = EXPECTED.filter((pattern) => !pattern.test(output));
  if (status === 0 && missing.length === 0) {
    console.log(`${where}: installed, and runs`);
    return;
  }
  console.error(`${output}\n${where}: exit ${status}${missing.length === 0 ? '' : `, and the output lacks ${missing.join(', ')}`}`);
  process.exitCode = 1;
}

/** Without what npm set for this process: its settings, and our own node_modules/.bin (with its Node) on PATH. */
function bareEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^(?:npm_|INIT_CWD$|NODE_ENV$)/.test(name));
  const path = (process.env['PATH'] ?? '').split(delimiter).filter((entry) => !entry.includes('node_modules'));
  return { ...Object.fromEntries(kept), PATH: path.join(delimiter) };
}

/**
 * `npm run ci:extra [-- PART-OF-A-NAME …]`: what takes longer than the tests do. Needs nothing but Node: what needs more says so where it is
 * left out. Under 15 minutes on two cores.
 */
import { runSteps, type Step, tool } from './steps.ts';

const script = (name: string, file: string, ...args: string[]): Step => ({ name, command: [process.execPath, file, ...args] });
const npm = (name: string, run: string, file: string, ...args: string[]): Step => ({
  ...script(name, file, ...args),
  alone: `npm run ${run}${args.length === 0 ? '' : ` -- ${args.join(' ')}`}`,
});

const steps: readonly Step[] = [
  { name: 'format and lint', command: [...tool('@biomejs/biome', 'biome'), 'check', '.'], alone: 'npm run lint' },
  { name: 'types', command: [...tool('typescript', 'tsc'), '-p', 'tsconfig.json'], alone: 'npm run types' },
  { name: 'types of the pure folders', command: [...tool('typescript', 'tsc'), '-p', 'tsconfig.pure.json'], alone: 'npm run types' },
  { name: 'proto lint', command: [...tool('@bufbuild/buf', 'buf'), 'lint'], alone: 'npx buf lint' },
  npm('simulation of the Raft core', 'sim', 'test/sim/main.ts', '--core', '--seeds', '2000', '--from', '1'),
  npm('simulation of the broker', 'sim', 'test/sim/main.ts', '--seeds', '100', '--from', '1'),
  npm('mutants, a few', 'mutants', 'test/mutants/main.ts', '--smoke'),
  npm('exhaustive small model', 'model', 'test/model/main.ts'),
  npm('jepsen-lite', 'jepsen', 'test/jepsen-lite/main.ts', '--nemesis', 'kill,pause,partition', '--seconds', '60', '--seed', '1'),
  npm('kill -9 of all brokers, a few', 'kill-all', 'test/jepsen-lite/kill-all.ts', '--kills', '3', '--seed', '1'),
  npm('disks that fail, hang and fill up', 'test:faults', 'scripts/faults-test.ts'),
  {
    name: 'examples',
    command: [...tool('vitest', 'vitest'), 'run', 'test/examples.e2e.test.ts'],
    alone: 'npx vitest run test/examples.e2e.test.ts',
  },
  npm('demo', 'demo', 'src/cli/demo/proof.ts'),
  npm('bench, short', 'bench', 'bench/main.ts', '--smoke'),
  npm('install on a bare machine', 'test:install', 'scripts/install-test.ts'),
  npm('image and compose file', 'test:docker', 'scripts/docker-test.ts'),
];

const wanted = process.argv.slice(2);
runSteps(
  steps.filter(({ name }) => wanted.length === 0 || wanted.some((part) => name.includes(part))),
  { keepGoing: true },
);

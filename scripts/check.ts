/** `npm run check`: format, lint, types, proto lint, layering and unit tests, simulation smoke; without real processes. Under 2 minutes. */
import { runSteps, tool } from './steps.ts';

runSteps([
  { name: 'format and lint', command: [...tool('@biomejs/biome', 'biome'), 'check', '.'] },
  { name: 'types', command: [...tool('typescript', 'tsc'), '-p', 'tsconfig.json'] },
  { name: 'types of the pure folders', command: [...tool('typescript', 'tsc'), '-p', 'tsconfig.pure.json'] },
  { name: 'proto lint', command: [...tool('@bufbuild/buf', 'buf'), 'lint'] },
  { name: 'unit tests and simulation smoke', command: [...tool('vitest', 'vitest'), 'run', '--exclude', 'test/**/*.e2e.test.ts'] },
]);

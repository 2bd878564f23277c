/** `npm run ci:extra`: the checks that take longer than the tests do. Under 15 minutes. */
import { runSteps, tool } from './steps.ts';

runSteps([
  { name: 'format and lint', command: [...tool('@biomejs/biome', 'biome'), 'check', '.'] },
  { name: 'types', command: [...tool('typescript', 'tsc'), '-p', 'tsconfig.json'] },
  { name: 'types of the pure folders', command: [...tool('typescript', 'tsc'), '-p', 'tsconfig.pure.json'] },
  { name: 'proto lint', command: [...tool('@bufbuild/buf', 'buf'), 'lint'] },
]);

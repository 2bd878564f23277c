/** `npm run test:docker`: the image and the compose file. Says that it is left out where there is no Docker engine, or no compose. */
import { spawnSync } from 'node:child_process';
import { hasCompose, hasEngine } from './engine.ts';
import { root, SKIPPED, tool } from './steps.ts';

if (!hasEngine()) console.log(`${SKIPPED}docker tests: no docker engine`);
else if (!hasCompose()) console.log(`${SKIPPED}docker tests: neither docker compose nor docker-compose is here`);
else {
  const [node, ...vitest] = tool('vitest', 'vitest');
  const args = [...vitest, 'run', '--config', 'test/docker/vitest.config.ts', ...process.argv.slice(2)];
  process.exitCode = spawnSync(node as string, args, { cwd: root, stdio: 'inherit' }).status ?? 1;
}

/**
 * The simulator of the Raft core from a shell:
 *
 *   node test/sim/core/main.ts --seeds 10000          seeds 1 … 10000
 *   node test/sim/core/main.ts --seed 42              one seed, with its result
 *   options: --from N (first seed), --steps N
 */
import { parseArgs } from 'node:util';
import { simulateCore } from './simulate.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    seed: { type: 'string' },
    from: { type: 'string', default: '1' },
    steps: { type: 'string', default: '1500' },
  },
});
const steps = Number(values.steps);
const first = Number(values.seed ?? values.from);
const count = values.seed === undefined ? Number(values.seeds ?? 1000) : 1;
const started = performance.now();
let failed = 0;
for (let seed = first; seed < first + count; seed++) {
  try {
    const result = simulateCore(seed, { steps });
    if (values.seed !== undefined) console.log(result);
  } catch (error) {
    failed++;
    console.error(error instanceof Error ? (values.seed === undefined ? error.message : error.stack) : error);
    console.error(`replay: node test/sim/core/main.ts --seed ${seed} --steps ${steps}`);
    if (failed >= 10) break;
  }
}
const seconds = (performance.now() - started) / 1000;
console.log(`${count} seeds from ${first}, ${failed} failed, ${(count / seconds).toFixed(0)} seeds/s`);
process.exitCode = failed === 0 ? 0 : 1;

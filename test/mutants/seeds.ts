/**
 * `node test/mutants/seeds.ts core|broker FROM SEEDS SECONDS`, in the tree that it belongs to: runs seeds until one fails. A line of JSON before each
 * seed ({ seed }), and at the end { failed, message }, or { passed }.
 */
import { simulateCore } from '../sim/core/simulate.ts';
import { simulate } from '../sim/run.ts';

/** Shorter worlds than those that are counted: more of them. */
const SAFETY_MS = 20_000;

const [world = '', from = '1', seeds = '1', seconds = '60'] = process.argv.slice(2);
const until = performance.now() + Number(seconds) * 1000;
let passed = 0;
for (let seed = Number(from); passed < Number(seeds) && performance.now() < until; seed++) {
  process.stdout.write(`${JSON.stringify({ seed })}\n`);
  try {
    if (world === 'core') simulateCore(seed);
    else await simulate({ seed, safetyMs: SAFETY_MS, untilItCounts: false });
    passed++;
  } catch (error) {
    const { name, message, cause } = error instanceof Error ? error : new Error(String(error));
    const why = cause instanceof Error ? ` (${cause.name}: ${cause.message})` : '';
    process.stdout.write(`${JSON.stringify({ failed: seed, message: `${name}: ${message}${why}` })}\n`);
    process.exit(0);
  }
}
process.stdout.write(`${JSON.stringify({ passed })}\n`);
process.exit(0);

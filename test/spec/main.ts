/**
 * Checks traces against the specification, and says how often each action was taken:
 *
 *   node test/spec/main.ts broker-1.ndjson broker-2.ndjson broker-3.ndjson
 *   node test/spec/main.ts --seeds 1000                 of simulations of the Raft core
 */
import { parseArgs } from 'node:util';
import { simulateCore } from '../sim/core/simulate.ts';
import { ACTIONS } from './actions.ts';
import { checkFiles } from './check.ts';
import { TraceChecker } from './cluster.ts';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { seeds: { type: 'string' } } });
const { checker, torn } = positionals.length > 0 ? await checkFiles(positionals) : simulations(Number(values.seeds ?? 150));
for (const action of ACTIONS) console.log(`${action.padEnd(20)} ${checker.coverage.counts.get(action)}`);
console.log(
  `${checker.events} events explained, ${torn} torn lines; ${(checker.coverage.share * 100).toFixed(0)}% of ${ACTIONS.length} actions`,
);

function simulations(seeds: number) {
  const all = new TraceChecker();
  for (let seed = 1; seed <= seeds; seed++) {
    const one = new TraceChecker(all.coverage);
    simulateCore(seed, { record: one.check });
    all.events += one.events;
  }
  return { checker: all, torn: 0 };
}

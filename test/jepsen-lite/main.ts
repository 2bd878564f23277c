/**
 * `npm run jepsen -- [--nemesis kill,pause,kill-all] [--seconds N] [--seed N]`: three real brokers, unique values, faults by seed, then everything is
 * read back and checked. Exit 1 on any anomaly. The first version: processes are killed and paused; a later issue cuts links and disks.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { DevCluster } from '../../bench/dev-cluster.ts';
import { SeededRandom } from '../sim/random.ts';
import { check } from './checker.ts';
import { type Nemesis, nemeses } from './nemesis.ts';
import { LogWorkload } from './workload.ts';

const { values } = parseArgs({
  options: {
    nemesis: { type: 'string', default: 'kill,pause' },
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Date.now() % 1e6) },
    history: { type: 'string' },
  },
});
const random = new SeededRandom(Number(values.seed));
const chosen = values.nemesis.split(',').map((name): [string, Nemesis] => {
  const nemesis = nemeses[name];
  if (nemesis === undefined) {
    console.error(`unknown nemesis ${name}; there are ${Object.keys(nemeses).join(', ')}`);
    process.exit(2);
  }
  return [name, nemesis];
});
console.log(`seed ${values.seed}, ${values.seconds} s, nemesis ${values.nemesis}`);
await using cluster = await DevCluster.start();
const workload = await LogWorkload.start(cluster.bootstrap);
const until = performance.now() + Number(values.seconds) * 1000;
while (performance.now() < until) {
  await new Promise((resolve) => setTimeout(resolve, random.between(1000, 4000)));
  const [name, nemesis] = random.pick(chosen);
  console.log(`${((Number(values.seconds) * 1000 - (until - performance.now())) / 1000).toFixed(1)} s: ${name}`);
  await nemesis(cluster, random);
}
console.log('healed; reading everything');
const { history, worstGapMs } = await workload.finish();
if (values.history !== undefined) writeFileSync(values.history, history.map((operation) => JSON.stringify(operation)).join('\n'));
const verdict = check(history);
console.log(
  `sends ok ${verdict.sends.ok}, unknown ${verdict.sends.info}, failed ${verdict.sends.fail}; read ${verdict.read}; longest gap ${worstGapMs.toFixed(0)} ms`,
);
for (const [name, count] of Object.entries(verdict.counts))
  if (count > 0) console.log(`${name}: ${count}`, verdict.anomalies[name as keyof typeof verdict.anomalies]);
const alive = verdict.sends.ok > 0;
if (!alive) console.log('nothing was acknowledged: the run proves nothing');
console.log(
  verdict.valid && alive
    ? 'valid'
    : `INVALID: npm run jepsen -- --seed ${values.seed} --nemesis ${values.nemesis} --seconds ${values.seconds}`,
);
process.exitCode = verdict.valid && alive ? 0 : 1;

/**
 * `npm run jepsen [-- --nemesis kill,pause,… --seconds N --seed N --brokers N --set key=value --history FILE]`: real brokers, unique values, faults by seed; then
 * everything is healed, read back and checked. Exit 1 on any anomaly, when nothing was acknowledged, when a broker ended by itself, or when the
 * cluster did not recover in time.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { SeededRandom } from '../sim/random.ts';
import { check } from './checker.ts';
import { Cluster } from './cluster.ts';
import { Gaps } from './gaps.ts';
import { faultsOf, nemesisNames, storm } from './nemesis.ts';
import { report } from './report.ts';
import { BrokerTrace } from './trace.ts';
import { LogWorkload } from './workload.ts';

const { values } = parseArgs({
  options: {
    nemesis: { type: 'string', default: 'kill,pause' },
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Date.now() % 1e6) },
    brokers: { type: 'string', default: '3' },
    port: { type: 'string' },
    set: { type: 'string', multiple: true, default: [] },
    history: { type: 'string' },
    trace: { type: 'string', default: 'on' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log(
    `npm run jepsen -- --nemesis LIST --seconds N --seed N --brokers N --port N --set key=value --history FILE --trace off\nnemeses: ${nemesisNames.join(', ')}`,
  );
  process.exit(0);
}
const replay = `npm run jepsen -- --seed ${values.seed} --nemesis ${values.nemesis} --seconds ${values.seconds} --brokers ${values.brokers}${values.set.map((each) => ` --set ${each}`).join('')}`;
console.log(replay);
const names = faultsOf(values.nemesis);
const started = performance.now();
const gaps = new Gaps();
const say = (text: string) => console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${text}`);
const trace = values.trace === 'off' ? undefined : new BrokerTrace();
await using cluster = await Cluster.start({
  brokers: Number(values.brokers),
  port: values.port === undefined ? undefined : Number(values.port),
  set: values.set,
});
say(`${values.brokers} brokers serve in ${cluster.directory}`);
const workload = await LogWorkload.start(cluster.bootstrap, gaps);
const world = { cluster, random: new SeededRandom(Number(values.seed)), leader: () => workload.leader(), say };
const interrupted = new AbortController();
process.once('SIGINT', () => interrupted.abort());
await storm(world, names, gaps, AbortSignal.any([interrupted.signal, AbortSignal.timeout(Number(values.seconds) * 1000)]));
say('all is healed; waiting for the cluster, then reading everything back');
await workload.finish();
if (values.history !== undefined) {
  writeFileSync(values.history, workload.history.map((operation) => `${JSON.stringify(operation)}\n`).join(''));
}
const verdict = check(workload.history);
const failures = [...cluster.crashes, ...workload.failures, ...((await trace?.check(cluster)) ?? [])];
const valid = report({ verdict, failures, gaps });
if (!valid) {
  cluster.keep = true;
  if (trace !== undefined) console.log(`the traces of Raft stay in ${trace.directory}`);
  console.log(`the brokers' logs and data stay in ${cluster.directory}`);
}
console.log(`${valid ? 'valid' : 'INVALID'}: ${replay}`);
if (valid) trace?.remove();
process.exitCode = valid ? 0 : 1;

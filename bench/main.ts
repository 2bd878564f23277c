/**
 * `npm run bench [-- --seconds N --json]`: starts three brokers as processes and measures produce, latency, consume, memory, bytes written and failover.
 * Absolute times depend on the machine; `npm run bench:peers` measures others in the same run.
 */
import { parseArgs } from 'node:util';
import { connect } from '../src/client/index.ts';
import { DevCluster, type Usage, usageOf } from './dev-cluster.ts';
import { makeTopic, measureConsume, measureGap, measureLatency, measureProduce, RECORD_BYTES } from './measures.ts';

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '60' }, json: { type: 'boolean', default: false } } });
const seconds = Number(values.seconds);
const figures: Record<string, number | string> = {};
const note = (name: string, value: number | string) => {
  figures[name] = typeof value === 'number' ? Math.round(value * 100) / 100 : value;
  if (!values.json) console.log(`${name.padEnd(44)} ${figures[name]}`);
};

await using cluster = await DevCluster.start();
note('dev to ready, ms', cluster.readyMs);
await using client = await connect({ bootstrap: cluster.bootstrap });
await makeTopic(client, 'latency');
await makeTopic(client, 'load');
await makeTopic(client, 'failover');
const latency = await measureLatency(client, 'latency');
note('one in flight, p50 ms', latency.p50Ms);
note('one in flight, p99 ms', latency.p99Ms);
// Until the write-ahead log has all its files: from then on it writes over them.
await measureProduce(client, 'latency', Math.min(5, seconds));
const brokers = [1, 2, 3].map((broker) => cluster.pid(broker));
const beforeProduce = [...brokers, process.pid].map(usageOf);
const produced = await measureProduce(client, 'load', seconds);
const afterProduce = [...brokers, process.pid].map(usageOf);
const producedBytes = produced.records * RECORD_BYTES;
note('produce, MB/s', produced.megabytesPerSecond);
note('produce, records/s', produced.records / produced.seconds);
note('produce, seconds', produced.seconds);
noteCpu('produce', beforeProduce, afterProduce, producedBytes);
note('resident, MB a broker (largest)', Math.max(...afterProduce.slice(0, -1).map((broker) => (broker?.residentKiB ?? 0) / 1024)));
const written = brokers.map((_, i) => (afterProduce[i]?.writtenBytes ?? 0) - (beforeProduce[i]?.writtenBytes ?? 0));
note('bytes written per byte produced and replica', sum(written) / brokers.length / producedBytes);
const consumed = await measureConsume(client, 'load', produced.records);
note('consume, MB/s', consumed.megabytesPerSecond);
noteCpu('consume', afterProduce, [...brokers, process.pid].map(usageOf), producedBytes);
const paused = await measureGap(cluster, client, 'failover', 'SIGSTOP');
note('longest gap after SIGSTOP of a leader, ms', paused.gapMs);
cluster.signal(paused.broker, 'SIGCONT');
await new Promise((resolve) => setTimeout(resolve, 3000));
const killed = await measureGap(cluster, client, 'failover', 'SIGKILL');
note('longest gap after kill -9 of a leader, ms', killed.gapMs);
if (values.json) console.log(JSON.stringify(figures));

/** Brokers together, and the client, which is this process. */
function noteCpu(what: string, before: readonly (Usage | undefined)[], after: readonly (Usage | undefined)[], bytes: number): void {
  const perGB = after.map((usage, i) => ((usage?.cpuSeconds ?? 0) - (before[i]?.cpuSeconds ?? 0)) / (bytes / 1e9));
  note(`${what}, brokers' CPU seconds per GB`, sum(perGB.slice(0, -1)));
  note(`${what}, client's CPU seconds per GB`, perGB.at(-1) ?? 0);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/**
 * `npm run bench [-- --seconds N --json]`: starts three brokers as processes and measures produce, latency, consume, memory, bytes written and failover.
 * Absolute times depend on the machine; `npm run bench:peers` measures others in the same run.
 */
import { parseArgs } from 'node:util';
import { connect } from '../src/client/index.ts';
import { DevCluster } from './dev-cluster.ts';
import { makeTopic, measureConsume, measureGap, measureLatency, measureProduce } from './measures.ts';

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
const before = [1, 2, 3].map((broker) => cluster.usage(broker)?.writtenBytes ?? 0);
await measureProduce(client, 'latency', Math.min(5, seconds));
const produced = await measureProduce(client, 'load', seconds);
note('produce, MB/s', produced.megabytesPerSecond);
note('produce, records/s', produced.records / produced.seconds);
note('produce, seconds', produced.seconds);
const usage = [1, 2, 3].map((broker) => cluster.usage(broker));
note('resident, MB a broker (largest)', Math.max(...usage.map((broker) => (broker?.residentKiB ?? 0) / 1024)));
const written = usage.reduce((sum, broker, i) => sum + (broker?.writtenBytes ?? 0) - (before[i] ?? 0), 0);
note('bytes written per byte produced and replica', written / 3 / (produced.records * 1024));
const consumed = await measureConsume(client, 'load', produced.records);
note('consume, MB/s', consumed.megabytesPerSecond);
const paused = await measureGap(cluster, client, 'failover', 'SIGSTOP');
note('longest gap after SIGSTOP of a leader, ms', paused.gapMs);
cluster.signal(paused.broker, 'SIGCONT');
await new Promise((resolve) => setTimeout(resolve, 3000));
const killed = await measureGap(cluster, client, 'failover', 'SIGKILL');
note('longest gap after kill -9 of a leader, ms', killed.gapMs);
if (values.json) console.log(JSON.stringify(figures));

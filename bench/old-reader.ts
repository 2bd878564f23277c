/** A consumer in a process of its own: `node bench/old-reader.ts BOOTSTRAP TOPIC` reads a topic from its beginning, again and again, and says after SIGTERM how much. */
import { connect } from '../src/client/index.ts';

const [bootstrap = '', topic = ''] = process.argv.slice(2);
await using client = await connect({ bootstrap });
const { partitions } = await client.admin.describeTopic(topic);
const end = partitions.reduce((sum, { highWatermark = 0 }) => sum + highWatermark, 0);
let stopped = false;
process.on('SIGTERM', () => {
  stopped = true;
});
const started = performance.now();
let bytes = 0;
process.send?.('reads');
while (!stopped) {
  await using consumer = client.consumer({ topics: [topic], from: 'beginning' });
  let records = 0;
  for await (const batch of consumer.batches()) {
    for (const { value } of batch.records) {
      bytes += value?.length ?? 0;
      records++;
    }
    if (stopped || records >= end) break;
  }
}
process.send?.(bytes / 1e6 / ((performance.now() - started) / 1000));
process.disconnect?.();

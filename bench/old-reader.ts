/** A consumer in a process of its own: `node bench/old-reader.ts BOOTSTRAP TOPIC` reads a topic from its beginning, again and again, and says at SIGTERM how much. */
import { connect } from '../src/client/index.ts';

const [bootstrap = '', topic = ''] = process.argv.slice(2);
await using client = await connect({ bootstrap });
const started = performance.now();
let bytes = 0;
process.on('disconnect', () => process.exit(1));
process.on('SIGTERM', () => process.send?.(bytes / 1e6 / ((performance.now() - started) / 1000), () => process.exit()));
process.send?.('reads');
for (;;) {
  await using consumer = client.consumer({ topics: [topic], from: 'beginning', until: 'end' });
  for await (const batch of consumer.batches()) for (const { value } of batch.records) bytes += value?.length ?? 0;
}

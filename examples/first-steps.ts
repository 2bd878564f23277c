/**
 * Creates a topic, sends ten records, reads them back. Against a running cluster (`npx flotilla dev`):
 *
 *   npx node examples/first-steps.ts
 *
 * FLOTILLA_BOOTSTRAP names the brokers (default 127.0.0.1:7101), TOPIC the topic (default first-steps).
 */
import { connect, FlotillaError } from 'flotilla/client';

const { FLOTILLA_BOOTSTRAP: bootstrap = '127.0.0.1:7101', TOPIC: topic = 'first-steps' } = process.env;

await using client = await connect({ bootstrap });

try {
  await client.admin.createTopic({ name: topic, partitions: 3, replicas: 3 });
  console.log(`created ${topic}`);
} catch (error) {
  // It is there from an earlier run: good as well.
  if (!(error instanceof FlotillaError && error.code === 'TOPIC_ALREADY_EXISTS')) throw error;
}

// Where each partition ends now: the ten records come after.
const { partitions } = await client.admin.describeTopic(topic);
const ends = await client.admin.listOffsets(partitions.map(({ partition }) => ({ topic, partition, at: 'end' as const })));
const before = ends.reduce((sum, end) => sum + end, 0);

const producer = client.producer();
const names = ['ada', 'bob', 'cyd', 'dan', 'eve', 'fay', 'gus', 'hal', 'ivy', 'jon'];
// Not awaited one by one, so that they share batches. Each resolves once a majority of replicas has it on disk.
const sent = await Promise.all(names.map((name) => producer.send(topic, { key: name, value: `hello from ${name}` })));
console.log(`${sent.length} records acknowledged, in partitions ${[...new Set(sent.map(({ partition }) => partition))].sort().join(', ')}`);

const decoder = new TextDecoder();
const consumer = client.consumer({ topics: [topic], from: 'beginning', signal: AbortSignal.timeout(30_000) });
let read = 0;
for await (const { partition, offset, value } of consumer) {
  read++;
  if (offset >= (ends[partition] ?? 0)) console.log(`partition ${partition}, offset ${offset}: ${decoder.decode(value ?? undefined)}`);
  if (read === before + sent.length) break;
}
console.log(`read ${read} of ${before + sent.length}`);

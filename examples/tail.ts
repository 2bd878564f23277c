/**
 * Follows a topic from its end, as `tail -f` does, until Ctrl-C or MAX records. Brokers push, so waiting costs nothing; when a broker
 * dies, reading goes on at the next leader, without a gap and without a record twice.
 *
 *   npx node examples/tail.ts orders
 *
 * FLOTILLA_BOOTSTRAP names the brokers (default 127.0.0.1:7101), MAX ends it after so many records.
 */
import { connect, FlotillaError } from 'flotilla/client';

const [topic = 'orders'] = process.argv.slice(2);
const { FLOTILLA_BOOTSTRAP: bootstrap = '127.0.0.1:7101', MAX } = process.env;
const max = MAX === undefined ? Number.POSITIVE_INFINITY : Number(MAX);

const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => interrupted.abort());

await using client = await connect({ bootstrap, signal: interrupted.signal });
const { partitions } = await client.admin.describeTopic(topic);

// The ends are fixed here, so nothing sent from now on is missed.
const ends = await client.admin.listOffsets(partitions.map(({ partition }) => ({ topic, partition, at: 'end' })));
await using consumer = client.consumer({ topics: [topic], signal: interrupted.signal });
await Promise.all(ends.map((offset, partition) => consumer.seek(topic, partition, offset)));
console.error(`following ${topic}, ${partitions.length} partitions`);

const decoder = new TextDecoder();
const text = (bytes: Uint8Array | null) => (bytes === null ? '-' : decoder.decode(bytes));
let seen = 0;
try {
  for await (const { partition, offset, timestamp, key, value } of consumer) {
    console.log(`${new Date(timestamp).toISOString()} ${partition}/${offset} ${text(key)} ${text(value)}`);
    if (++seen >= max) break;
  }
} catch (error) {
  if (!(error instanceof FlotillaError && error.code === 'ABORTED')) throw error;
}
console.error(`${seen} records, ${consumer.lag()} more are waiting`);

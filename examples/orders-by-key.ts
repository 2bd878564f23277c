/**
 * Orders that change state: all events of one order have its id as their key, so they are in one partition, in the order they were sent.
 * Sends the events of many orders interleaved, reads them back, and checks each order's course. Exit 1 if any is out of order.
 *
 *   npx node examples/orders-by-key.ts
 *
 * FLOTILLA_BOOTSTRAP names the brokers (default 127.0.0.1:7101), TOPIC the topic (default orders-by-key), ORDERS how many (default 200).
 */
import { connect, FlotillaError } from 'flotilla/client';

const { FLOTILLA_BOOTSTRAP: bootstrap = '127.0.0.1:7101', TOPIC: topic = 'orders-by-key', ORDERS = '200' } = process.env;
const orders = Number(ORDERS);
const course = ['placed', 'paid', 'packed', 'shipped', 'delivered'];
// This run's own order ids, so that runs before it don't matter.
const run = Date.now().toString(36);

await using client = await connect({ bootstrap });
await client.admin.createTopic({ name: topic, partitions: 3, replicas: 3 }).catch((error: unknown) => {
  if (!(error instanceof FlotillaError && error.code === 'TOPIC_ALREADY_EXISTS')) throw error;
});

// Open before anything is sent; 'end' is then before the first event.
const ends = await client.admin.listOffsets([0, 1, 2].map((partition) => ({ topic, partition, at: 'end' })));

await using producer = client.producer();
for (const state of course) {
  for (let order = 0; order < orders; order++) {
    const event = { key: `${run}-${order}`, value: JSON.stringify({ state }), headers: { source: 'example' } };
    // Fire and forget, with back-pressure: flush() below tells of any failure.
    while (!producer.enqueue(topic, event)) await producer.ready();
  }
}
await producer.flush();
console.log(`${orders} orders, ${orders * course.length} events acknowledged`);

const decoder = new TextDecoder();
const reached = new Map<string, number>();
const partitionOf = new Map<string, number>();
let events = 0;
await using consumer = client.consumer({ topics: [topic], from: 'beginning', signal: AbortSignal.timeout(60_000) });
await Promise.all(ends.map((offset, partition) => consumer.seek(topic, partition, offset)));
for await (const { partition, key, value } of consumer) {
  const order = decoder.decode(key ?? undefined);
  if (!order.startsWith(`${run}-`)) continue;
  const { state } = JSON.parse(decoder.decode(value ?? undefined)) as { state: string };
  const step = reached.get(order) ?? 0;
  if (state !== course[step] || (partitionOf.get(order) ?? partition) !== partition) {
    console.error(`order ${order}: ${state} where ${course[step]} was due, in partition ${partition}`);
    process.exit(1);
  }
  reached.set(order, step + 1);
  partitionOf.set(order, partition);
  if (++events === orders * course.length) break;
}
const complete = [...reached.values()].filter((steps) => steps === course.length).length;
console.log(`${complete} orders read back complete and in order, from ${new Set(partitionOf.values()).size} partitions`);

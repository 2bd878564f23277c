import { build } from 'hdr-histogram-js';
import type { connect } from '../src/client/index.ts';

type Client = Awaited<ReturnType<typeof connect>>;

export const RECORD_BYTES = 1024;

/** A topic with a leader for every partition. */
export async function makeTopic(client: Client, name: string, partitions = 3, replicas = 3): Promise<void> {
  await client.admin.createTopic({ name, partitions, replicas });
}

export interface Throughput {
  readonly records: number;
  readonly seconds: number;
  readonly megabytesPerSecond: number;
}

/** A point of a curve. */
export type Point = readonly [x: number, y: number];

/** What to produce: for so many seconds, and then on until there are so many bytes, but no longer than `atMostSeconds`. */
export interface Amount {
  readonly seconds?: number;
  readonly bytes?: number;
  readonly atMostSeconds?: number;
}

const SAMPLE_MS = 500;

/** Records of 1 KiB as fast as the SDK's defaults take them, each acknowledged by a synced majority. `samples` are seconds and MB/s. */
export async function measureProduce(
  client: Client,
  topic: string,
  { seconds = 0, bytes = 0, atMostSeconds = Number.POSITIVE_INFINITY }: Amount,
): Promise<Throughput & { readonly samples: readonly Point[] }> {
  const producer = client.producer();
  const value = new Uint8Array(RECORD_BYTES).map((_, i) => (i * 131) & 0xff);
  const samples: Point[] = [];
  const started = performance.now();
  let sent = 0;
  let sample = { ms: started, sent };
  for (let now = started; ; now = performance.now()) {
    const elapsed = (now - started) / 1000;
    if (elapsed >= seconds && (sent * RECORD_BYTES >= bytes || elapsed >= atMostSeconds)) break;
    if (now - sample.ms >= SAMPLE_MS) {
      samples.push([elapsed, ((sent - sample.sent) * RECORD_BYTES) / 1e3 / (now - sample.ms)]);
      sample = { ms: now, sent };
    }
    for (let i = 0; i < 256; i++) producer.enqueue(topic, { value });
    sent += 256;
    await producer.ready();
  }
  await producer.flush();
  const elapsed = (performance.now() - started) / 1000;
  await producer.close();
  return { records: sent, seconds: elapsed, megabytesPerSecond: (sent * RECORD_BYTES) / 1e6 / elapsed, samples };
}

/** All records of a topic from its beginning, decoded. */
export async function measureConsume(client: Client, topic: string, records: number): Promise<Throughput> {
  const started = performance.now();
  let seen = 0;
  let bytes = 0;
  await using consumer = client.consumer({ topics: [topic], from: 'beginning' });
  for await (const batch of consumer.batches()) {
    // Decoded anew at each read.
    const { records: decoded } = batch;
    for (const record of decoded) bytes += record.value?.length ?? 0;
    seen += decoded.length;
    if (seen >= records) break;
  }
  const elapsed = (performance.now() - started) / 1000;
  return { records: seen, seconds: elapsed, megabytesPerSecond: bytes / 1e6 / elapsed };
}

/** Records of 1 KiB as fast as the SDK's defaults take them, for as long as it is told to go on. Returns MB/s. */
export async function produceWhile(
  client: Client,
  topic: string,
  goesOn: (producedBytes: number, seconds: number) => boolean,
): Promise<number> {
  const producer = client.producer();
  const value = new Uint8Array(RECORD_BYTES).map((_, i) => (i * 131) & 0xff);
  const started = performance.now();
  let sent = 0;
  while (goesOn(sent * RECORD_BYTES, (performance.now() - started) / 1000)) {
    for (let i = 0; i < 256; i++) producer.enqueue(topic, { value });
    sent += 256;
    await producer.ready();
  }
  await producer.flush();
  const elapsed = (performance.now() - started) / 1000;
  await producer.close();
  return (sent * RECORD_BYTES) / 1e6 / elapsed;
}

export interface CatchUp {
  /** Produced in the seconds before, and while the broker that was away caught up. */
  readonly beforeMegabytesPerSecond: number;
  readonly duringMegabytesPerSecond: number;
  readonly seconds: number;
  /** False: it had not caught up when the time was over. */
  readonly done: boolean;
}

/** A follower counts as caught up when so few entries are missing: what is in flight. */
const IN_FLIGHT_ENTRIES = 100;

/** Producers go on while a broker is away, until it lacks `lagBytes`, and while it catches up then. */
export async function measureCatchUp(
  client: Client,
  topic: string,
  away: { readonly broker: number; readonly leave: () => void; readonly come: () => void },
  { seconds, lagBytes, atMostSeconds }: { readonly seconds: number; readonly lagBytes: number; readonly atMostSeconds: number },
): Promise<CatchUp> {
  const { partitions } = await client.admin.describeTopic(topic);
  const lag = async (): Promise<number> => {
    const groups = await Promise.all(partitions.map(({ partition }) => client.admin.describeRaftGroup(`${topic}/${partition}`)));
    const followers = groups.flatMap(({ replicas }) => replicas.flatMap((replica) => replica.followers ?? []));
    const lags = followers.filter(({ brokerId }) => brokerId === away.broker).map((follower) => follower.lag);
    return lags.length < partitions.length ? Number.POSITIVE_INFINITY : Math.max(...lags);
  };
  const before = await produceWhile(client, topic, (_bytes, elapsed) => elapsed < seconds);
  away.leave();
  await produceWhile(client, topic, (bytes) => bytes < lagBytes);
  away.come();
  const started = performance.now();
  let done = false;
  let over = false;
  const watch = (async () => {
    while (!over && !done) {
      await new Promise((resolve) => setTimeout(resolve, 250));
      done = (await lag().catch(() => Number.POSITIVE_INFINITY)) < IN_FLIGHT_ENTRIES;
    }
  })();
  const during = await produceWhile(client, topic, (_bytes, elapsed) => !done && elapsed < atMostSeconds);
  over = true;
  await watch;
  return { beforeMegabytesPerSecond: before, duringMegabytesPerSecond: during, seconds: (performance.now() - started) / 1000, done };
}

export interface Latency {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** Percentiles and milliseconds. */
  readonly curve: readonly Point[];
}

const PERCENTILES = [1, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95];

/** One record in flight: the time from send to its acknowledgement. */
export async function measureLatency(client: Client, topic: string, count = 2000): Promise<Latency> {
  await using producer = client.producer();
  const value = new Uint8Array(RECORD_BYTES);
  for (let i = 0; i < 300; i++) await producer.send(topic, { value, partition: 0 });
  const histogram = build({ lowestDiscernibleValue: 1, highestTrackableValue: 60_000_000, numberOfSignificantValueDigits: 3 });
  for (let i = 0; i < count; i++) {
    const started = performance.now();
    await producer.send(topic, { value, partition: 0 });
    histogram.recordValue(Math.max(1, Math.round((performance.now() - started) * 1000)));
  }
  return {
    p50Ms: histogram.getValueAtPercentile(50) / 1000,
    p99Ms: histogram.getValueAtPercentile(99) / 1000,
    maxMs: histogram.maxValue / 1000,
    curve: PERCENTILES.map((percentile) => [percentile, histogram.getValueAtPercentile(percentile) / 1000]),
  };
}

/** The longest time without an acknowledgement after a fault at the leader of partition 0, under a steady load of 200 records a second. */
export async function measureGap(
  client: Client,
  topic: string,
  fault: (leader: number) => void,
): Promise<{ readonly gapMs: number; readonly broker: number }> {
  await using producer = client.producer();
  const value = new Uint8Array(100);
  let last = performance.now();
  let gap = 0;
  let stop = false;
  const pending = new Set<Promise<void>>();
  const load = (async () => {
    while (!stop) {
      const acknowledged = producer.send(topic, { value, partition: 0 }).then(() => {
        const now = performance.now();
        gap = Math.max(gap, now - last);
        last = now;
        pending.delete(acknowledged);
      });
      pending.add(acknowledged);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await Promise.all(pending);
  })();
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const description = await client.admin.describeTopic(topic);
  const leader = description.partitions[0]?.leader;
  if (leader === undefined || leader === 0) throw new Error('partition 0 has no leader');
  gap = 0;
  fault(leader);
  await new Promise((resolve) => setTimeout(resolve, 6000));
  stop = true;
  await load;
  return { gapMs: gap, broker: leader };
}

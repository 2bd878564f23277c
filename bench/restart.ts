/** How long a broker takes to come back: with many partitions, and after a kill -9 with a full write-ahead log. */
import { type Client, connect, FlotillaError } from '../src/client/index.ts';
import { DevCluster } from './dev-cluster.ts';
import type { Figures } from './figures.ts';
import { makeGroups } from './groups.ts';
import { makeTopic, produceWhile } from './measures.ts';

const BROKER = 1;
const GIB = 2 ** 30;
const WAL_FILE_BYTES = 64 << 20;
/** Of the topic whose recovery is measured. */
const PARTITIONS = 8;
const ANSWERS_WITHIN_MS = 120_000;
/** Of one try: a channel to a port where nobody listened is slow to try again. */
const CONNECT_MS = 1_000;
/** Until what was produced is in segments, and the write-ahead log says so. */
const SETTLE_MS = 2_000;

interface Place {
  readonly topic: string;
  readonly partition: number;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Stops one broker with so many partitions of one replica, cleanly and by kill -9, and times each start until every partition takes a write. */
export async function noteRestart(figures: Figures, partitions: number): Promise<void> {
  await using cluster = await DevCluster.start({ brokers: 1 });
  const places = await filled(cluster, partitions);
  figures.note('restart, partitions', places.length);
  const residentKiB = cluster.usage(BROKER)?.residentKiB ?? Number.NaN;
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    const stopping = performance.now();
    await cluster.end(BROKER, signal);
    const how = signal === 'SIGTERM' ? 'a clean end' : 'kill -9';
    if (signal === 'SIGTERM') figures.note('restart, s to end cleanly', (performance.now() - stopping) / 1000);
    const { servedMs, allMs } = await restarted(cluster, places);
    figures.note(`restart after ${how}, s until the broker serves`, servedMs / 1000);
    figures.note(`restart after ${how}, s until every partition took a write`, allMs / 1000);
    const usage = cluster.usage(BROKER);
    figures.note(`restart after ${how}, CPU s of the broker until then`, usage?.cpuSeconds ?? Number.NaN);
    figures.note(`restart after ${how}, MB resident`, (usage?.residentKiB ?? Number.NaN) / 1024);
    await pause(SETTLE_MS);
  }
  figures.note('restart, MB resident before', residentKiB / 1024);
}

/** Kills a broker whose write-ahead log holds `walBytes`, with nothing besides in its segments and with `segmentBytes`, and times the start until all partitions take a write. */
export async function noteRecovery(figures: Figures, walBytes: number, segmentBytes: number): Promise<void> {
  const files = Math.max(2, Math.ceil(walBytes / WAL_FILE_BYTES));
  await using cluster = await DevCluster.start({ brokers: 1, args: ['--set', `flotilla.wal.file.count=${files}`] });
  const client = await connect({ bootstrap: cluster.bootstrap });
  await makeTopic(client, 'recovery', PARTITIONS, 1);
  const places = Array.from({ length: PARTITIONS }, (_, partition) => ({ topic: 'recovery', partition }));
  let produced = 0;
  const produce = async (bytes: number) => {
    await produceWhile(client, 'recovery', (done) => done < bytes);
    produced += bytes;
  };
  await produce(files * WAL_FILE_BYTES);
  for (const more of [0, segmentBytes]) {
    if (more > 0) await produce(more);
    await cluster.end(BROKER, 'SIGKILL');
    const { allMs } = await restarted(cluster, places);
    const gib = `${(files * WAL_FILE_BYTES) / GIB} GiB of write-ahead log, ${produced / GIB} GiB of records`;
    figures.note(`recovery of ${gib}, s`, allMs / 1000);
    figures.note(`recovery of ${gib}, CPU s of the broker until then`, cluster.usage(BROKER)?.cpuSeconds ?? Number.NaN);
  }
  await client.close();
}

/** Every partition with a record in it. */
async function filled(cluster: DevCluster, partitions: number): Promise<readonly Place[]> {
  await using client = await connect({ bootstrap: cluster.bootstrap });
  const topics = await makeGroups(client, partitions, 1);
  const places: Place[] = [];
  for (const topic of topics) {
    const { partitions: all } = await client.admin.describeTopic(topic);
    for (const { partition } of all) places.push({ topic, partition });
  }
  await writeAll(client, places);
  await pause(SETTLE_MS);
  return places;
}

async function restarted(cluster: DevCluster, places: readonly Place[]): Promise<{ servedMs: number; allMs: number }> {
  const started = performance.now();
  cluster.start(BROKER);
  await using client = await served(cluster.bootstrap);
  const servedMs = performance.now() - started;
  await writeAll(client, places);
  return { servedMs, allMs: performance.now() - started };
}

async function served(bootstrap: string): Promise<Client> {
  const deadline = performance.now() + ANSWERS_WITHIN_MS;
  for (;;) {
    try {
      return await connect({ bootstrap, connectTimeoutMs: CONNECT_MS });
    } catch (error) {
      if (!(error instanceof FlotillaError) || performance.now() > deadline) throw error;
      await pause(20);
    }
  }
}

async function writeAll(client: Client, places: readonly Place[]): Promise<void> {
  await using producer = client.producer({ deliveryTimeoutMs: ANSWERS_WITHIN_MS });
  const value = new Uint8Array(100);
  await Promise.all(places.map(({ topic, partition }) => producer.send(topic, { value, partition })));
}

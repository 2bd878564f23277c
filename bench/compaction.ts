/** What compaction costs who produces meanwhile: so many bytes a replica are cleaned while another topic takes half of what it could. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Latencies, Pace, type Percentiles } from '../src/cli/bench/measure.ts';
import { type Client, connect } from '../src/client/index.ts';
import { DevCluster, usageOf } from './dev-cluster.ts';
import type { Figures } from './figures.ts';
import { produceWhile, RECORD_BYTES } from './measures.ts';

const PARTITIONS = 3;
/** Of the records, each key has so many. */
const RECORDS_A_KEY = 4;
const SEGMENTS_A_PARTITION = 8;
const SHARE_OF_PEAK = 0.5;
const LOOK_MS = 250;
/** Records handed over between two looks at the clock. */
const BURST = 16;

export interface CompactionAmount {
  /** Of the compacted topic, on each broker. */
  readonly bytes: number;
  /** Of each measurement without compaction. */
  readonly seconds: number;
  readonly atMostSeconds: number;
}

export async function noteCompaction(figures: Figures, { bytes, seconds, atMostSeconds }: CompactionAmount): Promise<void> {
  const env = { FLOTILLA_LOG_CLEANER_BACKOFF_MS: '500' };
  await using cluster = await DevCluster.start({ env });
  await using client = await connect({ bootstrap: cluster.bootstrap });
  const segmentBytes = Math.ceil(bytes / PARTITIONS / SEGMENTS_A_PARTITION);
  // Nothing is old enough until it is told to be.
  const configs = {
    'cleanup.policy': 'compact',
    'segment.bytes': String(segmentBytes),
    'min.compaction.lag.ms': '1d',
    'min.cleanable.dirty.ratio': '0',
  };
  await client.admin.createTopic({ name: 'compacted', partitions: PARTITIONS, replicas: 3, configs });
  await client.admin.createTopic({ name: 'load', partitions: PARTITIONS, replicas: 3 });
  await fill(client, Math.ceil(bytes / RECORD_BYTES));
  const peak = await produceWhile(client, 'load', (_bytes, elapsed) => elapsed < seconds);
  const rate = (peak * SHARE_OF_PEAK * 1e6) / RECORD_BYTES;
  let residentBefore = 0;
  const look = setInterval(() => {
    residentBefore = Math.max(residentBefore, residentOf(cluster));
  }, LOOK_MS);
  const without = await latenciesWhile(client, rate, (elapsed) => elapsed < seconds);
  clearInterval(look);
  const before = await sizeOf(client);

  await client.admin.alterTopicConfigs('compacted', { set: { 'min.compaction.lag.ms': '0' } });
  const started = performance.now();
  let done = false;
  let over = false;
  let resident = 0;
  const watch = (async () => {
    while (!done && !over) {
      await sleep(LOOK_MS);
      resident = Math.max(resident, residentOf(cluster));
      done = await isCleaned(client, segmentBytes / RECORD_BYTES).catch(() => false);
    }
  })();
  const during = await latenciesWhile(client, rate, (elapsed) => !done && elapsed < atMostSeconds);
  over = true;
  await watch;
  const took = (performance.now() - started) / 1000;

  figures.note('compacted, MB a replica', before / 1e6);
  figures.note('left of it, MB a replica', (await sizeOf(client)) / 1e6);
  figures.note(done ? 'compacted in, s' : 'not compacted within, s', took);
  figures.note('produced meanwhile, MB/s', (rate * RECORD_BYTES) / 1e6);
  figures.note('produce without compaction, p50 / p99 ms', `${without.p50} / ${without.p99}`);
  figures.note('produce during compaction, p50 / p99 ms', `${during.p50} / ${during.p99}`);
  figures.note('produce p99 during compaction, as a multiple', during.p99 / without.p99);
  figures.note('resident without compaction, MB a broker (largest)', residentBefore);
  figures.note('resident during compaction, MB a broker (largest)', resident);
}

async function fill(client: Client, records: number): Promise<void> {
  await using producer = client.producer();
  const value = new Uint8Array(RECORD_BYTES).map((_, i) => (i * 131) & 0xff);
  const keys = Math.ceil(records / RECORDS_A_KEY);
  for (let sent = 0; sent < records; ) {
    for (let i = 0; i < BURST * BURST; i++, sent++) producer.enqueue('compacted', { key: `key-${sent % keys}`, value });
    await producer.ready();
  }
  await producer.flush();
}

/** At a steady rate of records a second; each is timed from when it was due. */
async function latenciesWhile(client: Client, rate: number, goesOn: (seconds: number) => boolean): Promise<Percentiles> {
  await using producer = client.producer();
  const value = new Uint8Array(RECORD_BYTES);
  const latencies = new Latencies();
  const started = performance.now();
  const pace = new Pace(rate, started);
  let failure: unknown;
  while (goesOn((performance.now() - started) / 1000) && failure === undefined) {
    for (let burst = 0; burst < BURST && pace.dueMs <= performance.now(); burst++) {
      const due = pace.take();
      producer.send('load', { value }).then(
        () => latencies.record(performance.now() - due),
        (error: unknown) => {
          failure = error;
        },
      );
    }
    await producer.ready();
    const waitMs = pace.dueMs - performance.now();
    await (waitMs > 1 ? sleep(waitMs) : new Promise(setImmediate));
  }
  await producer.flush();
  if (failure !== undefined) throw failure;
  return latencies.percentiles();
}

/** All closed segments of all replicas are, but for a few records that commits left in the last. */
async function isCleaned(client: Client, segmentRecords: number): Promise<boolean> {
  const numbers = Array.from({ length: PARTITIONS }, (_, partition) => partition);
  const groups = await Promise.all(numbers.map((partition) => client.admin.describeRaftGroup(`compacted/${partition}`)));
  return groups.every(({ replicas }) =>
    replicas.every(({ cleanedTo, nextOffset }) => cleanedTo > 0 && nextOffset - cleanedTo <= 2 * segmentRecords),
  );
}

async function sizeOf(client: Client): Promise<number> {
  const { partitions } = await client.admin.describeTopic('compacted');
  return partitions.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

/** MB. */
function residentOf(cluster: DevCluster): number {
  return Math.max(...[1, 2, 3].map((broker) => (usageOf(cluster.pid(broker))?.residentKiB ?? 0) / 1024));
}

/**
 * `npm run bench`: starts three brokers as processes, and measures them and their client on one machine.
 *
 *   --only produce,consume   some parts: latency, produce, consume, bare, gaps, catch-up, old-read; `dev to ready` always
 *   --only failover,idle     what many groups cost, in clusters of their own: kill -9 of the leader of 1,000, and 10,000 at rest
 *   --only compaction        produce while a compacted topic is cleaned, in a cluster of its own: 128 MB a replica, or as many as --megabytes says (2048)
 *   --groups N               another number of them
 *   --only restart,recovery  how long a broker takes to come back: with --partitions N (default 1,000), and with --wal GiB of write-ahead log (default 1)
 *                            and --segments GiB of closed segments (default 2)
 *   --seconds N              of produce (default 60); it goes on until the write-ahead log was written over three times
 *   --smoke                  all parts in a few seconds: that it runs, not what it says
 *   --json                   one object at the end
 *   --plot FILE              an SVG: throughput over time, latency by percentile
 *
 * Times depend on the machine and its hour: `npm run bench:peers` measures others in turn with it.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Client, connect } from '../src/client/index.ts';
import { measureBarePipeline } from './bare-pipeline.ts';
import { noteCompaction } from './compaction.ts';
import { DevCluster, type Usage, usageOf, writtenByDisk } from './dev-cluster.ts';
import { chosen, Figures, sum } from './figures.ts';
import { noteFailover, noteIdle } from './groups.ts';
import {
  makeTopic,
  measureCatchUp,
  measureConsume,
  measureGap,
  measureLatency,
  measureProduce,
  type Point,
  RECORD_BYTES,
} from './measures.ts';
import { plot } from './plot.ts';
import { measureSwallowedGap } from './proxied.ts';
import { noteRecovery, noteRestart } from './restart.ts';
import { measureStalledDisk } from './stalled-disk.ts';

const BROKERS = [1, 2, 3];
/** So that steady state is measured: segments synced, files recycled. */
const WAL_TURNS = 3;
/** On a slow machine the turns are given up. */
const MOST_TIMES_AS_LONG = 3;
/** What is produced for a consume without a produce before it. */
const CONSUME_SECONDS = 15;
/** A rest after a fault. */
const RECOVER_MS = 3000;
const GIB = 2 ** 30;

const { values } = parseArgs({
  options: {
    groups: { type: 'string' },
    partitions: { type: 'string' },
    wal: { type: 'string' },
    segments: { type: 'string' },
    megabytes: { type: 'string' },
    seconds: { type: 'string' },
    only: { type: 'string' },
    smoke: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    plot: { type: 'string' },
  },
});
const apart = ['failover', 'idle', 'restart', 'recovery', 'compaction'] as const;
const parts = chosen(values.only, ['latency', 'produce', 'consume', 'bare', 'catch-up', 'old-read', 'gaps', ...apart]);
const seconds = Number(values.seconds ?? (values.smoke ? 2 : 60));
const latencyRecords = values.smoke ? 300 : 5000;
const figures = new Figures(values.json);
const curves: { throughput: readonly Point[]; latency: readonly Point[] } = { throughput: [], latency: [] };

if (values.only !== undefined && [...apart].some((part) => parts.has(part))) {
  if (parts.has('failover')) await noteFailover(figures, Number(values.groups ?? 1000));
  if (parts.has('idle')) await noteIdle(figures, Number(values.groups ?? 10_000));
  if (parts.has('restart')) await noteRestart(figures, Number(values.partitions ?? 1000));
  if (parts.has('recovery')) await noteRecovery(figures, Number(values.wal ?? 1) * GIB, Number(values.segments ?? 2) * GIB);
  if (parts.has('compaction')) {
    const bytes = Number(values.megabytes ?? (values.smoke ? 24 : 128)) * 1e6;
    await noteCompaction(figures, { bytes, seconds: Math.min(15, seconds), atMostSeconds: Math.max(60, bytes / 2e6) });
  }
  figures.end();
  process.exit();
}

await using cluster = await DevCluster.start();
figures.note('dev to ready, ms', cluster.readyMs);
await using client = await connect({ bootstrap: cluster.bootstrap });
if (parts.has('latency')) await latency(client);
const produced = parts.has('produce') || parts.has('bare') ? await produce(client) : undefined;
if (parts.has('consume')) await consume(client, produced);
if (parts.has('catch-up')) await catchUp(client);
if (parts.has('old-read')) await oldRead(client);
// The last: one broker is killed in it.
if (parts.has('gaps')) await gaps(client);
if (values.plot !== undefined) writeFileSync(values.plot, plot(curves.throughput, curves.latency));
figures.end();

async function latency(client: Client): Promise<void> {
  await makeTopic(client, 'latency');
  const { p50Ms, p99Ms, curve } = await measureLatency(client, 'latency', latencyRecords);
  figures.note('one in flight, p50 ms', p50Ms);
  figures.note('one in flight, p99 ms', p99Ms);
  curves.latency = curve;
}

/** Returns how many records the topic `load` holds then. */
async function produce(client: Client): Promise<number> {
  await makeTopic(client, 'warm');
  await makeTopic(client, 'load');
  // Until the write-ahead log has all its files: from then on it writes over them.
  await measureProduce(client, 'warm', { seconds: Math.min(5, seconds) });
  const walBytes = walBytesOf(1);
  const bareSeconds = Math.min(15, seconds / 4);
  const bareBefore = parts.has('bare') ? await measureBarePipeline(bareSeconds) : undefined;
  const before = usages();
  const writtenBefore = writtenByDisk(cluster.directory);
  const turns = values.smoke ? 0 : WAL_TURNS;
  const produced = await measureProduce(client, 'load', { seconds, bytes: turns * walBytes, atMostSeconds: MOST_TIMES_AS_LONG * seconds });
  const after = usages();
  const writtenAfter = writtenByDisk(cluster.directory);
  const bareAfter = parts.has('bare') ? await measureBarePipeline(bareSeconds) : undefined;

  const bytes = produced.records * RECORD_BYTES;
  figures.note('produce, MB/s', produced.megabytesPerSecond);
  figures.note('produce, records/s', produced.records / produced.seconds);
  figures.note('produce, seconds', produced.seconds);
  figures.note('produce, turns of the write-ahead log', bytes / walBytes);
  if (bareBefore !== undefined && bareAfter !== undefined) {
    const bare = (bareBefore.megabytesPerSecond + bareAfter.megabytesPerSecond) / 2;
    figures.note('bare pipeline, MB/s (mean of before and after)', bare);
    figures.note("produce, share of the bare pipeline's", produced.megabytesPerSecond / bare);
  }
  noteCpu('produce', before, after, bytes);
  noteResident('resident after produce, MB a broker (largest)', after);
  // With all else that writes to the disk meanwhile.
  if (writtenBefore !== undefined && writtenAfter !== undefined)
    figures.note('bytes written per byte produced and replica', (writtenAfter - writtenBefore) / BROKERS.length / bytes);
  curves.throughput = produced.samples;
  return produced.records;
}

async function consume(client: Client, produced: number | undefined): Promise<void> {
  let records = produced;
  if (records === undefined) {
    await makeTopic(client, 'load');
    records = (await measureProduce(client, 'load', { seconds: Math.min(CONSUME_SECONDS, seconds) })).records;
  }
  const before = usages();
  const consumed = await measureConsume(client, 'load', records);
  const after = usages();
  figures.note('consume, MB/s', consumed.megabytesPerSecond);
  noteCpu('consume', before, after, records * RECORD_BYTES);
  noteResident('resident after consume, MB a broker (largest)', after);
}

async function gaps(client: Client): Promise<void> {
  await makeTopic(client, 'failover');
  const paused = await measureGap(client, 'failover', (leader) => cluster.signal(leader, 'SIGSTOP'));
  figures.note('longest gap after SIGSTOP of a leader, ms', paused.gapMs);
  cluster.signal(paused.broker, 'SIGCONT');
  await new Promise((resolve) => setTimeout(resolve, RECOVER_MS));
  const killed = await measureGap(client, 'failover', (leader) => cluster.signal(leader, 'SIGKILL'));
  figures.note('longest gap after kill -9 of a leader, ms', killed.gapMs);
  figures.note('longest gap after a link that swallows everything, ms', await measureSwallowedGap());
  const stalled = await measureStalledDisk();
  if (stalled === undefined) console.log('a disk that stalls: not measured, it takes Linux and a C compiler');
  else {
    figures.note('leader elsewhere after its disk stalled, ms', stalled.movedMs);
    figures.note('longest gap meanwhile, ms', stalled.gapMs);
  }
}

/** A broker is stopped until it lacks 1 GiB, and goes on. */
async function catchUp(client: Client): Promise<void> {
  await makeTopic(client, 'catch-up');
  const broker = 3;
  const away = { broker, leave: () => cluster.signal(broker, 'SIGSTOP'), come: () => cluster.signal(broker, 'SIGCONT') };
  const amount = values.smoke
    ? { seconds: 2, lagBytes: 32 << 20, atMostSeconds: 20 }
    : { seconds: Math.min(12, seconds), lagBytes: 1 << 30, atMostSeconds: Math.min(60, seconds) };
  const {
    beforeMegabytesPerSecond,
    duringMegabytesPerSecond,
    seconds: took,
    done,
  } = await measureCatchUp(client, 'catch-up', away, amount);
  figures.note('produce before a broker was away, MB/s', beforeMegabytesPerSecond);
  figures.note('produce while it catches up, MB/s', duringMegabytesPerSecond);
  figures.note('produce while it catches up, share of before', duringMegabytesPerSecond / beforeMegabytesPerSecond);
  figures.note(done ? 'caught up, s' : 'not caught up within, s', took);
}

/** A consumer reads what was produced long ago, as fast as it can, while producers go on. */
async function oldRead(client: Client): Promise<void> {
  const amount = values.smoke ? { seconds: 2, bytes: 16 << 20 } : { seconds: Math.min(12, seconds), bytes: 2 * GIB };
  await makeTopic(client, 'old');
  await makeTopic(client, 'new');
  await measureProduce(client, 'old', { bytes: amount.bytes });
  const produceNew = async () => (await measureProduce(client, 'new', { seconds: amount.seconds })).megabytesPerSecond;
  const before = await produceNew();
  const readsAlone = await readWhile(() => new Promise((resolve) => setTimeout(resolve, (amount.seconds / 2) * 1000)));
  let during = 0;
  const readsBeside = await readWhile(async () => {
    during = await produceNew();
  });
  const after = await produceNew();
  figures.note('produce without a reader, MB/s (mean of before and after)', (before + after) / 2);
  figures.note('produce while one reads old data, MB/s', during);
  figures.note('produce while one reads old data, share', during / ((before + after) / 2));
  figures.note('old data read meanwhile, MB/s', readsBeside);
  figures.note('old data read without producers, MB/s', readsAlone);
}

/** What a consumer in a process of its own reads of the topic `old` while something is done, in MB/s. */
async function readWhile(done: () => Promise<void>): Promise<number> {
  const reader = fork(join(import.meta.dirname, 'old-reader.ts'), [cluster.bootstrap, 'old']);
  await once(reader, 'message');
  await done();
  reader.kill('SIGTERM');
  const [megabytesPerSecond] = (await once(reader, 'message')) as [number];
  return megabytesPerSecond;
}

/** The brokers', and last the client's, which is this process. */
function usages(): (Usage | undefined)[] {
  return [...BROKERS.map((broker) => cluster.pid(broker)), process.pid].map(usageOf);
}

function noteCpu(what: string, before: readonly (Usage | undefined)[], after: readonly (Usage | undefined)[], bytes: number): void {
  const perGB = after.map((usage, i) => ((usage?.cpuSeconds ?? 0) - (before[i]?.cpuSeconds ?? 0)) / (bytes / 1e9));
  figures.note(`${what}, brokers' CPU seconds per GB`, sum(perGB.slice(0, -1)));
  figures.note(`${what}, client's CPU seconds per GB`, perGB.at(-1) ?? 0);
}

function noteResident(name: string, usage: readonly (Usage | undefined)[]): void {
  figures.note(name, Math.max(...usage.slice(0, -1).map((broker) => (broker?.residentKiB ?? 0) / 1024)));
}

/** Of the files that a broker's write-ahead log has now. */
function walBytesOf(broker: number): number {
  const directory = join(cluster.directory, `broker-${broker}`);
  const files = readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.wal'));
  return sum(files.map((name) => statSync(join(directory, name)).size));
}

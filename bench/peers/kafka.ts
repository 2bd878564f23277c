import { once } from 'node:events';
import { connect } from 'node:net';
import {
  GAP_RECORDS_PER_SECOND,
  largestResident,
  PARTITIONS,
  type Peer,
  PeerError,
  type Plan,
  pause,
  RECORD_BYTES,
  type Result,
  readyAfter,
  recordsToMB,
} from './system.ts';

const BROKERS = 3;
const PORT = 39092;
const BOOTSTRAP = `127.0.0.1:${PORT}`;
const WARM_UP_SHARE = 1 / 3;
const LATENCY_RECORDS = 5000;
const LATENCY_RECORDS_PER_SECOND = 500;
/** Longer than Kafka takes to notice (broker.session.timeout.ms is 9 s) and to elect. */
const GAP_SECONDS = 30;
/** Until the load's JVM has started and sends. */
const KILL_AFTER_MS = 8000;

/** Apache Kafka with its defaults: acks=all, its own batches, the page cache. */
export async function measureKafka(peer: Peer, { parts, records }: Plan): Promise<Result> {
  await peer.install();
  try {
    const ready = readyAfter(async () => (await brokersKnown()) === BROKERS);
    const [readyMs] = await Promise.all([ready, peer.run('up', String(BROKERS))]);
    let result: Result = { readyMs };
    if (parts.has('produce') || parts.has('consume')) result = { ...result, ...(await produce(peer, records)) };
    if (parts.has('latency')) result = { ...result, ...(await latency(peer)) };
    if (parts.has('consume')) result = { ...result, consumeMBs: await consume(peer, records) };
    if (parts.has('gap')) result = { ...result, gapMs: await gap(peer) };
    return result;
  } finally {
    await peer.stop();
  }
}

async function produce(peer: Peer, records: number): Promise<Result> {
  await createTopic(peer, 'warm', PARTITIONS);
  await createTopic(peer, 'load', PARTITIONS);
  await load(peer, 'warm', Math.ceil(records * WARM_UP_SHARE), -1);
  const line = await load(peer, 'load', records, -1);
  return { produceMBs: recordsToMB(numberIn(line, /([\d.]+) records\/sec/)), residentMB: largestResident(peer.pids()) };
}

/** Whole milliseconds: that is what its tool tells. At this rate there is one record in flight for most of the time. */
async function latency(peer: Peer): Promise<Result> {
  await createTopic(peer, 'latency', PARTITIONS);
  const line = await load(peer, 'latency', LATENCY_RECORDS, LATENCY_RECORDS_PER_SECOND, 'linger.ms=0');
  return { p50Ms: numberIn(line, /([\d.]+) ms 50th/), p99Ms: numberIn(line, /([\d.]+) ms 99th/) };
}

/** Without the time of joining a group. */
async function consume(peer: Peer, records: number): Promise<number> {
  const args = ['--bootstrap-server', BOOTSTRAP, '--topic', 'load', '--num-records', String(records), '--timeout', '60000'];
  const text = await peer.run('run', 'ConsumerPerformance', ...args);
  const last = text.trim().split('\n').at(-1) ?? '';
  const recordsPerSecond = Number(last.split(',').at(-1));
  if (!(recordsPerSecond > 0)) throw new PeerError(`Kafka's ConsumerPerformance said: ${text}`);
  return recordsToMB(recordsPerSecond);
}

/** Under a steady load of one partition the longest latency is that of the record sent when its leader was killed. */
async function gap(peer: Peer): Promise<number> {
  await createTopic(peer, 'failover', 1);
  const described = await peer.run('run', 'TopicCommand', '--bootstrap-server', BOOTSTRAP, '--describe', '--topic', 'failover');
  const leader = numberIn(described, /Leader: (\d+)/);
  const pid = peer.pids()[leader - 1];
  if (pid === undefined) throw new PeerError(`Kafka's broker ${leader} has no process id`);
  const line = load(peer, 'failover', GAP_SECONDS * GAP_RECORDS_PER_SECOND, GAP_RECORDS_PER_SECOND, 'linger.ms=0');
  line.catch(() => {});
  await pause(KILL_AFTER_MS);
  process.kill(pid, 'SIGKILL');
  return numberIn(await line, /([\d.]+) ms max latency/);
}

async function createTopic(peer: Peer, topic: string, partitions: number): Promise<void> {
  await peer.run('run', 'TopicCommand', '--bootstrap-server', BOOTSTRAP, '--create', '--topic', topic, '--partitions', String(partitions));
}

/** The last line of ProducerPerformance: the whole run. */
async function load(peer: Peer, topic: string, records: number, recordsPerSecond: number, ...settings: string[]): Promise<string> {
  const size = ['--topic', topic, '--num-records', String(records), '--record-size', String(RECORD_BYTES)];
  const producer = [
    '--throughput',
    String(recordsPerSecond),
    '--producer-props',
    `bootstrap.servers=${BOOTSTRAP}`,
    'acks=all',
    ...settings,
  ];
  const text = await peer.run('run', 'ProducerPerformance', ...size, ...producer);
  return text.trim().split('\n').at(-1) ?? '';
}

function numberIn(text: string, pattern: RegExp): number {
  const found = Number(pattern.exec(text)?.[1]);
  if (Number.isNaN(found)) throw new PeerError(`Kafka's tool did not say ${pattern}: ${text}`);
  return found;
}

/** How many brokers the first one knows, as it answers Metadata, version 0; rejects while it does not. */
async function brokersKnown(): Promise<number> {
  const socket = connect({ port: PORT, host: '127.0.0.1' });
  socket.setTimeout(1000, () => socket.destroy(new Error('no answer')));
  try {
    await once(socket, 'connect');
    const request = Buffer.alloc(18);
    request.writeInt32BE(14, 0);
    request.writeInt16BE(3, 4); // Metadata
    request.writeInt16BE(-1, 12); // no client id; no topics
    socket.write(request);
    const [answer] = await once(socket, 'data');
    return (answer as Buffer).readInt32BE(8);
  } finally {
    socket.destroy();
  }
}

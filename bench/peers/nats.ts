import { NatsClient } from './nats-client.ts';
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
} from './system.ts';

const PORTS = [14222, 14223, 14224];
const WARM_UP_SHARE = 1 / 5;
const GAP_SECONDS = 15;
const ATTEMPTS = 3;

/** NATS JetStream, three replicas, sync_interval: always, which is what Flotilla's acknowledgement means. */
export async function measureNats(peer: Peer, { parts, records }: Plan): Promise<Result> {
  await peer.install();
  try {
    // The script itself waits for a fixed time.
    const [readyMs] = await Promise.all([readyAfter(hasLeader), peer.run('up', 'always')]);
    let result: Result = { readyMs };
    if (parts.has('produce') || parts.has('latency')) result = { ...result, ...(await perf(peer, parts.has('produce') ? records : 1)) };
    if (parts.has('gap')) result = { ...result, gapMs: await gap(peer) };
    return result;
  } finally {
    await peer.stop();
  }
}

async function perf(peer: Peer, records: number): Promise<Result> {
  const run = (count: number) => persist(() => peer.run('perf', String(count), String(RECORD_BYTES), String(PARTITIONS)));
  await run(Math.ceil(records * WARM_UP_SHARE));
  const text = await run(records);
  const produced = Number(/pipelined: .* ([\d.]+) MB\/s/.exec(text)?.[1]);
  const [, p50, p99] = /one in flight: p50 ([\d.]+) ms p99 ([\d.]+) ms/.exec(text) ?? [];
  if (Number.isNaN(produced) || p50 === undefined) throw new PeerError(`NATS' tool said: ${text}`);
  const measured: Result = { p50Ms: Number(p50), p99Ms: Number(p99) };
  return records === 1 ? measured : { ...measured, produceMBs: produced, residentMB: largestResident(peer.pids()) };
}

/** Its client gives up for good when the servers take nothing for 200 ms, which happens. */
async function persist(attempt: () => Promise<string>): Promise<string> {
  for (let left = ATTEMPTS - 1; ; left--) {
    try {
      return await attempt();
    } catch (error) {
      if (left === 0 || !(error instanceof PeerError && error.message.includes('stalled'))) throw error;
    }
  }
}

/** Whether JetStream answers, which takes an elected leader of its metadata. */
async function hasLeader(): Promise<boolean> {
  using client = await NatsClient.connect(PORTS[0] as number);
  const info = (await client.request('$JS.API.INFO', '', 500)) as { readonly error?: unknown };
  return info.error === undefined;
}

async function gap(peer: Peer): Promise<number> {
  using admin = await NatsClient.connect(PORTS[0] as number);
  const stream = { name: 'failover', subjects: ['failover'], num_replicas: 3, storage: 'file', retention: 'limits' };
  const made = (await admin.request('$JS.API.STREAM.CREATE.failover', JSON.stringify(stream), 10_000)) as {
    readonly cluster?: { readonly leader?: string };
  };
  const leader = Number(/^n(\d)$/.exec(made.cluster?.leader ?? '')?.[1]) - 1;
  const pid = peer.pids()[leader];
  if (pid === undefined) throw new PeerError(`NATS told no leader: ${JSON.stringify(made)}`);
  // To one that stays.
  using client = await NatsClient.connect(PORTS[(leader + 1) % PORTS.length] as number);
  let last = performance.now();
  let longest = 0;
  const payload = 'x'.repeat(100);
  const send = setInterval(() => {
    client.publish('failover', payload, (answer) => {
      if (answer.includes('"error"')) return;
      const now = performance.now();
      longest = Math.max(longest, now - last);
      last = now;
    });
  }, 1000 / GAP_RECORDS_PER_SECOND);
  await pause(2000);
  longest = 0;
  process.kill(pid, 'SIGKILL');
  await pause(GAP_SECONDS * 1000);
  clearInterval(send);
  return Math.max(longest, performance.now() - last);
}

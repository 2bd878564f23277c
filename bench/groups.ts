/** What many Raft groups cost a broker: at rest, and when the one that leads them dies. */
import { type Client, connect, FlotillaError } from '../src/client/index.ts';
import { DevCluster, type Usage } from './dev-cluster.ts';
import type { Figures } from './figures.ts';
import { makeTopic } from './measures.ts';

/** Partitions a topic: a topic's creation is one record of the metadata log. */
const MAX_PARTITIONS = 1000;
const OPENED_WITHIN_MS = 300_000;
/** Until the garbage of their creation is collected, and all have come to rest. */
const SETTLE_MS = 15_000;
const IDLE_MS = 30_000;

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export interface IdleGroups {
  readonly groups: number;
  readonly createdSeconds: number;
  /** Of one core, of the busiest broker. */
  readonly cpuShare: number;
  readonly cpuShareBefore: number;
  /** Of the largest broker. */
  readonly kibPerGroup: number;
}

/** Three brokers with `groups` groups each, nobody using them. */
export async function measureIdle(groups: number): Promise<IdleGroups> {
  await using cluster = await DevCluster.start();
  await using client = await connect({ bootstrap: cluster.bootstrap });
  await pause(SETTLE_MS / 3);
  const empty = await idle(cluster, IDLE_MS / 3);
  const started = performance.now();
  await makeGroups(client, groups);
  const createdSeconds = (performance.now() - started) / 1000;
  await pause(SETTLE_MS);
  const full = await idle(cluster, IDLE_MS);
  const kib = full.map(({ residentKiB }, at) => (residentKiB - (empty[at]?.residentKiB ?? 0)) / groups);
  const busiest = (shares: readonly { readonly share: number }[]) => Math.max(...shares.map(({ share }) => share));
  return { groups, createdSeconds, cpuShare: busiest(full), cpuShareBefore: busiest(empty), kibPerGroup: Math.max(...kib) };
}

export interface Failover {
  /** Groups that the broker led. */
  readonly led: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** kill -9 of a broker that leads `led` groups; times until each has acknowledged a write that was sent at that moment. */
export async function measureFailover(led: number): Promise<Failover> {
  await using cluster = await DevCluster.start({ quiet: true });
  await using client = await connect({ bootstrap: cluster.bootstrap });
  const topics = await makeGroups(client, led * cluster.brokers);
  await using producer = client.producer();
  const value = new Uint8Array(100);
  const victim = 1;
  const partitions: { topic: string; partition: number }[] = [];
  for (const topic of topics) {
    const { partitions: all } = await client.admin.describeTopic(topic);
    for (const { partition, leader } of all) if (leader === victim) partitions.push({ topic, partition });
  }
  const write = ({ topic, partition }: { topic: string; partition: number }) => producer.send(topic, { value, partition });
  await Promise.all(partitions.map(write));
  await pause(2000);
  const killedAt = performance.now();
  cluster.signal(victim, 'SIGKILL');
  const times = await Promise.all(partitions.map((each) => write(each).then(() => performance.now() - killedAt)));
  times.sort((a, b) => a - b);
  const at = (share: number) => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? Number.NaN;
  return { led: partitions.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}

export async function noteFailover(figures: Figures, led: number): Promise<void> {
  const { led: really, p50Ms, p99Ms, maxMs } = await measureFailover(led);
  figures.note('failover, groups that the killed broker led', really);
  figures.note('failover, a group takes a write again, p50 ms', p50Ms);
  figures.note('failover, a group takes a write again, p99 ms', p99Ms);
  figures.note('failover, a group takes a write again, max ms', maxMs);
}

export async function noteIdle(figures: Figures, groups: number): Promise<void> {
  const { createdSeconds, cpuShare, cpuShareBefore, kibPerGroup } = await measureIdle(groups);
  figures.note('idle, groups in each broker', groups);
  figures.note('idle, seconds to create them', createdSeconds);
  figures.note('idle, percent of a core', 100 * cpuShare);
  figures.note('idle, percent of a core without them', 100 * cpuShareBefore);
  figures.note('idle, KiB resident a group', kibPerGroup);
}

/** So many partitions, over topics, and waits until all of them are led. */
export async function makeGroups(client: Client, groups: number, replicas = 3): Promise<string[]> {
  const topics: string[] = [];
  for (let left = groups; left > 0; left -= MAX_PARTITIONS) {
    const topic = `groups-${topics.length}`;
    await makeLargeTopic(client, topic, Math.min(left, MAX_PARTITIONS), replicas);
    topics.push(topic);
  }
  const deadline = performance.now() + OPENED_WITHIN_MS;
  for (const topic of topics) {
    for (;;) {
      const { partitions } = await client.admin.describeTopic(topic);
      if (partitions.every(({ leader }) => leader !== undefined && leader > 0)) break;
      if (performance.now() > deadline) throw new Error(`${topic} has partitions without a leader`);
      await pause(200);
    }
  }
  return topics;
}

/** A try that took longer than a request may have created the topic after all; brokers that are busy with the last topic may count as gone for a moment. */
async function makeLargeTopic(client: Client, topic: string, partitions: number, replicas: number): Promise<void> {
  const deadline = performance.now() + OPENED_WITHIN_MS;
  for (;;) {
    try {
      await makeTopic(client, topic, partitions, replicas);
      return;
    } catch (error) {
      if (!(error instanceof FlotillaError)) throw error;
      if (error.code === 'TOPIC_ALREADY_EXISTS') return;
      if (error.code !== 'INVALID_REPLICATION_FACTOR' || performance.now() > deadline) throw error;
      await pause(500);
    }
  }
}

/** What each broker uses of a core over so many milliseconds. */
async function idle(cluster: DevCluster, ms: number): Promise<(Usage & { readonly share: number })[]> {
  const brokers = Array.from({ length: cluster.brokers }, (_, at) => at + 1);
  const usages = () => brokers.map((broker) => cluster.usage(broker));
  const before = usages();
  await pause(ms);
  return usages().map((usage, at) => {
    const from = before[at];
    if (usage === undefined || from === undefined) throw new Error('this takes /proc, and brokers that live');
    return { ...usage, share: (usage.cpuSeconds - from.cpuSeconds) / (ms / 1000) };
  });
}

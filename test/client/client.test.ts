import { describe, expect, it } from 'vitest';
import type { FlotillaError } from '../../src/base/errors.ts';
import { Client } from '../../src/client/client.ts';
import { PARTITIONS_PER_INTERVAL, REFRESH_INTERVAL_MS } from '../../src/client/metadata-cache.ts';
import { FakeCluster } from './fake-cluster.ts';

const code = (error: unknown) => (error as FlotillaError).code;

describe('client', () => {
  it('connects to any broker of the list, and says so when none answers', async () => {
    const cluster = new FakeCluster();
    cluster.brokers[0]!.stop();
    const client = await cluster.client();
    expect(client.clusterId).toBe('c'.repeat(32));
    await cluster.settle(client.close());
    for (const broker of cluster.brokers) broker.stop();
    const start = cluster.time.nowMs;
    expect(code(await cluster.client({ connectTimeoutMs: 2000 }).catch((error) => error))).toBe('BROKER_NOT_AVAILABLE');
    expect(cluster.time.nowMs - start).toBeLessThan(2100);
    const platform = { environment: cluster.clientEnvironment, connect: cluster.network.connectFrom('client', cluster.clientEnvironment) };
    await expect(Client.open(platform, { bootstrap: 'nowhere' })).rejects.toThrow(/host:port/);
  });

  it('aborts the connecting', async () => {
    const cluster = new FakeCluster();
    for (const broker of cluster.brokers) broker.stop();
    const controller = new AbortController();
    const connecting = cluster.connecting({ signal: controller.signal }).catch((error) => error);
    await cluster.time.run(100);
    controller.abort();
    expect(code(await connecting)).toBe('ABORTED');
  });

  it('creates, lists and deletes topics, and lists offsets', async () => {
    const cluster = new FakeCluster();
    const client = await cluster.client();
    const { admin } = client;
    expect((await cluster.settle(admin.createTopic({ name: 't', partitions: 2 }))).name).toBe('t');
    expect(code(await cluster.settle(admin.createTopic({ name: 't' }).catch((error) => error)))).toBe('TOPIC_ALREADY_EXISTS');
    expect((await cluster.settle(admin.listTopics())).map(({ name, partitions }) => [name, partitions.length])).toEqual([['t', 2]]);
    await cluster.settle(client.producer().send('t', { value: 'x', partition: 1, timestamp: 77 }));
    const queries = [
      { topic: 't', partition: 0, at: 'end' as const },
      { topic: 't', partition: 1, at: 'end' as const },
      { topic: 't', partition: 1, at: 'beginning' as const },
      { topic: 't', partition: 1, at: { time: 78 } },
    ];
    expect(await cluster.settle(admin.listOffsets(queries))).toEqual([0, 1, 0, -1]);
    cluster.topics.get('t')?.[1]?.moveTo(1);
    expect(await cluster.settle(admin.listOffsets(queries))).toEqual([0, 1, 0, -1]);
    await cluster.settle(admin.deleteTopic('t'));
    expect(code(await cluster.settle(admin.deleteTopic('t').catch((error) => error)))).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    await cluster.settle(client.close());
    expect(code(await admin.listTopics().catch((error) => error))).toBe('CLOSED');
  });

  it('knows where a partition starts, though a replica that lags says otherwise', async () => {
    const cluster = new FakeCluster();
    const { admin } = await cluster.client();
    await cluster.settle(admin.createTopic({ name: 't', partitions: 1 }));
    const [partition] = cluster.topics.get('t') ?? [];
    const start = () => cluster.settle(admin.listOffsets([{ topic: 't', partition: 0, at: 'beginning' }]));
    for (const [told, known] of [
      [5, 5],
      [3, 5],
      [7, 7],
    ] as const) {
      Object.assign(partition ?? {}, { startOffset: told });
      expect(await start()).toEqual([known]);
    }
    // Another topic of that name starts where it starts.
    await cluster.settle(admin.deleteTopic('t'));
    await cluster.settle(admin.createTopic({ name: 't', partitions: 1 }));
    await cluster.time.run(1_000);
    expect(await start()).toEqual([0]);
  });

  it('gives up a call at its deadline when the cluster is gone', async () => {
    const cluster = new FakeCluster();
    const client = await cluster.client();
    for (const broker of cluster.brokers) broker.stop();
    expect(code(await cluster.settle(client.admin.listTopics({ timeoutMs: 3000 }).catch((error) => error)))).toBe('REQUEST_TIMED_OUT');
    await cluster.settle(client.close());
  });

  it('a thousand partitions without a leader ask no more often than one', async () => {
    const cluster = new FakeCluster();
    cluster.hints = false;
    for (const partition of cluster.createTopic('t', 1_000)) partition.leader = 4;
    const client = await cluster.client();
    const producer = client.producer({ deliveryTimeoutMs: 60_000 });
    for (let partition = 0; partition < 1_000; partition++) producer.enqueue('t', { value: 'x', partition });
    const { metadataCalls } = cluster;
    await cluster.time.run(10_000);
    expect(cluster.metadataCalls - metadataCalls).toBeGreaterThan(10);
    expect(cluster.metadataCalls - metadataCalls).toBeLessThanOrEqual(10_000 / REFRESH_INTERVAL_MS + 1);
    await cluster.settle(producer.close({ deadlineMs: 1_000 }));
    await cluster.settle(client.close());
  });

  it('asks for ten thousand partitions more rarely, so that what a broker tells does not grow with what it has to open', async () => {
    const cluster = new FakeCluster();
    cluster.hints = false;
    const count = 10_000;
    for (const partition of cluster.createTopic('t', count)) partition.leader = 4;
    const client = await cluster.client();
    const producer = client.producer({ deliveryTimeoutMs: 60_000 });
    for (let partition = 0; partition < 100; partition++) producer.enqueue('t', { value: 'x', partition });
    await cluster.time.run(1_000);
    const { metadataCalls } = cluster;
    await cluster.time.run(10_000);
    const intervalMs = (REFRESH_INTERVAL_MS * count) / PARTITIONS_PER_INTERVAL;
    expect(cluster.metadataCalls - metadataCalls).toBeGreaterThan(10);
    expect(cluster.metadataCalls - metadataCalls).toBeLessThanOrEqual(10_000 / intervalMs + 1);
    await cluster.settle(producer.close({ deadlineMs: 1_000 }));
    await cluster.settle(client.close());
  });

  it('shares one metadata refresh among many callers', async () => {
    const cluster = new FakeCluster();
    for (let i = 0; i < 50; i++) cluster.createTopic(`t${i}`);
    const client = await cluster.client();
    const { metadataCalls } = cluster;
    const producer = client.producer();
    await cluster.settle(Promise.all(Array.from({ length: 50 }, (_, i) => producer.send(`t${i}`, { value: 'x' }))));
    expect(cluster.metadataCalls - metadataCalls).toBeLessThanOrEqual(3);
    await cluster.settle(client.close());
  });
});

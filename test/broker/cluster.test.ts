import { create } from '@bufbuild/protobuf';
import { afterEach, describe, expect, it } from 'vitest';
import { type TopicId, topicIdToBytes } from '../../src/base/ids.ts';
import {
  Admin,
  AllocateProducerIdRequestSchema,
  CreateTopicRequestSchema,
  DeleteTopicRequestSchema,
  DescribeClusterRequestSchema,
  DescribeTopicRequestSchema,
  MetadataRequestSchema,
  TransferLeaderRequestSchema,
} from '../../src/gen/flotilla/v1/admin_pb.ts';
import {
  Data,
  FetchRequestSchema,
  type FetchResult,
  ListOffsetsRequestSchema,
  ProduceRequestSchema,
  type ProduceResult,
} from '../../src/gen/flotilla/v1/data_pb.ts';
import { decodeBatch, splitBatches } from '../../src/record/batch.ts';
import type { RpcChannel } from '../../src/rpc/types.ts';
import { SimCluster } from '../sim/cluster.ts';
import { batch } from './batches.ts';

const unary = { timeoutMs: 30_000 };

/** Three brokers of the production code on a simulated network, and a client without retries. */
class World {
  readonly cluster: SimCluster;
  readonly #connect;
  readonly #channels = new Map<number, RpcChannel>();

  constructor(settings: Readonly<Record<string, string | number>> = {}) {
    this.cluster = new SimCluster({ seed: 7, brokers: 3, settings: { 'flotilla.wal.file.bytes': '1MiB', ...settings } });
    this.#connect = this.cluster.client('client').connect;
  }

  channel(id: number): RpcChannel {
    const channel = this.#channels.get(id) ?? this.#connect(`broker-${id}:9000`);
    this.#channels.set(id, channel);
    return channel;
  }

  settle<T>(promise: Promise<T>, withinMs = 30_000): Promise<T> {
    return this.cluster.time.settle(promise, withinMs);
  }

  async start(): Promise<void> {
    await this.cluster.startAll();
    const { signal } = new AbortController();
    await this.settle(Promise.all(this.cluster.machines.map(({ broker }) => broker!.ready(signal))));
  }

  async createTopic(name: string, partitions: number, configs: Record<string, string> = {}) {
    const entries = Object.entries(configs).map(([key, value]) => ({ key, value }));
    const request = create(CreateTopicRequestSchema, { name, partitions, replicas: 3, configs: entries as never });
    return this.settle(this.channel(2).unary(Admin.method.createTopic, request, unary));
  }

  async describe(name: string, at = 1) {
    return this.settle(this.channel(at).unary(Admin.method.describeTopic, create(DescribeTopicRequestSchema, { name }), unary));
  }

  async leaderOf(name: string, at = 1): Promise<number> {
    const request = create(MetadataRequestSchema, { topics: [name] });
    const { topics } = await this.settle(this.channel(at).unary(Admin.method.metadata, request, unary));
    return topics[0]?.partitions[0]?.leader ?? 0;
  }

  /** Sends batches to one broker and waits for as many results. */
  async produce(at: number, topicId: Uint8Array, batches: readonly Uint8Array[]): Promise<ProduceResult[]> {
    const results: ProduceResult[] = [];
    const answered = new Promise<void>((resolve, reject) => {
      const stream = this.channel(at).stream(
        Data.method.produce,
        {
          message: (response) => {
            results.push(...response.results);
            if (results.length >= batches.length) resolve();
          },
          closed: (error) => (error === undefined ? resolve() : reject(error)),
          drained: () => undefined,
        },
        {},
      );
      stream.send(
        create(ProduceRequestSchema, {
          batches: batches.map((recordBatch, correlation) => ({ correlation, topicId, recordBatch })) as never,
        }),
      );
    });
    await this.settle(answered);
    return results;
  }

  /** Reads from one broker until the offset is reached. */
  async fetch(at: number, topicId: Uint8Array, until: number): Promise<string[]> {
    const results: FetchResult[] = [];
    const done = new Promise<void>((resolve, reject) => {
      const stream = this.channel(at).stream(
        Data.method.fetch,
        {
          message: (response) => {
            results.push(...response.results);
            const failed = response.results.find(({ error }) => error !== undefined);
            if (failed !== undefined) reject(new Error(failed.error?.message));
            else if (Number(results.at(-1)?.nextOffset) >= until) resolve();
          },
          closed: (error) => (error === undefined ? resolve() : reject(error)),
          drained: () => undefined,
        },
        {},
      );
      stream.send(create(FetchRequestSchema, { set: [{ topicId, generation: 1 }] as never, creditBytes: 1n << 30n }));
    });
    await this.settle(done);
    const options = { compression: new Map() as never, maxBytes: 1 << 20 };
    return results
      .flatMap(({ recordBatches }) => splitBatches(recordBatches))
      .flatMap((one) => decodeBatch(one, options))
      .map(({ value }) => new TextDecoder().decode(value ?? undefined));
  }
}

describe('three brokers', () => {
  let world: World;
  afterEach(() => {
    expect(world.cluster.failures).toEqual([]);
  });

  it('form a cluster, make a topic, and carry records from the edge to three disks and back', async () => {
    world = new World();
    await world.start();
    const { topic, error } = await world.createTopic('orders', 3);
    expect(error).toBeUndefined();
    expect(topic?.partitions.map(({ leader, replicas }) => [leader > 0, replicas.length])).toEqual([
      [true, 3],
      [true, 3],
      [true, 3],
    ]);
    const leader = await world.leaderOf('orders');
    const results = await world.produce(leader, topic!.topicId, [batch(2, { value: 'a' }), batch(1, { value: 'b' })]);
    expect(results.map(({ baseOffset, error }) => [Number(baseOffset), error?.message])).toEqual([
      [0, undefined],
      [2, undefined],
    ]);
    for (const at of [1, 2, 3]) expect(await world.fetch(at, topic!.topicId, 3)).toEqual(['a', 'a', 'b']);

    const described = await world.describe('orders', (leader % 3) + 1);
    expect(described.partitions.map(({ error }) => error?.message)).toEqual([undefined, undefined, undefined]);
    expect(described.partitions[0]).toMatchObject({ leader, highWatermark: 3n, logStartOffset: 0n });

    const latest = create(ListOffsetsRequestSchema, { partitions: [{ topicId: topic!.topicId, partition: 0, timestamp: -1n }] as never });
    const offsets = await world.settle(world.channel(leader).unary(Data.method.listOffsets, latest, unary));
    expect(offsets.results).toMatchObject([{ offset: 3n }]);

    const ids = await Promise.all(
      [1, 2, 3].map((at) =>
        world.settle(
          world.channel(at).unary(Admin.method.allocateProducerId, create(AllocateProducerIdRequestSchema, { count: 10 }), unary),
        ),
      ),
    );
    expect(new Set(ids.map(({ firstProducerId }) => firstProducerId)).size).toBe(3);
    const { controllerId, brokers } = await world.settle(
      world.channel(1).unary(Admin.method.describeCluster, create(DescribeClusterRequestSchema), unary),
    );
    expect(controllerId).toBeGreaterThan(0);
    expect(brokers.map(({ alive }) => alive)).toEqual([true, true, true]);
  });

  it('keep every acknowledged record, and recognise what is sent again, when the leader is killed', async () => {
    world = new World();
    await world.start();
    const { topic } = await world.createTopic('orders', 1);
    const before = await world.leaderOf('orders');
    const sent = Array.from({ length: 5 }, (_, i) => batch(1, { value: `v${i}`, producer: [1000, 0, i] }));
    expect((await world.produce(before, topic!.topicId, sent)).every(({ error }) => error === undefined)).toBe(true);
    world.cluster.kill(before);

    const other = (before % 3) + 1;
    let after = before;
    for (let i = 0; i < 100 && after === before; i++) {
      await world.cluster.time.run(200);
      after = await world.leaderOf('orders', other);
    }
    expect(after).not.toBe(before);
    const again = [batch(1, { value: 'v4', producer: [1000, 0, 4] }), batch(1, { value: 'v5', producer: [1000, 0, 5] })];
    const results = await world.produce(after, topic!.topicId, again);
    expect(results.map(({ baseOffset, error }) => [Number(baseOffset), error?.message])).toEqual([
      [4, undefined],
      [5, undefined],
    ]);
    expect(await world.fetch(other, topic!.topicId, 6)).toEqual(['v0', 'v1', 'v2', 'v3', 'v4', 'v5']);

    await world.settle(world.cluster.start(before));
    await world.settle(world.cluster.machine(before).broker!.ready(new AbortController().signal));
    expect(await world.fetch(before, topic!.topicId, 6)).toEqual(['v0', 'v1', 'v2', 'v3', 'v4', 'v5']);
  });

  it('hand leadership over when asked, and before a clean stop', async () => {
    world = new World();
    await world.start();
    const { topic } = await world.createTopic('orders', 1);
    const first = await world.leaderOf('orders');
    const second = (first % 3) + 1;
    const third = (second % 3) + 1;
    const request = create(TransferLeaderRequestSchema, { topic: 'orders', toBroker: second });
    const { error } = await world.settle(world.channel(third).unary(Admin.method.transferLeader, request, unary));
    expect(error).toBeUndefined();
    await world.cluster.time.run(2_000);
    expect(await world.leaderOf('orders')).toBe(second);

    await world.settle(world.cluster.machine(second).broker!.stop(10_000), 15_000);
    await world.cluster.time.run(2_000);
    const leader = await world.leaderOf('orders', first);
    expect([first, third]).toContain(leader);
    expect((await world.produce(leader, topic!.topicId, [batch(1)]))[0]!.error).toBeUndefined();
  });

  it('refuse what can not be, and forget what was deleted', async () => {
    world = new World();
    await world.start();
    expect((await world.createTopic('no/name', 1)).error).toMatchObject({ code: 17 });
    expect((await world.createTopic('orders', 1, { 'max.mesage.bytes': '1' })).error?.message).toMatch(/max\.message\.bytes/);
    const { topic } = await world.createTopic('orders', 1);
    expect((await world.createTopic('orders', 1)).error).toMatchObject({ code: 36 });
    const leader = await world.leaderOf('orders');
    const deleted = await world.settle(
      world.channel(1).unary(Admin.method.deleteTopic, create(DeleteTopicRequestSchema, { name: 'orders' }), unary),
    );
    expect(deleted.error).toBeUndefined();
    await world.cluster.time.run(2_000);
    expect((await world.produce(leader, topic!.topicId, [batch(1)]))[0]!.error).toMatchObject({ code: 100 });
    await expect(world.fetch(leader, topicIdToBytes('f'.repeat(32) as TopicId), 1)).rejects.toThrow(/No topic has the id/);
    expect((await world.describe('orders')).error).toMatchObject({ code: 3 });
  });
});

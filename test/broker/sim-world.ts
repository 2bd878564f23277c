import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { expect } from 'vitest';
import type { Logger } from '../../src/base/environment.ts';
import { type ErrorCode, FlotillaError } from '../../src/base/errors.ts';
import { Client } from '../../src/client/client.ts';
import type { Consumer, ConsumerOptions } from '../../src/client/consumer.ts';
import type { ConsumerRecord } from '../../src/client/fetch-buffer.ts';
import {
  Data,
  type FetchRequest,
  type FetchResponse,
  type FetchResult,
  type ProduceBatchSchema,
  type ProduceRequest,
  ProduceRequestSchema,
  type ProduceResponse,
  type ProduceResult,
} from '../../src/gen/flotilla/v1/data_pb.ts';
import { nodeCompressions } from '../../src/platform/compression.ts';
import { nativeCrc32c } from '../../src/platform/crc32c.ts';
import { CompressionTable } from '../../src/record/compression.ts';
import type { Connect, RpcChannel, RpcStream } from '../../src/rpc/types.ts';
import { SimCluster } from '../sim/cluster.ts';

export type ProduceBatchInit = MessageInitShape<typeof ProduceBatchSchema>;

/** Three production brokers in simulation, with the production SDK on a machine of its own. */
export class SimWorld implements AsyncDisposable {
  readonly cluster: SimCluster;
  readonly client: Client;
  readonly connect: Connect;

  private constructor(cluster: SimCluster, client: Client, connect: Connect) {
    this.cluster = cluster;
    this.client = client;
    this.connect = connect;
  }

  static async start(options: { readonly settings?: Readonly<Record<string, string | number>>; readonly log?: Logger } = {}) {
    const settings = { 'flotilla.wal.file.bytes': '16MiB', ...options.settings };
    const cluster = new SimCluster({ seed: 11, brokers: 3, ...options, settings });
    await cluster.startAll();
    const { signal } = new AbortController();
    await cluster.time.settle(Promise.all(cluster.machines.map(({ broker }) => broker?.ready(signal))), 30_000);
    const { environment, connect } = cluster.client('client');
    const compression = new CompressionTable(nodeCompressions);
    const platform = { environment, connect, compression, crc32c: nativeCrc32c };
    const client = await cluster.time.settle(Client.open(platform, { bootstrap: cluster.bootstrap }), 30_000);
    return new SimWorld(cluster, client, connect);
  }

  settle<T>(promise: Promise<T>, withinMs = 60_000): Promise<T> {
    return this.cluster.time.settle(promise, withinMs);
  }

  /** The error that the promise rejects with: a typed one, whose message says something. */
  async refused(promise: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<FlotillaError> {
    const error = await this.settle(
      promise.then(
        (value) => new Error(`expected ${code}, got ${JSON.stringify(value)}`),
        (thrown: unknown) => thrown,
      ),
    );
    expect(error).toBeInstanceOf(FlotillaError);
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
    return error as FlotillaError;
  }

  /** The power fails everywhere at once, and comes back. */
  async restartAll(): Promise<void> {
    const { machines } = this.cluster;
    for (const { id } of machines) this.cluster.powerCut(id);
    await this.settle(Promise.all(machines.map(({ id }) => this.cluster.start(id))));
  }

  async createTopic(name: string, configs: Readonly<Record<string, string>> = {}): Promise<Topic> {
    const { topicId } = await this.settle(this.client.admin.createTopic({ name, partitions: 1, replicas: 3, configs }));
    return { name, topicId: Uint8Array.from(Buffer.from(topicId, 'hex')) };
  }

  async leaderOf({ name }: Topic): Promise<number> {
    const { topics } = await this.settle(this.client.admin.describeCluster());
    const leader = topics.find((topic) => topic.name === name)?.partitions[0]?.leader;
    if (leader === undefined) throw new Error(`${name} has no leader`);
    return leader;
  }

  async send(topic: Topic, ...values: string[]): Promise<number[]> {
    const producer = this.client.producer();
    const sent = await this.settle(Promise.all(values.map((value) => producer.send(topic.name, { value }))));
    await this.settle(producer.close());
    return sent.map(({ offset }) => offset);
  }

  /** Every record of the topic. */
  async readAll(topic: Topic, count: number, options: Partial<ConsumerOptions> = {}): Promise<string[]> {
    const consumer = this.client.consumer({ topics: [topic.name], from: 'beginning', ...options });
    const records = await this.take(consumer, count);
    await this.settle(consumer.close());
    return records.map(textOf);
  }

  async take(consumer: Consumer, count: number): Promise<ConsumerRecord[]> {
    const records: ConsumerRecord[] = [];
    const iterator = consumer[Symbol.asyncIterator]();
    while (records.length < count) {
      const { value, done } = await this.settle(iterator.next());
      if (done) throw new Error(`the consumer ended after ${records.length} records`);
      records.push(value);
    }
    return records;
  }

  /** A produce stream as a client of its own making may use it. */
  produceStream(brokerId: number, connect: Connect = this.connect): RawProduce {
    return new RawProduce(this, connect(`broker-${brokerId}:9000`));
  }

  fetchStream(brokerId: number, connect: Connect = this.connect): RawFetch {
    return new RawFetch(connect(`broker-${brokerId}:9000`));
  }

  /** No broker fell: what every test ends with. */
  assertAllUp(): void {
    expect(this.cluster.failures).toEqual([]);
    expect(this.cluster.machines.map(({ id }) => this.cluster.isUp(id))).toEqual([true, true, true]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.settle(this.client.close({ deadlineMs: 0 }));
    for (const { id } of this.cluster.machines) this.cluster.kill(id);
  }
}

export interface Topic {
  readonly name: string;
  readonly topicId: Uint8Array;
}

/** How a stream stands: 'open', or what it ended with. */
export type Ending = 'open' | Error | undefined;

export class RawFetch {
  readonly results: FetchResult[] = [];
  closedWith: Ending = 'open';
  readonly stream: RpcStream<FetchRequest>;

  constructor(channel: RpcChannel) {
    const message = (response: FetchResponse) => void this.results.push(...response.results);
    const closed = (error: Error | undefined) => {
      this.closedWith = error;
    };
    this.stream = channel.stream(Data.method.fetch, { message, closed, drained: () => undefined }, {});
  }
}

export class RawProduce {
  readonly results: ProduceResult[] = [];
  closedWith: Ending = 'open';
  readonly stream: RpcStream<ProduceRequest>;
  readonly #world: SimWorld;

  constructor(world: SimWorld, channel: RpcChannel) {
    this.#world = world;
    const message = (response: ProduceResponse) => void this.results.push(...response.results);
    const closed = (error: Error | undefined) => {
      this.closedWith = error;
    };
    this.stream = channel.stream(Data.method.produce, { message, closed, drained: () => undefined }, {});
  }

  send(...batches: ProduceBatchInit[]): boolean {
    return this.stream.send(create(ProduceRequestSchema, { batches }));
  }

  /** The results of the batches, in their order. */
  async produce(...batches: ProduceBatchInit[]): Promise<ProduceResult[]> {
    const from = this.results.length;
    this.send(...batches.map((batch, correlation) => ({ correlation, ...batch })));
    const answered = () => this.results.length >= from + batches.length || this.closedWith !== 'open';
    if (!(await this.#world.cluster.time.runUntil(answered, 60_000))) throw new Error('no answer');
    return this.results.slice(from).sort((a, b) => a.correlation - b.correlation);
  }
}

export function textOf(record: { readonly value: Uint8Array | null }): string {
  return new TextDecoder().decode(record.value ?? undefined);
}

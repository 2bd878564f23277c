import { create } from '@bufbuild/protobuf';
import { FlotillaError } from '../../src/base/errors.ts';
import { Client, type ClientOptions } from '../../src/client/client.ts';
import {
  Admin,
  AllocateProducerIdResponseSchema,
  CreateTopicResponseSchema,
  DeleteTopicResponseSchema,
  MetadataResponseSchema,
} from '../../src/gen/flotilla/v1/admin_pb.ts';
import { ErrorSchema, type Error as WireError } from '../../src/gen/flotilla/v1/common_pb.ts';
import {
  Data,
  type FetchResponse,
  FetchResponseSchema,
  FetchResultSchema,
  ListOffsetsResponseSchema,
  type ProduceBatch,
  type ProduceResponse,
  ProduceResponseSchema,
  ProduceResultSchema,
} from '../../src/gen/flotilla/v1/data_pb.ts';
import { decodeBatch, stampBatch, validateBatch } from '../../src/record/batch.ts';
import { CompressionTable } from '../../src/record/compression.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import { type RpcService, type RpcStream, streamHandler, unaryHandler } from '../../src/rpc/types.ts';
import { SimNetwork } from '../sim/network.ts';
import { SeededRandom } from '../sim/random.ts';
import { VirtualEnvironment, VirtualTime } from '../sim/virtual-environment.ts';

const TOPIC_ID_BYTES = 16;
const text = new TextDecoder();

interface Entry {
  readonly bytes: Uint8Array;
  readonly baseOffset: number;
  readonly nextOffset: number;
  readonly producerId: number;
  readonly baseSequence: number;
  readonly count: number;
}

interface Reader {
  readonly broker: FakeBroker;
  readonly handle: number;
  readonly generation: number;
  offset: number;
  readonly stream: FakeFetch;
}

/** One partition: a log of which a prefix is committed; what is not may be lost when the leader moves. */
export class FakePartition {
  leader: number;
  epoch = 1;
  entries: Entry[] = [];
  committed = 0;
  startOffset = 0;
  /** Compacted away. */
  readonly gone = new Set<Entry>();
  /** The largest batch that it takes. */
  maxBytes = 1 << 21;
  readonly parked: { readonly entry: Entry; readonly answer: (error: WireError | undefined, baseOffset: number) => void }[] = [];
  readonly readers = new Set<Reader>();
  readonly cluster: FakeCluster;
  readonly topic: string;
  readonly partition: number;

  constructor(cluster: FakeCluster, topic: string, partition: number, leader: number) {
    this.cluster = cluster;
    this.topic = topic;
    this.partition = partition;
    this.leader = leader;
  }

  get highWatermark(): number {
    return this.entries[this.committed - 1]?.nextOffset ?? this.startOffset;
  }

  get endOffset(): number {
    return this.entries.at(-1)?.nextOffset ?? this.startOffset;
  }

  append(bytes: Uint8Array, answer: (error: WireError | undefined, baseOffset: number) => void): void {
    const header = validateBatch(bytes, { maxBytes: 1 << 21, crc32c });
    const { producerId, baseSequence, recordCount } = header;
    if (producerId >= 0) {
      const known = this.entries.filter((entry) => entry.producerId === producerId).slice(-5);
      const original = known.find((entry) => entry.baseSequence === baseSequence && entry.count === recordCount);
      // A duplicate waits for its original's commit.
      if (original) {
        this.park(original, answer);
        return;
      }
      const last = known.at(-1);
      const expected = last === undefined ? 0 : last.baseSequence + last.count;
      if (baseSequence !== expected) {
        answer(wireError('OUT_OF_ORDER_SEQUENCE_NUMBER', `expected ${expected}, got ${baseSequence}`), -1);
        return;
      }
    }
    const baseOffset = this.endOffset;
    const stored = bytes.slice();
    stampBatch(stored, baseOffset, this.epoch);
    const entry = { bytes: stored, baseOffset, nextOffset: baseOffset + recordCount, producerId, baseSequence, count: recordCount };
    this.entries.push(entry);
    this.park(entry, answer);
    const { random, commitMs } = this.cluster;
    if (commitMs === undefined) return;
    this.cluster.time.schedule(random.between(0, commitMs), () => {
      const at = this.entries.indexOf(entry);
      if (at >= 0) this.commit(at + 1);
    });
  }

  commit(count = this.entries.length): void {
    this.committed = Math.max(this.committed, count);
    for (const parked of this.parked.splice(0)) this.park(parked.entry, parked.answer);
    for (const reader of this.readers) reader.stream.push(this, reader);
  }

  park(entry: Entry, answer: (error: WireError | undefined, baseOffset: number) => void): void {
    const at = this.entries.indexOf(entry);
    if (at < 0) answer(this.notLeader(), -1);
    else if (at < this.committed) answer(undefined, entry.baseOffset);
    else this.parked.push({ entry, answer });
  }

  notLeader(): WireError {
    const error = wireError('NOT_LEADER_OR_FOLLOWER', 'not the leader');
    const { hints, brokers } = this.cluster;
    if (hints)
      error.leader = {
        $typeName: 'flotilla.v1.LeaderHint',
        brokerId: this.leader,
        address: brokers[this.leader - 1]!.address,
        leaderEpoch: this.epoch,
      };
    return error;
  }

  /** Another broker takes over; `keep` of the entries that are not committed survive. */
  moveTo(leader: number, keep = Number.POSITIVE_INFINITY): void {
    this.leader = leader;
    this.epoch++;
    this.entries.length = Math.min(this.entries.length, this.committed + keep);
    for (const { answer } of this.parked.splice(0)) answer(this.notLeader(), -1);
    if (this.cluster.commitMs !== undefined) this.commit();
  }

  /** The offset of the first committed record at or after the time; -1: none. */
  offsetAt(time: number): number {
    for (const { bytes } of this.entries.slice(0, this.committed)) {
      const records = decodeBatch(bytes, { compression: new CompressionTable(), maxBytes: 1 << 26 });
      const found = records.find(({ timestamp }) => timestamp >= time);
      if (found) return found.offset;
    }
    return -1;
  }

  /** The values of all committed records, in order. */
  values(): string[] {
    const options = { compression: new CompressionTable(), maxBytes: 1 << 26, crc32c };
    return this.entries
      .slice(0, this.committed)
      .filter((entry) => !this.gone.has(entry))
      .flatMap(({ bytes }) => decodeBatch(bytes, options).map(({ value }) => text.decode(value ?? new Uint8Array())));
  }
}

class FakeFetch {
  credit = 0;
  granted = 0;
  sent = 0;
  readonly readers = new Map<number, { partition: FakePartition; reader: Reader }>();
  readonly responder: RpcStream<FetchResponse>;
  readonly broker: FakeBroker;

  constructor(broker: FakeBroker, responder: RpcStream<FetchResponse>) {
    this.broker = broker;
    this.responder = responder;
  }

  push(partition: FakePartition, reader: Reader): void {
    const { cluster } = this.broker;
    if (this.broker.mute || this.broker.silent) return;
    for (const entry of partition.entries.slice(0, partition.committed)) {
      if (entry.nextOffset <= reader.offset) continue;
      if (partition.gone.has(entry)) {
        reader.offset = entry.nextOffset;
        this.answer(partition, reader, {});
        continue;
      }
      if (this.credit <= 0) return;
      this.credit -= entry.bytes.length;
      this.sent += entry.bytes.length;
      cluster.maxUnconsumed = Math.max(cluster.maxUnconsumed, this.sent - this.granted);
      reader.offset = entry.nextOffset;
      this.answer(partition, reader, { recordBatches: entry.bytes });
    }
  }

  answer(partition: FakePartition, reader: Reader, fields: { recordBatches?: Uint8Array; error?: WireError }): void {
    const result = create(FetchResultSchema, {
      partitionHandle: reader.handle,
      generation: reader.generation,
      nextOffset: BigInt(reader.offset),
      highWatermark: BigInt(partition.highWatermark - this.broker.hwLag),
      logStartOffset: BigInt(partition.startOffset),
      leaderEpoch: partition.epoch,
      ...fields,
    });
    this.responder.send(create(FetchResponseSchema, { results: [result] }));
  }

  drop(): void {
    for (const { partition, reader } of this.readers.values()) partition.readers.delete(reader);
    this.readers.clear();
  }
}

/** What a broker does with the next batches: an error before or after the append, an answer that is lost, a broken stream. */
export type ProduceFault = 'none' | 'error-before' | 'error-after' | 'lost' | 'cut-before' | 'cut-after' | 'twice';

export class FakeBroker {
  readonly id: number;
  readonly address: string;
  readonly environment: VirtualEnvironment;
  readonly cluster: FakeCluster;
  /** Takes everything, answers nothing on its streams. */
  mute = false;
  silent = false;
  hwLag = 0;
  produced = 0;
  frames = 0;
  fault: (batch: ProduceBatch) => ProduceFault = () => 'none';
  server: { close(deadlineMs: number): Promise<void> } | undefined;

  constructor(cluster: FakeCluster, id: number) {
    this.cluster = cluster;
    this.id = id;
    this.address = `broker${id}:${7100 + id}`;
    this.environment = new VirtualEnvironment(cluster.time, cluster.random.fork());
    this.start();
  }

  start(): void {
    const listeners = [{ name: 'client', host: `broker${this.id}`, port: 7100 + this.id }];
    this.server = this.cluster.network.serve(`broker${this.id}`, this.environment, { listeners, service: this.service() });
  }

  stop(): void {
    void this.server?.close(0);
  }

  service(): RpcService {
    const { cluster } = this;
    const unary = new Map([
      unaryHandler(Admin.method.metadata, async ({ topics }) => {
        cluster.metadataCalls++;
        const names = topics.length === 0 ? [...cluster.topics.keys()] : topics;
        return create(MetadataResponseSchema, {
          clusterId: 'c'.repeat(32),
          apiVersion: 1,
          controllerId: 1,
          brokers: cluster.brokers.map(({ id, address }) => ({ brokerId: id, address, alive: true })),
          topics: names.map((name) => {
            const partitions = cluster.topics.get(name);
            if (partitions === undefined) return { name, error: wireError('UNKNOWN_TOPIC_OR_PARTITION', 'no such topic') };
            const described = partitions.map(({ partition, leader, epoch }) => ({
              partition,
              leader,
              leaderEpoch: epoch,
              replicas: [1, 2, 3],
            }));
            return { name, topicId: cluster.topicId(name), partitions: described };
          }),
        });
      }),
      unaryHandler(Admin.method.createTopic, async ({ name, partitions }) => {
        if (cluster.topics.has(name)) return create(CreateTopicResponseSchema, { error: wireError('TOPIC_ALREADY_EXISTS', 'it exists') });
        cluster.createTopic(name, partitions);
        return create(CreateTopicResponseSchema, { topic: { name, topicId: cluster.topicId(name), partitions: [] } });
      }),
      unaryHandler(Admin.method.deleteTopic, async ({ name }) => {
        if (!cluster.topics.delete(name))
          return create(DeleteTopicResponseSchema, { error: wireError('UNKNOWN_TOPIC_OR_PARTITION', 'no such topic') });
        return create(DeleteTopicResponseSchema, {});
      }),
      unaryHandler(Admin.method.allocateProducerId, async () =>
        create(AllocateProducerIdResponseSchema, { firstProducerId: BigInt(cluster.nextProducerId++), count: 1 }),
      ),
      unaryHandler(Data.method.listOffsets, async ({ partitions }) =>
        create(ListOffsetsResponseSchema, {
          results: partitions.map(({ topicId, partition, timestamp }) => {
            const found = cluster.find(topicId, partition);
            if (found === undefined) return { topicId, partition, error: wireError('UNKNOWN_TOPIC_ID', 'no such topic') };
            if (found.leader !== this.id) return { topicId, partition, error: found.notLeader() };
            const offset =
              timestamp === -1n ? found.highWatermark : timestamp === -2n ? found.startOffset : found.offsetAt(Number(timestamp));
            return { topicId, partition, offset: BigInt(offset) };
          }),
        }),
      ),
    ] as ReturnType<typeof unaryHandler>[]);
    const streams = new Map([
      streamHandler(Data.method.produce, (responder) => ({
        message: ({ batches }) => {
          this.frames++;
          for (const batch of batches) this.produce(batch, responder);
        },
        closed: () => {},
        drained: () => {},
      })),
      streamHandler(Data.method.fetch, (responder) => {
        const fetch = new FakeFetch(this, responder);
        return {
          message: (request) => {
            fetch.credit += Number(request.creditBytes);
            fetch.granted += Number(request.creditBytes);
            for (const handle of request.remove) this.removeReader(fetch, handle);
            for (const { partitionHandle, topicId, partition, offset, generation } of request.set) {
              this.removeReader(fetch, partitionHandle);
              const found = cluster.find(topicId, partition);
              if (found === undefined) continue;
              const reader = { broker: this, handle: partitionHandle, generation, offset: Number(offset), stream: fetch };
              if (this.mute) continue;
              if (found.leader !== this.id) fetch.answer(found, reader, { error: found.notLeader() });
              else if (reader.offset < found.startOffset || reader.offset > found.highWatermark) {
                fetch.answer(found, reader, { error: wireError('OFFSET_OUT_OF_RANGE', 'out of range') });
              } else {
                fetch.readers.set(partitionHandle, { partition: found, reader });
                found.readers.add(reader);
              }
            }
            for (const { partition, reader } of [...fetch.readers.values()]) fetch.push(partition, reader);
          },
          closed: () => fetch.drop(),
          drained: () => {},
        };
      }),
    ] as ReturnType<typeof streamHandler>[]);
    return { unary, streams };
  }

  removeReader(fetch: FakeFetch, handle: number): void {
    const known = fetch.readers.get(handle);
    if (known === undefined) return;
    known.partition.readers.delete(known.reader);
    fetch.readers.delete(handle);
  }

  produce(batch: ProduceBatch, responder: RpcStream<ProduceResponse>): void {
    this.produced++;
    const answer = (error: WireError | undefined, baseOffset: number) => {
      if (this.mute) return;
      const result = create(ProduceResultSchema, { correlation: batch.correlation, baseOffset: BigInt(baseOffset), logAppendTimeMs: -1n });
      if (error) result.error = error;
      responder.send(create(ProduceResponseSchema, { results: [result] }));
    };
    if (this.mute) return;
    const partition = this.cluster.find(batch.topicId, batch.partition);
    if (partition === undefined) {
      answer(wireError('UNKNOWN_TOPIC_ID', 'no such topic'), -1);
      return;
    }
    if (partition.leader !== this.id) {
      answer(partition.notLeader(), -1);
      return;
    }
    if (batch.recordBatch.length > partition.maxBytes) {
      answer(wireError('MESSAGE_TOO_LARGE', `more than ${partition.maxBytes} bytes`), -1);
      return;
    }
    const fault = this.fault(batch);
    if (fault === 'cut-before') {
      responder.cancel();
      return;
    }
    if (fault === 'error-before') {
      answer(wireError('NOT_ENOUGH_REPLICAS', 'refused before'), -1);
      return;
    }
    partition.append(batch.recordBatch, (error, baseOffset) => {
      if (fault === 'lost') return;
      if (fault === 'cut-after') {
        responder.cancel();
        return;
      }
      if (fault === 'error-after' && error === undefined) {
        answer(wireError('REQUEST_TIMED_OUT', 'appended, says nothing'), -1);
        return;
      }
      answer(error, baseOffset);
      if (fault === 'twice') answer(error, baseOffset);
    });
  }
}

/** Brokers in memory on virtual time, over the simulated network: what they know is shared, what they do wrong is scripted. */
export class FakeCluster {
  readonly time = new VirtualTime();
  readonly random: SeededRandom;
  readonly network: SimNetwork;
  readonly topics = new Map<string, FakePartition[]>();
  readonly brokers: FakeBroker[] = [];
  readonly clientEnvironment: VirtualEnvironment;
  nextProducerId = 1000;
  metadataCalls = 0;
  maxUnconsumed = 0;
  hints = true;
  /** Commits come within so many milliseconds; undefined: only by `partition.commit()`. */
  commitMs: number | undefined = 1;
  #ids = new Map<string, number>();

  constructor(options: { seed?: number; brokers?: number } = {}) {
    this.random = new SeededRandom(options.seed ?? 1);
    this.network = new SimNetwork(this.time, this.random.fork());
    this.clientEnvironment = new VirtualEnvironment(this.time, this.random.fork());
    for (let id = 1; id <= (options.brokers ?? 3); id++) this.brokers.push(new FakeBroker(this, id));
  }

  createTopic(name: string, partitions = 1): FakePartition[] {
    this.#ids.set(name, this.#ids.size + 1 + this.random.below(1000) * 256);
    const made = Array.from(
      { length: partitions },
      (_, partition) => new FakePartition(this, name, partition, (partition % this.brokers.length) + 1),
    );
    this.topics.set(name, made);
    return made;
  }

  /** Who reads the topic is told. Creating it again gives it another id. */
  deleteTopic(name: string): void {
    for (const partition of this.topics.get(name) ?? []) {
      for (const reader of [...partition.readers])
        reader.stream.answer(partition, reader, { error: wireError('UNKNOWN_TOPIC_ID', 'deleted') });
    }
    this.topics.delete(name);
  }

  topicId(name: string): Uint8Array {
    const id = new Uint8Array(TOPIC_ID_BYTES);
    new DataView(id.buffer).setUint32(12, this.#ids.get(name) ?? 0);
    return id;
  }

  find(topicId: Uint8Array, partition: number): FakePartition | undefined {
    const number = new DataView(topicId.buffer, topicId.byteOffset).getUint32(12);
    for (const [name, partitions] of this.topics) if (this.#ids.get(name) === number) return partitions[partition];
    return undefined;
  }

  /** A client of the cluster, connected. */
  client(options: Partial<ClientOptions> = {}): Promise<Client> {
    return this.settle(this.connecting(options));
  }

  /** A client that is not waited for: the test runs the time. */
  connecting(options: Partial<ClientOptions> = {}): Promise<Client> {
    const platform = { environment: this.clientEnvironment, connect: this.network.connectFrom('client', this.clientEnvironment) };
    return Client.open(platform, { bootstrap: this.brokers.map(({ address }) => address), ...options });
  }

  settle<T>(promise: Promise<T>, withinMs = 300_000): Promise<T> {
    return this.time.settle(promise, withinMs);
  }
}

export function wireError(code: ConstructorParameters<typeof FlotillaError>[0], message: string): WireError {
  const error = new FlotillaError(code, message);
  return create(ErrorSchema, { code: error.number, message, retriable: error.retriable });
}

import { FlotillaError, messageOf } from '../../src/base/errors.ts';
import { Client } from '../../src/client/client.ts';
import type { Consumer } from '../../src/client/consumer.ts';
import type { ProducerOptions } from '../../src/client/producer.ts';
import { sleep } from '../../src/client/wait.ts';
import type { Operation } from '../jepsen-lite/checker.ts';
import type { SimCluster } from './cluster.ts';
import { KeyedRecords } from './compacted.ts';
import { CompactedReaders, type Place } from './compacted-readers.ts';
import type { SeededRandom } from './random.ts';
import { Tide } from './tide.ts';
import type { VirtualEnvironment } from './virtual-environment.ts';
import { Administration } from './workload-administration.ts';
import type { CompactionShape, WorkloadShape } from './workload-shape.ts';

type Acknowledged = Extract<Operation, { outcome: 'ok' }>;

/** A client on a machine of its own. */
export interface Host {
  readonly environment: VirtualEnvironment;
  readonly client: Client;
}

/** A storm may keep every broker down for more than a minute; whether a client gets through after it is the liveness phase's question. */
const CONNECT_MS = 600_000;
/** An offset query gives up after so long. A short one leaves a paused leader with questions that were asked after it was deposed. */
const OBSERVE_MS = [100, 500, 3_000];
/** Records of a producer on their way. With more, the slowest networks would still be busy with them when all has long been healed. */
const MAX_UNANSWERED = 1_000;
/** Readers that change replicas. */
const WALKERS = 2;
const text = new TextDecoder();

/** SDK producers with unique values and SDK consumers from the beginning, all the while; the history is for the checker. */
export class Workload {
  readonly history: Operation[] = [];
  readonly shape: WorkloadShape;
  /** What broke a promise of the SDK rather than of the log. */
  readonly failures: Error[] = [];
  readonly #cluster: SimCluster;
  readonly #random: SeededRandom;
  readonly #stop = new AbortController();
  readonly #stopReading = new AbortController();
  readonly #work: Promise<unknown>[] = [];
  /** Where each partition is known to reach. */
  readonly #ends = new Map<number, number>();
  /** Where each partition is known to begin. */
  readonly starts = new Map<number, number>();
  /** Of compacted topics. */
  readonly compacted: { readonly records: KeyedRecords; readonly readers: CompactedReaders } | undefined;
  readonly #administration: Administration;
  readonly #tide: Tide;
  #acknowledged = 0;
  #clients = 0;
  #consumers = 0;
  #values = 0;

  constructor(cluster: SimCluster, shape: WorkloadShape, random: SeededRandom) {
    this.#cluster = cluster;
    this.shape = shape;
    this.#random = random;
    if (shape.compaction !== undefined) {
      const records = new KeyedRecords(random.fork(), shape.compaction.keys);
      this.compacted = { records, readers: new CompactedReaders(cluster, records, random.fork()) };
    }
    this.#tide = new Tide(cluster.time, random.fork(), shape.rests ? shape.topics : 0);
    this.#administration = new Administration({
      open: () => this.#open(),
      random: random.fork(),
      signal: this.#stop.signal,
      topics: shape.topics,
      partitions: shape.partitions,
      brokers: cluster.machines.length,
      administers: shape.administers,
      deletesRecords: shape.deletesRecords,
      startsAt: (place, offset) => this.#startIsAtLeast(place, offset),
      failed: (error) => this.failures.push(error),
    });
  }

  /** Operations that succeeded. */
  get acknowledged(): number {
    return this.#acknowledged + this.#administration.succeeded;
  }

  /** The names of the machines that clients run on. */
  get hosts(): readonly string[] {
    return Array.from({ length: this.#clients }, (_, i) => `client-${i + 1}`);
  }

  /** Creates the topics and begins. */
  async start(): Promise<void> {
    const { topics, partitions, replicas, producers, consumers, segmentBytes, retentionBytes, retentionMs, compaction } = this.shape;
    const { client } = await this.#open();
    for (let topic = 0; topic < topics; topic++) {
      const configs = {
        'segment.bytes': String(segmentBytes),
        'retention.bytes': String(retentionBytes),
        'retention.ms': String(retentionMs),
        ...(compaction !== undefined && compactionConfigs(compaction)),
      };
      await client.admin.createTopic({ name: nameOf(topic), partitions, replicas, configs }).catch((error: unknown) => {
        // An earlier try of the same call, whose answer came too late.
        if (!(error instanceof FlotillaError) || error.code !== 'TOPIC_ALREADY_EXISTS') throw error;
      });
    }
    await client.close();
    for (let producer = 1; producer <= producers; producer++) this.#run(this.#produce(producer));
    for (let consumer = 0; consumer < consumers; consumer++) this.#run(this.#consume());
    this.#run(this.#observe());
    if (compaction !== undefined) for (let walker = 0; walker < WALKERS; walker++) this.#run(this.#walk(compaction.deleteRetentionMs));
    if (this.shape.administers || this.shape.deletesRecords) this.#run(this.#administration.run());
  }

  /** Sends one record to each partition, and waits until all are acknowledged. */
  async probe(deadlineMs: number): Promise<void> {
    const { client } = await this.#open();
    const producer = client.producer({ deliveryTimeoutMs: deadlineMs });
    const sends: Promise<unknown>[] = [];
    for (let at = 0; at < this.shape.topics * this.shape.partitions; at++) sends.push(this.#send(producer, 0, at, true));
    await Promise.all(sends);
    await client.close();
  }

  /** Ends the producers, which deliver what they hold. */
  async stopSending(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#work.splice(0));
  }

  /** Topics that were created, and not deleted, take records; those that were deleted are gone. */
  async useCreated(): Promise<void> {
    await this.#administration.finish();
  }

  /** Reads everything that was acknowledged, and not deleted on purpose, from the beginning, and ends all consumers. */
  async readBack(): Promise<void> {
    if (this.compacted !== undefined) return this.#readCompacted();
    const wanted = new Map<string, Acknowledged>();
    for (const operation of this.history)
      if (operation.type === 'send' && operation.outcome === 'ok') wanted.set(operation.value, operation);
    const { client, environment } = await this.#open();
    const consumer = client.consumer({ topics: this.#topics(), from: 'beginning', onOutOfRange: 'beginning' });
    const id = ++this.#consumers;
    const read = async () => {
      for await (const batch of consumer.batches()) {
        for (const value of this.#poll(id, batch)) wanted.delete(value);
        if (wanted.size === 0) break;
      }
    };
    const reading = read();
    // Retention goes on, so that what is waited for may go meanwhile.
    while (wanted.size > 0) {
      await sleep(environment, 1_000);
      await this.#findStarts(client);
      for (const { partition, value, offset } of wanted.values()) if (offset < (this.starts.get(partition) ?? 0)) wanted.delete(value);
    }
    await consumer.close();
    await reading;
    await this.#findStarts(client);
    this.#stopReading.abort();
    await client.close();
  }

  /** To the ends, twice: what of it is missing must have been replaced. */
  async #readCompacted(): Promise<void> {
    const { client } = await this.#open();
    for (let time = 0; time < 2; time++) {
      const consumer = client.consumer({ topics: this.#topics(), from: 'beginning', onOutOfRange: 'beginning', until: 'end' });
      const id = ++this.#consumers;
      for await (const batch of consumer.batches()) this.#poll(id, batch);
      await consumer.close();
    }
    await this.#findStarts(client);
    this.#stopReading.abort();
    await client.close();
  }

  async #findStarts(client: Client): Promise<void> {
    const { topics, partitions } = this.shape;
    const places = Array.from({ length: topics * partitions }, (_, place) => place);
    const asked = places.map((place) => ({
      topic: nameOf(Math.floor(place / partitions)),
      partition: place % partitions,
      at: 'beginning' as const,
    }));
    const starts = await client.admin.listOffsets(asked);
    for (const place of places) this.#startIsAtLeast(place, starts[place] ?? 0);
  }

  #run(work: Promise<unknown>): void {
    this.#work.push(work.catch((error: unknown) => this.failures.push(error instanceof Error ? error : new Error(messageOf(error)))));
  }

  async #open(): Promise<Host> {
    const { environment, connect } = this.#cluster.client(`client-${++this.#clients}`);
    const client = await Client.open({ environment, connect }, { bootstrap: this.#cluster.bootstrap, connectTimeoutMs: CONNECT_MS });
    return { environment, client };
  }

  async #produce(producer: number): Promise<void> {
    const { environment, client } = await this.#open();
    const { deliveryTimeoutMs, maxInFlight, maxBatchBytes, sendEveryMs, topics, partitions } = this.shape;
    const options: ProducerOptions = {
      deliveryTimeoutMs,
      maxInFlight,
      maxBatchBytes,
      requestTimeoutMs: this.#random.pick([500, 3_000, 30_000]),
    };
    const handle = client.producer(options);
    const sends: Promise<unknown>[] = [];
    let unanswered = 0;
    const answered = () => unanswered--;
    while (!this.#stop.signal.aborted) {
      const burst = this.#random.chance(0.1) ? 20 : 1;
      for (let i = 0; i < burst; i++) {
        const place = this.#random.below(topics * partitions);
        if (this.#tide.rests(Math.floor(place / partitions)) || unanswered >= MAX_UNANSWERED) continue;
        unanswered++;
        sends.push(this.#send(handle, producer, place, false).finally(answered));
      }
      await sleep(environment, this.#random.between(0, 2 * sendEveryMs * burst));
    }
    await Promise.all(sends);
    await client.close();
  }

  async #send(handle: ReturnType<Client['producer']>, producer: number, place: number, must: boolean): Promise<void> {
    const { partitions, valueBytes } = this.shape;
    const value = `${producer}.${this.#values++}`;
    const partition = place % partitions;
    // In the order of the calls, not of the answers: that is the order which the log must keep.
    const slot = this.history.push({ type: 'send', partition: place, value, producer, outcome: 'info' }) - 1;
    try {
      const padded = `${value} `.padEnd(this.#random.below(valueBytes), '.');
      const record = this.#keyed(place, value, padded);
      const { offset } = await handle.send(nameOf(Math.floor(place / partitions)), { ...record, partition });
      this.#acknowledged++;
      this.compacted?.records.seen(value, offset);
      this.history[slot] = { type: 'send', partition: place, value, producer, outcome: 'ok', offset };
      this.#endIsAtLeast(place, offset + 1);
    } catch (error) {
      if (must) throw error;
      if (!(error instanceof FlotillaError)) throw error;
      if (!ALLOWED.has(error.code)) this.failures.push(error);
      if (error.message.endsWith('it was not appended')) {
        this.history[slot] = { type: 'send', partition: place, value, producer, outcome: 'fail' };
      }
    }
  }

  /** Of a compacted topic the header says which record it is: a tombstone has no value that could. */
  #keyed(place: number, id: string, value: string) {
    const { compaction } = this.shape;
    if (this.compacted === undefined || compaction === undefined) return { value };
    const key = this.compacted.records.nextKey();
    const isTombstone = this.#random.chance(compaction.tombstones);
    this.compacted.records.sent(id, place, key, isTombstone);
    return { key, value: isTombstone ? null : value, headers: { id } };
  }

  /** Readers that change replicas all the while. */
  async #walk(deleteRetentionMs: number): Promise<void> {
    const { environment, client } = await this.#open();
    await this.compacted?.readers.walk(environment, this.#places(), deleteRetentionMs, this.#stop.signal);
    await client.close();
  }

  /** All that is there of compacted topics, on all replicas that are there, is what it must be. */
  async compareCompacted(): Promise<void> {
    const { compaction } = this.shape;
    if (this.compacted === undefined || compaction === undefined) return;
    const { environment } = this.#cluster.client('comparer');
    await this.compacted.readers.compare(environment, this.#places(), compaction.deleteRetentionMs);
  }

  #places(): readonly Place[] {
    const { topics, partitions } = this.shape;
    return Array.from({ length: topics * partitions }, (_, number) => ({
      topic: nameOf(Math.floor(number / partitions)),
      partition: number % partitions,
      number,
    }));
  }

  /**
   * Asks for the ends of all partitions, again and again. They are linearizable: never behind what was acknowledged, or answered to
   * anybody, before the question (hazard B19).
   */
  async #observe(): Promise<void> {
    const { client, environment } = await this.#open();
    const { topics, partitions } = this.shape;
    const places = Array.from({ length: topics * partitions }, (_, place) => place);
    /** Where partitions began, for this client: while nobody leads them, a replica that lags may tell another one a former start. */
    const told = new Map<number, number>();
    while (!this.#stop.signal.aborted) {
      await sleep(environment, this.#random.between(0, 200));
      const place = this.#random.pick(places);
      const floor = this.#ends.get(place) ?? 0;
      const partition = { topic: nameOf(Math.floor(place / partitions)), partition: place % partitions };
      // A question is load, too.
      if (this.#tide.rests(Math.floor(place / partitions))) continue;
      try {
        const timeoutMs = this.#random.pick(OBSERVE_MS);
        const [end = -1] = await client.admin.listOffsets([{ ...partition, at: 'end' }], { timeoutMs });
        if (end < floor) this.failures.push(new Error(`the end of partition ${place} was ${end}, after it was known to be ${floor}`));
        this.#endIsAtLeast(place, end);
        this.#acknowledged++;
        const before = told.get(place) ?? 0;
        const [start = -1] = await client.admin.listOffsets([{ ...partition, at: 'beginning' }], { timeoutMs });
        if (start < before) this.failures.push(new Error(`partition ${place} began at ${start}, after it had begun at ${before}`));
        told.set(place, start);
        this.#startIsAtLeast(place, start);
      } catch (error) {
        if (!(error instanceof FlotillaError) || error.code !== 'REQUEST_TIMED_OUT') throw error;
      }
    }
    await client.close();
  }

  #startIsAtLeast(place: number, offset: number): void {
    this.starts.set(place, Math.max(offset, this.starts.get(place) ?? 0));
  }

  #endIsAtLeast(place: number, offset: number): void {
    this.#ends.set(place, Math.max(offset, this.#ends.get(place) ?? 0));
  }

  async #consume(): Promise<void> {
    const { client, environment } = await this.#open();
    // Not awaited with the producers: it reads until all is read back.
    void this.#read(client, environment).catch((error: unknown) => {
      if (!this.#stopReading.signal.aborted) this.failures.push(error instanceof Error ? error : new Error(messageOf(error)));
    });
  }

  async #read(client: Client, environment: VirtualEnvironment): Promise<void> {
    const { signal } = this.#stopReading;
    while (!signal.aborted) {
      const id = ++this.#consumers;
      const creditBytes = this.#random.pick([4_096, 100_000, 8 << 20]);
      const consumer: Consumer = client.consumer({
        topics: this.#topics(),
        from: 'beginning',
        onOutOfRange: 'beginning',
        creditBytes,
        signal,
      });
      let left = this.#random.chance(0.3) ? this.#random.below(300) : Number.POSITIVE_INFINITY;
      for await (const batch of consumer.batches()) {
        this.#poll(id, batch);
        if (--left <= 0) break;
        if (this.#random.chance(0.02)) await sleep(environment, this.#random.between(0, 500));
      }
      await consumer.close();
    }
  }

  #poll(consumer: number, batch: { readonly topic: string; readonly partition: number; readonly records: readonly Polled[] }) {
    const partition = Number(batch.topic.slice(1)) * this.shape.partitions + batch.partition;
    const records = batch.records.map(({ offset, value, headers }) => {
      const id = text.decode(headers[0]?.value ?? value ?? undefined).split(' ')[0] ?? '';
      this.compacted?.records.seen(id, offset);
      return { offset, value: id };
    });
    this.history.push({ type: 'poll', consumer, partition, records });
    return records.map(({ value }) => value);
  }

  #topics(): string[] {
    return Array.from({ length: this.shape.topics }, (_, i) => nameOf(i));
  }
}

interface Polled {
  readonly offset: number;
  readonly value: Uint8Array | null;
  readonly headers: readonly { readonly value: Uint8Array | null }[];
}

function compactionConfigs({ deletes, dirtyRatio, deleteRetentionMs, minLagMs, maxLagMs }: CompactionShape): Record<string, string> {
  return {
    'cleanup.policy': deletes ? 'compact,delete' : 'compact',
    'min.cleanable.dirty.ratio': String(dirtyRatio),
    'delete.retention.ms': String(deleteRetentionMs),
    'min.compaction.lag.ms': String(minLagMs),
    'max.compaction.lag.ms': String(maxLagMs),
  };
}

/** Why a send may fail while the cluster is being broken; anything else is a defect. */
const ALLOWED: ReadonlySet<string> = new Set(['REQUEST_TIMED_OUT', 'OUT_OF_ORDER_SEQUENCE_NUMBER', 'CLOSED']);

const nameOf = (topic: number) => `t${topic}`;

import type { Timer } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { recordSizeBound } from '../record/builder.ts';
import { allocateProducerId, type Cluster } from './cluster.ts';
import { type MetadataCache, noSuchPartition, type TopicState } from './metadata-cache.ts';
import { PartitionQueue, type QueueOwner, type QueueSettings } from './partition-queue.ts';
import type { ProduceStream } from './produce-stream.ts';
import { ProduceStreams } from './produce-streams.ts';
import type { ProducerBatch, RecordMetadata, Waiting } from './producer-batch.ts';
import { checkOptions, MAX_RECORD_BYTES, type ProducerOptions, type SendOptions } from './producer-options.ts';
import { bytesOf, DefaultPartitioner, type EncodedRecord, headersOf, type Partitioner, type ProducerRecord } from './records.ts';
import { abortable, Deferred, sleep, throwIfAborted, withDeadline } from './wait.ts';

export const DEFAULT_CLOSE_DEADLINE_MS = 10_000;
/** Calls of `send` that may wait for space. Beyond, `send` rejects with THROTTLING_QUOTA_EXCEEDED: await it, or `ready()`. */
export const MAX_WAITING_SENDS = 100_000;
const SWEEP_MS = 250;

interface TopicQueues {
  state: TopicState;
  readonly producerId: number;
  /** By partition number. */
  readonly queues: PartitionQueue[];
}

interface Held {
  readonly record: EncodedRecord;
  readonly size: number;
  /** Monotonic milliseconds of its `send`: its delivery time runs from there. */
  readonly sinceMs: number;
  readonly waiting: Waiting | undefined;
}

interface UnresolvedTopic {
  readonly held: Held[];
  readonly resolved: Promise<void>;
  /** Why the last try failed. */
  failure?: FlotillaError;
}

interface Blocked extends Held {
  readonly topic: string;
  readonly promise: Promise<RecordMetadata>;
}

// The ends of the promise made last: one executor for all, so that a record costs no closure.
let madeResolve: (metadata: RecordMetadata) => void;
let madeReject: (error: unknown) => void;
function keepEnds(resolve: (metadata: RecordMetadata) => void, reject: (error: unknown) => void): void {
  madeResolve = resolve;
  madeReject = reject;
}

/**
 * Sends records. Made by {@link Client.producer}; one for a whole application is right.
 * Records of one partition keep the order of their `send` calls.
 */
export class Producer implements QueueOwner, AsyncDisposable {
  readonly settings: QueueSettings;
  readonly #cluster: Cluster;
  readonly #partitioner: Partitioner | undefined;
  readonly #defaultPartitioner: DefaultPartitioner;
  readonly #maxBufferedBytes: number;
  readonly #topics = new Map<string, TopicQueues>();
  readonly #unresolved = new Map<string, UnresolvedTopic>();
  readonly #streams: ProduceStreams;
  readonly #onClosed: (producer: Producer) => void;
  readonly #unsubscribe: () => void;
  /** In the order of their calls. A set, since the first of a hundred thousand leaves it as fast as the last. */
  readonly #blocked = new Set<Blocked>();
  #space: Deferred<void> | undefined;
  #bufferedBytes = 0;
  #producerId: Promise<number> | undefined;
  #sweepTimer: Timer | undefined;
  #enqueueFailure: FlotillaError | undefined;
  readonly #closing = new AbortController();
  #draining = false;
  #closed: Promise<void> | undefined;

  /** @internal use {@link Client.producer} */
  constructor(cluster: Cluster, options: ProducerOptions, onClosed: (producer: Producer) => void) {
    this.#cluster = cluster;
    this.#onClosed = onClosed;
    const { queues, streams, maxBufferedBytes } = checkOptions(options, cluster.codecs);
    this.settings = queues;
    this.#streams = new ProduceStreams(cluster, streams);
    this.#partitioner = options.partitioner;
    this.#defaultPartitioner = new DefaultPartitioner(cluster.environment.uint32());
    this.#maxBufferedBytes = maxBufferedBytes;
    this.#unsubscribe = cluster.metadata.subscribe(() => {
      for (const { queues } of this.#topics.values()) for (const queue of queues) queue.metadataChanged();
    });
  }

  /** Bytes of records that are not yet acknowledged. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /**
   * Sends a record; resolves when it is acknowledged as `acks` asks. Need not be awaited one by one: what is sent meanwhile shares batches.
   * Waits for space first when `maxBufferedBytes` is reached.
   * @throws FlotillaError UNKNOWN_TOPIC_OR_PARTITION, MESSAGE_TOO_LARGE, INVALID_RECORD, INVALID_TIMESTAMP, REQUEST_TIMED_OUT (deliveryTimeoutMs; the message says
   *   whether it may have been appended), OUT_OF_ORDER_SEQUENCE_NUMBER (the same doubt, see its message), THROTTLING_QUOTA_EXCEEDED
   *   (100,000 calls wait already), CLOSED, ABORTED
   */
  send(topic: string, record: ProducerRecord, options?: SendOptions): Promise<RecordMetadata> {
    let promise: Promise<RecordMetadata>;
    try {
      throwIfAborted(options?.signal);
      this.#assertOpen();
      const encoded = this.#encode(record);
      const size = recordSizeBound(encoded.key, encoded.value, encoded.headers);
      this.#assertFits(size);
      promise = new Promise<RecordMetadata>(keepEnds);
      const waiting: Waiting = { resolve: madeResolve, reject: madeReject, index: 0, timestamp: 0 };
      if (this.#hasSpace(size)) this.#accept(topic, encoded, size, waiting);
      else this.#block({ topic, record: encoded, size, waiting, promise, sinceMs: this.environment.monotonicMs() }, options?.signal);
    } catch (error) {
      return Promise.reject(error);
    }
    return options?.signal ? abortable(promise, options.signal) : promise;
  }

  /**
   * Sends records and waits for all of them. One result a record, in their order, as of Promise.allSettled: a record that failed says so
   * in its own place (`reason` is a FlotillaError as in {@link send}).
   */
  sendBatch(topic: string, records: readonly ProducerRecord[], options?: SendOptions): Promise<PromiseSettledResult<RecordMetadata>[]> {
    return Promise.allSettled(records.map((record) => this.send(topic, record, options)));
  }

  /**
   * Fire and forget: takes the record if there is space. False: it was not taken, as `maxBufferedBytes` is reached; `await ready()` and
   * enqueue it again. What fails later is thrown by {@link flush}.
   * @throws FlotillaError MESSAGE_TOO_LARGE, INVALID_RECORD, INVALID_TIMESTAMP, CLOSED
   */
  enqueue(topic: string, record: ProducerRecord): boolean {
    this.#assertOpen();
    const encoded = this.#encode(record);
    const size = recordSizeBound(encoded.key, encoded.value, encoded.headers);
    this.#assertFits(size);
    if (!this.#hasSpace(size)) return false;
    this.#accept(topic, encoded, size, undefined);
    return true;
  }

  /** Resolves when at least half of `maxBufferedBytes` is free. */
  async ready(options?: SendOptions): Promise<void> {
    while (this.#blocked.size > 0 || this.#bufferedBytes > this.#maxBufferedBytes / 2) {
      this.#assertOpen();
      this.#space ??= new Deferred();
      await abortable(this.#space.promise, options?.signal);
    }
  }

  /**
   * Resolves when every record given before is acknowledged or has failed.
   * @throws the first failure of an enqueued record since the last flush; ABORTED
   */
  async flush(options?: SendOptions): Promise<void> {
    throwIfAborted(options?.signal);
    await abortable(this.#settledNow(), options?.signal);
    const failure = this.#enqueueFailure;
    this.#enqueueFailure = undefined;
    if (failure) throw failure;
  }

  /**
   * Takes no more records, waits for the acknowledgement of those it has, and ends its streams. What is not acknowledged after `deadlineMs`
   * (default 10,000) fails with CLOSED. Never takes longer, even with the whole cluster gone.
   */
  close(options?: { readonly deadlineMs?: number | undefined }): Promise<void> {
    this.#closed ??= this.#close(options?.deadlineMs ?? DEFAULT_CLOSE_DEADLINE_MS);
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // What its queues ask of it

  /** @internal */
  get environment(): Cluster['environment'] {
    return this.#cluster.environment;
  }

  /** @internal */
  get metadata(): MetadataCache {
    return this.#cluster.metadata;
  }

  /** @internal */
  streamTo(address: string): ProduceStream {
    return this.#streams.to(address);
  }

  /** @internal */
  newProducerId(): Promise<number> {
    return allocateProducerId(this.#cluster, { signal: this.#closing.signal });
  }

  /** @internal */
  settled(batch: ProducerBatch, error: FlotillaError | undefined): void {
    if (error && batch.unawaited > 0) this.#enqueueFailure ??= error;
    this.#release(batch.bufferedBytes);
  }

  // Taking records in

  #encode(record: ProducerRecord): EncodedRecord {
    const { timestamp } = record;
    if (timestamp !== undefined && !(Number.isSafeInteger(timestamp) && timestamp >= 0)) {
      throw new FlotillaError('INVALID_TIMESTAMP', `a timestamp is whole milliseconds since the epoch, not ${timestamp}`);
    }
    return {
      key: bytesOf(record.key),
      value: bytesOf(record.value),
      headers: headersOf(record.headers),
      timestamp,
      partition: record.partition,
    };
  }

  #assertOpen(): void {
    if (this.#draining) throw new FlotillaError('CLOSED', 'the producer is closed');
  }

  #assertFits(size: number): void {
    if (size > MAX_RECORD_BYTES) {
      throw new FlotillaError(
        'MESSAGE_TOO_LARGE',
        `a record of ${size} bytes: brokers take at most ${MAX_RECORD_BYTES}, whatever their message.max.bytes; store it elsewhere and send a reference`,
      );
    }
    if (size <= this.#maxBufferedBytes) return;
    throw new FlotillaError('MESSAGE_TOO_LARGE', `a record of ${size} bytes is larger than maxBufferedBytes (${this.#maxBufferedBytes})`);
  }

  #hasSpace(size: number): boolean {
    return this.#blocked.size === 0 && this.#bufferedBytes + size <= this.#maxBufferedBytes;
  }

  #block(blocked: Blocked, signal: AbortSignal | undefined): void {
    if (this.#blocked.size >= MAX_WAITING_SENDS) {
      throw new FlotillaError(
        'THROTTLING_QUOTA_EXCEEDED',
        `${MAX_WAITING_SENDS} sends wait for space: await send() or ready() before sending more`,
      );
    }
    this.#blocked.add(blocked);
    this.#sweep();
    if (signal === undefined) return;
    const onAbort = () => {
      if (!this.#blocked.delete(blocked)) return;
      blocked.waiting?.reject(new FlotillaError('ABORTED', 'the call was aborted before the record was taken'));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    const detach = () => signal.removeEventListener('abort', onAbort);
    blocked.promise.then(detach, detach);
  }

  /** `sinceMs`: of a record that waited for space; the others come straight from their `send`. */
  #accept(name: string, record: EncodedRecord, size: number, waiting: Waiting | undefined, sinceMs?: number): void {
    this.#bufferedBytes += size;
    const topic = this.#topics.get(name);
    if (topic) {
      this.#append(topic, record, size, waiting, sinceMs);
      return;
    }
    let unresolved = this.#unresolved.get(name);
    if (unresolved === undefined) {
      const held: Held[] = [];
      unresolved = { held, resolved: this.#resolve(name, held) };
      this.#unresolved.set(name, unresolved);
    }
    unresolved.held.push({ record, size, waiting, sinceMs: sinceMs ?? this.environment.monotonicMs() });
    this.#sweep();
  }

  #append(topic: TopicQueues, record: EncodedRecord, size: number, waiting: Waiting | undefined, sinceMs?: number): void {
    const { name } = topic.state;
    const newest = this.metadata.cached(name);
    if (newest && newest !== topic.state) {
      topic.state = newest;
      this.#openQueues(topic);
    }
    const count = topic.state.partitions.length;
    let partition: number;
    try {
      const chosen = record.partition ?? this.#partitioner?.(name, record.key, count);
      partition = chosen ?? this.#defaultPartitioner.partition(name, record.key, size, count);
      if (!(Number.isInteger(partition) && partition >= 0 && partition < count)) throw noSuchPartition(topic.state, partition);
    } catch (error) {
      // A partitioner is the application's own code: it must fail no more than its record.
      const failed = () => new FlotillaError('INVALID_RECORD', `the partitioner failed: ${messageOf(error)}`, { cause: error });
      this.#refuse(size, waiting, error instanceof FlotillaError ? error : failed());
      return;
    }
    const queue = topic.queues[partition];
    if (queue === undefined) return;
    queue.append(record.key, record.value, record.headers, record.timestamp ?? this.environment.wallMs(), size, waiting, sinceMs);
    this.#sweep();
  }

  /** Fails a record that was taken and is in no batch. */
  #refuse(size: number, waiting: Waiting | undefined, error: FlotillaError): void {
    if (waiting) waiting.reject(error);
    else this.#enqueueFailure ??= error;
    this.#release(size);
  }

  #openQueues(topic: TopicQueues): void {
    for (let partition = topic.queues.length; partition < topic.state.partitions.length; partition++) {
      topic.queues.push(new PartitionQueue(this, topic.state, partition, topic.producerId));
    }
  }

  /** Finds the topic and a producer id, then appends what was held meanwhile. */
  async #resolve(name: string, held: Held[]): Promise<void> {
    const { signal } = this.#closing;
    for (;;) {
      try {
        const state = await abortable(this.metadata.topic(name), signal);
        let producerId = -1;
        if (this.settings.idempotent) {
          this.#producerId ??= this.newProducerId();
          producerId = await this.#producerId;
        }
        const topic: TopicQueues = { state, producerId, queues: [] };
        this.#openQueues(topic);
        this.#topics.set(name, topic);
        this.#unresolved.delete(name);
        for (const { record, size, waiting, sinceMs } of held) this.#append(topic, record, size, waiting, sinceMs);
        return;
      } catch (error) {
        this.#producerId = undefined;
        const retriable = error instanceof FlotillaError && error.retriable && error.code !== 'UNKNOWN_TOPIC_OR_PARTITION';
        const failure = error instanceof FlotillaError ? error : new FlotillaError('UNKNOWN_SERVER_ERROR', String(error), { cause: error });
        // Retriable, it is tried again for as long as anything waits for it.
        if (!retriable || signal.aborted || held.length === 0) return this.#dropHeld(name, held, failure);
        const unresolved = this.#unresolved.get(name);
        if (unresolved) unresolved.failure = failure;
        await sleep(this.environment, SWEEP_MS, signal).catch(() => {});
      }
    }
  }

  #dropHeld(name: string, held: Held[], error: FlotillaError): void {
    this.#unresolved.delete(name);
    for (const { size, waiting } of held.splice(0)) this.#refuse(size, waiting, error);
  }

  #release(bytes: number): void {
    this.#bufferedBytes -= bytes;
    for (const next of this.#blocked) {
      if (this.#bufferedBytes + next.size > this.#maxBufferedBytes) break;
      this.#blocked.delete(next);
      this.#accept(next.topic, next.record, next.size, next.waiting, next.sinceMs);
    }
    if (this.#space && this.#blocked.size === 0 && this.#bufferedBytes <= this.#maxBufferedBytes / 2) {
      this.#space.resolve();
      this.#space = undefined;
    }
  }

  // Time

  /** Looks after deadlines and silent brokers for as long as anything is unacknowledged. */
  #sweep(): void {
    this.#sweepTimer ??= this.environment.after(SWEEP_MS, () => {
      this.#sweepTimer = undefined;
      if (this.#bufferedBytes === 0) return;
      const nowMs = this.environment.monotonicMs();
      this.#expireWaiting(nowMs);
      for (const { queues } of this.#topics.values()) for (const queue of queues) queue.expire(nowMs);
      this.#streams.check(nowMs);
      this.#sweep();
    });
  }

  /** Gives up what has waited for space, or for its topic to be found, as long as a delivery may take. */
  #expireWaiting(nowMs: number): void {
    const { deliveryTimeoutMs } = this.settings;
    const before = nowMs - deliveryTimeoutMs;
    const late = (why: string) =>
      new FlotillaError(
        'REQUEST_TIMED_OUT',
        `not acknowledged within deliveryTimeoutMs (${deliveryTimeoutMs} ms): ${why}; it was not appended`,
      );
    for (const blocked of this.#blocked) {
      if (blocked.sinceMs > before) break;
      this.#blocked.delete(blocked);
      blocked.waiting?.reject(late('it waited for space, since the records before it are not acknowledged either'));
    }
    for (const [name, { held, failure }] of this.#unresolved) {
      const fresh = held.findIndex(({ sinceMs }) => sinceMs > before);
      const error = late(failure?.message ?? `no broker has told where '${name}' is, or given a producer id`);
      for (const { size, waiting } of held.splice(0, fresh < 0 ? held.length : fresh)) this.#refuse(size, waiting, error);
    }
  }

  #settledNow(): Promise<unknown> {
    const waits: Promise<unknown>[] = [...this.#blocked].map(({ promise }) => promise.catch(() => {}));
    const batches = (queues: readonly PartitionQueue[]) => queues.flatMap((queue) => queue.unsettled().map((batch) => batch.done()));
    for (const [name, { resolved }] of this.#unresolved) {
      waits.push(resolved.then(() => Promise.all(batches(this.#topics.get(name)?.queues ?? []))));
    }
    for (const { queues } of this.#topics.values()) waits.push(...batches(queues));
    return Promise.all(waits);
  }

  async #close(deadlineMs: number): Promise<void> {
    this.#draining = true;
    const late = () => new FlotillaError('CLOSED', 'not acknowledged before the close deadline');
    await withDeadline(this.environment, deadlineMs, this.#settledNow(), late).catch(() => {});
    const error = new FlotillaError('CLOSED', 'the producer was closed before the record was acknowledged; it may have been appended');
    this.#closing.abort(error);
    this.#unsubscribe();
    this.#sweepTimer?.cancel();
    for (const { waiting } of this.#blocked) waiting?.reject(error);
    this.#blocked.clear();
    for (const [name, { held }] of this.#unresolved) this.#dropHeld(name, held, error);
    for (const { queues } of this.#topics.values()) for (const queue of queues) queue.close(error);
    this.#streams.cancel();
    this.#space?.reject(error);
    this.#onClosed(this);
  }
}

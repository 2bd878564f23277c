import type { Timer } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import type { FetchResult } from '../gen/flotilla/v1/data_pb.ts';
import { type Cluster, fromWire, isRetriable } from './cluster.ts';
import { type ConsumedBatch, type ConsumerRecord, FetchBuffer } from './fetch-buffer.ts';
import { FetchStream, type FetchStreamOwner } from './fetch-stream.ts';
import type { FetchedPartition } from './fetched-partition.ts';
import { noSuchPartition } from './metadata-cache.ts';
import { checkWhere, type Isolation, isolationLevel, type Where } from './offsets.ts';
import { Positions } from './positions.ts';
import { abortError, backoffMs, Deferred } from './wait.ts';

export interface ConsumerOptions {
  /** Topics with all their partitions, or with some. At least one. */
  readonly topics: readonly (string | { readonly topic: string; readonly partitions?: readonly number[] | undefined })[];
  /** Where to start in each partition; `time` in milliseconds since the epoch. Default: 'end'. */
  readonly from?: Where | undefined;
  /**
   * 'end': iterations end when each partition was read up to the end that it had when the consumer began; with the last records, later ones may come. No record need
   * be there at the end: of a compacted topic the last ones may be gone. Default: iterations go on for ever.
   */
  readonly until?: 'end' | undefined;
  /** Default: read_uncommitted (all that is replicated; records of transactions before they end). */
  readonly isolation?: Isolation | undefined;
  /** Bytes that each broker may send ahead of what the application has consumed. Default 8 MiB. */
  readonly creditBytes?: number | undefined;
  /**
   * A position that the partition no longer (or not yet) has, as also when its topic was deleted and created again: go to its beginning or end.
   * Default: throw {@link OffsetOutOfRangeError}.
   */
  readonly onOutOfRange?: 'beginning' | 'end' | undefined;
  /** Verify each batch's CRC32C. Default: true. */
  readonly checkCrcs?: boolean | undefined;
  /** Ends the iteration with ABORTED and closes the consumer. */
  readonly signal?: AbortSignal | undefined;
}

export const DEFAULT_CREDIT_BYTES = 8 << 20;
/** How often the watchdog looks at the streams. */
const WATCHDOG_MS = 500;
/** The leaders of a stream that was silent for so long are asked for: they may have moved without its broker knowing. Idle partitions are silent, too. */
const SILENCE_MS = 1_000;
/** After so long without a word its broker itself is asked whether it is still there. */
const LOST_MS = 4_000;

/** Failures in a row after which a partition is read at another replica than its leader. */
const LEADER_ATTEMPTS = 3;

/** The position is outside of the partition. */
export class OffsetOutOfRangeError extends FlotillaError {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  /** The first offset that is there. */
  readonly start: number;
  /** The offset after the last record. */
  readonly end: number;
  constructor(partition: FetchedPartition, start: number, end: number, recreated: boolean) {
    const { topic, position } = partition;
    const what = recreated
      ? `was deleted and created again: its offsets ${start} to ${end} have nothing to do with ${position}`
      : `has offsets ${start} to ${end}, not ${position}`;
    super('OFFSET_OUT_OF_RANGE', `${topic}-${partition.partition} ${what}: seek(), or set onOutOfRange to 'beginning' or 'end'`);
    this.topic = topic;
    this.partition = partition.partition;
    this.offset = position;
    this.start = start;
    this.end = end;
  }
}

/**
 * Reads records as they commit, in order within each partition. Made by {@link Client.consumer}.
 * Brokers push; what may lie in memory is bounded by `creditBytes` for each broker. Every error is retried with backoff or thrown from
 * the iterator. Leaving a loop with `break` keeps the consumer: iterate again to go on, close it to end.
 */
export class Consumer implements FetchStreamOwner, AsyncIterable<ConsumerRecord>, AsyncDisposable {
  readonly #cluster: Cluster;
  readonly #options: ConsumerOptions;
  readonly #partitions: FetchedPartition[] = [];
  readonly #streams = new Map<string, FetchStream>();
  readonly #buffer: FetchBuffer;
  readonly #positions: Positions;
  readonly #onClosed: (consumer: Consumer) => void;
  readonly #started: Promise<void>;
  readonly #closing = new AbortController();
  readonly #onAbort: () => void;
  #arrival: Deferred<void> | undefined;
  #failure: FlotillaError | undefined;
  #watchdog: Timer | undefined;
  #closed = false;

  /** @internal use {@link Client.consumer} */
  constructor(cluster: Cluster, options: ConsumerOptions, onClosed: (consumer: Consumer) => void) {
    if (options.topics.length === 0) throw new FlotillaError('INVALID_REQUEST', 'a consumer needs at least one topic');
    if (options.from !== undefined) checkWhere('from', options.from);
    const { creditBytes = DEFAULT_CREDIT_BYTES } = options;
    if (!(Number.isSafeInteger(creditBytes) && creditBytes > 0)) {
      throw new FlotillaError('INVALID_REQUEST', `creditBytes is a whole number above 0, not ${creditBytes}: leave it out for 8 MiB`);
    }
    this.#cluster = cluster;
    this.#options = options;
    this.#onClosed = onClosed;
    this.#buffer = new FetchBuffer(cluster.codecs, options.checkCrcs ?? true);
    this.#positions = new Positions(cluster, options.isolation, this.#closing.signal);
    this.#onAbort = () => {
      if (options.signal) this.#fail(abortError(options.signal));
    };
    options.signal?.addEventListener('abort', this.#onAbort, { once: true });
    this.#started = this.#start();
    this.#started.catch((error: unknown) => this.#fail(error));
    if (options.signal?.aborted) this.#onAbort();
    else this.#watch();
  }

  /**
   * The records one by one. Keys and values are views into what came over the wire: copy what you keep for long.
   * @throws {@link OffsetOutOfRangeError}; FlotillaError UNKNOWN_TOPIC_OR_PARTITION, CORRUPT_MESSAGE, UNSUPPORTED_COMPRESSION_TYPE, ABORTED
   */
  [Symbol.asyncIterator](): AsyncIterator<ConsumerRecord> {
    return this.#iterate(() => this.#buffer.nextRecord());
  }

  /** The record batches as producers made them: decoded when `records` is read. Throws as the iteration over records does. */
  batches(): AsyncIterableIterator<ConsumedBatch> {
    const iterator = this.#iterate(() => this.#buffer.nextBatch());
    return {
      ...iterator,
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /**
   * Goes on elsewhere; what was buffered of the partition is dropped. With an offset it has effect at once, otherwise when it resolves.
   * @throws FlotillaError INVALID_REQUEST (not a partition of this consumer), REQUEST_TIMED_OUT (30 s), CLOSED
   */
  async seek(topic: string, partition: number, to: number | Where): Promise<void> {
    if (this.#partitions.length === 0) await this.#started;
    this.#assertOpen();
    const target = this.#find(topic, partition);
    const where = typeof to === 'number' ? { offset: to } : to;
    checkWhere('seek', where);
    if (typeof where === 'object' && 'offset' in where) return this.#moveTo(target, where.offset);
    const life = target.life;
    const [offset] = await this.#positions.find([target], where);
    if (target.life === life && offset !== undefined) this.#moveTo(target, offset);
  }

  /** Stops delivery of a topic's partitions (default: all of them); what was buffered is fetched again after `resume`. */
  async pause(topic: string, partitions?: readonly number[]): Promise<void> {
    if (this.#partitions.length === 0) await this.#started;
    for (const partition of this.#select(topic, partitions)) {
      if (partition.paused) continue;
      partition.paused = true;
      this.#detach(partition);
      partition.moveTo(partition.position);
      this.#buffer.prune();
    }
  }

  /** Goes on where `pause` stopped. */
  async resume(topic: string, partitions?: readonly number[]): Promise<void> {
    if (this.#partitions.length === 0) await this.#started;
    for (const partition of this.#select(topic, partitions)) {
      if (!partition.paused) continue;
      partition.paused = false;
      void this.#route(partition);
    }
  }

  /** The offset of the next record; undefined before the start is known. */
  position(topic: string, partition: number): number | undefined {
    const { position } = this.#find(topic, partition);
    return position < 0 ? undefined : position;
  }

  /** The highest high watermark that any replica has told; undefined before the first. Never goes back. */
  highWatermark(topic: string, partition: number): number | undefined {
    return this.#find(topic, partition).highWatermark;
  }

  /** Records between the position and the high watermark: of one partition, of a topic, or of all. Partitions not yet heard of count 0. */
  lag(topic?: string, partition?: number): number {
    let lag = 0;
    for (const each of this.#partitions) {
      if (topic !== undefined && each.topic !== topic) continue;
      if (partition !== undefined && each.partition !== partition) continue;
      if (each.highWatermark !== undefined && each.position >= 0) lag += Math.max(0, each.highWatermark - each.position);
    }
    return lag;
  }

  /** Ends its streams at once and the iteration with them. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#closing.abort(new FlotillaError('CLOSED', 'the consumer is closed'));
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#watchdog?.cancel();
    for (const partition of this.#partitions) partition.retryTimer?.cancel();
    for (const stream of [...this.#streams.values()]) stream.cancel();
    this.#buffer.clear();
    this.#arrived();
    this.#onClosed(this);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // What its streams tell

  /** @internal */
  received(partition: FetchedPartition, result: FetchResult, stream: FetchStream): void {
    if (result.error) {
      stream.consumed(result.recordBatches.length);
      partition.stream = undefined;
      partition.generation++;
      const error = fromWire(result.error);
      if (error.code === 'OFFSET_OUT_OF_RANGE') void this.#outOfRange(partition);
      else if (!isRetriable(result.error)) this.#fail(error);
      else {
        const { leader } = result.error;
        const moved = leader !== undefined && this.#cluster.metadata.applyHint(partition.topic, partition.partition, leader);
        partition.attempt++;
        if (moved && partition.attempt <= 3) void this.#route(partition);
        else this.#retryLater(partition);
      }
      return;
    }
    partition.attempt = 0;
    partition.highWatermark = Math.max(partition.highWatermark ?? 0, Number(result.highWatermark));
    partition.aborted.add(result.aborted);
    const nextOffset = Number(result.nextOffset);
    if (nextOffset < partition.fetchOffset) {
      stream.consumed(result.recordBatches.length);
      return;
    }
    partition.fetchOffset = nextOffset;
    this.#buffer.add(partition, result.recordBatches, nextOffset, stream);
    this.#arrived();
  }

  /** @internal */
  streamBroke(stream: FetchStream, partitions: readonly FetchedPartition[]): void {
    if (this.#streams.get(stream.address) === stream) this.#streams.delete(stream.address);
    for (const partition of partitions) {
      if (partition.stream !== stream) continue;
      partition.stream = undefined;
      partition.generation++;
      partition.attempt++;
      this.#retryLater(partition);
    }
  }

  // Iteration

  #iterate<T>(take: () => T | undefined): AsyncIterator<T> & { return(): Promise<IteratorResult<T>> } {
    const wait = async (): Promise<IteratorResult<T>> => {
      for (;;) {
        if (this.#closed && this.#failure === undefined) return { done: true, value: undefined };
        const value = take();
        if (value !== undefined) return { done: false, value };
        if (this.#failure === undefined && this.#hasReadAll()) return { done: true, value: undefined };
        if (this.#failure !== undefined) {
          const failure = this.#failure;
          await this.close();
          throw failure;
        }
        for (const stream of this.#streams.values()) stream.grant();
        this.#arrival ??= new Deferred();
        await this.#arrival.promise;
      }
    };
    return {
      next: () => {
        if (this.#closed) return wait();
        try {
          const value = take();
          return value === undefined ? wait() : Promise.resolve({ done: false, value });
        } catch (error) {
          // A damaged batch: the position stays before it.
          return Promise.reject(error);
        }
      },
      return: () => Promise.resolve({ done: true, value: undefined }),
    };
  }

  #hasReadAll(): boolean {
    const { until } = this.#options;
    return until === 'end' && this.#partitions.length > 0 && this.#partitions.every(({ position, end }) => position >= end);
  }

  #arrived(): void {
    this.#arrival?.resolve();
    this.#arrival = undefined;
  }

  #fail(error: unknown): void {
    if (this.#closed) return;
    this.#failure ??=
      error instanceof FlotillaError ? error : new FlotillaError('UNKNOWN_SERVER_ERROR', messageOf(error), { cause: error });
    if (this.#failure.code === 'ABORTED') void this.close();
    this.#arrived();
  }

  #assertOpen(): void {
    if (this.#closed) throw this.#failure ?? new FlotillaError('CLOSED', 'the consumer is closed');
  }

  // Positions

  async #start(): Promise<void> {
    const { topics, from, until } = this.#options;
    const partitions = await this.#positions.partitionsOf(topics);
    const offsets = await this.#positions.findPersistently(partitions, from ?? 'end');
    const ends = until === undefined ? [] : await this.#positions.findPersistently(partitions, 'end');
    if (this.#closed) return;
    this.#partitions.push(...partitions);
    for (const [index, partition] of partitions.entries()) {
      partition.moveTo(offsets[index] ?? 0);
      partition.end = ends[index] ?? 0;
      void this.#route(partition);
    }
    this.#arrived();
  }

  async #outOfRange(partition: FetchedPartition, recreated = false): Promise<void> {
    const { life } = partition;
    try {
      const [start] = await this.#positions.findPersistently([partition], 'beginning');
      const [end] = await this.#positions.findPersistently([partition], 'end');
      if (this.#closed || partition.life !== life || start === undefined || end === undefined) return;
      partition.end = Math.min(partition.end, end);
      // The end that an older answer did not know yet: no reason to lose the place.
      const inRange = partition.fetchOffset >= start && partition.fetchOffset <= end;
      if (inRange && !recreated) return this.#retryLater(partition);
      const { onOutOfRange } = this.#options;
      if (onOutOfRange === undefined) return this.#fail(new OffsetOutOfRangeError(partition, start, end, recreated));
      this.#moveTo(partition, onOutOfRange === 'beginning' ? start : end);
    } catch (error) {
      this.#fail(error);
    }
  }

  #moveTo(partition: FetchedPartition, offset: number): void {
    partition.moveTo(offset);
    this.#buffer.prune();
    if (partition.paused) return;
    if (partition.stream) partition.stream.set(partition);
    else void this.#route(partition);
  }

  #find(topic: string, partition: number): FetchedPartition {
    const found = this.#partitions.find((each) => each.topic === topic && each.partition === partition);
    if (found) return found;
    throw new FlotillaError('INVALID_REQUEST', `this consumer does not (yet) read ${topic}-${partition}`);
  }

  #select(topic: string, partitions: readonly number[] | undefined): FetchedPartition[] {
    this.#assertOpen();
    if (partitions) return partitions.map((partition) => this.#find(topic, partition));
    return this.#partitions.filter((each) => each.topic === topic);
  }

  // Routing

  #detach(partition: FetchedPartition): void {
    partition.retryTimer?.cancel();
    partition.retryTimer = undefined;
    partition.stream?.remove(partition);
    partition.stream = undefined;
  }

  #retryLater(partition: FetchedPartition): void {
    if (this.#closed || partition.paused) return;
    const { environment } = this.#cluster;
    partition.retryTimer ??= environment.after(backoffMs(environment, Math.max(1, partition.attempt)), () => {
      partition.retryTimer = undefined;
      void this.#route(partition, true);
    });
  }

  /**
   * Where to read: at the leader; when it has failed for a few times, at each replica in turn. Any replica serves what it knows to be
   * committed, so reading goes on when there is no leader and no majority to elect one.
   */
  #addressFor({ topic, partition, attempt }: FetchedPartition): string {
    const replicas = this.#cluster.metadata.replicas(topic, partition);
    const address = replicas[attempt < LEADER_ATTEMPTS ? 0 : (attempt - LEADER_ATTEMPTS + 1) % replicas.length];
    if (address === undefined) throw new FlotillaError('BROKER_NOT_AVAILABLE', 'no replica is known now');
    return address;
  }

  /** Finds a replica, by preference the leader, and reads on there. */
  async #route(partition: FetchedPartition, refresh = false): Promise<void> {
    if (partition.routing || partition.retryTimer) return;
    const { metadata, environment, channels } = this.#cluster;
    partition.routing = true;
    try {
      if (refresh) await metadata.refresh();
      const topic = await metadata.topic(partition.topic, this.#closing.signal);
      if (this.#closed || partition.paused) return;
      if (topic.partitions[partition.partition] === undefined) throw noSuchPartition(topic, partition.partition);
      if (topic.id !== partition.id) {
        partition.adopt(topic);
        this.#buffer.prune();
        return void this.#outOfRange(partition, true);
      }
      const address = this.#addressFor(partition);
      let stream = this.#streams.get(address);
      if (stream === undefined) {
        const { creditBytes = DEFAULT_CREDIT_BYTES, isolation } = this.#options;
        stream = new FetchStream(environment, channels.get(address), { creditBytes, isolation: isolationLevel(isolation) }, this);
        if (stream.closed) throw new FlotillaError('NETWORK_EXCEPTION', `${address} can't be reached`);
        this.#streams.set(address, stream);
      }
      partition.stream = stream;
      partition.generation++;
      stream.set(partition);
    } catch (error) {
      const retriable = error instanceof FlotillaError && error.retriable && error.code !== 'UNKNOWN_TOPIC_OR_PARTITION';
      if (!retriable) return this.#fail(error);
      partition.attempt++;
      this.#retryLater(partition);
    } finally {
      partition.routing = false;
    }
  }

  /** Looks after streams that say nothing: a cut that TCP does not tell, a broker that was stopped, or one that lost its cluster. */
  #watch(): void {
    const { environment, metadata } = this.#cluster;
    this.#watchdog = environment.after(WATCHDOG_MS, async () => {
      const nowMs = environment.monotonicMs();
      const silent = [...this.#streams.values()].filter(
        (stream) => nowMs - Math.max(stream.lastHeardMs, stream.lastCheckedMs) >= SILENCE_MS,
      );
      for (const stream of silent) {
        stream.lastCheckedMs = nowMs;
        if (nowMs - stream.lastHeardMs >= LOST_MS) void this.#ask(stream);
      }
      if (silent.length > 0) await metadata.refresh().catch(() => {});
      if (this.#closed) return;
      for (const stream of silent) void this.#followLeaders(stream);
      this.#watch();
    });
  }

  /** Partitions of the stream that are led elsewhere, as others say, are read there, if that leader is there. */
  async #followLeaders(stream: FetchStream): Promise<void> {
    for (const partition of [...stream.partitions]) {
      const leader = this.#cluster.metadata.leader(partition.topic, partition.partition);
      if (leader === undefined || leader.address === stream.address || !(await this.#answers(leader.address))) continue;
      if (partition.stream !== stream) continue;
      this.#detach(partition);
      void this.#route(partition);
    }
  }

  async #ask(stream: FetchStream): Promise<void> {
    stream.lastHeardMs = this.#cluster.environment.monotonicMs();
    if (!(await this.#answers(stream.address))) stream.cancel();
  }

  async #answers(address: string): Promise<boolean> {
    try {
      await this.#cluster.metadata.ask(address, [], this.#closing.signal);
      return true;
    } catch {
      return false;
    }
  }
}

/**
 * One partition's records on their way: batched, numbered, sent in order and resolved.
 *
 * Idempotence. A batch takes its sequence when it is first sent, and keeps it through every retry, so the broker drops what it has already
 * appended. Retries rewind: nothing new is sent until all that is in flight is answered (or its stream is gone), then everything
 * unresolved is sent again in order. Sequences break only when a batch that may have been sent is given up (its delivery time is over, or
 * the broker refused it for good), or when the broker has lost the producer's state. Then the partition goes on under a new producer
 * id, and only when no batch is left that an earlier attempt may have appended: a duplicate is never made silently.
 */
import type { Environment, Timer } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import type { ProduceResult } from '../gen/flotilla/v1/data_pb.ts';
import { stampProducer } from '../record/batch.ts';
import { BatchBuilder } from '../record/builder.ts';
import type { Compression, Crc32c, RecordHeader } from '../record/types.ts';
import { fromWire, isRetriable } from './cluster.ts';
import { type MetadataCache, noSuchPartition, type TopicState } from './metadata-cache.ts';
import type { ProduceStream } from './produce-stream.ts';
import { halves, ProducerBatch, type Waiting } from './producer-batch.ts';
import { backoffMs } from './wait.ts';

/** A batch of this size is sent though the broker is busy; while it can't be sent, it grows up to `maxBatchBytes`. */
export const TARGET_BATCH_BYTES = 256 * 1024;
/** Batches that a broker remembers for each producer (Kafka's NUM_BATCHES_TO_RETAIN): more in flight could not be told from duplicates. */
export const MAX_IN_FLIGHT = 5;
const SEQUENCE_LIMIT = 2 ** 31;

/** What a queue needs of its producer. */
export interface QueueOwner {
  readonly environment: Environment;
  readonly metadata: MetadataCache;
  readonly settings: QueueSettings;
  streamTo(address: string): ProduceStream;
  newProducerId(): Promise<number>;
  /** The batch is settled: its bytes are free again. */
  settled(batch: ProducerBatch, error: FlotillaError | undefined): void;
}

export interface QueueSettings {
  readonly idempotent: boolean;
  readonly maxInFlight: number;
  readonly maxBatchBytes: number;
  readonly deliveryTimeoutMs: number;
  readonly compression: Compression | undefined;
  readonly crc32c: Crc32c;
  /** Buffers to build in, shared by the producer's partitions. */
  readonly builders: BatchBuilder[];
}

const sequenceErrors = new Set(['OUT_OF_ORDER_SEQUENCE_NUMBER', 'UNKNOWN_PRODUCER_ID', 'INVALID_PRODUCER_EPOCH']);

export class PartitionQueue {
  readonly topic: string;
  readonly partition: number;
  topicId: Uint8Array;
  /** Kept by the stream: in its list of queues to look at. */
  listed = false;
  readonly #owner: QueueOwner;
  readonly #environment: Environment;
  readonly #settings: QueueSettings;
  #id: string;
  #open: ProducerBatch | undefined;
  /** Built and unresolved, in order. */
  readonly #batches: ProducerBatch[] = [];
  #inFlight = 0;
  #producerId: number;
  #nextSequence = 0;
  #nextOrdinal = 0;
  /** Less than the setting once the broker refused a batch as too large. */
  #maxBatchBytes: number;
  #stream: ProduceStream | undefined;
  #routing = false;
  #retryTimer: Timer | undefined;
  #attempt = 0;
  /** Of the leader that was last sent to. */
  #triedEpoch = -1;
  /** Something in flight must be sent again, once the rest of it is answered. */
  #rewinding = false;
  #rewindAtOnce = false;
  /** The sequence is broken: nothing new until a new producer id is there. */
  #resetting = false;
  #allocating = false;
  #closed = false;

  constructor(owner: QueueOwner, topic: TopicState, partition: number, producerId: number) {
    this.#owner = owner;
    this.#environment = owner.environment;
    this.#settings = owner.settings;
    this.#maxBatchBytes = owner.settings.maxBatchBytes;
    this.topic = topic.name;
    this.topicId = topic.topicId;
    this.#id = topic.id;
    this.partition = partition;
    this.#producerId = producerId;
    void this.#route();
  }

  append(
    key: Uint8Array | null,
    value: Uint8Array | null,
    headers: readonly RecordHeader[],
    timestamp: number,
    size: number,
    waiting: Waiting | undefined,
    sinceMs?: number,
  ): void {
    let open = this.#open;
    if (open?.builder && open.builder.sizeBytes + size > this.#maxBatchBytes) {
      this.#build(open, false);
      open = this.#open;
    }
    if (open === undefined) {
      open = new ProducerBatch(this.#builder(), sinceMs ?? this.#environment.monotonicMs());
      this.#open = open;
    }
    open.builder?.append(key, value, headers, timestamp);
    if (waiting) {
      waiting.index = open.count;
      waiting.timestamp = timestamp;
      open.waiting.push(waiting);
    }
    open.count++;
    open.bufferedBytes += size;
    this.#wake();
  }

  /** The stream asks for the next batch to send; small open ones only when `idle`. */
  next(idle: boolean): ProducerBatch | undefined {
    if (!this.sendable) return undefined;
    let batch = this.#firstUnsent();
    if (batch === undefined) {
      const open = this.#open;
      if (open?.builder === undefined || (!idle && open.builder.sizeBytes < TARGET_BATCH_BYTES)) return undefined;
      batch = this.#build(open, true);
      if (batch === undefined) return undefined;
    }
    if (batch.baseSequence < 0 && this.#settings.idempotent) this.#number(batch);
    batch.inFlight = true;
    batch.attempts++;
    this.#inFlight++;
    return batch;
  }

  /** Whether `next` may have something, now or when the broker is idle. */
  get sendable(): boolean {
    if (this.#rewinding || this.#routing || this.#retryTimer || this.#closed) return false;
    const unsent = this.#firstUnsent();
    if (unsent) return this.#inWindow(unsent.ordinal);
    return this.#open !== undefined && !this.#resetting && this.#inWindow(this.#nextOrdinal);
  }

  #firstUnsent(): ProducerBatch | undefined {
    for (const batch of this.#batches) if (!batch.inFlight && (!this.#resetting || batch.baseSequence >= 0)) return batch;
    return undefined;
  }

  /**
   * Answers may come in any order, and the broker knows a producer's last five batches only: so the window starts at the oldest
   * batch that is not resolved, however many of the later ones are.
   */
  #inWindow(ordinal: number): boolean {
    const oldest = this.#batches[0];
    return oldest === undefined || ordinal - oldest.ordinal < this.#settings.maxInFlight;
  }

  bytesOf(batch: ProducerBatch): Uint8Array {
    return batch.bytes ?? new Uint8Array(0);
  }

  /** The batches that are not yet settled, in order. */
  unsettled(): ProducerBatch[] {
    const batches = this.#batches.filter(({ settled }) => !settled);
    if (this.#open) batches.push(this.#open);
    return batches;
  }

  receive(batch: ProducerBatch, result: ProduceResult): void {
    batch.inFlight = false;
    this.#inFlight--;
    const { error } = result;
    const failure = error && fromWire(error);
    if (error === undefined || failure?.code === 'DUPLICATE_SEQUENCE_NUMBER') {
      this.#attempt = 0;
      this.#remove(batch);
      if (!batch.settled) {
        batch.succeed(this.partition, error ? -1 : Number(result.baseOffset), Number(result.logAppendTimeMs));
        this.#owner.settled(batch, undefined);
      }
    } else if (failure && sequenceErrors.has(failure.code)) this.#sequenceBroke(batch, failure);
    else if (failure && isRetriable(error)) {
      batch.maybeAppended = true;
      batch.refusal = failure.message;
      this.#rewinding = true;
      if (error.leader && this.#owner.metadata.applyHint(this.topic, this.partition, error.leader)) this.#rewindAtOnce = true;
    } else if (failure?.code === 'MESSAGE_TOO_LARGE' && batch.count > 1 && !batch.settled) this.#split(batch);
    else if (failure) this.#giveUp(batch, failure);
    this.#afterAnswer();
  }

  streamBroke(stream: ProduceStream): void {
    if (this.#stream !== stream) return;
    this.#stream = undefined;
    for (const batch of this.#batches) {
      if (!batch.inFlight) continue;
      batch.inFlight = false;
      batch.maybeAppended = true;
    }
    this.#inFlight = 0;
    this.#attempt = Math.max(1, this.#attempt);
    this.#rewinding = this.#batches.length > 0 || this.#open !== undefined;
    this.#afterAnswer();
  }

  /** The leader as the cache has it is not where this partition's batches are in flight. */
  get misrouted(): boolean {
    if (this.#stream === undefined || this.#inFlight === 0) return false;
    const leader = this.#owner.metadata.leader(this.topic, this.partition);
    return leader !== undefined && leader.address !== this.#stream.address;
  }

  /** Gives up what has been here for longer than the delivery timeout. */
  expire(nowMs: number): void {
    const before = nowMs - this.#settings.deliveryTimeoutMs;
    const late = this.unsettled().filter(({ createdAtMs }) => createdAtMs <= before);
    if (late.length === 0) return;
    for (const batch of late) {
      const unknown = batch.inFlight || batch.maybeAppended;
      const lastAnswer = batch.refusal === undefined ? '' : `; the last answer: ${batch.refusal}`;
      const error = new FlotillaError(
        'REQUEST_TIMED_OUT',
        `${this.topic}-${this.partition}: not acknowledged within deliveryTimeoutMs (${this.#settings.deliveryTimeoutMs} ms, ${batch.attempts} attempts${lastAnswer}); ${unknown ? 'it may have been appended' : 'it was not appended'}`,
      );
      if (batch.inFlight) this.#settle(batch, error);
      else this.#giveUp(batch, error);
    }
    this.#afterAnswer();
  }

  /** Fails everything; the queue does nothing more. */
  close(error: FlotillaError): void {
    this.#closed = true;
    this.#retryTimer?.cancel();
    this.#retryTimer = undefined;
    for (const batch of this.unsettled()) this.#settle(batch, error);
    this.#batches.length = 0;
    this.#open = undefined;
    this.#stream?.detach(this);
  }

  // Batches

  /** With its sequence, if it is `sent` now. Undefined: the codec failed, and so have its records. */
  #build(batch: ProducerBatch, sent: boolean): ProducerBatch | undefined {
    const builder = batch.builder;
    if (builder === undefined) return batch;
    this.#open = undefined;
    const numbered = sent && this.#settings.idempotent;
    if (numbered) builder.setProducer(this.#producerId, 0, this.#nextSequence);
    try {
      batch.bytes = builder.build();
    } catch (error) {
      builder.reset();
      this.#settle(batch, new FlotillaError('INVALID_RECORD', `the batch can't be compressed: ${messageOf(error)}`, { cause: error }));
      return undefined;
    } finally {
      batch.builder = undefined;
      this.#settings.builders.push(builder);
    }
    if (numbered) this.#takeSequence(batch);
    batch.ordinal = this.#nextOrdinal++;
    this.#batches.push(batch);
    return batch;
  }

  #builder(): BatchBuilder {
    const { compression, crc32c, builders } = this.#settings;
    return builders.pop() ?? new BatchBuilder({ compression, crc32c });
  }

  /**
   * The topic takes smaller batches than this producer makes: this one was not appended, so its halves go out in its place, and under its
   * sequences. What is in flight behind it comes again after them. (Had an earlier try appended it, before the topic's limit was lowered, then
   * the broker refuses the halves' sequences, and they fail as what may have been appended.)
   */
  #split(batch: ProducerBatch): void {
    const parts = halves(batch, this.#settings.compression, () => this.#builder());
    let sequence = batch.baseSequence;
    let largest = 0;
    for (const [at, part] of parts.entries()) {
      const { builder } = part;
      if (builder === undefined) continue;
      largest = Math.max(largest, builder.sizeBytes);
      part.ordinal = batch.ordinal + at;
      part.maybeAppended = batch.maybeAppended;
      if (sequence >= 0) {
        part.baseSequence = sequence;
        builder.setProducer(this.#producerId, 0, sequence);
        sequence = (sequence + part.count) % SEQUENCE_LIMIT;
      }
      part.bytes = builder.build();
      part.builder = undefined;
      this.#settings.builders.push(builder);
    }
    // More than half of what it takes: the batch was more than that, and this is its larger half.
    this.#maxBatchBytes = Math.min(this.#maxBatchBytes, largest);
    const at = this.#batches.indexOf(batch);
    for (const later of this.#batches.slice(at + 1)) later.ordinal++;
    this.#nextOrdinal++;
    this.#batches.splice(at, 1, ...parts);
    batch.becomes(parts);
    this.#rewinding = true;
    this.#rewindAtOnce = true;
  }

  #takeSequence(batch: ProducerBatch): void {
    batch.baseSequence = this.#nextSequence;
    this.#nextSequence = (this.#nextSequence + batch.count) % SEQUENCE_LIMIT;
  }

  /** Gives a built batch the next sequence, under the producer id of now. */
  #number(batch: ProducerBatch): void {
    this.#takeSequence(batch);
    if (batch.bytes) stampProducer(batch.bytes, this.#producerId, 0, batch.baseSequence, this.#settings.crc32c);
  }

  #remove(batch: ProducerBatch): void {
    const at = this.#batches.indexOf(batch);
    if (at === 0) this.#batches.shift();
    else if (at > 0) this.#batches.splice(at, 1);
  }

  #settle(batch: ProducerBatch, error: FlotillaError): void {
    if (batch.settled) return;
    batch.fail(error);
    this.#owner.settled(batch, error);
  }

  /** Fails a batch that is not in flight. */
  #giveUp(batch: ProducerBatch, error: FlotillaError): void {
    if (batch === this.#open) {
      this.#open = undefined;
      if (batch.builder) {
        batch.builder.reset();
        this.#settings.builders.push(batch.builder);
      }
    } else {
      this.#remove(batch);
      if (batch.baseSequence >= 0) this.#resetting = true;
    }
    this.#settle(batch, error);
  }

  /** The broker refused the batch for its sequence. */
  #sequenceBroke(batch: ProducerBatch, error: FlotillaError): void {
    this.#rewinding = true;
    // While an earlier batch is still to come, this one is refused only because of that.
    if (this.#batches.find(({ baseSequence }) => baseSequence >= 0) !== batch) return;
    this.#resetting = true;
    if (!batch.maybeAppended) {
      batch.baseSequence = -1;
      return;
    }
    const message = `${this.topic}-${this.partition}: the broker no longer knows this producer (${error.message}); an earlier attempt may have appended the batch: read the topic's end before sending it again`;
    this.#giveUp(batch, new FlotillaError(error.code, message, { cause: error }));
  }

  /** When nothing is in flight any more: rewinds, or starts over under a new producer id. */
  #afterAnswer(): void {
    if (this.#closed) return;
    if (this.#inFlight > 0) {
      this.#wake();
      return;
    }
    for (const batch of [...this.#batches]) {
      if (!batch.settled) continue;
      this.#remove(batch);
      if (batch.baseSequence >= 0) this.#resetting = true;
    }
    if (this.#resetting) this.#reset();
    if (!this.#rewinding) {
      this.#wake();
      return;
    }
    this.#rewinding = false;
    const atOnce = this.#rewindAtOnce;
    this.#rewindAtOnce = false;
    this.#attempt++;
    if (atOnce && this.#attempt <= 3) void this.#route();
    else this.#retryLater();
  }

  /** Batches that were never sent lose their sequences; those that may have been appended keep them and are resolved first. */
  #reset(): void {
    if (this.#settings.idempotent) {
      for (const batch of this.#batches) if (!batch.maybeAppended) batch.baseSequence = -1;
    }
    if (this.#allocating || this.#batches.some(({ baseSequence }) => baseSequence >= 0)) return;
    this.#allocating = true;
    this.#owner.newProducerId().then(
      (producerId) => {
        this.#allocating = false;
        this.#resetting = false;
        this.#producerId = producerId;
        this.#nextSequence = 0;
        this.#wake();
      },
      () => {
        this.#allocating = false;
        if (!this.#closed) this.#retryLater();
      },
    );
  }

  // Routing

  #wake(): void {
    const stream = this.#stream;
    if (stream === undefined && !this.#rewinding && !this.#retryTimer && (this.#open || this.#batches.length > 0)) void this.#route();
    if (stream === undefined || !this.sendable) return;
    const urgent = this.#inFlight < this.#batches.length || (this.#open?.builder?.sizeBytes ?? 0) >= TARGET_BATCH_BYTES;
    stream.wake(this, urgent);
  }

  #retryLater(): void {
    if (this.#retryTimer || this.#closed) return;
    this.#retryTimer = this.#environment.after(backoffMs(this.#environment, Math.max(1, this.#attempt)), () => this.#retry());
  }

  #retry(): void {
    this.#retryTimer = undefined;
    if (this.#resetting) this.#reset();
    void this.#route();
  }

  /** The cache has had news, for whichever partition asked: one that waits to try again and has a new leader waits no longer. */
  metadataChanged(): void {
    if (this.#retryTimer === undefined || !this.#hasNewLeader) return;
    this.#retryTimer.cancel();
    this.#retry();
  }

  /** A later leader than the one that was last sent to. Epochs grow, so this can't send back and forth between two. */
  get #hasNewLeader(): boolean {
    const leader = this.#owner.metadata.leader(this.topic, this.partition);
    return leader !== undefined && this.#triedEpoch >= 0 && leader.epoch > this.#triedEpoch;
  }

  /** Finds the leader and goes on there. */
  async #route(): Promise<void> {
    if (this.#routing || this.#closed) return;
    this.#routing = true;
    const { metadata } = this.#owner;
    try {
      const hinted = this.#stream !== undefined && metadata.leader(this.topic, this.partition)?.address !== this.#stream.address;
      if (this.#attempt > 0 && !hinted && !this.#hasNewLeader) await metadata.refresh();
      const topic = await metadata.topic(this.topic);
      if (topic.partitions[this.partition] === undefined) throw noSuchPartition(topic, this.partition);
      this.#adopt(topic);
    } catch (error) {
      this.#routing = false;
      return this.#routeFailed(error);
    }
    this.#routing = false;
    const leader = metadata.leader(this.topic, this.partition);
    if (this.#closed) return;
    if (leader === undefined) {
      this.#attempt++;
      return this.#retryLater();
    }
    this.#triedEpoch = leader.epoch;
    try {
      const stream = this.#owner.streamTo(leader.address);
      if (stream !== this.#stream) this.#stream?.detach(this);
      this.#stream = stream;
      stream.attach(this);
    } catch {
      this.#attempt++;
      return this.#retryLater();
    }
    if (this.#resetting && this.#inFlight === 0) this.#reset();
    this.#wake();
  }

  /** A topic that was created again is another log: it knows nothing of this producer, and holds nothing of the old one. */
  #adopt(topic: TopicState): void {
    if (topic.id === this.#id) return;
    this.#id = topic.id;
    this.topicId = topic.topicId;
    for (const batch of this.#batches) {
      batch.baseSequence = -1;
      batch.maybeAppended = false;
    }
    this.#nextSequence = 0;
    this.#maxBatchBytes = this.#settings.maxBatchBytes;
    if (this.#settings.idempotent) this.#resetting = true;
  }

  #routeFailed(error: unknown): void {
    if (this.#closed) return;
    if (error instanceof FlotillaError && error.code === 'UNKNOWN_TOPIC_OR_PARTITION') {
      for (const batch of this.unsettled()) this.#giveUp(batch, error);
    }
    this.#attempt++;
    this.#retryLater();
  }
}

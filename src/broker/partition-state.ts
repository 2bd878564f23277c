/**
 * What a partition keeps in step with its replica's log: the high watermark, producer state, and who waits for what to commit.
 * All calls from the replica are synchronous and in log order.
 */
import type { Environment, Timer } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import { type Entry, EntryKind } from '../raft/core/entry.ts';
import type { Leadership, Replica, ReplicaOwner } from '../raft/types.ts';
import { NotLeaderError } from './not-leader.ts';
import { ProducerState } from './producer-state.ts';
import { WaiterQueue } from './waiters.ts';

/** The answer to a batch. */
export interface ProduceResult {
  /** -1 with acks=none. */
  readonly baseOffset: number;
  readonly leaderEpoch: number;
  /** -1 unless the topic's message.timestamp.type is LogAppendTime. */
  readonly logAppendTimeMs: number;
}

/** Told once per apply, not per record. */
export interface PartitionSubscriber {
  /** The high watermark, the role or the log start moved. */
  advanced(): void;
  /** The partition is gone from this broker. Nothing follows. */
  closed(error: FlotillaError): void;
}

/** Streams that may wait on one partition. */
export const MAX_SUBSCRIBERS = 10_000;

/** Byte positions in a RecordBatch v2 header (Kafka protocol guide). */
const EPOCH_AT = 51;
const SEQUENCE_AT = 53;
const LAST_OFFSET_DELTA_AT = 23;

export class PartitionState implements ReplicaOwner {
  readonly #replica: Replica;
  readonly #environment: Environment;
  readonly #minInsync: () => number;
  readonly #leadershipChanged: (() => void) | undefined;
  readonly #committed = new WaiterQueue<ProduceResult>();
  readonly #durable = new WaiterQueue<ProduceResult>();
  readonly #applied = new WaiterQueue<void>();
  #subscribers: Set<PartitionSubscriber> | undefined;
  #producers: ProducerState | undefined;
  /** Entries that came while producer state was being restored. */
  #unrecorded: Entry[] = [];
  #highWatermark: number;
  #appliedIndex: number;
  #term: number;
  #timer: Timer | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #closed: FlotillaError | undefined;

  constructor(
    replica: Replica,
    environment: Environment,
    options: { readonly minInsync: () => number; readonly leadershipChanged?: (() => void) | undefined },
  ) {
    this.#replica = replica;
    this.#environment = environment;
    this.#minInsync = options.minInsync;
    this.#leadershipChanged = options.leadershipChanged;
    this.#highWatermark = replica.log.nextOffset;
    this.#appliedIndex = replica.log.lastIndex;
    this.#term = 0;
    this.#giveSnapshots();
  }

  /** The offset after the last committed record. */
  get highWatermark(): number {
    return this.#highWatermark;
  }

  /** Undefined until {@link restore} has ended. */
  get producers(): ProducerState | undefined {
    return this.#producers;
  }

  /** Rebuilds producer state from the log's snapshot, the batches after it, and what was appended meanwhile. */
  async restore(): Promise<void> {
    const { log } = this.#replica;
    const producers = log.snapshot === undefined ? new ProducerState(0) : ProducerState.decode(log.snapshot.state, log.snapshot.nextOffset);
    // What commits during the scan is not in it: that comes from #unrecorded.
    const scannedTo = log.nextOffset;
    await log.scanBatchHeaders(producers.nextOffset, (header, nextOffset) => {
      producers.committed(nextOffset);
      record(producers, header, nextOffset, 0);
    });
    producers.advance(scannedTo);
    producers.committed(this.#highWatermark);
    this.#producers = producers;
    const unrecorded = this.#unrecorded;
    this.#unrecorded = [];
    this.appended(unrecorded);
  }

  /** Whoever waited here waits in vain; readers below the new start are told so. */
  async restored(): Promise<void> {
    const { log } = this.#replica;
    const error = this.notLeader('a snapshot of the leader took the place of the log');
    this.#committed.rejectAll(error);
    this.#durable.rejectAll(error);
    this.#producers = undefined;
    this.#unrecorded = [];
    this.#highWatermark = log.nextOffset;
    this.#appliedIndex = log.lastIndex;
    this.#applied.release(log.lastIndex);
    if (this.#closed !== undefined) return;
    this.#giveSnapshots();
    this.notify();
    await this.restore();
  }

  #giveSnapshots(): void {
    this.#replica.log.snapshotSource = (nextOffset) => this.#producers?.encode(nextOffset);
  }

  appended(entries: readonly Entry[]): void {
    const producers = this.#producers;
    if (producers === undefined) {
      for (const entry of entries) this.#unrecorded.push(entry);
      return;
    }
    for (const entry of entries) {
      if (entry.kind === EntryKind.batch && entry.nextOffset > producers.nextOffset)
        record(producers, entry.payload, entry.nextOffset, entry.index);
    }
  }

  /** Records this leader's own proposal at once, so that the next batch of the same turn is checked against it. */
  proposed(batch: Uint8Array, nextOffset: number, index: number): void {
    if (this.#producers !== undefined && nextOffset > this.#producers.nextOffset) record(this.#producers, batch, nextOffset, index);
  }

  truncated(index: number, nextOffset: number): void {
    this.#unrecorded = this.#unrecorded.filter((entry) => entry.index <= index);
    this.#producers?.truncate(nextOffset);
    const error = this.notLeader('the batch was replaced by a newer leader');
    this.#committed.rejectAbove(index, error);
    this.#durable.rejectAbove(index, error);
  }

  apply(entries: readonly Entry[]): void {
    const last = entries.at(-1);
    if (last === undefined || last.index <= this.#appliedIndex) return;
    this.#appliedIndex = last.index;
    this.#applied.release(last.index);
    if (last.nextOffset > this.#highWatermark) {
      this.#highWatermark = last.nextOffset;
      this.#producers?.committed(last.nextOffset);
    }
    this.#releaseCommitted();
    this.notify();
  }

  progressed(): void {
    if (this.#durable.size > 0) this.#durable.release(this.#replica.durableIndex);
    if (this.#committed.size > 0 && this.#minInsync() > 1) this.#releaseCommitted();
  }

  leadershipChanged(leadership: Leadership): void {
    const waits = this.#committed.size > 0 || this.#durable.size > 0 || this.#applied.size > 0;
    if (waits && (leadership.role !== 'leader' || leadership.term !== this.#term)) {
      const error = this.notLeader('the leader changed before the batch was committed');
      this.#committed.rejectAll(error);
      this.#durable.rejectAll(error);
      this.#applied.rejectAll(error);
    }
    this.#term = leadership.term;
    this.#leadershipChanged?.();
    this.notify();
  }

  /** Resolves once the entry is committed and, where min.insync.replicas asks for more, on so many disks. */
  untilCommitted(index: number, deadlineMs: number, result: ProduceResult): Promise<ProduceResult> {
    if (index <= this.#releasable()) return Promise.resolve(result);
    this.#expireAt(deadlineMs);
    return this.#committed.wait(index, deadlineMs, result);
  }

  /** Resolves once the entry is on this leader's own disk. */
  untilDurable(index: number, deadlineMs: number, result: ProduceResult): Promise<ProduceResult> {
    if (index <= this.#replica.durableIndex) return Promise.resolve(result);
    this.#expireAt(deadlineMs);
    return this.#durable.wait(index, deadlineMs, result);
  }

  /** Resolves once the entry has been applied here. */
  untilApplied(index: number, deadlineMs: number): Promise<void> {
    if (index <= this.#appliedIndex) return Promise.resolve();
    this.#expireAt(deadlineMs);
    return this.#applied.wait(index, deadlineMs, undefined);
  }

  /** Returns the unsubscribe. Errors: THROTTLING_QUOTA_EXCEEDED. */
  subscribe(subscriber: PartitionSubscriber): () => void {
    if (this.#closed !== undefined) throw this.#closed;
    this.#subscribers ??= new Set();
    if (this.#subscribers.size >= MAX_SUBSCRIBERS) {
      throw new FlotillaError('THROTTLING_QUOTA_EXCEEDED', `${MAX_SUBSCRIBERS} streams read this partition already. Try another replica.`);
    }
    this.#subscribers.add(subscriber);
    return () => this.#subscribers?.delete(subscriber);
  }

  notify(): void {
    for (const subscriber of this.#subscribers ?? []) subscriber.advanced();
  }

  /** The partition leaves this broker: all who wait are told `error`. */
  close(error: FlotillaError): void {
    this.#closed = error;
    this.#timer?.cancel();
    this.#replica.log.snapshotSource = undefined;
    for (const queue of [this.#committed, this.#durable]) queue.rejectAll(error);
    this.#applied.rejectAll(error);
    const subscribers = this.#subscribers ?? [];
    this.#subscribers = undefined;
    for (const subscriber of subscribers) subscriber.closed(error);
  }

  notLeader(why: string): NotLeaderError {
    const { leader, term } = this.#replica.leadership;
    const hint = leader === undefined ? undefined : { brokerId: leader.brokerId, leaderEpoch: term };
    const where = hint === undefined ? 'No leader is known yet' : `Broker ${hint.brokerId} leads in epoch ${hint.leaderEpoch}`;
    return new NotLeaderError(`${capitalized(why)}. ${where}: refresh metadata and try again.`, hint);
  }

  #releaseCommitted(): void {
    if (this.#committed.size > 0) this.#committed.release(this.#releasable());
  }

  #releasable(): number {
    const minInsync = this.#minInsync();
    const majority = Math.floor(this.#replica.configuration.voters.length / 2) + 1;
    if (minInsync <= majority) return this.#appliedIndex;
    if (this.#replica.leadership.role !== 'leader') return 0;
    return Math.min(this.#appliedIndex, this.#replica.durableOn(minInsync));
  }

  /** One timer per partition, armed for the earliest deadline, however many wait. */
  #expireAt(deadlineMs: number): void {
    if (deadlineMs >= this.#timerAt) return;
    this.#timer?.cancel();
    this.#timerAt = deadlineMs;
    this.#timer = this.#environment.after(Math.max(0, deadlineMs - this.#environment.monotonicMs()), () => this.#expire());
  }

  #expire(): void {
    this.#timer = undefined;
    this.#timerAt = Number.POSITIVE_INFINITY;
    const now = this.#environment.monotonicMs();
    const timedOut = () =>
      new FlotillaError(
        'REQUEST_TIMED_OUT',
        'The batch was not committed within its timeout; it may commit yet. Send it again with the same sequence.',
      );
    for (const queue of [this.#committed, this.#durable]) {
      const next = queue.expire(now, timedOut);
      if (next !== undefined) this.#expireAt(next);
    }
    const next = this.#applied.expire(
      now,
      () => new FlotillaError('REQUEST_TIMED_OUT', 'The leader did not answer within the timeout. Try again.'),
    );
    if (next !== undefined) this.#expireAt(next);
  }
}

/** Records a batch from its header. Bytes are read by hand: this runs once per batch on every replica. */
function record(producers: ProducerState, header: Uint8Array, nextOffset: number, index: number): void {
  const producerId = producerIdOf(header);
  if (producerId < 0) {
    producers.advance(nextOffset);
    return;
  }
  // Not what it holds: of one that was compacted some records are gone, and their sequences are not (hazard B30).
  const recordCount = int32(header, LAST_OFFSET_DELTA_AT) + 1;
  const firstSequence = int32(header, SEQUENCE_AT);
  producers.append({
    producerId,
    epoch: (int32(header, EPOCH_AT) >> 16) | 0,
    firstSequence,
    lastSequence: (firstSequence + recordCount - 1) & 0x7fff_ffff,
    baseOffset: nextOffset - recordCount,
    nextOffset,
    index,
  });
}

/** -1: none. */
function producerIdOf(header: Uint8Array): number {
  const high = int32(header, 43);
  return high < 0 ? -1 : high * 2 ** 32 + (int32(header, 47) >>> 0);
}

function int32(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 24) | ((bytes[at + 1] ?? 0) << 16) | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0);
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

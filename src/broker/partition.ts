/** A partition as clients see it: record batches in, record batches out, over one raft replica. term and index become leaderEpoch and offset here. */
import { must } from '../base/assert.ts';
import type { Environment } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import type { TopicId } from '../base/ids.ts';
import { crc32 } from '../raft/core/crc32.ts';
import { EntryKind } from '../raft/core/entry.ts';
import type { Replica } from '../raft/types.ts';
import { decodeBatch, stampBatch, stampLogAppendTime, statedCrc, validateBatch } from '../record/batch.ts';
import { MAX_LOOKED_INTO_BYTES } from '../record/cleaning.ts';
import type { CompressionTable } from '../record/compression.ts';
import type { BatchHeader, Crc32c } from '../record/types.ts';
import { encodeLogStart } from '../storage/log-start.ts';
import { encodeTombstoneFloor } from '../storage/tombstone-floor.ts';
import type { BatchRun } from '../storage/types.ts';
import { CleanedPoints } from './cleaned-points.ts';
import { logSettingsOf, type TopicConfig } from './config.ts';
import { PartitionState, type PartitionSubscriber, type ProduceResult } from './partition-state.ts';

/** quorum: durable on a majority (and min.insync.replicas). leader: durable here. none: answered at once. */
export type Acks = 'quorum' | 'leader' | 'none';

export type Isolation = 'read_uncommitted' | 'read_committed';

/** Kafka's constants for {@link Partition.listOffsets}. */
export const LATEST_TIMESTAMP = -1;
export const EARLIEST_TIMESTAMP = -2;

const FOR_EVER = { retentionMs: -1, retentionBytes: -1, retentionTopicBytes: -1 } as const;

export interface ProduceOptions {
  readonly acks: Acks;
  /** The leader epoch that the producer knows; 0 or below: not checked. */
  readonly leaderEpoch: number;
  /** Monotonic milliseconds. */
  readonly deadlineMs: number;
}

/** What the leader tells of a partition. */
export interface PartitionStatus {
  readonly logStartOffset: number;
  readonly highWatermark: number;
  readonly sizeBytes: number;
  readonly inSync: readonly number[];
  readonly leaderEpoch: number;
}

export interface PartitionOptions {
  readonly topicId: TopicId;
  readonly topic: string;
  readonly partition: number;
  readonly config: TopicConfig;
  readonly environment: Environment;
  readonly crc32c: Crc32c;
  /** For what is asked by time, and for the keys of what is compacted. */
  readonly compression: CompressionTable;
  /** @throws STORAGE_ERROR while this broker's disk has no room for records. */
  readonly checkRoom?: (() => void) | undefined;
  /** Told when this replica's role, term or readiness changed. */
  readonly leadershipChanged?: ((partition: Partition) => void) | undefined;
}

export class Partition {
  readonly topicId: TopicId;
  readonly topic: string;
  readonly partition: number;
  readonly replica: Replica;
  readonly state: PartitionState;
  readonly #environment: Environment;
  readonly #crc32c: Crc32c;
  readonly #compression: CompressionTable;
  readonly #checkRoom: (() => void) | undefined;
  readonly #cleaned = new CleanedPoints();
  #config: TopicConfig;

  /** Made by the raft host when it opens the replica: {@link state} is the replica's owner. */
  constructor(replica: Replica, options: PartitionOptions) {
    this.topicId = options.topicId;
    this.topic = options.topic;
    this.partition = options.partition;
    this.replica = replica;
    this.#environment = options.environment;
    this.#crc32c = options.crc32c;
    this.#compression = options.compression;
    this.#checkRoom = options.checkRoom;
    this.#config = options.config;
    this.state = new PartitionState(replica, options.environment, {
      minInsync: () => this.#config.minInsyncReplicas,
      leadershipChanged: () => options.leadershipChanged?.(this),
    });
  }

  /** The topic's configuration changed. */
  configure(config: TopicConfig): void {
    this.#config = config;
    this.replica.log.configure(logSettingsOf(config));
  }

  /** How long, and how much, it keeps. */
  get retention(): Pick<TopicConfig, 'retentionMs' | 'retentionBytes' | 'retentionTopicBytes'> {
    return this.#config.deletes ? this.#config : FOR_EVER;
  }

  /** Whether, and when, it is compacted. */
  get compaction(): Pick<
    TopicConfig,
    'compacts' | 'minCleanableRatio' | 'minCompactionLagMs' | 'maxCompactionLagMs' | 'deleteRetentionMs'
  > {
    return this.#config;
  }

  /** All below was cleaned here delete.retention.ms ago, or earlier: what the tombstone floor stands on. To be asked now and then, so that it is noted. */
  settledTo(): number {
    return this.#cleaned.settledTo(this.replica.log.cleanedTo, this.#config.deleteRetentionMs, this.#environment.monotonicMs());
  }

  /** The largest batch that it takes. */
  get maxMessageBytes(): number {
    return this.#config.maxMessageBytes;
  }

  get isLeader(): boolean {
    return this.replica.leadership.role === 'leader';
  }

  get leaderEpoch(): number {
    return this.replica.leadership.term;
  }

  get highWatermark(): number {
    return this.state.highWatermark;
  }

  /** Where read_committed readers may go. Equal to the high watermark: there are no transactions yet. */
  get lastStableOffset(): number {
    return this.state.highWatermark;
  }

  get logStartOffset(): number {
    return this.replica.log.logStartOffset;
  }

  get logEndOffset(): number {
    return this.replica.nextOffset;
  }

  /**
   * Appends one record batch, whose bytes pass into the partition's hands: it is stamped in place and kept. Everything up to the proposal
   * happens before this returns, so batches are appended in the order of the calls. The promise resolves as `acks` says.
   *
   * Errors: NOT_LEADER_OR_FOLLOWER (also when leadership was lost meanwhile: the outcome is unknown, send it again with the same sequence),
   * FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, INVALID_RECORD, INVALID_TIMESTAMP, NOT_ENOUGH_REPLICAS,
   * INVALID_REQUIRED_ACKS, OUT_OF_ORDER_SEQUENCE_NUMBER, DUPLICATE_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, THROTTLING_QUOTA_EXCEEDED,
   * REQUEST_TIMED_OUT.
   */
  produce(batch: Uint8Array, options: ProduceOptions): Promise<ProduceResult> {
    try {
      return this.#append(batch, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #append(batch: Uint8Array, options: ProduceOptions): Promise<ProduceResult> {
    const { acks, deadlineMs } = options;
    const leaderEpoch = this.#checkLeader(options.leaderEpoch);
    const header = validateBatch(batch, { maxBytes: this.#config.maxMessageBytes, crc32c: this.#crc32c });
    checkKind(header, acks);
    const now = this.#environment.wallMs();
    const appendTime = this.#config.timestampType === 'LogAppendTime';
    if (!appendTime) this.#checkTimestamps(header, now);
    const logAppendTimeMs = appendTime ? now : -1;
    if (acks === 'quorum') this.#checkInSync();

    if (header.producerId >= 0) {
      const producers = must(this.state.producers, 'producer state is restored before a leader takes batches');
      const original = producers.check(header.producerId, header.producerEpoch, header.baseSequence, header.recordCount);
      if (original !== undefined) {
        return this.state.untilCommitted(original.index, deadlineMs, { baseOffset: original.baseOffset, leaderEpoch, logAppendTimeMs: -1 });
      }
    }

    if (this.#config.compacts) this.#checkKeys(batch, header);
    this.#checkRoom?.();
    if (appendTime) stampLogAppendTime(batch, now, this.#crc32c);
    const baseOffset = this.replica.nextOffset;
    stampBatch(batch, baseOffset, leaderEpoch);
    const { index, nextOffset } = this.replica.propose({
      kind: EntryKind.batch,
      payload: batch,
      recordCount: header.recordCount,
      payloadChecksum: statedCrc(batch),
    });
    this.state.proposed(batch, nextOffset, index);
    if (acks === 'none') return Promise.resolve({ baseOffset: -1, leaderEpoch, logAppendTimeMs });
    const result = { baseOffset, leaderEpoch, logAppendTimeMs };
    return acks === 'leader' ? this.state.untilDurable(index, deadlineMs, result) : this.state.untilCommitted(index, deadlineMs, result);
  }

  /**
   * Committed batches from the one that holds `from`, about maxBytes, at least one; none at the end.
   * Errors: OFFSET_OUT_OF_RANGE below the log's start, and past the leader's log end. Past what is committed a reader waits instead
   * ({@link subscribe}): on a follower, or just after an election, that is where it may well stand.
   */
  async read(from: number, maxBytes: number, isolation: Isolation): Promise<BatchRun> {
    this.checkReadable(from);
    const until = isolation === 'read_committed' ? this.lastStableOffset : this.highWatermark;
    if (from >= until) return { chunks: [], bytes: 0, nextOffset: from };
    const { log } = this.replica;
    const run = await log.read(from, until, maxBytes);
    // Nothing is left in between: all of it was compacted away.
    return run.bytes > 0 ? run : { ...run, nextOffset: Math.max(from, Math.min(until, log.nextOffset)) };
  }

  /** Errors: OFFSET_OUT_OF_RANGE. */
  checkReadable(from: number): void {
    const { leadership } = this.replica;
    const end = leadership.role === 'leader' && leadership.ready ? this.logEndOffset : Number.POSITIVE_INFINITY;
    if (from >= this.logStartOffset && from <= end) return;
    throw new FlotillaError(
      'OFFSET_OUT_OF_RANGE',
      `Offset ${from} of ${this.topic}-${this.partition} is out of range: it holds ${this.logStartOffset} to ${this.highWatermark}.`,
    );
  }

  /** Calls the subscriber whenever there may be more to read. Returns the unsubscribe. Errors: THROTTLING_QUOTA_EXCEEDED. */
  subscribe(subscriber: PartitionSubscriber): () => void {
    return this.state.subscribe(subscriber);
  }

  /**
   * The offset for a time (milliseconds since the epoch): of the first record at or after it, or undefined. Also
   * {@link LATEST_TIMESTAMP} and {@link EARLIEST_TIMESTAMP}. Linearizable: leadership is confirmed with a majority first. Only the start is
   * told by followers too, as they know it, so that what is committed can be read from its beginning with a majority gone: it may be a former one.
   * Errors: NOT_LEADER_OR_FOLLOWER, OFFSET_NOT_AVAILABLE (just elected), REQUEST_TIMED_OUT.
   */
  async listOffsets(
    timestamp: number,
    deadlineMs: number,
    signal: AbortSignal,
  ): Promise<{ offset: number | undefined; leaderEpoch: number }> {
    if (timestamp === EARLIEST_TIMESTAMP && !this.isLeader) return { offset: this.logStartOffset, leaderEpoch: this.leaderEpoch };
    const leaderEpoch = this.#checkLeader(0);
    this.#checkReady();
    const index = await this.replica.readIndex(signal);
    await this.state.untilApplied(index, deadlineMs);
    return { offset: await this.#offsetFor(timestamp), leaderEpoch };
  }

  async #offsetFor(timestamp: number): Promise<number | undefined> {
    if (timestamp === LATEST_TIMESTAMP) return this.highWatermark;
    if (timestamp === EARLIEST_TIMESTAMP) return this.logStartOffset;
    if (timestamp < 0)
      throw new FlotillaError('INVALID_REQUEST', `Timestamp ${timestamp} is not known. Use a time, -1 (latest) or -2 (earliest).`);
    return this.#recordAt(timestamp);
  }

  /** The first record at or after the time: an index finds batches, and headers may say more than their records. */
  async #recordAt(timestamp: number): Promise<number | undefined> {
    const { log } = this.replica;
    for (let from = this.logStartOffset; ; ) {
      const batch = await log.offsetForTime(timestamp, from);
      if (batch === undefined || batch >= this.highWatermark) return undefined;
      // The start may have moved meanwhile.
      const start = Math.max(batch, from, this.logStartOffset);
      const { chunks, nextOffset, release } = await log.read(start, this.highWatermark, 1);
      const found = chunks[0] === undefined ? undefined : this.#firstRecord(chunks[0], start, timestamp);
      release?.();
      if (found !== undefined || nextOffset <= start) return found;
      from = nextOffset;
    }
  }

  /** Of a batch that can't be looked into (a codec that this broker lacks, too many bytes) its first offset: a reader skips what is older. */
  #firstRecord(batch: Uint8Array, from: number, timestamp: number): number | undefined {
    try {
      const records = decodeBatch(batch, { compression: this.#compression, maxBytes: MAX_LOOKED_INTO_BYTES });
      return records.find((record) => record.offset >= from && record.timestamp >= timestamp)?.offset;
    } catch (error) {
      if (error instanceof FlotillaError) return from;
      throw error;
    }
  }

  /**
   * Moves the log's start up to an offset, for good, on all replicas ({@link LATEST_TIMESTAMP}: to the high watermark; Kafka: DeleteRecords). Resolves, once
   * that has committed, with the log's start, which may have been higher already.
   * Errors: NOT_LEADER_OR_FOLLOWER (the outcome is unknown), OFFSET_OUT_OF_RANGE above the high watermark, OFFSET_NOT_AVAILABLE (just elected),
   * THROTTLING_QUOTA_EXCEEDED, REQUEST_TIMED_OUT.
   */
  async startAt(offset: number, deadlineMs: number): Promise<number> {
    const leaderEpoch = this.#checkLeader(0);
    this.#checkReady();
    const start = offset === LATEST_TIMESTAMP ? this.highWatermark : offset;
    if (start < 0 || start > this.highWatermark) {
      throw new FlotillaError(
        'OFFSET_OUT_OF_RANGE',
        `${this.topic}-${this.partition} can't start at offset ${start}: it holds ${this.logStartOffset} to ${this.highWatermark}.`,
      );
    }
    if (start > this.logStartOffset) await this.#commit(EntryKind.setLogStart, encodeLogStart(start), leaderEpoch, deadlineMs);
    return this.logStartOffset;
  }

  /**
   * Lets all replicas drop tombstones below an offset, for good. Resolves once that has committed.
   * Errors: NOT_LEADER_OR_FOLLOWER (the outcome is unknown), OFFSET_NOT_AVAILABLE, THROTTLING_QUOTA_EXCEEDED, REQUEST_TIMED_OUT.
   */
  async raiseTombstoneFloor(floor: number, deadlineMs: number): Promise<void> {
    const leaderEpoch = this.#checkLeader(0);
    this.#checkReady();
    await this.#commit(EntryKind.tombstoneFloor, encodeTombstoneFloor(floor), leaderEpoch, deadlineMs);
  }

  async #commit(kind: EntryKind, payload: Uint8Array, leaderEpoch: number, deadlineMs: number): Promise<void> {
    const { index } = this.replica.propose({ kind, payload, recordCount: 0, payloadChecksum: crc32(payload) });
    await this.state.untilCommitted(index, deadlineMs, { baseOffset: -1, leaderEpoch, logAppendTimeMs: -1 });
  }

  /** Errors: NOT_LEADER_OR_FOLLOWER. */
  status(): PartitionStatus {
    const leaderEpoch = this.#checkLeader(0);
    const { logStartOffset, highWatermark } = this;
    return { logStartOffset, highWatermark, sizeBytes: this.replica.log.sizeBytes, inSync: this.replica.inSync(), leaderEpoch };
  }

  /** The present leader epoch. */
  #checkLeader(expectedEpoch: number): number {
    const { role, term } = this.replica.leadership;
    if (role !== 'leader') throw this.state.notLeader(`this broker does not lead ${this.topic}-${this.partition}`);
    if (this.state.producers === undefined) throw this.state.notLeader(`${this.topic}-${this.partition} is being loaded`);
    if (expectedEpoch > 0 && expectedEpoch !== term) {
      const older = expectedEpoch < term;
      throw new FlotillaError(
        older ? 'FENCED_LEADER_EPOCH' : 'UNKNOWN_LEADER_EPOCH',
        `The request is for leader epoch ${expectedEpoch}, this leader has ${term}: ${older ? 'refresh metadata and try again' : 'try again'}.`,
      );
    }
    return term;
  }

  #checkReady(): void {
    if (this.replica.leadership.ready) return;
    throw new FlotillaError(
      'OFFSET_NOT_AVAILABLE',
      `The new leader of ${this.topic}-${this.partition} does not know yet what is committed. Try again.`,
    );
  }

  #checkTimestamps(header: BatchHeader, now: number): void {
    const { timestampBeforeMaxMs, timestampAfterMaxMs } = this.#config;
    // The records are not walked, so the first one's time stands for the earliest.
    const tooOld = now - header.baseTimestamp > timestampBeforeMaxMs;
    if (!tooOld && header.maxTimestamp - now <= timestampAfterMaxMs) return;
    const [time, key, bound] = tooOld
      ? [header.baseTimestamp, 'message.timestamp.before.max.ms', timestampBeforeMaxMs]
      : [header.maxTimestamp, 'message.timestamp.after.max.ms', timestampAfterMaxMs];
    throw new FlotillaError('INVALID_TIMESTAMP', `Timestamp ${time} is more than ${key}=${bound} from the broker's clock, ${now}.`);
  }

  /** The only batches that are looked into before they are taken. What can't be looked into could never be compacted. */
  #checkKeys(batch: Uint8Array, header: BatchHeader): void {
    const records = decodeBatch(batch, { compression: this.#compression, maxBytes: MAX_LOOKED_INTO_BYTES }, header);
    if (records.every(({ key }) => key !== null)) return;
    throw new FlotillaError(
      'INVALID_RECORD',
      `Topic ${this.topic} is compacted (cleanup.policy), which keeps the newest record of each key: give every record a key, or alter cleanup.policy.`,
    );
  }

  #checkInSync(): void {
    const { minInsyncReplicas } = this.#config;
    if (minInsyncReplicas <= 1) return;
    const voters = this.replica.configuration.voters.length;
    // A majority must have the batch anyway, so the followers are only looked at where more is asked for.
    const inSync = minInsyncReplicas > Math.floor(voters / 2) + 1 ? this.replica.inSync().length : voters;
    if (inSync < minInsyncReplicas) {
      throw new FlotillaError(
        'NOT_ENOUGH_REPLICAS',
        `${this.topic}-${this.partition} has ${inSync} replicas in sync of ${voters}, and min.insync.replicas=${minInsyncReplicas}.`,
      );
    }
  }
}

function checkKind(header: BatchHeader, acks: Acks): void {
  if (header.isControl) throw new FlotillaError('INVALID_RECORD', 'Control batches are written by brokers only.');
  if (header.isTransactional)
    throw new FlotillaError('INVALID_REQUEST', 'Transactions are not supported yet. Produce without a transactional id.');
  if (header.producerId >= 0 && acks !== 'quorum') {
    throw new FlotillaError(
      'INVALID_REQUIRED_ACKS',
      `An idempotent producer needs acks=quorum, not acks=${acks}: the others may lose what they acknowledged.`,
    );
  }
}

/**
 * Forgets what topics are told to forget, by age and by size, whole segments at a time (Kafka: retention.ms, retention.bytes). The leader of a partition
 * decides, and says where the log starts from then on as an entry of it; every replica drops its own segments below (hazard B36).
 */
import type { Environment, LogFields, Logger } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import type { PartitionLog } from '../storage/types.ts';
import type { TopicConfig } from './config.ts';
import type { Partition } from './partition.ts';
import { Rounds } from './rounds.ts';
import { measuredSegments, retainedOfTopic, type SegmentSize } from './topic-retention.ts';
import type { TrustedClock } from './trusted-clock.ts';

/** Of a log's bytes, no more than such a share (and a segment) goes by age in one check: a clock that was wrong from the start takes hours to do its harm (hazard B41). */
const MAX_SHARE_BY_AGE = 0.25;

export type RetentionBounds = Pick<TopicConfig, 'retentionMs' | 'retentionBytes'>;
export type RetainedLog = Pick<PartitionLog, 'logStartOffset' | 'nextOffset' | 'sizeBytes' | 'segments' | 'offsetForTime'>;

/** The offset that a log is to start at, to keep within its bounds: that of a segment, or its end. `nowMs`: by the wall clock; undefined: nothing goes by age. */
export async function retainedFrom(log: RetainedLog, bounds: RetentionBounds, nowMs: number | undefined): Promise<number> {
  const { retentionMs, retentionBytes } = bounds;
  const end = log.nextOffset;
  const young = nowMs === undefined || retentionMs < 0 ? 0 : ((await log.offsetForTime(nowMs - retentionMs)) ?? end);
  let excess = retentionBytes < 0 ? Number.NEGATIVE_INFINITY : log.sizeBytes - retentionBytes;
  let byAge = log.sizeBytes * MAX_SHARE_BY_AGE;
  let start = log.logStartOffset;
  for await (const { nextOffset, sizeBytes } of measuredSegments(log)) {
    const tooOld = nextOffset <= young && byAge > 0;
    if (!tooOld && sizeBytes > excess) break;
    start = Math.max(start, nextOffset);
    excess -= sizeBytes;
    byAge -= sizeBytes;
  }
  return start;
}

export interface RetentionOptions {
  readonly partitions: { all(): Iterable<Partition> };
  /** The segments of a topic, by partition, as the leaders say that can be asked. */
  readonly segmentsOf: (topic: string, signal: AbortSignal) => Promise<ReadonlyMap<number, readonly SegmentSize[]>>;
  readonly environment: Environment;
  readonly clock: TrustedClock;
  readonly log: Logger;
  /** Kafka's log.retention.check.interval.ms. */
  readonly intervalMs: number;
  /** How long an entry that moves a log's start may take to commit. */
  readonly requestTimeoutMs: number;
}

export class Retention {
  readonly #options: RetentionOptions;
  readonly #rounds: Rounds;

  constructor(options: RetentionOptions) {
    this.#options = options;
    this.#rounds = new Rounds(options.environment, options.intervalMs, () => this.#check());
  }

  start(): void {
    this.#rounds.start();
  }

  stop(): Promise<void> {
    return this.#rounds.stop();
  }

  async #check(): Promise<void> {
    const nowMs = this.#options.clock.nowMs();
    const boundByTopic: Partition[] = [];
    for (const partition of [...this.#options.partitions.all()]) {
      if (this.#rounds.signal.aborted) return;
      const { topic, partition: number, replica, retention } = partition;
      // Also where somebody else leads: what was being read for a follower when the start moved is dropped now.
      replica.log.reclaimSoon();
      const { role, ready } = replica.leadership;
      if (role !== 'leader' || !ready) continue;
      if (retention.retentionTopicBytes >= 0) boundByTopic.push(partition);
      await this.#tried({ topic, partition: number }, async () => {
        this.#startAt(partition, await retainedFrom(replica.log, retention, nowMs));
      });
    }
    for (const [topic, led] of Map.groupBy(boundByTopic, ({ topic }) => topic))
      await this.#tried({ topic }, () => this.#retainTopic(topic, led));
  }

  async #retainTopic(topic: string, led: readonly Partition[]): Promise<void> {
    const { signal } = this.#rounds;
    if (signal.aborted) return;
    const segments = await this.#options.segmentsOf(topic, signal);
    // Not before: while the leaders were asked, the topic may have been told to keep everything.
    const bytes = led[0]?.retention.retentionTopicBytes ?? -1;
    if (bytes < 0) return;
    const starts = retainedOfTopic(segments, bytes);
    for (const partition of led) {
      const start = starts.get(partition.partition);
      if (start !== undefined) this.#startAt(partition, start);
    }
  }

  #startAt(partition: Partition, start: number): void {
    if (start <= partition.logStartOffset) return;
    const { topic, partition: number } = partition;
    const deadlineMs = this.#options.environment.monotonicMs() + this.#options.requestTimeoutMs;
    this.#options.log.info('retention', { topic, partition: number, from: partition.logStartOffset, to: start });
    // Nobody waits: a group without a majority would hold up all the others. What did not commit is decided anew at the next check.
    partition.startAt(start, deadlineMs).catch((error: unknown) => {
      this.#options.log.debug('retention.undecided', { topic, partition: number, error: messageOf(error) });
    });
  }

  async #tried(what: LogFields, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#options.log.warn('retention.failed', { ...what, error: messageOf(error) });
    }
  }
}

/**
 * Forgets what topics are told to forget, by age and by size, whole segments at a time (Kafka: retention.ms, retention.bytes). The leader of a partition
 * decides, and says where the log starts from then on as an entry of it; every replica drops its own segments below (hazard B36).
 */
import type { Environment, Logger, Timer } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import type { PartitionLog } from '../storage/types.ts';
import type { TopicConfig } from './config.ts';
import type { Partition } from './partition.ts';
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
  const segments = log.segments();
  let excess = retentionBytes < 0 ? Number.NEGATIVE_INFINITY : log.sizeBytes - retentionBytes;
  let byAge = log.sizeBytes * MAX_SHARE_BY_AGE;
  let left = log.sizeBytes;
  let start = log.logStartOffset;
  for (const [at, segment] of segments.entries()) {
    const next = segments[at + 1];
    const segmentEnd = next?.base.offset ?? end;
    // The last one has what is not written yet.
    const bytes = next === undefined ? left : await segment.payloadBytes();
    const tooOld = segmentEnd <= young && byAge > 0;
    if (!tooOld && bytes > excess) break;
    start = Math.max(start, segmentEnd);
    left -= bytes;
    excess -= bytes;
    byAge -= bytes;
  }
  return start;
}

export interface RetentionOptions {
  readonly partitions: { all(): Iterable<Partition> };
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
  #timer: Timer | undefined;
  #stopped = false;
  #checking: Promise<void> | undefined;

  constructor(options: RetentionOptions) {
    this.#options = options;
  }

  start(): void {
    const { environment, intervalMs } = this.#options;
    this.#timer = environment.after(intervalMs, () => {
      this.#checking = this.#check().finally(() => {
        this.#checking = undefined;
        if (!this.#stopped) this.start();
      });
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#checking;
  }

  async #check(): Promise<void> {
    const nowMs = this.#options.clock.nowMs();
    for (const partition of [...this.#options.partitions.all()]) {
      if (this.#stopped) return;
      // Also where somebody else leads: what was being read for a follower when the start moved is dropped now.
      partition.replica.log.reclaimSoon();
      await this.#retain(partition, nowMs).catch((error: unknown) => {
        const { topic, partition: number } = partition;
        this.#options.log.warn('retention.failed', { topic, partition: number, error: messageOf(error) });
      });
    }
  }

  async #retain(partition: Partition, nowMs: number | undefined): Promise<void> {
    const { leadership, log } = partition.replica;
    if (leadership.role !== 'leader' || !leadership.ready) return;
    const start = await retainedFrom(log, partition.retention, nowMs);
    if (start <= partition.logStartOffset) return;
    const { topic, partition: number } = partition;
    const deadlineMs = this.#options.environment.monotonicMs() + this.#options.requestTimeoutMs;
    this.#options.log.info('retention', { topic, partition: number, from: partition.logStartOffset, to: start });
    // Nobody waits: a group without a majority would hold up all the others. What did not commit is decided anew at the next check.
    partition.startAt(start, deadlineMs).catch((error: unknown) => {
      this.#options.log.debug('retention.undecided', { topic, partition: number, error: messageOf(error) });
    });
  }
}

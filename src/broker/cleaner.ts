/**
 * Compaction (Kafka: cleanup.policy=compact): each replica rewrites its own closed segments without the records that newer ones of their keys replaced. One log
 * at a time, the dirtiest first, in a worker, and no faster than cleaner-throttle.ts lets it; what stays is a function of the records, so that replicas may
 * differ only in how far they are (docs/adr/0007).
 */
import type { Cleaning, Compute } from '../base/compute.ts';
import type { Environment, Logger } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { readBatchHeader } from '../record/batch.ts';
import { mapBytesFor } from '../record/offset-map.ts';
import { CLEAN_BYTES, type CleanableSegment, type PartitionLog } from '../storage/types.ts';
import { CleanerThrottle } from './cleaner-throttle.ts';
import type { CleanerConfig, TopicConfig } from './config.ts';
import type { Partition } from './partition.ts';
import { Rounds } from './rounds.ts';
import type { TrustedClock } from './trusted-clock.ts';

/** A log that could not be cleaned is let alone for so long: it is damaged, or read for a follower, or has more keys than fit. */
export const RETRY_MS = 60_000;

export type CleanedLog = Pick<PartitionLog, 'cleanable' | 'clean' | 'cleanedTo' | 'tombstoneFloor' | 'read' | 'logStartOffset'>;
export type CompactionBounds = Pick<TopicConfig, 'minCleanableRatio' | 'minCompactionLagMs' | 'maxCompactionLagMs'>;

/** What is to be cleaned of a log. */
export interface Dirt {
  /** In their order; at least one. */
  readonly segments: readonly CleanableSegment[];
  /** Of the log's cleanable bytes, those that were not cleaned yet. */
  readonly ratio: number;
}

/** Undefined: nothing is due. `nowMs`: by the wall clock; undefined: nobody knows how old a record is. */
export async function dirtOf(log: CleanedLog, bounds: CompactionBounds, nowMs: number | undefined): Promise<Dirt | undefined> {
  const { minCleanableRatio, minCompactionLagMs, maxCompactionLagMs } = bounds;
  const segments: CleanableSegment[] = [];
  let clean = 0;
  let dirty = 0;
  for (const segment of log.cleanable()) {
    if (segment.cleaned && segments.length === 0) clean += await segment.payloadBytes();
    else if (minCompactionLagMs > 0 && (nowMs === undefined || (await segment.maxTimestamp()) > nowMs - minCompactionLagMs)) break;
    else {
      dirty += await segment.payloadBytes();
      segments.push(segment);
    }
  }
  if (dirty === 0) return undefined;
  const ratio = dirty / (clean + dirty);
  const isDue = ratio >= minCleanableRatio || (nowMs !== undefined && (await oldest(log, segments)) < nowMs - maxCompactionLagMs);
  return isDue ? { segments, ratio } : undefined;
}

/** The time of the first record that is dirty, as its batch says. */
async function oldest(log: CleanedLog, [first, ...others]: readonly CleanableSegment[]): Promise<number> {
  if (first === undefined) return Number.POSITIVE_INFINITY;
  const from = Math.max(first.base.offset, log.logStartOffset);
  const end = others.at(-1)?.nextOffset ?? first.nextOffset;
  const { chunks, release } = from < end ? await log.read(from, end, 1) : { chunks: [], release: undefined };
  const time = chunks[0] === undefined ? Number.POSITIVE_INFINITY : readBatchHeader(chunks[0]).baseTimestamp;
  release?.();
  return time;
}

export interface CleanerOptions {
  readonly partitions: { all(): Iterable<Partition> };
  readonly compute: Compute;
  readonly environment: Environment;
  readonly clock: TrustedClock;
  readonly log: Logger;
  readonly config: CleanerConfig;
  /** See {@link CleanerThrottle}. */
  readonly writtenBytes: () => number;
}

/** A cleaning under way. */
interface Pass {
  readonly partition: Partition;
  readonly dirt: Dirt;
  readonly cleaning: Cleaning;
}

export class Cleaner {
  readonly #options: CleanerOptions;
  readonly #rounds: Rounds;
  /** Monotonic. */
  readonly #notBefore = new WeakMap<CleanedLog, number>();
  readonly #throttle: CleanerThrottle;

  constructor(options: CleanerOptions) {
    const { environment, config, writtenBytes } = options;
    this.#options = options;
    this.#throttle = new CleanerThrottle({ environment, bytesPerSecond: config.ioBytesPerSecond, writtenBytes });
    this.#rounds = new Rounds(environment, config.backoffMs, () => this.#clean());
  }

  start(): void {
    this.#rounds.start();
  }

  /** Resolves when nothing is being cleaned any more. */
  stop(): Promise<void> {
    return this.#rounds.stop();
  }

  async #clean(): Promise<void> {
    const due: { readonly partition: Partition; readonly ratio: number }[] = [];
    for (const partition of this.#compacted()) {
      partition.replica.log.rollIfOld();
      const dirt = await this.#dirtOf(partition);
      if (dirt !== undefined) due.push({ partition, ratio: dirt.ratio });
    }
    due.sort((one, other) => other.ratio - one.ratio);
    for (const { partition } of due) {
      if (this.#rounds.signal.aborted) return;
      // Not what was found above: that was before the others were cleaned.
      const dirt = await this.#dirtOf(partition);
      if (dirt !== undefined) await this.#cleanLog(partition, dirt);
    }
  }

  #compacted(): readonly Partition[] {
    const { environment, partitions } = this.#options;
    const isFree = ({ compaction, replica: { quarantined, log } }: Partition) =>
      compaction.compacts && quarantined === undefined && environment.monotonicMs() >= (this.#notBefore.get(log) ?? 0);
    return [...partitions.all()].filter(isFree);
  }

  #dirtOf(partition: Partition): Promise<Dirt | undefined> {
    const { log } = partition.replica;
    return dirtOf(log, partition.compaction, this.#options.clock.nowMs()).catch((error: unknown) => this.#failed(partition, log, error));
  }

  async #cleanLog(partition: Partition, dirt: Dirt): Promise<void> {
    const { compute, config } = this.#options;
    const { log } = partition.replica;
    const { tombstoneFloor, cleanedTo } = log;
    const records = dirt.segments.reduce((sum, { base, nextOffset }) => sum + nextOffset - base.offset, 0);
    let cleaning: Cleaning | undefined;
    try {
      cleaning = compute.beginCleaning({ mapBytes: Math.min(config.dedupeBufferBytes, mapBytesFor(records)), tombstoneFloor });
      await this.#pass({ partition, dirt, cleaning }, log);
      if (log.cleanedTo <= cleanedTo) this.#notBefore.set(log, this.#options.environment.monotonicMs() + RETRY_MS);
    } catch (error) {
      this.#failed(partition, log, error);
    } finally {
      cleaning?.end();
    }
  }

  async #pass({ partition, dirt, cleaning }: Pass, log: CleanedLog): Promise<void> {
    const { environment, config } = this.#options;
    const { topic, partition: number } = partition;
    const sinceMs = environment.monotonicMs();
    this.#throttle.begin();
    const { last, unreadable } = await this.#note(log, dirt.segments, cleaning);
    if (last === undefined) {
      const advice = `raise log.cleaner.dedupe.buffer.size, which is ${config.dedupeBufferBytes}: a segment of this log has more keys than fit`;
      this.#options.log.warn('not cleaned', { topic, partition: number, advice });
      return;
    }
    const { before, after } = await log.clean(last.lastIndex, (batches) => this.#cleanRun(cleaning, batches), this.#rounds.signal);
    const ms = Math.round(environment.monotonicMs() - sinceMs);
    const ratio = Math.round(dirt.ratio * 1000) / 1000;
    this.#options.log.info('cleaned', { topic, partition: number, to: log.cleanedTo, ratio, before, after, unreadable, ms });
  }

  /** The last segment of which every key is noted, with those before it. Undefined: not even the first one's keys fit. */
  async #note(log: CleanedLog, segments: readonly CleanableSegment[], cleaning: Cleaning) {
    let last: CleanableSegment | undefined;
    let unreadable = 0;
    for (const segment of segments) {
      for (let offset = Math.max(segment.base.offset, log.logStartOffset); offset < segment.nextOffset; ) {
        this.#rounds.signal.throwIfAborted();
        const { chunks, bytes, nextOffset } = await log.read(offset, segment.nextOffset, CLEAN_BYTES);
        if (bytes === 0) break;
        offset = nextOffset;
        for (const chunk of chunks) {
          const noted = await cleaning.note(chunk);
          if (noted.full) return { last, unreadable };
          unreadable += noted.unreadable;
        }
        await this.#throttle.rest(bytes, this.#rounds.signal);
      }
      last = segment;
    }
    return { last, unreadable };
  }

  async #cleanRun(cleaning: Cleaning, batches: Uint8Array): Promise<Uint8Array> {
    const read = batches.length;
    const left = await cleaning.clean(batches);
    await this.#throttle.rest(read + left.length, this.#rounds.signal);
    return left;
  }

  /** Nothing is lost: a segment is as it was, or as it is to be. */
  #failed({ topic, partition }: Partition, log: CleanedLog, error: unknown): undefined {
    if (this.#rounds.signal.aborted) return;
    this.#notBefore.set(log, this.#options.environment.monotonicMs() + RETRY_MS);
    this.#options.log.warn('cleaning failed', { topic, partition, error: messageOf(error) });
  }
}

/**
 * Compaction of one log, as far as its files go: rewrites its closed segments with what its caller leaves of the batches, and puts the new ones in their place.
 * Docs: adr/0007-compaction.md.
 */
import { assert, must } from '../base/assert.ts';
import { FlotillaError } from '../base/errors.ts';
import { CleanedSegment } from './cleaned-segment.ts';
import type { LogContext } from './log-context.ts';
import { SegmentReplaced } from './log-reader.ts';
import type { LogSnapshots } from './log-snapshots.ts';
import { type LogWriter, MAX_SEGMENT_ENTRIES } from './log-writer.ts';
import type { Segment } from './segment.ts';
import type { IndexRow } from './segment-index.ts';
import type { SegmentList } from './segment-list.ts';
import { CLEAN_BYTES, type CleanableSegment, type PartitionLog } from './types.ts';

export type CleanBatches = Parameters<PartitionLog['clean']>[1];

export interface LogCleaningOptions {
  readonly context: Pick<LogContext, 'disk' | 'directory' | 'checksums' | 'log' | 'damaged'>;
  readonly segments: SegmentList;
  readonly snapshots: LogSnapshots;
  readonly writer: LogWriter;
  /** Says, durably, that Raft has no entry below this one any more. */
  readonly raise: (firstReplicableIndex: number) => Promise<void>;
  readonly freed: (bytes: number) => void;
}

/** Bytes of payload that were rewritten, and what is left of them. */
export interface Cleaned {
  readonly before: number;
  readonly after: number;
}

export class LogCleaning {
  readonly #options: LogCleaningOptions;
  /** Of the last attempt: a name is used once, whatever became of the one that had it. */
  #generation = 0;
  readonly #closed = new AbortController();
  #running: Promise<unknown> | undefined;

  constructor(options: LogCleaningOptions) {
    this.#options = options;
  }

  /** Closed ones that a snapshot stands for, as long as the log's last record comes after them: where it ends must be found by reading. */
  segments(nextOffset: number): Segment[] {
    const { segments, snapshots } = this.#options;
    const all = [...segments];
    const isCleanable = (segment: Segment, at: number) =>
      segment.lastIndex < snapshots.coveredBelow && (all[at + 1]?.base.offset ?? nextOffset) < nextOffset;
    const end = all.findIndex((segment, at) => !isCleanable(segment, at));
    return end < 0 ? all : all.slice(0, end);
  }

  describe(nextOffset: number): CleanableSegment[] {
    const all = [...this.#options.segments];
    return this.segments(nextOffset).map((segment, at) => ({
      base: segment.base,
      lastIndex: segment.lastIndex,
      nextOffset: must(all[at + 1], 'a closed segment is followed by another').base.offset,
      cleaned: segment.cleaned,
      maxTimestamp: () => segment.maxTimestamp(),
      payloadBytes: () => segment.payloadBytes(),
    }));
  }

  /** One at a time. Neighbours become one as long as there is room for the next as it is. */
  async run(segments: readonly Segment[], maxBytes: number, clean: CleanBatches, given: AbortSignal): Promise<Cleaned> {
    assert(this.#running === undefined, 'a log is cleaned by one at a time', this.#options.context.directory);
    const running = this.#run(segments, maxBytes, clean, AbortSignal.any([given, this.#closed.signal]));
    this.#running = running.catch(() => {});
    try {
      return await running;
    } finally {
      this.#running = undefined;
    }
  }

  /** Ends what is under way; nothing of the log is touched any more once it resolves. */
  async close(): Promise<void> {
    this.#closed.abort();
    await this.#running;
  }

  async #run(segments: readonly Segment[], maxBytes: number, clean: CleanBatches, signal: AbortSignal): Promise<Cleaned> {
    const cleanUnlessAborted = async (batches: Uint8Array) => (signal.aborted ? undefined : unlessAborted(clean(batches), signal));
    let before = 0;
    let after = 0;
    for (let at = 0; at < segments.length && !signal.aborted; ) {
      const done = await this.#rewrite(segments.slice(at), maxBytes, cleanUnlessAborted, signal);
      if (done === undefined) break;
      before += done.before;
      after += done.after;
      at += done.count;
    }
    return { before, after };
  }

  /** The first of them, and what becomes one with it. Undefined: they stay as they are, for now. */
  async #rewrite(
    segments: readonly Segment[],
    maxBytes: number,
    clean: (batches: Uint8Array) => Promise<Uint8Array | undefined>,
    signal: AbortSignal,
  ): Promise<(Cleaned & { readonly count: number }) | undefined> {
    const { disk, directory, checksums } = this.#options.context;
    const first = must(segments[0], 'there is a segment to clean');
    if (this.#inUse(first)) return undefined;
    this.#generation = segments.reduce((newest, { base }) => Math.max(newest, base.generation), this.#generation) + 1;
    const made = await CleanedSegment.begin(disk, directory, checksums, { ...first.base, generation: this.#generation });
    let replaced = false;
    let reading = first;
    try {
      const former: Segment[] = [];
      let before = 0;
      for (const segment of segments) {
        reading = segment;
        const bytes = await segment.payloadBytes();
        const fits = made.logBytes + bytes <= maxBytes && made.rowCount + segment.rowCount <= MAX_SEGMENT_ENTRIES;
        if (former.length > 0 && !fits) break;
        for await (const { rows, bytes: batches } of segment.batches(CLEAN_BYTES)) {
          const left = await clean(batches);
          if (left === undefined) return undefined;
          await made.add(rows, left);
        }
        former.push(segment);
        before += bytes;
      }
      const last = must(await former.at(-1)?.lastRow(), 'a segment to clean has entries');
      await made.finish(last);
      replaced = await this.#replace(former, made, last, signal);
      if (!replaced) return undefined;
      this.#options.freed(before - made.logBytes);
      await this.#remove(former);
      return { before, after: made.logBytes, count: former.length };
    } catch (error) {
      // Retention took them meanwhile.
      if (this.#isGone(first)) return undefined;
      if (error instanceof FlotillaError && error.code === 'STORAGE_ERROR') this.#options.context.damaged(reading.base.index);
      throw error;
    } finally {
      if (!replaced) await made.abandon().catch((error: unknown) => this.#warn('cleaned segment not removed', error));
    }
  }

  /** While nothing else happens to the files: no snapshot is opened, nothing dropped. */
  #replace(former: readonly Segment[], made: CleanedSegment, last: IndexRow, signal: AbortSignal): Promise<boolean> {
    const { segments, writer, raise } = this.#options;
    return writer.alone(async () => {
      const first = must(former[0], 'something is replaced');
      if (signal.aborted || this.#isGone(first) || this.#inUse(must(former.at(-1), 'something is replaced'))) return false;
      if (last.index >= segments.firstReplicableIndex) await raise(last.index + 1);
      segments.replace(former, await made.publish(last));
      return true;
    });
  }

  /** Whoever still reads looks again. What can't be removed now, the next start removes. */
  async #remove(former: readonly Segment[]): Promise<void> {
    const { disk, directory } = this.#options.context;
    try {
      for (const segment of former) await segment.remove(new SegmentReplaced());
      await disk.syncDirectory(directory);
    } catch (error) {
      this.#warn('replaced segments not removed', error);
    }
  }

  /** It is being read for a follower. */
  #inUse(segment: Segment): boolean {
    return this.#options.snapshots.pinnedFrom <= segment.lastIndex;
  }

  #isGone(segment: Segment): boolean {
    return segment.base.index < (this.#options.segments.firstIndex ?? Number.POSITIVE_INFINITY);
  }

  #warn(event: string, error: unknown): void {
    const { log, directory } = this.#options.context;
    log.warn(event, { directory, error });
  }
}

/** What the work gives, or undefined once the signal fires. No Promise.race with a promise for the signal: that one would hold every result until it fires. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const aborted = () => resolve(undefined);
    const done = () => signal.removeEventListener('abort', aborted);
    signal.addEventListener('abort', aborted);
    work.then(resolve, reject).finally(done);
  });
}

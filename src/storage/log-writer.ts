/**
 * Writes one log to its segments: large runs of what waits, a new segment where the log was rolled, and the snapshot that goes with it. Whatever else changes
 * the files of the log takes its turn here, so one thing happens at a time.
 */
import { must } from '../base/assert.ts';
import type { FlotillaError } from '../base/errors.ts';
import type { LogPosition } from '../raft/core/types.ts';
import type { LogContext } from './log-context.ts';
import type { LogSnapshots } from './log-snapshots.ts';
import type { LogTail } from './log-tail.ts';
import { Segment } from './segment.ts';
import type { SegmentList } from './segment-list.ts';
import type { SegmentSnapshot } from './segment-snapshot.ts';
import type { LogSettings } from './types.ts';

/** Bytes of one write to a segment. */
const RUN_BYTES = 4 << 20;
/** Entries of one segment: 72 MiB of rows. */
export const MAX_SEGMENT_ENTRIES = 1 << 20;

/** The segment to start behind an entry. */
export interface Roll {
  readonly after: LogPosition;
  /** Of all up to there, but for what is not known before it is written. Undefined: its owner has no state yet, and recovery starts from the one before. */
  readonly snapshot: Omit<SegmentSnapshot, 'firstIndex' | 'firstReplicableIndex'> | undefined;
}

/** What an append adds, and the offset behind it. */
interface Appended {
  readonly bytes: number;
  readonly entries: number;
  readonly nextOffset: number;
}

export interface LogFiles {
  readonly segments: SegmentList;
  readonly tail: LogTail;
  readonly snapshots: LogSnapshots;
}

export class LogWriter {
  readonly #context: LogContext;
  readonly #segments: SegmentList;
  readonly #tail: LogTail;
  readonly #snapshots: LogSnapshots;
  #written: { readonly index: number; readonly nextOffset: number };
  #rolls: Roll[] = [];
  /** Bytes and entries of the segment that the next append goes to, those that wait included. */
  #plannedBytes: number;
  #plannedEntries: number;
  /** Where it begins. */
  #plannedFrom: number;
  /** When the segment that the next append goes to took its first, in this life of the process. */
  #plannedSinceMs: number | undefined;
  #unsyncedBytes = 0;
  #passing: Promise<void> | undefined;
  #stopped = false;

  constructor(context: LogContext, { segments, tail, snapshots }: LogFiles, last: LogPosition) {
    this.#context = context;
    this.#segments = segments;
    this.#tail = tail;
    this.#snapshots = snapshots;
    this.#written = { index: last.index, nextOffset: last.nextOffset };
    this.#plannedBytes = segments.last?.logBytes ?? 0;
    this.#plannedEntries = segments.last?.rowCount ?? 0;
    this.#plannedFrom = segments.last?.base.offset ?? last.nextOffset;
  }

  /** What is in segments. */
  get written(): { readonly index: number; readonly nextOffset: number } {
    return this.#written;
  }

  get unsyncedBytes(): number {
    return this.#unsyncedBytes;
  }

  /** The segment that the next append goes to has no entry yet. */
  get atRoll(): boolean {
    return this.#plannedEntries === 0;
  }

  /** Whether the segment that the next append goes to has room for it. */
  hasRoom({ bytes, entries, nextOffset }: Appended, { segmentBytes, segmentRecords = Number.POSITIVE_INFINITY }: LogSettings): boolean {
    if (this.atRoll) return true;
    const fits = this.#plannedBytes + bytes <= segmentBytes && this.#plannedEntries + entries <= MAX_SEGMENT_ENTRIES;
    return fits && nextOffset - this.#plannedFrom <= segmentRecords;
  }

  /** Whether the segment that the next append goes to is to end because of its age, which counts from now on at the latest. */
  isOld({ segmentMs = Number.POSITIVE_INFINITY }: LogSettings): boolean {
    if (this.atRoll) return false;
    const now = this.#context.monotonicMs();
    this.#plannedSinceMs ??= now;
    return now - this.#plannedSinceMs >= segmentMs;
  }

  /** Entries were put to the tail, of so many bytes of payload. */
  planned(bytes: number, entries: number): void {
    this.#plannedBytes += bytes;
    this.#plannedEntries += entries;
    this.#plannedSinceMs ??= this.#context.monotonicMs();
  }

  /** What is put to the tail from now on goes to another segment. */
  roll(roll: Roll): void {
    this.#rolls.push(roll);
    this.#plannedBytes = 0;
    this.#plannedEntries = 0;
    this.#plannedFrom = roll.after.nextOffset;
    this.#plannedSinceMs = undefined;
  }

  /** Writes what waits, without a sync. Concurrent calls share the pass under way. */
  write(): Promise<void> {
    return this.#passing ?? this.#pass(async () => {});
  }

  /** Writes and syncs what waits up to an entry. */
  async flush(untilIndex: number): Promise<void> {
    while (this.#isBehind(untilIndex) && !this.#stopped) await this.write();
    if (this.#stopped) return;
    const { index } = this.#written;
    this.#unsyncedBytes = 0;
    await this.#segments.last?.sync();
    if (index > 0) this.#context.synced(index);
  }

  /**
   * Does work on the files while nothing is written. What waits shares the pass, and its failure is not that of the work, which is done then or not: it ends
   * the process (hazard B25). Nor is the work's failure that of what waits, which goes on.
   */
  async alone<T>(work: () => Promise<T>): Promise<T> {
    while (this.#passing !== undefined) await this.#passing.catch(() => {});
    let outcome: Promise<T> | undefined;
    const pass = this.#pass(async () => {
      outcome = work();
      await outcome.catch(() => {});
    });
    await pass.catch((error: unknown) => this.#context.writer.failed(error));
    return must(outcome, 'the work was begun');
  }

  /** Writes nothing more; what waits is void, and whoever still reads it gets the error. */
  async stop(error: FlotillaError): Promise<void> {
    this.#stopped = true;
    await this.#passing;
    this.#context.writer.written(this.#tail.bytes);
    this.#tail.retire(error);
  }

  /** Does the work, and writes what waits then. */
  #pass(work: () => Promise<void>): Promise<void> {
    this.#passing = work()
      .then(() => this.#writeTail())
      .finally(() => {
        this.#passing = undefined;
      });
    return this.#passing;
  }

  #isBehind(target: number): boolean {
    return this.#written.index < target || this.#rolls[0]?.after.index === this.#written.index;
  }

  async #writeTail(): Promise<void> {
    const target = this.#tail.lastIndex ?? this.#written.index;
    while (this.#isBehind(target) && !this.#stopped) {
      const roll = this.#rolls[0];
      if (roll !== undefined && roll.after.index === this.#written.index) {
        await this.#startSegment(roll);
        this.#rolls.shift();
      } else await this.#writeRun(roll?.after.index ?? Number.MAX_SAFE_INTEGER);
    }
  }

  async #writeRun(untilIndex: number): Promise<void> {
    const run = this.#tail.run(untilIndex, RUN_BYTES);
    let segment = this.#segments.last;
    if (segment === undefined) {
      segment = this.#newSegment();
      this.#segments.push(segment);
    }
    await segment.append(run.entries);
    this.#tail.drop(run);
    this.#unsyncedBytes += run.bytes;
    this.#written = { index: run.last.index, nextOffset: run.last.nextOffset };
    this.#context.writer.written(run.bytes);
    this.#context.written(run.last.index);
  }

  async #startSegment({ after, snapshot }: Roll): Promise<void> {
    await this.#segments.last?.sync();
    const { firstIndex = after.index + 1, firstReplicableIndex } = this.#segments;
    if (snapshot !== undefined) await this.#snapshots.write({ ...snapshot, firstIndex, firstReplicableIndex });
    this.#context.synced(after.index);
    // One without entries is begun already.
    if (this.#segments.last?.rowCount !== 0) this.#segments.push(this.#newSegment());
  }

  #newSegment(): Segment {
    const { disk, directory, checksums } = this.#context;
    const base = { index: this.#written.index + 1, offset: this.#written.nextOffset, generation: 0 };
    return new Segment(disk, directory, checksums, base, undefined);
  }
}

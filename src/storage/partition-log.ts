/**
 * One replica's log of committed entries. New ones wait in memory until a large run of them is written to the last segment, and are synced after each
 * 8 MiB, when their write-ahead log file is to be recycled, at a roll, and on flush. Until they are synced the write-ahead log has them, so recovery trusts segments
 * exactly up to the index that the write-ahead log says is synced, and writes what is above from the write-ahead log again.
 */
import { assert, must } from '../base/assert.ts';
import type { Disk, Logger } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import { decodeConfiguration } from '../raft/core/configuration.ts';
import { type Entry, EntryKind } from '../raft/core/entry.ts';
import { entrySize } from '../raft/core/entry-codec.ts';
import type { Configuration, LogPosition, TermStart } from '../raft/core/types.ts';
import { LogSnapshots, type LogStart } from './log-snapshots.ts';
import { decodeLogStart } from './log-start.ts';
import type { LoadedLog } from './partition-log-recovery.ts';
import {
  BATCH_HEADER_BYTES,
  batchBaseOffsetAt,
  batchLengthAt,
  batchMaxTimestampAt,
  batchNextOffsetAt,
  type Checksums,
  isRecordBatch,
  maxTimestampOf,
} from './payload.ts';
import type { ReadBuffers } from './read-buffers.ts';
import { Segment } from './segment.ts';
import { chainOf, describeConfiguration, type SegmentSnapshot } from './segment-snapshot.ts';
import type { SegmentWriter } from './segment-writer.ts';
import type { BatchRun, CleanableSegment, LogSettings, LogSnapshot, PartitionLog, StoredSegment } from './types.ts';

/** Bytes of one write to a segment. */
const RUN_BYTES = 4 << 20;
/** Entries of one segment: 72 MiB of rows. */
const MAX_SEGMENT_ENTRIES = 1 << 20;
const SCAN_BYTES = 1 << 20;

export interface LogContext {
  /** The raftGroup, as its directory is named. */
  readonly group: string;
  readonly disk: Disk;
  readonly directory: string;
  readonly log: Logger;
  readonly checksums: Checksums;
  readonly writer: SegmentWriter;
  readonly readBuffers: ReadBuffers;
  readonly monotonicMs: () => number;
  /** Entries up to the index are written; the write-ahead log may forget them from memory. */
  readonly written: (index: number) => void;
  /** Entries up to the index are durable in segments. */
  readonly synced: (index: number) => void;
  /** What it has of that. */
  readonly syncedDurably: () => number;
  /** Resolves when the write-ahead log has what {@link synced} said so far, durably. */
  readonly settled: () => Promise<void>;
}

/** The segment to start behind an entry; configuration and the owner's state as of there. */
interface Roll {
  readonly after: LogPosition;
  readonly configuration: SegmentSnapshot['configuration'];
  readonly state: Uint8Array | undefined;
  readonly logStartOffset: number;
}

/** Without the entry, whose bytes are a part of the frame that it came in: all of that would stay in memory with it. */
function positionOf({ index, term, nextOffset, chainHigh, chainLow }: LogPosition): LogPosition {
  return { index, term, nextOffset, chainHigh, chainLow };
}

/** Segments could not be dropped. Nothing is lost by that, and nothing is to end. */
class DropError extends Error {
  constructor(cause: unknown) {
    super('segments could not be dropped', { cause });
  }
}

export class SegmentedLog implements PartitionLog {
  #initial: PartitionLog['initial'];
  readonly snapshot: PartitionLog['snapshot'];
  snapshotSource: PartitionLog['snapshotSource'];
  #start: LogStart;
  readonly #snapshots: LogSnapshots;
  readonly #context: LogContext;
  #settings: LogSettings;
  #segments: Segment[];
  #terms: readonly TermStart[];
  #configuration: { readonly index: number; readonly configuration: Configuration; readonly payload: Uint8Array } | undefined;
  #last: LogPosition;
  /** Committed, not yet written. */
  #pending: Entry[] = [];
  #pendingBytes = 0;
  #written: { readonly index: number; readonly nextOffset: number };
  #rolls: Roll[] = [];
  /** Bytes and entries of the segment that the next append goes to, pending ones included. */
  #plannedBytes: number;
  #plannedEntries: number;
  /** Where the segment that the next append goes to begins. */
  #plannedFrom: number;
  /** When the segment that the next append goes to took its first, in this life of the process. */
  #plannedSinceMs: number | undefined;
  #sizeBytes: number;
  #unsyncedBytes = 0;
  #writing: Promise<void> | undefined;
  #closed = false;
  #discarded = false;

  constructor(context: LogContext, settings: LogSettings, loaded: LoadedLog) {
    this.#context = context;
    this.#settings = settings;
    this.#segments = loaded.segments;
    this.#terms = loaded.terms;
    this.#configuration = loaded.configuration;
    this.#last = positionOf(loaded.last);
    this.#written = { index: loaded.last.index, nextOffset: loaded.last.nextOffset };
    this.#sizeBytes = loaded.sizeBytes;
    this.#plannedBytes = loaded.segments.at(-1)?.logBytes ?? 0;
    this.#plannedEntries = loaded.segments.at(-1)?.rowCount ?? 0;
    this.#plannedFrom = loaded.segments.at(-1)?.base.offset ?? loaded.last.nextOffset;
    this.#start = loaded.start;
    this.snapshot = loaded.snapshot;
    const { disk, directory, checksums, monotonicMs, syncedDurably } = context;
    this.#snapshots = new LogSnapshots({ disk, directory, crc32: checksums.crc32, monotonicMs, syncedDurably }, loaded.newestSnapshot);
    this.#initial = { base: this.#last, terms: loaded.terms, firstReplicableIndex: loaded.start.firstReplicableIndex };
  }

  get logStartOffset(): number {
    return this.#start.logStartOffset;
  }

  get firstReplicableIndex(): number {
    return this.#start.firstReplicableIndex;
  }

  get initial(): PartitionLog['initial'] {
    return this.#initial;
  }

  get lastSnapshot(): PartitionLog['lastSnapshot'] {
    const newest = this.#snapshots.newest;
    return newest && { index: newest.lastIndex, nextOffset: newest.nextOffset };
  }

  get configuration(): PartitionLog['configuration'] {
    return this.#configuration;
  }

  get terms(): readonly TermStart[] {
    return this.#terms;
  }

  get lastIndex(): number {
    return this.#last.index;
  }

  get nextOffset(): number {
    return this.#last.nextOffset;
  }

  /** The last entry, written or not. */
  get last(): LogPosition {
    return this.#last;
  }

  get writtenIndex(): number {
    return this.#written.index;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get closed(): boolean {
    return this.#closed;
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  get unsyncedBytes(): number {
    return this.#unsyncedBytes;
  }

  configure(settings: Pick<LogSettings, 'segmentBytes' | 'segmentMs' | 'segmentRecords'>): void {
    this.#settings = { ...this.#settings, ...settings };
  }

  append(entries: readonly Entry[]): void {
    if (entries.length === 0) return;
    assert(!this.#closed, 'the log is open', this.#context.directory);
    let bytes = 0;
    let payloadBytes = 0;
    for (const entry of entries) {
      bytes += entrySize(entry);
      payloadBytes += entry.payload.length;
    }
    this.#planRoll(payloadBytes, entries.length, entries.at(-1)?.nextOffset ?? 0);
    for (const entry of entries) this.#take(entry);
    this.#pendingBytes += bytes;
    this.#plannedBytes += payloadBytes;
    this.#plannedEntries += entries.length;
    this.#sizeBytes += payloadBytes;
    this.#context.writer.added(this, bytes);
  }

  /** Takes entries that recovery knows to be committed, before anything else: the log starts behind them. */
  adopt(entries: readonly Entry[]): void {
    this.append(entries);
    this.#initial = { ...this.#initial, base: this.#last, terms: this.#terms };
  }

  async read(fromOffset: number, untilOffset: number, maxBytes: number): Promise<BatchRun> {
    if (fromOffset < this.logStartOffset) {
      throw new FlotillaError('OFFSET_OUT_OF_RANGE', `offset ${fromOffset} is below the log's start, ${this.logStartOffset}`);
    }
    return this.#read(fromOffset, untilOffset, maxBytes);
  }

  /** Of what is stored, also below the start. */
  async #read(fromOffset: number, untilOffset: number, maxBytes: number): Promise<BatchRun> {
    if (fromOffset >= Math.min(untilOffset, this.nextOffset)) return { chunks: [], bytes: 0, nextOffset: fromOffset };
    if (fromOffset >= this.#written.nextOffset) return this.#readPending(fromOffset, untilOffset, maxBytes);
    const segment = must(this.#segmentOfOffset(fromOffset), 'a segment holds the offset', fromOffset);
    const { readBuffers } = this.#context;
    const read = await segment.readBatches(fromOffset, maxBytes, (length) => readBuffers.take(length));
    const stored = must(read, 'the segment holds the offset', fromOffset);
    const first = batchLengthAt(stored, 0);
    // The look-up knows the first batch's length, so only a batch that its own header states otherwise is cut short: damage.
    if (first === undefined || first > stored.length) throw this.#damaged(fromOffset);
    const { bytes, nextOffset } = wholeBatches(stored, fromOffset, untilOffset);
    return { chunks: bytes === 0 ? [] : [stored.subarray(0, bytes)], bytes, nextOffset, release: () => readBuffers.give(stored) };
  }

  async readEntries(fromIndex: number, maxBytes: number): Promise<Entry[]> {
    if (fromIndex < this.firstReplicableIndex)
      throw new FlotillaError('OFFSET_OUT_OF_RANGE', `entry ${fromIndex} is below the first that is kept, ${this.firstReplicableIndex}`);
    if (fromIndex > this.#last.index) return [];
    const firstPending = this.#pending[0];
    if (firstPending !== undefined && fromIndex >= firstPending.index)
      return this.#pendingEntries(fromIndex - firstPending.index, maxBytes);
    const found = this.#segments.findLast(({ base }) => base.index <= fromIndex);
    const segment = must(found, 'a segment holds the entry', fromIndex);
    return segment.readEntries(fromIndex, maxBytes);
  }

  async offsetForTime(timestampMs: number, fromOffset: number = this.logStartOffset): Promise<number | undefined> {
    const segments = [...this.#segments];
    for (const [at, segment] of segments.entries()) {
      const end = segments[at + 1]?.base.offset ?? this.#written.nextOffset;
      if (end <= fromOffset || (await segment.maxTimestamp()) < timestampMs) continue;
      const found = await segment.batchForTime(timestampMs);
      // One that is below counts for all behind it in the index, so these are looked at one by one.
      const offset =
        found === undefined || found.nextOffset > fromOffset ? found?.baseOffset : await this.#scanForTime(timestampMs, fromOffset, end);
      if (offset !== undefined) return offset;
    }
    for (const entry of this.#pending) {
      if (entry.nextOffset > fromOffset && maxTimestampOf(entry) >= timestampMs) return entry.nextOffset - entry.recordCount;
    }
    return undefined;
  }

  async #scanForTime(timestampMs: number, fromOffset: number, untilOffset: number): Promise<number | undefined> {
    let found: number | undefined;
    await this.#scan(fromOffset, untilOffset, (header) => {
      if (found === undefined && batchMaxTimestampAt(header, 0) >= timestampMs) found = batchBaseOffsetAt(header, 0);
      return found === undefined;
    });
    return found;
  }

  async scanBatchHeaders(fromOffset: number, visit: (header: Uint8Array, nextOffset: number) => void): Promise<void> {
    const end = this.nextOffset;
    // Producers are remembered whose batches lie below the log's start: they may send them again (hazard B30).
    const first = this.#segments[0]?.base.offset ?? this.#written.nextOffset;
    await this.#scan(Math.max(fromOffset, Math.min(first, end)), end, (header, nextOffset) => {
      visit(header, nextOffset);
      return true;
    });
  }

  /** The headers of stored batches, until `visit` says that it has seen enough. */
  async #scan(fromOffset: number, untilOffset: number, visit: (header: Uint8Array, nextOffset: number) => boolean): Promise<void> {
    for (let offset = fromOffset; offset < untilOffset; ) {
      const { chunks, nextOffset, release } = await this.#read(offset, untilOffset, SCAN_BYTES);
      const goOn = nextOffset > offset && chunks.every((chunk) => visitHeaders(chunk, visit));
      release?.();
      if (!goOn) return;
      offset = nextOffset;
    }
  }

  openSnapshot(): Promise<LogSnapshot | undefined> {
    return this.#snapshots.open(this.#segments, this.#start, this.#settings.stateAlone === true);
  }

  async dropBefore(index: number): Promise<number> {
    const isCovered = this.#plannedEntries === 0 && (this.#snapshots.newest?.lastIndex ?? 0) === this.#last.index;
    if (index > this.#last.index && !isCovered) this.#roll();
    await this.flush();
    // Not while segments are held up: the write-ahead log may wait for them.
    await this.#context.settled();
    while (this.#writing !== undefined) await this.#writing;
    let failure: unknown;
    const drop = () =>
      this.#drop(index).catch((error: unknown) => {
        // Of the drop alone: what waits to be written shares this pass, and goes on.
        failure = error;
      });
    if (!this.#closed) await this.#exclusively(drop);
    if (failure !== undefined) throw new DropError(failure);
    return this.firstReplicableIndex;
  }

  reclaimSoon(): void {
    if (!this.#closed) this.#context.writer.reclaimSoon(this);
  }

  /** What could not be dropped stays until the next time: the new start is durable before anything goes. */
  async reclaim(): Promise<number> {
    const before = this.#sizeBytes;
    const { logStartOffset } = this.#start;
    // A snapshot must stand for all of it, and an owner that is being restored has no state yet.
    const nothingLeft = logStartOffset === this.nextOffset && this.#sizeBytes > 0 && this.#ownState() !== undefined;
    const index = nothingLeft ? this.lastIndex + 1 : (this.#segmentOfOffset(logStartOffset)?.base.index ?? 0);
    if (this.#closed || index <= (this.#segments[0]?.base.index ?? 0)) return 0;
    try {
      await this.dropBefore(index);
    } catch (error) {
      if (!(error instanceof DropError)) throw error;
      this.#context.log.warn('segments not dropped', { directory: this.#context.directory, error: error.cause });
    }
    return before - this.#sizeBytes;
  }

  segments(): readonly StoredSegment[] {
    return [...this.#segments];
  }

  // Nothing is cleaned yet.
  readonly tombstoneFloor: number = 0;
  readonly cleanedTo: number = 0;
  cleanable(): readonly CleanableSegment[] {
    return [];
  }
  async clean(): Promise<{ readonly before: number; readonly after: number }> {
    return { before: 0, after: 0 };
  }

  /** Writes what is pending to segments, without a sync. Concurrent calls share the pass under way. */
  write(): Promise<void> {
    return this.#writing ?? this.#exclusively(async () => {});
  }

  /** Does the work, and writes what is pending then. */
  #exclusively(work: () => Promise<void>): Promise<void> {
    this.#writing = work()
      .then(() => this.#writePending())
      .finally(() => {
        this.#writing = undefined;
      });
    return this.#writing;
  }

  async flush(): Promise<void> {
    const target = this.#last.index;
    while (this.#isBehind(target) && !this.#discarded) await this.write();
    if (this.#discarded) return;
    const { index } = this.#written;
    this.#unsyncedBytes = 0;
    await this.#segments.at(-1)?.sync();
    if (index > 0) this.#context.synced(index);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.flush();
    for (const segment of this.#segments) await segment.close();
  }

  /** Closes without writing: the log is deleted. */
  async discard(): Promise<void> {
    this.#closed = true;
    this.#discarded = true;
    await this.#writing;
    this.#context.writer.written(this.#pendingBytes);
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#snapshots.releaseAll();
    const error = new FlotillaError('NOT_LEADER_OR_FOLLOWER', 'the log was deleted or replaced on this broker; refresh metadata and retry');
    for (const segment of this.#segments) await segment.retire(error);
  }

  #take(entry: Entry): void {
    assert(entry.index === this.#last.index + 1, 'committed entries come in order', { index: entry.index, last: this.#last.index });
    assert(entry.nextOffset >= this.#last.nextOffset, 'offsets never go back (B31)', { index: entry.index, nextOffset: entry.nextOffset });
    if (entry.term !== this.#last.term) this.#terms = this.#terms.concat({ term: entry.term, index: entry.index });
    if (entry.kind === EntryKind.config) {
      this.#configuration = { index: entry.index, configuration: decodeConfiguration(entry.payload), payload: entry.payload };
    }
    if (entry.kind === EntryKind.setLogStart) this.#startAt(decodeLogStart(entry.payload));
    this.#last = entry;
    this.#pending.push(entry);
  }

  /** For readers, at once; what lies below goes with the next {@link reclaim}. */
  #startAt(offset: number): void {
    assert(offset <= this.nextOffset, 'a log starts at or before its end', { offset, nextOffset: this.nextOffset });
    if (offset <= this.logStartOffset) return;
    this.#start = { ...this.#start, logStartOffset: offset };
    this.reclaimSoon();
  }

  /** Rolls between runs of commits, where the owner's state is known: the host appends a run before it applies it. */
  #planRoll(bytes: number, entries: number, nextOffset: number): void {
    const { segmentBytes, segmentRecords = Number.POSITIVE_INFINITY } = this.#settings;
    const isFull = this.#plannedBytes + bytes > segmentBytes || nextOffset - this.#plannedFrom > segmentRecords;
    if (this.#plannedEntries > 0 && (isFull || this.#plannedEntries + entries > MAX_SEGMENT_ENTRIES || this.#isOld())) this.#roll();
    this.#plannedSinceMs ??= this.#context.monotonicMs();
  }

  #isOld(): boolean {
    const now = this.#context.monotonicMs();
    return now - (this.#plannedSinceMs ?? now) >= (this.#settings.segmentMs ?? Number.POSITIVE_INFINITY);
  }

  rollIfOld(): void {
    if (this.#closed || this.#plannedEntries === 0) return;
    if (this.#isOld()) {
      this.#roll();
      this.#context.writer.added(this, 0);
    } else this.#plannedSinceMs ??= this.#context.monotonicMs();
  }

  #roll(): void {
    const after = positionOf(this.#last);
    const state = this.#ownState();
    const { logStartOffset } = this.#start;
    this.#rolls.push({ after, configuration: describeConfiguration(this.#configuration), state, logStartOffset });
    this.#plannedBytes = 0;
    this.#plannedEntries = 0;
    this.#plannedFrom = after.nextOffset;
    this.#plannedSinceMs = undefined;
  }

  #ownState(): Uint8Array | undefined {
    return this.snapshotSource?.(this.#last.nextOffset, this.#last.index);
  }

  #isBehind(target: number): boolean {
    return this.#written.index < target || this.#rolls[0]?.after.index === this.#written.index;
  }

  async #writePending(): Promise<void> {
    const target = this.#last.index;
    while (this.#isBehind(target) && !this.#discarded) {
      const roll = this.#rolls[0];
      if (roll !== undefined && roll.after.index === this.#written.index) {
        await this.#startSegment(roll);
        this.#rolls.shift();
      } else await this.#writeRun(roll?.after.index ?? Number.MAX_SAFE_INTEGER);
    }
  }

  async #writeRun(untilIndex: number): Promise<void> {
    let count = 0;
    let bytes = 0;
    for (const entry of this.#pending) {
      if (entry.index > untilIndex || (count > 0 && bytes >= RUN_BYTES)) break;
      bytes += entrySize(entry);
      count++;
    }
    const run = this.#pending.slice(0, count);
    const last = must(run.at(-1), 'entries are pending');
    let segment = this.#segments.at(-1);
    if (segment === undefined) {
      segment = this.#newSegment();
      this.#segments = [segment];
    }
    await segment.append(run);
    this.#pending = this.#pending.slice(count);
    this.#pendingBytes -= bytes;
    this.#unsyncedBytes += bytes;
    this.#written = { index: last.index, nextOffset: last.nextOffset };
    if (this.#last === last) this.#last = positionOf(last);
    this.#context.writer.written(bytes);
    this.#context.written(last.index);
  }

  async #startSegment({ after, configuration, state, logStartOffset }: Roll): Promise<void> {
    await this.#segments.at(-1)?.sync();
    // An owner that is still being restored has none: recovery then starts from the snapshot before this one.
    if (state !== undefined) {
      await this.#snapshots.write({
        group: this.#context.group,
        lastIndex: after.index,
        lastTerm: after.term,
        nextOffset: after.nextOffset,
        logStartOffset,
        firstReplicableIndex: this.#start.firstReplicableIndex,
        chain: chainOf(after),
        terms: this.#terms.filter(({ index }) => index <= after.index),
        configuration,
        state,
      });
    }
    this.#context.synced(after.index);
    // One without entries is begun already.
    if (this.#segments.at(-1)?.rowCount !== 0) this.#segments.push(this.#newSegment());
  }

  /** First the new start is durable, then the segments go: recovery removes what a crash leaves of them. */
  async #drop(index: number): Promise<void> {
    const floor = Math.min(index, this.#snapshots.coveredBelow, this.#snapshots.pinnedFrom);
    const count = this.#segments.findLastIndex(({ base }) => base.index <= floor);
    const first = this.#segments[count];
    if (first === undefined || count <= 0) return;
    const start = { firstReplicableIndex: first.base.index, logStartOffset: Math.max(first.base.offset, this.logStartOffset) };
    await this.#snapshots.raise(start, (snapshot) => this.#completed(snapshot));
    this.#start = start;
    for (const segment of this.#segments.splice(0, count)) this.#sizeBytes -= await segment.remove();
    await this.#context.disk.syncDirectory(this.#context.directory);
  }

  /** What a snapshot of an earlier release does not say of its last entry. */
  async #completed(snapshot: SegmentSnapshot): Promise<SegmentSnapshot> {
    if (snapshot.chain !== undefined) return snapshot;
    const segment = this.#segments.findLast(({ base }) => base.index <= snapshot.lastIndex);
    const row = must(await segment?.rowOf(snapshot.lastIndex), 'a segment holds the last entry of the snapshot', snapshot.lastIndex);
    return { ...snapshot, group: this.#context.group, lastTerm: row.term, chain: chainOf(row) };
  }

  #newSegment(): Segment {
    const { disk, directory, checksums } = this.#context;
    const base = { index: this.#written.index + 1, offset: this.#written.nextOffset };
    return new Segment(disk, directory, checksums, base, undefined);
  }

  #segmentOfOffset(offset: number): Segment | undefined {
    // Segments without records share their base offset with the next: the last that starts at or below it holds the batch.
    let low = 0;
    let high = this.#segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#segments[middle]?.base.offset ?? 0) > offset) high = middle;
      else low = middle + 1;
    }
    return this.#segments[low - 1];
  }

  #readPending(fromOffset: number, untilOffset: number, maxBytes: number): BatchRun {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    let nextOffset = fromOffset;
    for (let i = this.#firstPendingAbove(fromOffset); i < this.#pending.length; i++) {
      const entry = this.#pending[i];
      if (entry === undefined || entry.nextOffset > untilOffset) break;
      if (!isRecordBatch(entry)) continue;
      if (bytes > 0 && bytes + entry.payload.length > maxBytes) break;
      chunks.push(entry.payload);
      bytes += entry.payload.length;
      nextOffset = entry.nextOffset;
    }
    return { chunks, bytes, nextOffset };
  }

  #firstPendingAbove(offset: number): number {
    let low = 0;
    let high = this.#pending.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#pending[middle]?.nextOffset ?? 0) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #pendingEntries(from: number, maxBytes: number): Entry[] {
    const entries: Entry[] = [];
    let bytes = 0;
    for (let i = from; i < this.#pending.length; i++) {
      const entry = this.#pending[i];
      if (entry === undefined || (bytes > 0 && bytes + entrySize(entry) > maxBytes)) break;
      entries.push(entry);
      bytes += entrySize(entry);
    }
    return entries;
  }

  #damaged(offset: number): FlotillaError {
    return new FlotillaError(
      'STORAGE_ERROR',
      `${this.#context.directory}: the batch at offset ${offset} is damaged; read it from another replica`,
    );
  }
}

function wholeBatches(stored: Uint8Array, fromOffset: number, untilOffset: number): { bytes: number; nextOffset: number } {
  let at = 0;
  let nextOffset = fromOffset;
  for (;;) {
    const length = batchLengthAt(stored, at);
    if (length === undefined || at + length > stored.length) break;
    const next = batchNextOffsetAt(stored, at);
    // One that does not follow the one before it rotted: the next read starts there and says so.
    if (next > untilOffset || (at > 0 && batchBaseOffsetAt(stored, at) !== nextOffset)) break;
    at += length;
    nextOffset = next;
  }
  return { bytes: at, nextOffset };
}

function visitHeaders(chunk: Uint8Array, visit: (header: Uint8Array, nextOffset: number) => boolean): boolean {
  let at = 0;
  for (let length = batchLengthAt(chunk, at); length !== undefined; length = batchLengthAt(chunk, at)) {
    if (!visit(chunk.subarray(at, at + BATCH_HEADER_BYTES), batchNextOffsetAt(chunk, at))) return false;
    at += length;
  }
  return true;
}

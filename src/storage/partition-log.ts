/**
 * One replica's log of committed entries. New ones wait in memory until a large run of them is written to the last segment, and are synced after each
 * 8 MiB, when their write-ahead log file is to be recycled, at a roll, and on flush. Until they are synced the write-ahead log has them, so recovery trusts segments
 * exactly up to the index that the write-ahead log says is synced, and writes what is above from the write-ahead log again.
 */
import { assert, must } from '../base/assert.ts';
import { FlotillaError } from '../base/errors.ts';
import { decodeConfiguration } from '../raft/core/configuration.ts';
import { type Entry, EntryKind } from '../raft/core/entry.ts';
import type { Configuration, LogPosition, TermStart } from '../raft/core/types.ts';
import { type CleanBatches, type Cleaned, LogCleaning } from './log-cleaning.ts';
import type { LogContext } from './log-context.ts';
import { LogReader } from './log-reader.ts';
import { LogSnapshots, type LogStart } from './log-snapshots.ts';
import { decodeLogStart } from './log-start.ts';
import { LogTail } from './log-tail.ts';
import { LogWriter } from './log-writer.ts';
import type { LoadedLog } from './partition-log-recovery.ts';
import { SegmentList } from './segment-list.ts';
import { chainOf, describeConfiguration, type SegmentSnapshot } from './segment-snapshot.ts';
import type { WritableLog } from './segment-writer.ts';
import { decodeTombstoneFloor } from './tombstone-floor.ts';
import type { BatchRun, CleanableSegment, LogSettings, LogSnapshot, PartitionLog, StoredSegment } from './types.ts';

/** Segments could not be dropped. Nothing is lost by that, and nothing is to end. */
class DropError extends Error {
  constructor(cause: unknown) {
    super('segments could not be dropped', { cause });
  }
}

export class SegmentedLog implements PartitionLog, WritableLog {
  readonly snapshot: PartitionLog['snapshot'];
  snapshotSource: PartitionLog['snapshotSource'];
  readonly #context: LogContext;
  readonly #segments: SegmentList;
  readonly #tail = new LogTail();
  readonly #snapshots: LogSnapshots;
  readonly #reader: LogReader;
  readonly #writer: LogWriter;
  readonly #cleaning: LogCleaning;
  #settings: LogSettings;
  #initial: PartitionLog['initial'];
  #terms: readonly TermStart[];
  #configuration: { readonly index: number; readonly configuration: Configuration; readonly payload: Uint8Array } | undefined;
  #logStartOffset: number;
  #tombstoneFloor: number;
  /** Of the last entry, written or not. Without that, whose bytes are a part of the frame that it came in: all of it would stay in memory. */
  #last: LogPosition;
  #sizeBytes: number;
  #closed = false;

  constructor(context: LogContext, settings: LogSettings, loaded: LoadedLog) {
    this.#context = context;
    this.#settings = settings;
    this.#terms = loaded.terms;
    this.#configuration = loaded.configuration;
    this.#last = positionOf(loaded.last);
    this.#sizeBytes = loaded.sizeBytes;
    this.#logStartOffset = loaded.start.logStartOffset;
    this.#tombstoneFloor = loaded.tombstoneFloor;
    this.snapshot = loaded.snapshot;
    const { disk, directory, checksums, readBuffers, monotonicMs, syncedDurably } = context;
    const { firstReplicableIndex } = loaded.start;
    this.#segments = new SegmentList(loaded.segments, firstReplicableIndex);
    this.#snapshots = new LogSnapshots({ disk, directory, crc32: checksums.crc32, monotonicMs, syncedDurably }, loaded.newestSnapshot);
    const [segments, tail, snapshots] = [this.#segments, this.#tail, this.#snapshots];
    this.#writer = new LogWriter(context, { segments, tail, snapshots }, loaded.last);
    this.#reader = new LogReader({ directory, segments, tail, readBuffers, writtenOffset: () => this.#writer.written.nextOffset });
    const raise = (index: number) => this.#raise(this.#segments.firstIndex ?? index, index);
    const freed = (bytes: number): void => {
      this.#sizeBytes -= bytes;
    };
    this.#cleaning = new LogCleaning({ context, segments, snapshots, writer: this.#writer, raise, freed });
    this.#initial = { base: this.#last, terms: loaded.terms, firstReplicableIndex };
  }

  get logStartOffset(): number {
    return this.#logStartOffset;
  }

  get tombstoneFloor(): number {
    return this.#tombstoneFloor;
  }

  get firstReplicableIndex(): number {
    return this.#segments.firstReplicableIndex;
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
    return this.#writer.written.index;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get closed(): boolean {
    return this.#closed;
  }

  get pendingBytes(): number {
    return this.#tail.bytes;
  }

  get unsyncedBytes(): number {
    return this.#writer.unsyncedBytes;
  }

  configure(settings: Pick<LogSettings, 'segmentBytes' | 'segmentMs' | 'segmentRecords'>): void {
    this.#settings = { ...this.#settings, ...settings };
  }

  append(entries: readonly Entry[]): void {
    if (entries.length === 0) return;
    assert(!this.#closed, 'the log is open', this.#context.directory);
    let payloadBytes = 0;
    for (const entry of entries) payloadBytes += entry.payload.length;
    const { nextOffset } = must(entries.at(-1), 'entries are appended');
    // Between runs of commits, where the owner's state is known: the host appends a run before it applies it.
    const fits = this.#writer.hasRoom({ bytes: payloadBytes, entries: entries.length, nextOffset }, this.#settings);
    if (!fits || this.#writer.isOld(this.#settings)) this.#roll();
    const waiting = this.#tail.bytes;
    for (const entry of entries) this.#take(entry);
    this.#last = positionOf(this.#last);
    this.#writer.planned(payloadBytes, entries.length);
    this.#sizeBytes += payloadBytes;
    this.#context.writer.added(this, this.#tail.bytes - waiting);
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
    return this.#reader.read(fromOffset, untilOffset, maxBytes);
  }

  async readEntries(fromIndex: number, maxBytes: number): Promise<Entry[]> {
    return fromIndex > this.#last.index ? [] : this.#reader.readEntries(fromIndex, maxBytes);
  }

  offsetForTime(timestampMs: number, fromOffset: number = this.logStartOffset): Promise<number | undefined> {
    return this.#reader.offsetForTime(timestampMs, fromOffset);
  }

  async scanBatchHeaders(fromOffset: number, visit: (header: Uint8Array, nextOffset: number) => void): Promise<void> {
    const end = this.nextOffset;
    // Producers are remembered whose batches lie below the log's start: they may send them again (hazard B30).
    const first = this.#segments.first?.base.offset ?? this.#writer.written.nextOffset;
    await this.#reader.scan(Math.max(fromOffset, Math.min(first, end)), end, (header, nextOffset) => {
      visit(header, nextOffset);
      return true;
    });
  }

  /** While no segment goes: those that are in it stay from then on. */
  openSnapshot(): Promise<LogSnapshot | undefined> {
    return this.#writer.alone(() => this.#snapshots.open([...this.#segments], this.#start, this.#settings.stateAlone === true));
  }

  async dropBefore(index: number): Promise<number> {
    const isCovered = this.#writer.atRoll && (this.#snapshots.newest?.lastIndex ?? 0) === this.#last.index;
    if (index > this.#last.index && !isCovered) this.#roll();
    await this.flush();
    // Not while segments are held up: the write-ahead log may wait for them.
    await this.#context.settled();
    await this.#writer.alone(() => this.#drop(index));
    return this.firstReplicableIndex;
  }

  reclaimSoon(): void {
    if (!this.#closed) this.#context.writer.reclaimSoon(this);
  }

  /** What could not be dropped stays until the next time: the new start is durable before anything goes. */
  async reclaim(): Promise<number> {
    const before = this.#sizeBytes;
    const { logStartOffset } = this;
    // A snapshot must stand for all of it, and an owner that is being restored has no state yet.
    const nothingLeft = logStartOffset === this.nextOffset && this.#sizeBytes > 0 && this.#ownState() !== undefined;
    const index = nothingLeft ? this.lastIndex + 1 : (this.#segments.ofOffset(logStartOffset)?.base.index ?? 0);
    if (this.#closed || index <= (this.#segments.first?.base.index ?? 0)) return 0;
    try {
      await this.dropBefore(index);
    } catch (error) {
      if (!(error instanceof DropError)) throw error;
      this.#context.log.warn('segments not dropped', { directory: this.#context.directory, error: error.cause });
    }
    return before - this.#sizeBytes;
  }

  rollIfOld(): void {
    if (this.#closed || !this.#writer.isOld(this.#settings)) return;
    this.#roll();
    this.#context.writer.added(this, 0);
  }

  segments(): readonly StoredSegment[] {
    return [...this.#segments];
  }

  cleanable(): readonly CleanableSegment[] {
    return this.#settings.stateAlone === true ? [] : this.#cleaning.describe(this.nextOffset);
  }

  async clean(throughIndex: number, clean: CleanBatches, signal: AbortSignal): Promise<Cleaned> {
    assert(this.#settings.stateAlone !== true, "a state machine's log has no records to clean", this.#context.directory);
    const due = this.#cleaning.segments(this.nextOffset).filter(({ lastIndex }) => lastIndex <= throughIndex);
    return this.#cleaning.run(due, this.#settings.segmentBytes, clean, signal);
  }

  get cleanedTo(): number {
    return [...this.#segments].find(({ cleaned }) => !cleaned)?.base.offset ?? this.#writer.written.nextOffset;
  }

  /** Writes what waits to segments, without a sync. Concurrent calls share the pass under way. */
  write(): Promise<void> {
    return this.#writer.write();
  }

  flush(): Promise<void> {
    return this.#writer.flush(this.#last.index);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#cleaning.close();
    await this.flush();
    for (const segment of this.#segments) await segment.close();
  }

  /** Closes without writing: the log is deleted. */
  async discard(): Promise<void> {
    this.#closed = true;
    await this.#cleaning.close();
    await this.#writer.stop();
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
    if (entry.kind === EntryKind.tombstoneFloor) this.#tombstoneFloor = Math.max(this.#tombstoneFloor, decodeTombstoneFloor(entry.payload));
    this.#last = entry;
    this.#tail.push(entry);
  }

  /** For readers, at once; what lies below goes with the next {@link reclaim}. */
  #startAt(offset: number): void {
    assert(offset <= this.nextOffset, 'a log starts at or before its end', { offset, nextOffset: this.nextOffset });
    if (offset <= this.logStartOffset) return;
    this.#logStartOffset = offset;
    this.reclaimSoon();
  }

  #roll(): void {
    const after = this.#last;
    const state = this.#ownState();
    const snapshot = state && {
      group: this.#context.group,
      lastIndex: after.index,
      lastTerm: after.term,
      nextOffset: after.nextOffset,
      logStartOffset: this.logStartOffset,
      chain: chainOf(after),
      terms: this.#terms,
      configuration: describeConfiguration(this.#configuration),
      tombstoneFloor: this.tombstoneFloor,
      state,
    };
    this.#writer.roll({ after, snapshot });
  }

  #ownState(): Uint8Array | undefined {
    return this.snapshotSource?.(this.#last.nextOffset, this.#last.index);
  }

  /** First the new start is durable, then the segments go: recovery removes what a crash leaves of them. */
  async #drop(index: number): Promise<void> {
    const floor = Math.min(index, this.#snapshots.coveredBelow, this.#snapshots.pinnedFrom);
    const first = this.#segments.ofIndex(floor);
    if (this.#closed || first === undefined || first === this.#segments.first) return;
    try {
      await this.#raise(first.base.index, first.base.index, first.base.offset);
      for (const segment of this.#segments.dropBefore(first)) this.#sizeBytes -= await segment.remove();
      await this.#context.disk.syncDirectory(this.#context.directory);
    } catch (error) {
      throw new DropError(error);
    }
  }

  /** Says, durably, where the log starts from now on: at or above where it did. */
  async #raise(firstIndex: number, firstReplicableIndex: number, logStartOffset = 0): Promise<void> {
    const start = {
      firstIndex,
      firstReplicableIndex: Math.max(firstReplicableIndex, this.firstReplicableIndex),
      logStartOffset: Math.max(logStartOffset, this.logStartOffset),
    };
    await this.#snapshots.raise(start, (snapshot) => this.#completed(snapshot));
    this.#segments.firstReplicableIndex = start.firstReplicableIndex;
    this.#logStartOffset = Math.max(start.logStartOffset, this.#logStartOffset);
  }

  get #start(): LogStart {
    const { firstReplicableIndex, logStartOffset } = this;
    return { firstIndex: this.#segments.firstIndex ?? this.writtenIndex + 1, firstReplicableIndex, logStartOffset };
  }

  /** What a snapshot of an earlier release does not say of its last entry. */
  async #completed(snapshot: SegmentSnapshot): Promise<SegmentSnapshot> {
    if (snapshot.chain !== undefined) return snapshot;
    const segment = this.#segments.ofIndex(snapshot.lastIndex);
    const row = must(await segment?.rowOf(snapshot.lastIndex), 'a segment holds the last entry of the snapshot', snapshot.lastIndex);
    return { ...snapshot, group: this.#context.group, lastTerm: row.term, chain: chainOf(row) };
  }
}

function positionOf({ index, term, nextOffset, chainHigh, chainLow }: LogPosition): LogPosition {
  return { index, term, nextOffset, chainHigh, chainLow };
}

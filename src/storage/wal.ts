/**
 * The write-ahead log: one for all groups of a broker, one fdatasync for all that is queued (design.md, decision 3).
 *
 * Flushes: one frame is in flight at a time, so a frame that fails to verify is a torn tail exactly when no later frame exists. What is queued
 * meanwhile shares the next frame (group commit). After 50 ms without a flush a mark-only frame says that the last one was durable.
 *
 * Files are recycled oldest first: segments of the groups in it are synced, what is still live in it (uncommitted entries) is appended again, a
 * frame says that the file is void (oldestGeneration), and only then it is overwritten. Each file starts with every group's HardState.
 */
import { assert } from '../base/assert.ts';
import type { Environment, Logger, Timer } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import type { GroupKey } from '../base/ids.ts';
import type { Entry } from '../raft/core/entry.ts';
import type { RecoveredGroup, WalStatistics, WalWrite, WriteAheadLog } from './types.ts';
import type { WalFiles } from './wal-files.ts';
import { type Crc32, FrameBuffer, frameBytes, type NewRow, PAGE_BYTES, ROW_BYTES, RowKind } from './wal-frame.ts';
import { WalGroup } from './wal-groups.ts';
import { WalQueue, type WalRecord } from './wal-queue.ts';

/** Idle time after which a mark-only frame closes the window in which rot of the last frame would pass for a torn tail. */
const IDLE_MARK_MS = 50;
/** A sixteenth of each file, or so much, is kept for what recycling appends again. */
const MIN_RESERVE_BYTES = 4 * PAGE_BYTES;

export interface WalSettings {
  /** Bytes of each file, a multiple of 4 KiB. Default 64 MiB. */
  readonly fileBytes: number;
  /** Files in use before the oldest is recycled, 2 or more. Default 4. Up to twice as many while recycling waits for segments. */
  readonly files: number;
  /** Bytes of one frame, unless a single entry is larger. Default 4 MiB. */
  readonly maxFrameBytes: number;
}

export const DEFAULT_WAL_SETTINGS: WalSettings = { fileBytes: 64 << 20, files: 4, maxFrameBytes: 4 << 20 };

export interface WalOptions {
  readonly environment: Environment;
  readonly crc32: Crc32;
  readonly log: Logger;
  readonly settings: WalSettings;
  /** Writes and syncs what the group has committed; called before a file that holds its entries is recycled. */
  readonly flushSegments: (group: GroupKey) => Promise<void>;
  /** Told once, when a write or sync failed: the process must end (hazard B25). */
  readonly failed: (error: Error) => void;
}

/** Where a recovered log goes on. */
export interface WalPosition {
  readonly lsn: number;
  readonly checksum: number;
  /** Frames up to here are durable for certain; what later ones say is written again. */
  readonly durableUpTo: number;
  readonly generation: number;
  /** Groups that have records in each generation still in use. */
  readonly touched: Map<number, Set<WalGroup>>;
  /** Groups with records above durableUpTo, and those of their live entries that stand there. */
  readonly unproven: ReadonlyMap<WalGroup, readonly Entry[]>;
}

export class Wal implements WriteAheadLog {
  readonly #options: WalOptions;
  readonly #files: WalFiles;
  readonly #groups: Map<GroupKey, WalGroup>;
  readonly #touched: Map<number, Set<WalGroup>>;
  readonly #queue: WalQueue;
  readonly #buffer: FrameBuffer;
  readonly #maxFrameBytes: number;
  #lsn: number;
  #checksum: number;
  #durableUpTo: number;
  #generation: number;
  #oldestGeneration: number;
  #nonce = 0;
  /** Where the next frame goes in the current file. */
  #position = 0;
  #starting = true;
  /** What is not durable for certain does not all stand in new frames yet. */
  #rewriting = true;
  #flushing: Promise<void> | undefined;
  /** 0: no frame is on its way to the disk. */
  #flushStartedMs = 0;
  #lastFlushMs = 0;
  #idleTimer: Timer | undefined;
  /** The last frame is mark-only: no window to close. */
  #marked = false;
  #preparing: 'no' | 'creating' | 'syncing' | 'moving' = 'no';
  #preparation: Promise<void> = Promise.resolve();
  #failure: FlotillaError | undefined;
  #closed = false;
  #flushes = 0;
  #bytes = 0;
  #fileTurns = 0;

  constructor(options: WalOptions, files: WalFiles, groups: Map<GroupKey, WalGroup>, position: WalPosition) {
    const { settings } = options;
    assert(settings.files >= 2, 'the WAL has at least two files', settings.files);
    this.#options = options;
    this.#files = files;
    this.#groups = groups;
    this.#touched = position.touched;
    this.#maxFrameBytes = Math.min(settings.maxFrameBytes, Math.floor(settings.fileBytes / 4 / PAGE_BYTES) * PAGE_BYTES);
    this.#queue = new WalQueue(this.#maxFrameBytes);
    this.#buffer = new FrameBuffer(options.crc32);
    this.#lsn = position.lsn;
    this.#checksum = position.checksum;
    this.#durableUpTo = position.durableUpTo;
    this.#generation = position.generation;
    this.#oldestGeneration = files.usedCount > 0 ? files.oldest.generation : position.generation + 1;
  }

  /**
   * Turns to a new file and writes again what is not durable for certain (hazard B25); the files of these generations have nothing else. Call once, before
   * anything else.
   */
  async start(unproven: ReadonlyMap<WalGroup, readonly Entry[]>, unprovenFiles: readonly number[]): Promise<void> {
    await this.#turn();
    for (const [group, entries] of unproven) {
      if (group.forgotten) {
        this.#queue.push({ group, kind: RowKind.forget, term: 0, index: 0, extra: 0, entries: undefined });
        continue;
      }
      // The frame that is written again may have truncated: say where the log ends, before its entries.
      const last = group.liveEntries.at(-1)?.index ?? group.synced;
      this.#queue.push({ group, kind: RowKind.truncate, term: 0, index: last, extra: 0, entries: undefined });
      this.#queue.pushEntries(group, RowKind.moved, entries);
    }
    while (!this.#queue.empty) await this.#flushFrame();
    this.#rewriting = false;
    this.#durableUpTo = this.#lsn;
    await this.#freeUnproven(unprovenFiles);
    // Each start turns to a new file: a process that always dies early must not fill the disk.
    while (this.#files.usedCount > 2 * this.#options.settings.files) if (!(await this.#retireOldest())) await this.#turn();
    this.#starting = false;
    this.#armIdleTimer();
  }

  /** What was in these files stands in the present one. The disk may not have them, so it is said that they don't count before one is overwritten. */
  async #freeUnproven(generations: readonly number[]): Promise<void> {
    this.#oldestGeneration = this.#files.oldestExcept(generations).generation;
    if (frameBytes(0, 0) > this.#room(false)) await this.#turn();
    else await this.#writeFrame([], false);
    for (const generation of generations) {
      this.#touched.delete(generation);
      await this.#files.retire(generation);
    }
  }

  append(writes: readonly WalWrite[]): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#closed) return Promise.reject(new FlotillaError('CLOSED', 'the write-ahead log is closed'));
    for (const write of writes) this.#queueWrite(write);
    return new Promise((resolve, reject) => {
      this.#queue.pushBarrier({ resolve, reject });
      this.#kick();
    });
  }

  get pendingBytes(): number {
    return this.#queue.bytes;
  }

  stalledMs(): number {
    return this.#flushStartedMs === 0 ? 0 : this.#options.environment.monotonicMs() - this.#flushStartedMs;
  }

  forget(key: GroupKey): Promise<void> {
    const group = this.#groups.get(key);
    if (group === undefined) return Promise.resolve();
    if (this.#failure === undefined && !this.#closed) {
      this.#queue.push({ group, kind: RowKind.forget, term: 0, index: 0, extra: 0, entries: undefined });
      this.#groups.delete(key);
    }
    return this.append([]);
  }

  /** Entries up to `index` are written to segments: the log needs them in memory no more, and in its files until {@link synced}. */
  written(key: GroupKey, index: number): void {
    // What is written after the flush that precedes a recycling is not synced by it: of the file to be recycled it must be appended again.
    const recycling = this.#preparing === 'syncing' || this.#preparing === 'moving';
    this.#groups.get(key)?.release(index, recycling ? this.#files.oldest.generation : undefined);
  }

  /** Entries up to `index` are durable in segments. Said in the next frame; no flush of its own. */
  synced(key: GroupKey, index: number): void {
    const group = this.#groups.get(key);
    if (group === undefined || index <= group.flushed || this.#failure !== undefined) return;
    group.flushed = index;
    group.release(index);
    this.#queue.push({ group, kind: RowKind.synced, term: 0, index, extra: 0, entries: undefined });
    this.#armIdleTimer();
  }

  /**
   * A snapshot takes the place of the group's log: its segments hold all up to `index`, and no entry of it counts that is in this log. Its term and vote
   * stay. Durable when it resolves.
   */
  rebase(key: GroupKey, index: number): Promise<void> {
    const group = this.#group(key);
    assert(index >= group.synced && index >= group.flushed, 'a snapshot is not behind the log', { index, synced: group.synced });
    const { term, vote } = group.hardState;
    // In this order: whatever frame a crash ends at, the entries that are left are consecutive.
    this.#queue.push({ group, kind: RowKind.truncate, term: 0, index: 0, extra: 0, entries: undefined });
    this.#queue.push({ group, kind: RowKind.synced, term: 0, index, extra: 0, entries: undefined });
    this.#queue.push({ group, kind: RowKind.hardState, term, index: vote, extra: index, entries: undefined });
    return this.append([]);
  }

  /** Up to where the group's segments are durable for certain. */
  syncedIndex(key: GroupKey): number {
    const group = this.#groups.get(key);
    return group === undefined ? 0 : Math.max(group.synced, group.flushed);
  }

  /** Up to where a start that came now would know the group's segments to be durable. */
  syncedDurably(key: GroupKey): number {
    return this.#groups.get(key)?.syncedDurably ?? 0;
  }

  /** A group as the log now has it, for a replica that is opened again in one process life; undefined: the log has no record of it. */
  stateOf(key: GroupKey): RecoveredGroup | undefined {
    const group = this.#groups.get(key);
    return group && { hardState: group.hardState, entries: [...group.liveEntries], whole: !group.damaged };
  }

  markDamaged(key: GroupKey): Promise<void> {
    const group = this.#group(key);
    group.damaged = true;
    // Each row of the group says so from now on. This one says nothing else: what is queued before it may hold a newer HardState.
    this.#queue.push({ group, kind: RowKind.synced, term: 0, index: group.synced, extra: 0, entries: undefined });
    return this.append([]);
  }

  /**
   * The group begins anew, with nothing of what is here but its newest term and vote, as far as those are known; that it can't be proved whole stays said.
   * Durable when it resolves.
   */
  restart(key: GroupKey): Promise<void> {
    const former = this.#group(key);
    const { term, vote } = former.hardState;
    this.#queue.push({ group: former, kind: RowKind.forget, term: 0, index: 0, extra: 0, entries: undefined });
    this.#groups.delete(key);
    const group = this.#group(key);
    group.damaged = true;
    this.#queue.push({ group, kind: RowKind.hardState, term, index: vote, extra: 0, entries: undefined });
    return this.append([]);
  }

  markWhole(key: GroupKey): Promise<void> {
    const group = this.#group(key);
    group.damaged = false;
    this.#queue.push({ group, kind: RowKind.synced, term: 0, index: group.synced, extra: 0, entries: undefined });
    return this.append([]);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#idleTimer?.cancel();
    while (this.#failure === undefined && (this.#preparing === 'syncing' || this.#preparing === 'creating')) await this.#preparation;
    while (
      this.#failure === undefined &&
      (this.#flushing !== undefined || !this.#queue.empty || this.#preparing === 'moving' || !this.#marked)
    ) {
      if (this.#flushing === undefined && this.#queue.empty) this.#queue.pushBarrier(undefined);
      this.#kick();
      await this.#flushing;
    }
    if (this.#failure === undefined) await this.#preparation;
    await this.#files.close();
  }

  get statistics(): WalStatistics {
    return { flushes: this.#flushes, bytes: this.#bytes, fileTurns: this.#fileTurns };
  }

  #group(key: GroupKey): WalGroup {
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = new WalGroup(key);
      this.#groups.set(key, group);
    }
    return group;
  }

  #queueWrite(write: WalWrite): void {
    const group = this.#group(write.group);
    const { hardState, truncateTo } = write;
    if (hardState !== undefined) {
      const { term, vote, commit } = hardState;
      this.#queue.push({ group, kind: RowKind.hardState, term, index: vote, extra: commit, entries: undefined });
    }
    if (truncateTo !== undefined)
      this.#queue.push({ group, kind: RowKind.truncate, term: 0, index: truncateTo, extra: 0, entries: undefined });
    this.#queue.pushEntries(group, RowKind.entries, write.entries);
  }

  #kick(): void {
    if (this.#flushing !== undefined || this.#failure !== undefined || this.#starting) return;
    this.#flushing = this.#flushAll();
  }

  async #flushAll(): Promise<void> {
    try {
      while (!this.#queue.empty || this.#preparing === 'moving') await this.#flushFrame();
    } catch (error) {
      this.#fail(error);
    }
    this.#flushing = undefined;
    this.#armIdleTimer();
  }

  async #flushFrame(): Promise<void> {
    if (this.#preparing === 'moving' && !(await this.#retireOldest())) await this.#turn();
    if (this.#queue.empty) return;
    const { records, bytes } = this.#queue.take();
    let rowCount = 0;
    for (const record of records) if (record.group !== undefined) rowCount++;
    if (frameBytes(rowCount, bytes - rowCount * ROW_BYTES) > this.#room(true)) await this.#turn();
    const rows: NewRow[] = [];
    for (const record of records) this.#apply(record, rows);
    await this.#writeFrame(rows, false);
    for (const { group, kind, index } of records)
      if (kind === RowKind.synced && group !== undefined) group.syncedDurably = Math.max(group.syncedDurably, index);
    this.#queue.completed(bytes);
    this.#prepare();
  }

  /** Takes a record's effect into the group's state; as a row of the frame it is durable with that frame. */
  #apply(record: WalRecord, rows: NewRow[]): void {
    const { group, kind, entries } = record;
    if (group === undefined) return;
    switch (kind) {
      case RowKind.hardState:
        group.hardState = { term: record.term, vote: record.index as WalGroup['hardState']['vote'], commit: record.extra };
        break;
      case RowKind.truncate:
        group.truncate(record.index);
        break;
      case RowKind.entries:
        this.#touch(group);
        if (entries !== undefined) for (const entry of entries) group.append(entry, this.#generation);
        break;
      case RowKind.moved:
        this.#touch(group);
        if (entries !== undefined) group.moved(entries, this.#generation);
        break;
      case RowKind.synced:
        group.synced = Math.max(group.synced, record.index);
        group.flushed = Math.max(group.flushed, record.index);
        group.release(record.index);
        break;
      case RowKind.forget:
        group.forgotten = true;
    }
    rows.push(rowOf(group, record));
  }

  #touch(group: WalGroup): void {
    let groups = this.#touched.get(this.#generation);
    if (groups === undefined) {
      groups = new Set();
      this.#touched.set(this.#generation, groups);
    }
    groups.add(group);
  }

  async #writeFrame(rows: readonly NewRow[], firstOfFile: boolean): Promise<void> {
    const { file, size } = this.#files.current;
    const frame = {
      firstOfFile,
      generation: this.#generation,
      oldestGeneration: this.#oldestGeneration,
      lsn: this.#lsn + 1,
      durableUpTo: this.#durableUpTo,
      previousChecksum: this.#checksum,
      nonce: this.#nonce,
    };
    const { bytes, checksum } = this.#buffer.encode(frame, rows);
    assert(this.#position + bytes.length <= size, 'a frame fits its file; raise walFileBytes', { bytes: bytes.length, size });
    this.#flushStartedMs = this.#options.environment.monotonicMs();
    await file.write(this.#position, [bytes]);
    await file.sync();
    this.#flushStartedMs = 0;
    this.#lastFlushMs = this.#options.environment.monotonicMs();
    this.#lsn = frame.lsn;
    this.#checksum = checksum;
    if (!this.#rewriting) this.#durableUpTo = frame.lsn;
    this.#position += bytes.length;
    this.#marked = rows.length === 0;
    this.#flushes++;
    this.#bytes += bytes.length;
  }

  /** Goes on in a free file, which starts with every group's HardState. */
  async #turn(): Promise<void> {
    while (this.#files.freeCount === 0) {
      if (this.#failure !== undefined) throw this.#failure;
      const full = this.#files.count >= 2 * this.#options.settings.files;
      if (this.#preparing === 'creating' || (this.#preparing === 'syncing' && full)) await this.#preparation;
      else if (this.#preparing !== 'moving' || !(await this.#retireOldest())) await this.#files.create();
    }
    this.#files.turn(++this.#generation);
    this.#nonce = this.#options.environment.uint32();
    this.#position = 0;
    this.#fileTurns++;
    const rows: NewRow[] = [];
    for (const group of this.#groups.values()) headRows(group, rows);
    const limit = Math.max(1, Math.floor(this.#maxFrameBytes / (2 * ROW_BYTES)) - 1);
    for (let from = 0; from === 0 || from < rows.length; from += limit) await this.#writeFrame(rows.slice(from, from + limit), from === 0);
  }

  /** Sees to it that a free file is there when the current one is full, and that no more files are in use than wanted. */
  #prepare(): void {
    if (this.#preparing !== 'no' || this.#closed || this.#failure !== undefined) return;
    const excess = this.#files.usedCount - this.#options.settings.files;
    const soonFull = this.#files.freeCount === 0 && this.#position > this.#files.current.size / 2;
    if (excess <= 0 && !soonFull) return;
    const create = excess < 0;
    this.#preparing = create ? 'creating' : 'syncing';
    this.#preparation = (create ? this.#create() : this.#syncOldest()).catch((error: unknown) => this.#fail(error));
  }

  async #create(): Promise<void> {
    await this.#files.create();
    this.#preparing = 'no';
  }

  async #syncOldest(): Promise<void> {
    const { generation } = this.#files.oldest;
    for (const group of this.#touched.get(generation) ?? []) if (!group.forgotten) await this.#options.flushSegments(group.key);
    // Whoever waited for segments goes on now: moving needs the flush loop.
    this.#preparing = 'moving';
    this.#kick();
  }

  /**
   * Appends again what is live in the oldest file, says that it is void, and gives it free; false when the present file has no room for all of it:
   * then the rest is still to be moved. It may overtake what is queued: it repeats the state as of the last frame.
   */
  async #retireOldest(): Promise<boolean> {
    const { generation } = this.#files.oldest;
    const moves = new WalQueue(this.#maxFrameBytes);
    for (const group of this.#touched.get(generation) ?? []) {
      if (group.forgotten) continue;
      // The row that the flush of the segments queued may still wait behind others; without it the entries would be missed.
      if (group.flushed > group.synced) {
        moves.push({ group, kind: RowKind.synced, term: 0, index: group.flushed, extra: 0, entries: undefined });
      }
      for (const run of group.runsIn(generation)) moves.pushEntries(group, RowKind.moved, run);
    }
    do {
      const { records, bytes } = moves.take();
      if (frameBytes(records.length, bytes - records.length * ROW_BYTES) > this.#room(false)) return false;
      const rows: NewRow[] = [];
      for (const record of records) this.#apply(record, rows);
      // Said in the frame that holds the last of them: then all are durable, or the old file still counts.
      // Not simply the next number: a crash at a turn uses up a generation, and a start finds none for that.
      if (moves.empty) this.#oldestGeneration = this.#files.oldestExcept([generation]).generation;
      await this.#writeFrame(rows, false);
    } while (!moves.empty);
    await this.#files.retire(generation);
    this.#touched.delete(generation);
    this.#preparing = 'no';
    return true;
  }

  /** Bytes left in the current file; with the reserve kept for {@link #retireOldest} or not. */
  #room(keepReserve: boolean): number {
    const { size } = this.#files.current;
    return size - this.#position - (keepReserve ? Math.min(Math.max(size / 16, MIN_RESERVE_BYTES), size / 4) : 0);
  }

  #armIdleTimer(): void {
    if (this.#idleTimer !== undefined || this.#closed || this.#starting || this.#failure !== undefined) return;
    if (this.#marked && this.#queue.empty) return;
    const wait = Math.max(1, this.#lastFlushMs + IDLE_MARK_MS - this.#options.environment.monotonicMs());
    this.#idleTimer = this.#options.environment.after(wait, () => {
      this.#idleTimer = undefined;
      const idle = this.#options.environment.monotonicMs() - this.#lastFlushMs >= IDLE_MARK_MS;
      if (this.#flushing !== undefined) return;
      if (!idle) return this.#armIdleTimer();
      if (this.#queue.empty) this.#queue.pushBarrier(undefined);
      this.#kick();
    });
  }

  /** No error of the disk is retried: the page cache may have dropped what it was to write (hazard B25). */
  #fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = new FlotillaError(
      'STORAGE_ERROR',
      `the write-ahead log could not be written: ${messageOf(error)}; check the disk, then restart`,
      {
        cause: error,
      },
    );
    this.#options.log.error('wal failed', { error });
    this.#queue.failAll(this.#failure);
    this.#options.failed(this.#failure);
  }
}

function rowOf(group: WalGroup, record: Pick<NewRow, 'kind' | 'term' | 'index' | 'extra' | 'entries'>): NewRow {
  const { kind, term, index, extra, entries } = record;
  return { group: group.key, kind, damaged: group.damaged, term, index, extra, sequence: ++group.sequence, entries };
}

function headRows(group: WalGroup, rows: NewRow[]): void {
  const { term, vote, commit } = group.hardState;
  rows.push(rowOf(group, { kind: RowKind.hardState, term, index: vote, extra: commit, entries: undefined }));
  if (group.synced > 0) rows.push(rowOf(group, { kind: RowKind.synced, term: 0, index: group.synced, extra: 0, entries: undefined }));
}

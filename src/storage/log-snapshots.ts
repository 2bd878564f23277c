/** The snapshots of one log: written at rolls, raised when its start moves, opened for followers. */
import { assert, must } from '../base/assert.ts';
import type { Disk } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import type { Segment } from './segment.ts';
import { parseSegmentName } from './segment-files.ts';
import { encodeSnapshot, oldSnapshots, readSnapshot, type SegmentSnapshot, snapshotName, writeSnapshot } from './segment-snapshot.ts';
import type { LogSnapshot, SnapshotFile } from './types.ts';
import type { Crc32 } from './wal-frame.ts';

/** An opened snapshot that was not read for so long is given up: its segments may go. */
export const SNAPSHOT_IDLE_MS = 60_000;

/** Where a log starts: the first entry of its segments, the first that they have as it was, and the first offset that readers get. */
export interface LogStart {
  readonly firstIndex: number;
  readonly firstReplicableIndex: number;
  readonly logStartOffset: number;
}

export interface KeptSnapshot {
  readonly lastIndex: number;
  readonly nextOffset: number;
}

export interface LogSnapshotsOptions {
  readonly disk: Disk;
  readonly directory: string;
  readonly crc32: Crc32;
  readonly monotonicMs: () => number;
  /** What the write-ahead log says, durably, to be in segments: recovery starts from no snapshot above it. */
  readonly syncedDurably: () => number;
}

export class LogSnapshots {
  readonly #options: LogSnapshotsOptions;
  #opened: Set<OpenedSnapshot> | undefined;
  /** Those that recovery may start from and the newest, in order. */
  #kept: KeptSnapshot[];
  /** All on the disk, in order. Listed at the first write, and not at each: a directory may have the files of thousands of segments. */
  #names: string[] | undefined;

  constructor(options: LogSnapshotsOptions, newest: KeptSnapshot | undefined) {
    this.#options = options;
    this.#kept = newest === undefined ? [] : [newest];
  }

  get newest(): KeptSnapshot | undefined {
    return this.#kept.at(-1);
  }

  /** What is below it may go: a snapshot stands for it, and recovery starts there. */
  get coveredBelow(): number {
    const synced = this.#options.syncedDurably();
    const usable = this.#kept.findLast(({ lastIndex }) => lastIndex <= synced);
    return usable === undefined ? 0 : usable.lastIndex + 1;
  }

  /** Entries from here on are being read for a follower. */
  get pinnedFrom(): number {
    const now = this.#options.monotonicMs();
    let from = Number.POSITIVE_INFINITY;
    for (const snapshot of this.#opened ?? []) {
      if (snapshot.usedMs + SNAPSHOT_IDLE_MS < now) snapshot.release();
      else from = Math.min(from, snapshot.firstIndex);
    }
    return from;
  }

  async write(snapshot: SegmentSnapshot): Promise<void> {
    const { disk, directory, crc32, syncedDurably } = this.#options;
    const names = this.#names ?? (await disk.list(directory)).filter((name) => parseSegmentName(name, 'snapshot') !== undefined);
    await writeSnapshot(disk, directory, snapshot, crc32);
    const { lastIndex, nextOffset } = snapshot;
    const synced = syncedDurably();
    const usable = this.#kept.findLastIndex((kept) => kept.lastIndex <= synced);
    this.#kept = [...this.#kept.slice(Math.max(0, usable)), { lastIndex, nextOffset }];
    const written = snapshotName(snapshot);
    const all = names.includes(written) ? names : [...names, written];
    const old = oldSnapshots(all, synced);
    for (const name of old) await disk.remove(`${directory}/${name}`);
    this.#names = all.filter((name) => !old.includes(name));
  }

  /** Says, durably, where the log starts from now on, in each snapshot that it may be recovered from. `completed`: what one of an earlier release lacks. */
  async raise(start: LogStart, completed: (snapshot: SegmentSnapshot) => Promise<SegmentSnapshot>): Promise<void> {
    const { disk, directory, crc32 } = this.#options;
    for (const kept of this.#kept) {
      if (kept.lastIndex + 1 < start.firstReplicableIndex) continue;
      await writeSnapshot(disk, directory, { ...(await completed(await this.#read(kept))), ...asOf(kept, start) }, crc32);
    }
  }

  /** The newest snapshot and, unless its state stands for them, the segments up to it. Undefined: there is none yet. */
  async open(segments: readonly Segment[], start: LogStart, stateAlone: boolean): Promise<LogSnapshot | undefined> {
    const { newest } = this;
    if (newest === undefined) return undefined;
    const record = { ...(await this.#read(newest)), ...asOf(newest, start) };
    const needed = stateAlone ? [] : segments.filter(({ base }) => base.index <= record.lastIndex);
    const opened = new OpenedSnapshot(record, needed, this.#options, () => this.#opened?.delete(opened));
    this.#opened ??= new Set();
    this.#opened.add(opened);
    try {
      await opened.measure();
    } catch (error) {
      opened.release();
      throw error;
    }
    return opened;
  }

  releaseAll(): void {
    for (const snapshot of this.#opened ?? []) snapshot.release();
  }

  /** It is damaged: neither recovery nor a follower can start from it. */
  forget(lastIndex: number): void {
    this.#kept = this.#kept.filter((kept) => kept.lastIndex !== lastIndex);
  }

  async #read({ lastIndex }: KeptSnapshot): Promise<SegmentSnapshot> {
    const { disk, directory, crc32 } = this.#options;
    const snapshot = await readSnapshot(disk, directory, lastIndex, crc32);
    if (snapshot?.lastIndex === lastIndex) return snapshot;
    this.forget(lastIndex);
    throw new FlotillaError('STORAGE_ERROR', `${directory}: the snapshot at entry ${lastIndex} is damaged; check this disk`);
  }
}

/** Readers may start behind a snapshot's end, by an entry that comes after it. */
function asOf({ nextOffset }: KeptSnapshot, { logStartOffset, ...start }: LogStart): LogStart {
  return { ...start, logStartOffset: Math.min(logStartOffset, nextOffset) };
}

class OpenedSnapshot implements LogSnapshot {
  readonly lastIndex: number;
  readonly lastTerm: number;
  readonly firstIndex: number;
  files: readonly SnapshotFile[] = [];
  usedMs: number;
  #released = false;
  readonly #record: Uint8Array;
  readonly #recordName: string;
  readonly #segments: readonly Segment[];
  readonly #monotonicMs: () => number;
  readonly #crc32: Crc32;
  readonly #onRelease: () => void;

  constructor(
    record: SegmentSnapshot,
    segments: readonly Segment[],
    { monotonicMs, crc32 }: Pick<LogSnapshotsOptions, 'monotonicMs' | 'crc32'>,
    onRelease: () => void,
  ) {
    this.lastIndex = record.lastIndex;
    this.lastTerm = record.lastTerm;
    this.firstIndex = segments[0]?.base.index ?? record.lastIndex + 1;
    this.#record = encodeSnapshot(record, crc32);
    this.#crc32 = crc32;
    this.#recordName = snapshotName(record);
    this.#segments = segments;
    this.#monotonicMs = monotonicMs;
    this.usedMs = monotonicMs();
    this.#onRelease = onRelease;
  }

  async measure(): Promise<void> {
    const files: SnapshotFile[] = [{ name: this.#recordName, length: this.#record.length }];
    for (const segment of this.#segments) files.push(...(await segment.files()));
    this.files = files.filter(({ length }) => length > 0);
  }

  async read(file: number, position: number, length: number): Promise<{ readonly bytes: Uint8Array; readonly checksum: number }> {
    const bytes = await this.#read(file, position, length);
    return { bytes, checksum: this.#crc32(bytes) >>> 0 };
  }

  async #read(file: number, position: number, length: number): Promise<Uint8Array> {
    const { name, length: size } = must(this.files[file], 'the snapshot has the file', file);
    assert(position >= 0 && length >= 0 && position + length <= size, 'a read is within the file', { name, position, length, size });
    if (this.#released) throw new FlotillaError('OFFSET_OUT_OF_RANGE', 'the snapshot was released; open another one');
    this.usedMs = this.#monotonicMs();
    if (name === this.#recordName) return this.#record.subarray(position, position + length);
    const segment = must(
      this.#segments.find((candidate) => name.startsWith(candidate.name)),
      'a segment has the file',
      name,
    );
    return segment.readFile(name, position, length);
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#onRelease();
  }
}

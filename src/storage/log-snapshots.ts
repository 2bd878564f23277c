/** The snapshots of one log: written at rolls, raised when its start moves, opened for followers. */
import { assert, must } from '../base/assert.ts';
import type { Disk } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import type { Segment } from './segment.ts';
import { encodeSnapshot, readSnapshot, type SegmentSnapshot, snapshotName, writeSnapshot } from './segment-snapshot.ts';
import type { LogSnapshot, SnapshotFile } from './types.ts';
import type { Crc32 } from './wal-frame.ts';

/** An opened snapshot that was not read for so long is given up: its segments may go. */
export const SNAPSHOT_IDLE_MS = 60_000;

/** Where a log starts: its first entry, and the first offset that readers get. */
export interface LogStart {
  readonly firstReplicableIndex: number;
  readonly logStartOffset: number;
}

export interface NewestSnapshot {
  readonly lastIndex: number;
  readonly hasState: boolean;
}

export interface LogSnapshotsOptions {
  readonly disk: Disk;
  readonly directory: string;
  readonly crc32: Crc32;
  readonly monotonicMs: () => number;
}

export class LogSnapshots {
  readonly #options: LogSnapshotsOptions;
  readonly #opened = new Set<OpenedSnapshot>();
  /** The newest durable one. */
  #newest: NewestSnapshot | undefined;

  constructor(options: LogSnapshotsOptions, newest: NewestSnapshot | undefined) {
    this.#options = options;
    this.#newest = newest;
  }

  /** What is below it may go: the newest snapshot stands for it, and recovery starts there. */
  coveredBelow(stateAlone: boolean): number {
    return this.#newest === undefined || (stateAlone && !this.#newest.hasState) ? 0 : this.#newest.lastIndex + 1;
  }

  /** Entries from here on are being read for a follower. */
  get pinnedFrom(): number {
    const now = this.#options.monotonicMs();
    let from = Number.POSITIVE_INFINITY;
    for (const snapshot of this.#opened) {
      if (snapshot.usedMs + SNAPSHOT_IDLE_MS < now) snapshot.release();
      else from = Math.min(from, snapshot.firstIndex);
    }
    return from;
  }

  async write(snapshot: SegmentSnapshot): Promise<void> {
    const { disk, directory, crc32 } = this.#options;
    await writeSnapshot(disk, directory, snapshot, crc32);
    this.#newest = { lastIndex: snapshot.lastIndex, hasState: snapshot.state !== undefined };
  }

  /** Says, durably, where the log starts from now on. `completed`: what a snapshot of an earlier release lacks. */
  async raise(start: LogStart, completed: (snapshot: SegmentSnapshot) => Promise<SegmentSnapshot>): Promise<void> {
    await this.write({ ...(await completed(await this.#read())), ...start });
  }

  /** The newest snapshot and, unless its state stands for them, the segments up to it. Undefined: there is none yet. */
  async open(segments: readonly Segment[], start: LogStart, stateAlone: boolean): Promise<LogSnapshot | undefined> {
    if (this.#newest === undefined || this.coveredBelow(stateAlone) < start.firstReplicableIndex) return undefined;
    const { crc32, monotonicMs } = this.#options;
    const record = { ...(await this.#read()), ...start };
    const needed = stateAlone ? [] : segments.filter(({ base }) => base.index <= record.lastIndex);
    const opened = new OpenedSnapshot(record, encodeSnapshot(record, crc32), needed, monotonicMs, () => this.#opened.delete(opened));
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
    for (const snapshot of this.#opened) snapshot.release();
  }

  async #read(): Promise<SegmentSnapshot> {
    const { disk, directory, crc32 } = this.#options;
    const lastIndex = must(this.#newest, 'there is a snapshot', directory).lastIndex;
    const snapshot = await readSnapshot(disk, directory, lastIndex, crc32);
    if (snapshot?.lastIndex === lastIndex) return snapshot;
    throw new FlotillaError('STORAGE_ERROR', `${directory}: the snapshot at entry ${lastIndex} is damaged; check this disk`);
  }
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
  readonly #onRelease: () => void;

  constructor(record: SegmentSnapshot, bytes: Uint8Array, segments: readonly Segment[], monotonicMs: () => number, onRelease: () => void) {
    this.lastIndex = record.lastIndex;
    this.lastTerm = record.lastTerm;
    this.firstIndex = segments[0]?.base.index ?? record.lastIndex + 1;
    this.#record = bytes;
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

  async read(file: number, position: number, length: number): Promise<Uint8Array> {
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

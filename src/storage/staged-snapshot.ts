/**
 * A snapshot on its way from the leader: its files as far as they have come, in `groups/NAME.staged`. A restart keeps them; a chunk that is there is
 * told by its checksum and not sent again. Nothing in the directory counts before {@link StagedSnapshot.verify} has read all of it.
 */
import { must } from '../base/assert.ts';
import type { Disk, DiskFile } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import { continuesChain } from '../raft/core/append-check.ts';
import { LOG_ORIGIN } from '../raft/core/chain.ts';
import type { LogPosition } from '../raft/core/types.ts';
import { withFile } from './files.ts';
import type { Checksums } from './payload.ts';
import { Segment } from './segment.ts';
import { type FoundSegment, findSegments, rowsOf } from './segment-directory.ts';
import type { SegmentBase } from './segment-files.ts';
import { INDEX_ROW_BYTES } from './segment-index.ts';
import { decodeSnapshot, positionOf, type SegmentSnapshot } from './segment-snapshot.ts';
import type { SnapshotFile, Staging } from './types.ts';

/** Files of one snapshot; a leader that names more is not believed. */
const MAX_FILES = 1 << 20;
const FILE_NAME = /^\d{20}-\d{20}(\.[1-9]\d{0,9})?\.(log|entries|control|snapshot)$/;
/** Synced each so many bytes, so that the system does not write it out in one burst. */
const SYNC_AT_BYTES = 8 << 20;
const VERIFY_BYTES = 4 << 20;

export class StagedSnapshot implements Staging {
  readonly files: readonly SnapshotFile[];
  readonly directory: string;
  readonly #disk: Disk;
  readonly #checksums: Checksums;
  readonly #group: string;
  readonly #opened = new Map<number, Promise<DiskFile>>();
  #unsyncedBytes = 0;

  private constructor(disk: Disk, directory: string, group: string, files: readonly SnapshotFile[], checksums: Checksums) {
    this.#disk = disk;
    this.directory = directory;
    this.#group = group;
    this.files = files;
    this.#checksums = checksums;
  }

  /**
   * Goes on with what is in the directory, or starts anew. Files that the snapshot has not are removed.
   * @throws INVALID_REQUEST when the files are none of a snapshot.
   */
  static async open(
    disk: Disk,
    directory: string,
    group: string,
    files: readonly SnapshotFile[],
    checksums: Checksums,
  ): Promise<StagedSnapshot> {
    checkFiles(files);
    await disk.makeDirectory(directory);
    const wanted = new Set(files.map(({ name }) => name));
    for (const name of await disk.list(directory)) if (!wanted.has(name)) await disk.remove(`${directory}/${name}`);
    return new StagedSnapshot(disk, directory, group, files, checksums);
  }

  /** The crc32 of what is there of a chunk, or undefined when it is not there whole. */
  async storedChecksum(file: number, position: number, length: number): Promise<number | undefined> {
    const stored = await this.#file(file);
    if ((await stored.size()) < position + length) return undefined;
    return this.#checksums.crc32(await stored.read(position, length)) >>> 0;
  }

  async write(file: number, position: number, bytes: Uint8Array, checksum: number): Promise<boolean> {
    if (this.#checksums.crc32(bytes) >>> 0 !== checksum) return false;
    await (await this.#file(file)).write(position, [bytes]);
    this.#unsyncedBytes += bytes.length;
    if (this.#unsyncedBytes >= SYNC_AT_BYTES) await this.#sync();
    return true;
  }

  /**
   * Makes all of it durable and reads all of it: rows, payloads, chain, and that they end where the record says.
   * @throws STORAGE_ERROR when something is not as it should be: then it is to be removed, and sent again.
   */
  async verify(): Promise<SegmentSnapshot> {
    for (const [at, { length }] of this.files.entries()) {
      const file = await this.#file(at);
      if ((await file.size()) > length) await file.truncate(length);
      await file.sync();
    }
    await this.close();
    await this.#disk.syncDirectory(this.directory);
    const snapshot = await this.#record();
    const last = await this.#lastOfSegments(snapshot);
    const { lastIndex, firstIndex, state } = snapshot;
    if (last === undefined && firstIndex <= lastIndex && state === undefined) throw this.#damaged('it has neither segments nor state');
    if (last !== undefined && (last.index !== lastIndex || !samePosition(last, snapshot))) {
      throw this.#damaged(`its segments end at entry ${last.index}, its record at ${lastIndex}`);
    }
    return snapshot;
  }

  async close(): Promise<void> {
    const files = [...this.#opened.values()];
    this.#opened.clear();
    for (const file of files) await (await file).close();
  }

  async #sync(): Promise<void> {
    this.#unsyncedBytes = 0;
    for (const file of [...this.#opened.values()]) await (await file).sync();
  }

  #file(at: number): Promise<DiskFile> {
    let file = this.#opened.get(at);
    if (file === undefined) {
      const { name } = must(this.files[at], 'the snapshot has the file', at);
      file = this.#disk.open(`${this.directory}/${name}`, { create: true });
      this.#opened.set(at, file);
    }
    return file;
  }

  async #record(): Promise<SegmentSnapshot> {
    const { name, length } = must(this.files[0], 'a snapshot has a record');
    const bytes = await withFile(this.#disk, `${this.directory}/${name}`, (file) => file.read(0, length));
    const snapshot = decodeSnapshot(bytes, this.#checksums.crc32);
    if (snapshot === undefined) throw this.#damaged('its record is damaged');
    if (snapshot.group !== this.#group) throw this.#damaged(`it is one of ${snapshot.group}`);
    return snapshot;
  }

  /** Undefined: there are no segments, its state stands for them. */
  async #lastOfSegments(snapshot: SegmentSnapshot): Promise<LogPosition | undefined> {
    const { firstIndex, logStartOffset } = snapshot;
    const { segments, leftovers } = await findSegments(
      this.#disk,
      this.directory,
      this.#checksums.crc32,
      await this.#disk.list(this.directory),
    );
    if (leftovers.length > 0) throw this.#damaged(`${leftovers[0]} is of no segment`);
    let last: LogPosition | undefined;
    for (const found of segments) {
      const { name } = found;
      const follows = last === undefined ? name.index === firstIndex && name.offset <= logStartOffset : isAfter(last, name);
      if (!follows) throw this.#damaged(`the segment from entry ${name.index} on does not follow what is before it`);
      last = await this.#verifySegment(found, last ?? (name.index === 1 ? LOG_ORIGIN : undefined), snapshot);
    }
    return last;
  }

  async #verifySegment(
    { name, cleaned }: FoundSegment,
    before: LogPosition | undefined,
    { firstReplicableIndex }: SegmentSnapshot,
  ): Promise<LogPosition> {
    const end = cleaned?.end;
    if (cleaned !== undefined && (end === undefined || end.index >= firstReplicableIndex))
      throw this.#damaged(`the segment from entry ${name.index} on was cleaned, and the record does not say so`);
    const rows = cleaned?.rows ?? (await rowsOf(this.#disk, this.directory, name));
    const segment = new Segment(this.#disk, this.directory, this.#checksums, name, { rows, ...(end && { end }) });
    let previous = before;
    for (let place = 0; place < rows; ) {
      const entries = await segment.readRows(place, VERIFY_BYTES);
      for (const entry of entries) {
        // In a cleaned one entries are missing before it, and the chain is what it was.
        if (previous !== undefined && cleaned === undefined && !continuesChain(previous, entry))
          throw this.#damaged(`entry ${entry.index} does not continue the chain`);
        previous = entry;
      }
      place += entries.length;
    }
    await segment.close();
    return must(previous, 'a segment has entries');
  }

  #damaged(how: string): FlotillaError {
    return new FlotillaError('STORAGE_ERROR', `the snapshot in ${this.directory} is not whole: ${how}`);
  }
}

function checkFiles(files: readonly SnapshotFile[]): void {
  const sound = files.every(
    ({ name, length }) =>
      FILE_NAME.test(name) && Number.isSafeInteger(length) && length > 0 && (!name.endsWith('.entries') || length % INDEX_ROW_BYTES === 0),
  );
  const distinct = new Set(files.map(({ name }) => name)).size === files.length;
  if (sound && distinct && files.length <= MAX_FILES && files[0]?.name.endsWith('.snapshot')) return;
  throw new FlotillaError('INVALID_REQUEST', `what the leader offers is no snapshot: ${files.length} files, the first ${files[0]?.name}`);
}

function isAfter(last: LogPosition, base: SegmentBase): boolean {
  return base.index === last.index + 1 && base.offset === last.nextOffset;
}

function samePosition(last: LogPosition, snapshot: SegmentSnapshot): boolean {
  const said = positionOf(snapshot);
  return (
    said !== undefined &&
    said.term === last.term &&
    said.nextOffset === last.nextOffset &&
    said.chainHigh === last.chainHigh &&
    said.chainLow === last.chainLow
  );
}

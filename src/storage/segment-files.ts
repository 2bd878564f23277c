/**
 * The open files of all segments, so many at a time: a broker has thousands of partitions, a partition thousands of segments, a process only so
 * many file descriptors.
 */
import type { Disk, DiskFile } from '../base/environment.ts';

/** Two files each for two thousand partitions that are all written to. Node raises the process's soft limit to its hard one. */
export const MAX_OPEN_SEGMENT_FILES = 4096;

/**
 * Opens files when they are used and closes those that were not used for longest. A file is closed only while nothing uses it, since its descriptor
 * may be another file's at once; and only when what was written is synced, since an error of the system's own writing may be told to nobody who opens
 * the file later (hazard B25).
 */
export class SegmentFiles {
  readonly disk: Disk;
  readonly #limit: number;
  /** In the order of their last use. */
  readonly #open = new Set<SegmentFile>();
  /** Open, being opened or being closed. */
  #count = 0;
  #waiting: (() => void)[] = [];

  constructor(disk: Disk, limit: number = MAX_OPEN_SEGMENT_FILES) {
    this.disk = disk;
    this.#limit = limit;
  }

  file(path: string): SegmentFile {
    return new SegmentFile(this, path);
  }

  /** For {@link SegmentFile}: its descriptor. */
  handle(file: SegmentFile): Promise<DiskFile> {
    this.#open.delete(file);
    this.#open.add(file);
    file.handle ??= this.#openFile(file);
    return file.handle;
  }

  /** For {@link SegmentFile}: nothing uses it for now. */
  released(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  /** Closes a file that nothing uses. */
  async close(file: SegmentFile): Promise<void> {
    const { handle } = file;
    file.handle = undefined;
    this.#open.delete(file);
    if (handle === undefined) return;
    try {
      await (await handle).close();
    } finally {
      this.#count--;
      this.released();
    }
  }

  async #openFile(file: SegmentFile): Promise<DiskFile> {
    try {
      while (this.#count >= this.#limit) await this.#makeRoom();
      this.#count++;
      return await this.disk.open(file.path, { create: true }).catch((error: unknown) => {
        this.#count--;
        throw error;
      });
    } catch (error) {
      // The next use tries again.
      file.handle = undefined;
      this.#open.delete(file);
      throw error;
    }
  }

  #makeRoom(): Promise<void> {
    let unsynced: SegmentFile | undefined;
    for (const file of this.#open) {
      if (file.inUse) continue;
      if (!file.dirty) return this.close(file);
      unsynced ??= file;
    }
    if (unsynced !== undefined) return unsynced.sync();
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }
}

/** A file that is made when it is first used, and open only now and then. */
export class SegmentFile implements DiskFile {
  readonly path: string;
  /** Managed by {@link SegmentFiles}. */
  handle: Promise<DiskFile> | undefined;
  readonly #files: SegmentFiles;
  #users = 0;
  #dirty = false;
  #syncing: Promise<void> = Promise.resolve();
  #unused: (() => void)[] = [];

  constructor(files: SegmentFiles, path: string) {
    this.#files = files;
    this.path = path;
  }

  get inUse(): boolean {
    return this.#users > 0;
  }

  /** Something was written that no sync has covered. */
  get dirty(): boolean {
    return this.#dirty;
  }

  size(): Promise<number> {
    return this.#use((file) => file.size());
  }

  read(position: number, length: number, room?: Uint8Array): Promise<Uint8Array> {
    return this.#use((file) => file.read(position, length, room));
  }

  write(position: number, buffers: readonly Uint8Array[]): Promise<void> {
    return this.#change((file) => file.write(position, buffers));
  }

  truncate(length: number): Promise<void> {
    return this.#change((file) => file.truncate(length));
  }

  /** One after the other: a second caller must not find nothing dirty while the first one's sync is in flight. After a failure all fail (hazard B25). */
  sync(): Promise<void> {
    this.#syncing = this.#syncing.then(() => (this.#dirty ? this.#use((file) => this.#sync(file)) : undefined));
    return this.#syncing;
  }

  /** Closes once nothing uses it; it opens again when needed. */
  async close(): Promise<void> {
    while (this.#users > 0) {
      await new Promise<void>((resolve) => {
        this.#unused.push(resolve);
      });
    }
    await this.#files.close(this);
  }

  #sync(file: DiskFile): Promise<void> {
    this.#dirty = false;
    return file.sync();
  }

  #change(work: (file: DiskFile) => Promise<void>): Promise<void> {
    return this.#use(async (file) => {
      try {
        await work(file);
      } finally {
        // Only now: a sync that ran meanwhile did not cover it.
        this.#dirty = true;
      }
    });
  }

  async #use<T>(work: (file: DiskFile) => Promise<T>): Promise<T> {
    this.#users++;
    try {
      return await work(await this.#files.handle(this));
    } finally {
      this.#users--;
      if (this.#users === 0) this.#idle();
    }
  }

  #idle(): void {
    for (const resolve of this.#unused.splice(0)) resolve();
    this.#files.released();
  }
}

/**
 * Segments are many, and what a process may hold open is bounded: a disk whose files are open only while they are used, and for as long after as
 * there is room. The one that was used longest ago is closed for the next, and opens again by itself.
 */
import type { Disk, DiskFile, DiskLock, DiskSpace } from '../base/environment.ts';

/** Files looked at for one to close. */
const MAX_LOOKS = 64;

export class PooledDisk implements Disk {
  readonly #disk: Disk;
  readonly #limit: number;
  /** Open files, in the order of their last use. */
  readonly #open = new Set<PooledFile>();
  /** Files that are open, being opened, or being closed. */
  #taken = 0;
  #waiting: (() => void)[] = [];

  /** With `limit` files in use, whoever needs another waits. */
  constructor(disk: Disk, limit: number) {
    this.#disk = disk;
    this.#limit = Math.max(1, limit);
  }

  /** Files open now. */
  get openCount(): number {
    return this.#taken;
  }

  async open(path: string, options: { readonly create: boolean }): Promise<DiskFile> {
    const file = new PooledFile(this, path);
    await file.begin(options.create);
    file.end();
    return file;
  }

  makeDirectory(path: string): Promise<void> {
    return this.#disk.makeDirectory(path);
  }

  list(path: string): Promise<string[]> {
    return this.#disk.list(path);
  }

  exists(path: string): Promise<boolean> {
    return this.#disk.exists(path);
  }

  rename(from: string, to: string): Promise<void> {
    return this.#disk.rename(from, to);
  }

  remove(path: string): Promise<void> {
    return this.#disk.remove(path);
  }

  removeTree(path: string): Promise<void> {
    return this.#disk.removeTree(path);
  }

  /** A directory is open while it is synced. */
  async syncDirectory(path: string): Promise<void> {
    await this.#room();
    try {
      await this.#disk.syncDirectory(path);
    } finally {
      this.#giveBack();
    }
  }

  freeSpace(path: string): Promise<DiskSpace> {
    return this.#disk.freeSpace(path);
  }

  lock(path: string): Promise<DiskLock> {
    return this.#disk.lock(path);
  }

  /** @internal Opens a file once there is room for it. */
  async take(path: string, create: boolean): Promise<DiskFile> {
    await this.#room();
    try {
      return await this.#disk.open(path, { create });
    } catch (error) {
      this.#giveBack();
      throw error;
    }
  }

  /** @internal */
  used(file: PooledFile): void {
    this.#open.delete(file);
    this.#open.add(file);
  }

  /** @internal The file is used no more for now: it may be closed for another. */
  idle(): void {
    if (this.#waiting.length > 0) this.#wake();
  }

  /** @internal Closes an open file of {@link take}, its writes synced where that is asked for. */
  async release(file: PooledFile, opened: Promise<DiskFile>, sync: boolean): Promise<void> {
    this.#open.delete(file);
    const taken = await opened;
    try {
      if (sync) await taken.sync();
    } finally {
      await taken.close().finally(() => this.#giveBack());
    }
  }

  async #room(): Promise<void> {
    while (this.#taken >= this.#limit) await (this.#closeOldest() ?? this.#someoneDone());
    this.#taken++;
  }

  #giveBack(): void {
    this.#taken--;
    this.#wake();
  }

  #someoneDone(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Files with unsynced writes are spared: closing them takes a sync, which their owner does anyway before long. Undefined: all are in use. */
  #closeOldest(): Promise<void> | undefined {
    let spared: PooledFile | undefined;
    let looks = 0;
    for (const file of this.#open) {
      if (file.isIdle && !file.isDirty) return file.letGo();
      if (file.isIdle) spared ??= file;
      if (++looks >= MAX_LOOKS && spared !== undefined) break;
    }
    return spared?.letGo();
  }
}

class PooledFile implements DiskFile {
  readonly #pool: PooledDisk;
  readonly #path: string;
  #file: Promise<DiskFile> | undefined;
  #users = 0;
  #unsynced = false;
  /** What closing it for another ran into: final, as a failed sync is (hazard B25). */
  #failure: { readonly error: unknown } | undefined;
  #closing: Promise<void> = Promise.resolve();
  /** Called once nobody uses it. */
  #unused: (() => void)[] = [];

  constructor(pool: PooledDisk, path: string) {
    this.#pool = pool;
    this.#path = path;
  }

  get isIdle(): boolean {
    return this.#users === 0 && this.#file !== undefined;
  }

  get isDirty(): boolean {
    return this.#unsynced;
  }

  /** The open file, which stays open until {@link end}. */
  async begin(create = false): Promise<DiskFile> {
    this.#users++;
    try {
      await this.#closing;
      if (this.#failure !== undefined) throw this.#failure.error;
      this.#file ??= this.#pool.take(this.#path, create);
      const file = await this.#file;
      this.#pool.used(this);
      return file;
    } catch (error) {
      this.#file = undefined;
      this.end();
      throw error;
    }
  }

  end(): void {
    this.#users--;
    if (this.#users > 0) return;
    for (const resolve of this.#unused.splice(0)) resolve();
    this.#pool.idle();
  }

  /** Closes it; the next use opens it again. */
  letGo(): Promise<void> {
    const file = this.#file;
    if (file === undefined) return this.#closing;
    const wasDirty = this.#unsynced;
    this.#file = undefined;
    this.#unsynced = false;
    this.#closing = this.#pool.release(this, file, wasDirty).catch((error: unknown) => {
      this.#failure = { error };
    });
    return this.#closing;
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

  sync(): Promise<void> {
    return this.#use(async (file) => {
      // What is written meanwhile is not covered.
      this.#unsynced = false;
      try {
        await file.sync();
      } catch (error) {
        this.#failure = { error };
        throw error;
      }
    });
  }

  /** Once nobody uses it: a descriptor that is closed under a sync or read may be another file's at once. */
  async close(): Promise<void> {
    for (await this.#closing; this.#users > 0; await this.#closing) {
      await new Promise<void>((resolve) => {
        this.#unused.push(resolve);
      });
    }
    const file = this.#file;
    this.#file = undefined;
    if (file !== undefined) await this.#pool.release(this, file, false);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #change(work: (file: DiskFile) => Promise<void>): Promise<void> {
    return this.#use(async (file) => {
      await work(file);
      this.#unsynced = true;
    });
  }

  async #use<T>(work: (file: DiskFile) => Promise<T>): Promise<T> {
    const file = await this.begin();
    try {
      return await work(file);
    } finally {
      this.end();
    }
  }
}

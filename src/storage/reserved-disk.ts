/**
 * A disk with room kept back (hazard B37): a file of zeros, `reserve`, that is given up when the file system is full. What then was under way ends, votes are
 * written, and segments can go, which takes a little room before it gives any. Whoever meets ENOSPC tries once more behind that; who meets it again hears of it.
 */
import type { Disk, DiskFile, DiskLock, DiskSpace, Logger } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';

/** Zeros of one write: nobody is to wait behind the whole reserve. */
const CHUNK_BYTES = 1 << 20;

export interface ReserveOptions {
  /** Of the file. */
  readonly path: string;
  readonly directory: string;
  /** 0: no reserve. */
  readonly bytes: number;
  readonly log: Logger;
  /** The file system was full, and the reserve is given up. */
  readonly released: () => void;
}

export class ReservedDisk implements Disk {
  readonly openFileLimit: number | undefined;
  readonly #disk: Disk;
  readonly #options: ReserveOptions;
  /** Present once it was given up, until there is another. */
  #released: Promise<boolean> | undefined;
  #preparing: Promise<boolean> | undefined;

  constructor(disk: Disk, options: ReserveOptions) {
    this.#disk = disk;
    this.#options = options;
    this.openFileLimit = disk.openFileLimit;
  }

  /** Writes the reserve unless it is there. False: there was no room for it. To be called where there is plenty. */
  prepare(): Promise<boolean> {
    this.#preparing ??= this.#write()
      .catch((error: unknown) => {
        this.#options.log.warn('reserve not written', { path: this.#options.path, error: messageOf(error) });
        return false;
      })
      .finally(() => {
        this.#preparing = undefined;
      });
    return this.#preparing;
  }

  async open(path: string, options: { create: boolean }): Promise<DiskFile> {
    return new ReservedFile(this, await this.retried(() => this.#disk.open(path, options)));
  }

  makeDirectory(path: string): Promise<void> {
    return this.retried(() => this.#disk.makeDirectory(path));
  }

  list(path: string): Promise<string[]> {
    return this.#disk.list(path);
  }

  exists(path: string): Promise<boolean> {
    return this.#disk.exists(path);
  }

  rename(from: string, to: string): Promise<void> {
    return this.retried(() => this.#disk.rename(from, to));
  }

  remove(path: string): Promise<void> {
    return this.#disk.remove(path);
  }

  removeTree(path: string): Promise<void> {
    return this.#disk.removeTree(path);
  }

  syncDirectory(path: string): Promise<void> {
    return this.#disk.syncDirectory(path);
  }

  freeSpace(path: string): Promise<DiskSpace> {
    return this.#disk.freeSpace(path);
  }

  lock(path: string): Promise<DiskLock> {
    return this.#disk.lock(path);
  }

  /** @internal Does the work; once more behind the reserve, when there is no room. */
  async retried<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!isFull(error) || !(await this.#release())) throw error;
      return work();
    }
  }

  /** All that meet the full disk at the same time share it. False: there is none. */
  #release(): Promise<boolean> {
    this.#released ??= this.#giveUp();
    return this.#released;
  }

  async #giveUp(): Promise<boolean> {
    const { path, directory, bytes, log, released } = this.#options;
    await this.#preparing;
    const isThere = bytes > 0 && (await this.#disk.exists(path));
    log.error('disk full', {
      directory,
      reserve: isThere ? `${bytes} bytes, given up` : 'none left',
      advice: 'make room; service returns by itself',
    });
    if (isThere) {
      await this.#disk.remove(path);
      await this.#disk.syncDirectory(directory);
    }
    released();
    return isThere;
  }

  async #write(): Promise<boolean> {
    const { path, directory, bytes } = this.#options;
    if (bytes === 0) return false;
    const file = await this.#disk.open(path, { create: true });
    try {
      const zeros = new Uint8Array(Math.min(bytes, CHUNK_BYTES));
      for (let at = await file.size(); at < bytes; at += zeros.length)
        await file.write(at, [zeros.subarray(0, Math.min(zeros.length, bytes - at))]);
      await file.sync();
    } finally {
      await file.close();
    }
    await this.#disk.syncDirectory(directory);
    this.#released = undefined;
    return true;
  }
}

class ReservedFile implements DiskFile {
  readonly #disk: ReservedDisk;
  readonly #file: DiskFile;

  constructor(disk: ReservedDisk, file: DiskFile) {
    this.#disk = disk;
    this.#file = file;
  }

  size(): Promise<number> {
    return this.#file.size();
  }

  read(position: number, length: number, room?: Uint8Array): Promise<Uint8Array> {
    return this.#file.read(position, length, room);
  }

  write(position: number, buffers: readonly Uint8Array[]): Promise<void> {
    return this.#disk.retried(() => this.#file.write(position, buffers));
  }

  sync(): Promise<void> {
    return this.#file.sync();
  }

  truncate(length: number): Promise<void> {
    return this.#disk.retried(() => this.#file.truncate(length));
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

function isFull(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT');
}

/**
 * The real disk. Calls go through libuv's thread pool on plain descriptors: `FileHandle` would add an object, a close-on-collect hook and a
 * promise layer per call.
 */
import fs from 'node:fs';
import fsPromises from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import type { Disk, DiskFile, DiskLock, DiskSpace } from '../base/environment.ts';
import { acquireLock } from './disk-lock.ts';

/** Linux's IOV_MAX: more buffers in one writev are refused with EINVAL. */
const IOV_MAX = 1024;

const open = promisify(fs.open);
const close = promisify(fs.close);
const fdatasync = promisify(fs.fdatasync);
const fsync = promisify(fs.fsync);
const ftruncate = promisify(fs.ftruncate);
const fstat = promisify(fs.fstat);

export class NodeDisk implements Disk {
  readonly openFileLimit: number | undefined;

  constructor(limit?: number) {
    this.openFileLimit = limit;
  }

  async open(path: string, options: { create: boolean }): Promise<DiskFile> {
    const flags = fs.constants.O_RDWR | (options.create ? fs.constants.O_CREAT : 0);
    return new NodeFile(await open(path, flags, 0o644));
  }

  /** Level by level: Node's recursive mkdir goes round for ever, at 100% of a processor, where an existing directory says ENOENT, as /proc does. */
  async makeDirectory(path: string): Promise<void> {
    const parent = dirname(path);
    if (parent !== path && !(await this.exists(parent))) await this.makeDirectory(parent);
    try {
      await fsPromises.mkdir(path);
    } catch (error) {
      if (!(await isDirectory(path))) throw error;
    }
  }

  async list(path: string): Promise<string[]> {
    try {
      return (await fsPromises.readdir(path)).sort();
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  }

  async exists(path: string): Promise<boolean> {
    try {
      await fsPromises.stat(path);
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  rename(from: string, to: string): Promise<void> {
    return fsPromises.rename(from, to);
  }

  remove(path: string): Promise<void> {
    return fsPromises.unlink(path);
  }

  removeTree(path: string): Promise<void> {
    return fsPromises.rm(path, { recursive: true, force: true });
  }

  async syncDirectory(path: string): Promise<void> {
    // Windows opens no directories; NTFS journals names by itself.
    if (process.platform === 'win32') return;
    const fd = await open(path, fs.constants.O_RDONLY);
    try {
      await fsync(fd);
    } finally {
      await close(fd);
    }
  }

  async freeSpace(path: string): Promise<DiskSpace> {
    const { bsize, bavail, blocks } = await fsPromises.statfs(path);
    return { freeBytes: bsize * bavail, totalBytes: bsize * blocks };
  }

  lock(path: string): Promise<DiskLock> {
    return acquireLock(path);
  }
}

/** Opens files for reading only: for a directory that is looked at and must not change. */
export class ReadOnlyDisk extends NodeDisk {
  override async open(path: string): Promise<DiskFile> {
    return new NodeFile(await open(path, fs.constants.O_RDONLY));
  }
}

class NodeFile implements DiskFile {
  readonly #fd: number;
  constructor(fd: number) {
    this.#fd = fd;
  }

  async size(): Promise<number> {
    return (await fstat(this.#fd)).size;
  }

  read(position: number, length: number, room?: Uint8Array): Promise<Uint8Array> {
    // Not Buffer's pool: the caller may hold the bytes for long.
    const bytes = room === undefined ? new Uint8Array(length) : room.subarray(0, length);
    return new Promise((resolve, reject) => {
      const readFrom = (done: number): void => {
        fs.read(this.#fd, bytes, done, length - done, position + done, (error, count) => {
          if (error) reject(error);
          else if (count === 0) resolve(bytes.subarray(0, done));
          else if (done + count === length) resolve(bytes);
          else readFrom(done + count);
        });
      };
      if (length === 0) resolve(bytes);
      else readFrom(0);
    });
  }

  async write(position: number, buffers: readonly Uint8Array[]): Promise<void> {
    const single = buffers.length === 1 ? buffers[0] : undefined;
    if (single !== undefined) return this.#writeAll(position, single);
    let at = position;
    for (let from = 0; from < buffers.length; from += IOV_MAX) at += await this.#writeVector(at, buffers.slice(from, from + IOV_MAX));
  }

  sync(): Promise<void> {
    return fdatasync(this.#fd);
  }

  truncate(length: number): Promise<void> {
    return ftruncate(this.#fd, length);
  }

  close(): Promise<void> {
    return close(this.#fd);
  }

  #writeAll(position: number, bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      const writeFrom = (done: number): void => {
        fs.write(this.#fd, bytes, done, bytes.length - done, position + done, (error, count) => {
          if (error) reject(error);
          else if (done + count === bytes.length) resolve();
          else writeFrom(done + count);
        });
      };
      if (bytes.length === 0) resolve();
      else writeFrom(0);
    });
  }

  async #writeVector(position: number, buffers: readonly Uint8Array[]): Promise<number> {
    let total = 0;
    for (const buffer of buffers) total += buffer.length;
    if (total === 0) return 0;
    const written = await new Promise<number>((resolve, reject) => {
      fs.writev(this.#fd, buffers, position, (error, count) => (error ? reject(error) : resolve(count)));
    });
    if (written < total) await this.#finishVector(position, buffers, written);
    return total;
  }

  /** A short writev is rare (a full disk, a signal): the rest goes buffer by buffer. */
  async #finishVector(position: number, buffers: readonly Uint8Array[], written: number): Promise<void> {
    let start = 0;
    for (const buffer of buffers) {
      const skip = Math.min(Math.max(written - start, 0), buffer.length);
      if (skip < buffer.length) await this.#writeAll(position + start + skip, buffer.subarray(skip));
      start += buffer.length;
    }
  }
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await fsPromises.stat(path)).isDirectory();
  } catch {
    return false;
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

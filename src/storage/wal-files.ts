/** The files of the write-ahead log: a few of equal size, each overwritten in place from its start under the next generation. */
import { assert, must } from '../base/assert.ts';
import type { Disk, DiskFile } from '../base/environment.ts';
import { PAGE_BYTES } from './wal-frame.ts';

const ZERO_FILL_BYTES = 1 << 20;

export interface WalFile {
  readonly name: string;
  readonly file: DiskFile;
  readonly size: number;
  /** 0: never used, or what it holds is void. */
  generation: number;
}

/** Names of write-ahead log files in a directory listing: `00000001.wal`. */
export function walFileNames(names: readonly string[]): string[] {
  return names.filter((name) => /^\d{8}\.wal$/.test(name));
}

export class WalFiles {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #fileBytes: number;
  readonly #used: WalFile[] = [];
  readonly #free: WalFile[] = [];
  #lastNumber = 0;

  constructor(disk: Disk, path: string, fileBytes: number) {
    assert(fileBytes % PAGE_BYTES === 0, 'a WAL file is whole pages', fileBytes);
    this.#disk = disk;
    this.#path = path;
    this.#fileBytes = fileBytes;
  }

  /** Takes over a file that recovery opened; generation 0: free. */
  adopt(file: WalFile): void {
    this.#lastNumber = Math.max(this.#lastNumber, Number.parseInt(file.name, 10));
    (file.generation === 0 ? this.#free : this.#used).push(file);
    this.#used.sort((a, b) => a.generation - b.generation);
  }

  get count(): number {
    return this.#used.length + this.#free.length;
  }

  get usedCount(): number {
    return this.#used.length;
  }

  get freeCount(): number {
    return this.#free.length;
  }

  /** The file that is written to. */
  get current(): WalFile {
    return must(this.#used.at(-1), 'a WAL file is in use');
  }

  get oldest(): WalFile {
    return must(this.#used[0], 'a WAL file is in use');
  }

  /** The oldest once those are retired. */
  oldestExcept(generations: readonly number[]): WalFile {
    return must(
      this.#used.find(({ generation }) => !generations.includes(generation)),
      'the file in use is never retired',
    );
  }

  /** Turns to a free file under a new generation. */
  turn(generation: number): void {
    const next = must(this.#free.shift(), 'a WAL file is free');
    next.generation = generation;
    this.#used.push(next);
  }

  /** Gives a file free: nothing in it is needed any more. */
  async retire(generation: number): Promise<void> {
    const at = this.#used.findIndex((file) => file.generation === generation);
    const file = must(this.#used[at], 'the file is in use', generation);
    assert(file !== this.current, 'the file in use is never retired');
    this.#used.splice(at, 1);
    file.generation = 0;
    if (this.isReusable(file)) this.#free.push(file);
    else await this.remove(file);
  }

  /** False for a file that is smaller than files are now: a frame might not fit. */
  isReusable(file: WalFile): boolean {
    return file.size >= this.#fileBytes;
  }

  /** Should a crash undo it, the file is found free again. */
  async remove({ file, name }: WalFile): Promise<void> {
    await file.close();
    await this.#disk.remove(`${this.#path}/${name}`);
  }

  /** Creates one more free file, its blocks allocated, so that writing to it changes no metadata. */
  async create(): Promise<void> {
    const name = `${String(++this.#lastNumber).padStart(8, '0')}.wal`;
    const file = await this.#disk.open(`${this.#path}/${name}`, { create: true });
    const zeros = new Uint8Array(Math.min(ZERO_FILL_BYTES, this.#fileBytes));
    for (let at = 0; at < this.#fileBytes; at += zeros.length) {
      await file.write(at, [zeros.subarray(0, Math.min(zeros.length, this.#fileBytes - at))]);
    }
    await file.sync();
    await this.#disk.syncDirectory(this.#path);
    this.#free.push({ name, file, size: this.#fileBytes, generation: 0 });
  }

  async close(): Promise<void> {
    for (const { file } of [...this.#used, ...this.#free]) await file.close();
  }
}

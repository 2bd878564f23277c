/**
 * The files of one segment, which are named by the offset and the index that it starts at, 20 digits each: `00000000000000000042-00000000000000000057.log`. Those of a
 * cleaned segment have a generation as well, from 1 on: `00000000000000000042-00000000000000000057.1.log`. What they hold is specified in segment.ts.
 */
import { must } from '../base/assert.ts';
import type { Disk, DiskFile } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';

export interface SegmentBase {
  readonly index: number;
  readonly offset: number;
}

export interface SegmentName extends SegmentBase {
  /** 0: as it was written; each cleaning makes a higher one. */
  readonly generation: number;
}

export type Extension = 'log' | 'entries' | 'control';
export const EXTENSIONS: readonly Extension[] = ['entries', 'control', 'log'];

export function segmentName({ offset, index, generation = 0 }: SegmentBase & { readonly generation?: number }): string {
  const name = `${String(offset).padStart(20, '0')}-${String(index).padStart(20, '0')}`;
  return generation === 0 ? name : `${name}.${generation}`;
}

/** What a file name states, or undefined when it is no segment's file with that extension. */
export function parseSegmentName(name: string, extension: string): SegmentName | undefined {
  const match = /^(\d{20})-(\d{20})(?:\.([1-9]\d{0,9}))?\.(\w+)$/.exec(name);
  if (match === null || match[4] !== extension) return undefined;
  return { offset: Number(match[1]), index: Number(match[2]), generation: Number(match[3] ?? 0) };
}

const NOTHING = Promise.resolve();
const NO_FILES: readonly Extension[] = [];

export class SegmentFiles {
  readonly name: string;
  /** Few, of three: plain, as there are thousands of segments. */
  #open: Partial<Record<Extension, Promise<DiskFile>>> = {};
  #dirty: readonly Extension[] = NO_FILES;
  /** Present once the files are gone, or another log's: what those get who still read. */
  #retired: FlotillaError | undefined;
  /** Of files that were found, too, the process that made them may have been killed before it could sync the names. */
  #namesDurable = false;
  #syncing: Promise<void> = NOTHING;
  readonly #disk: Disk;
  readonly #directory: string;

  constructor(disk: Disk, directory: string, name: SegmentName) {
    this.#disk = disk;
    this.#directory = directory;
    this.name = segmentName(name);
  }

  pathOf(extension: Extension): string {
    return `${this.#directory}/${this.name}.${extension}`;
  }

  async read(extension: Extension, position: number, length: number, room?: Uint8Array): Promise<Uint8Array> {
    return (await this.#file(extension)).read(position, length, room);
  }

  /** Not synced. */
  async write(extension: Extension, position: number, buffers: readonly Uint8Array[]): Promise<void> {
    const file = await this.#file(extension);
    await file.write(position, buffers);
    // Only now: a sync that ran meanwhile did not cover it.
    this.#markDirty(extension);
    if (position === 0) this.#namesDurable = false;
  }

  async size(extension: Extension): Promise<number> {
    return (await this.#file(extension)).size();
  }

  /** Cuts off what stands behind so many bytes. */
  async trim(extension: Extension, bytes: number): Promise<void> {
    const file = await this.#file(extension);
    if ((await file.size()) <= bytes) return;
    await file.truncate(bytes);
    this.#markDirty(extension);
  }

  /** Makes all that was written durable, names included (hazard B26). */
  sync(): Promise<void> {
    // One after the other: a second caller must not find nothing dirty while the first one's sync is in flight.
    this.#syncing = this.#syncing.then(() => this.#syncDirty());
    return this.#syncing;
  }

  async #syncDirty(): Promise<void> {
    // Payloads before the rows that name them is not needed for safety: nothing counts as synced before all are.
    for (const extension of this.#dirty) {
      this.#dirty = this.#dirty.filter((other) => other !== extension);
      await (await this.#file(extension)).sync();
    }
    if (this.#namesDurable) return;
    this.#namesDurable = true;
    await this.#disk.syncDirectory(this.#directory);
  }

  /** Those that there are, with their lengths. */
  async list(): Promise<{ readonly name: string; readonly length: number }[]> {
    const files: { name: string; length: number }[] = [];
    for (const extension of EXTENSIONS) {
      if (this.#open[extension] === undefined && !(await this.#disk.exists(this.pathOf(extension)))) continue;
      files.push({ name: `${this.name}.${extension}`, length: await this.size(extension) });
    }
    return files;
  }

  /** Bytes of one that {@link list} named. */
  async readNamed(name: string, position: number, length: number): Promise<Uint8Array> {
    const extension = EXTENSIONS.find((candidate) => name === `${this.name}.${candidate}`);
    return this.read(must(extension, 'the file is of this segment', name), position, length);
  }

  /** They open again when needed. */
  async close(): Promise<void> {
    // A sync goes from file to file: none is to be opened again behind this. Whoever asked for it hears of its failure.
    await this.#syncing.catch(() => {});
    const files = Object.values(this.#open);
    this.#open = {};
    for (const file of files) await (await file).close();
  }

  /** Closes them for good; whoever still reads gets the error. */
  async retire(error: FlotillaError): Promise<void> {
    await this.#syncing.catch(() => {});
    this.#retired = error;
    await this.close();
  }

  /** Durable once the directory is synced. */
  async remove(error?: FlotillaError): Promise<void> {
    await this.retire(
      error ?? new FlotillaError('OFFSET_OUT_OF_RANGE', `${this.pathOf('log')} is no longer kept; read from the log's start on`),
    );
    // The rows last: as long as they are there, what a crash left of the segment is found.
    for (const extension of EXTENSIONS.toReversed()) {
      const path = this.pathOf(extension);
      if (await this.#disk.exists(path)) await this.#disk.remove(path);
    }
  }

  #markDirty(extension: Extension): void {
    if (!this.#dirty.includes(extension)) this.#dirty = this.#dirty.concat(extension);
  }

  #file(extension: Extension): Promise<DiskFile> {
    if (this.#retired !== undefined) return Promise.reject(this.#retired);
    let file = this.#open[extension];
    if (file === undefined) {
      file = this.#disk.open(this.pathOf(extension), { create: true }).catch((error: unknown) => {
        delete this.#open[extension];
        throw error;
      });
      this.#open[extension] = file;
    }
    return file;
  }
}

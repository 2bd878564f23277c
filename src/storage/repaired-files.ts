/** The files of a segment that is repaired, opened as they are needed, and made where they are gone. */
import type { Disk, DiskFile } from '../base/environment.ts';

export class RepairedFiles {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #failed: (error: unknown) => void;
  readonly #open = new Map<string, DiskFile>();

  /** `path`: without an extension. `failed`: a write or a sync did. */
  constructor(disk: Disk, path: string, failed: (error: unknown) => void) {
    this.#disk = disk;
    this.#path = path;
    this.#failed = failed;
  }

  async open(extension: string): Promise<DiskFile> {
    const open = this.#open.get(extension) ?? (await this.#disk.open(`${this.#path}.${extension}`, { create: true }));
    this.#open.set(extension, open);
    return open;
  }

  async write(extension: string, position: number, bytes: Uint8Array): Promise<void> {
    const file = await this.open(extension);
    await this.#orFail(file.write(position, [bytes]));
  }

  async sync(): Promise<void> {
    for (const file of this.#open.values()) await this.#orFail(file.sync());
  }

  async close(): Promise<void> {
    for (const file of this.#open.values()) await file.close();
  }

  async #orFail(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.#failed(error);
      throw error;
    }
  }
}

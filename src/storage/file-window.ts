import type { DiskFile } from '../base/environment.ts';

/** Read at once; what is asked for in one piece is read whole. */
const WINDOW_BYTES = 4 << 20;

/** Reads a file in large pieces, for whoever goes through it from the front; a view pins its piece only. */
export class FileWindow {
  readonly size: number;
  readonly #file: DiskFile;
  #bytes: Uint8Array = new Uint8Array(0);
  #start = 0;

  constructor(file: DiskFile, size: number) {
    this.#file = file;
    this.size = size;
  }

  /** The bytes from `position` on; fewer than `length` where the file ends. */
  async at(position: number, length: number): Promise<Uint8Array> {
    const wanted = Math.max(0, Math.min(length, this.size - position));
    const offset = position - this.#start;
    if (offset < 0 || offset + wanted > this.#bytes.length) {
      this.#bytes = await this.#file.read(position, Math.max(wanted, Math.min(WINDOW_BYTES, this.size - position)));
      this.#start = position;
      return this.#bytes.subarray(0, wanted);
    }
    return this.#bytes.subarray(offset, offset + wanted);
  }
}

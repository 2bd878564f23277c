/** Bytes of a pooled buffer: what a fetch reads at once. */
export const READ_BUFFER_BYTES = 1 << 20;
/** Buffers kept for later, at most. */
const MAX_FREE_BUFFERS = 8;

/**
 * Memory for large reads that go straight out again. A fresh megabyte for each is mapped, cleared, faulted in and collected, which costs a broker
 * more than reading into it. A buffer that is never given back is collected like any other.
 */
export class ReadBuffers {
  readonly #free: ArrayBuffer[] = [];

  /** Room for `length` bytes, with anything in them; undefined where pooling does not pay. */
  take(length: number): Uint8Array | undefined {
    if (length > READ_BUFFER_BYTES || length < READ_BUFFER_BYTES / 2) return undefined;
    return new Uint8Array(this.#free.pop() ?? new ArrayBuffer(READ_BUFFER_BYTES), 0, length);
  }

  /** Once for each {@link take}, when nothing looks at the bytes any more. */
  give(room: Uint8Array): void {
    const { buffer } = room;
    if (buffer instanceof ArrayBuffer && buffer.byteLength === READ_BUFFER_BYTES && this.#free.length < MAX_FREE_BUFFERS) {
      this.#free.push(buffer);
    }
  }
}

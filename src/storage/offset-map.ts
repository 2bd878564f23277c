/**
 * The newest offset of each key, for compaction: keys by their 128-bit hashes, in memory that is given beforehand and never grows (Kafka: SkimpyOffsetMap).
 * Two keys with one hash would be one: with a good hash of 128 bits that does not happen. Open addressing; 24 bytes a slot.
 */
import { assert } from '../base/assert.ts';
import { readUint32 } from '../raft/core/entry-codec.ts';

export const HASH_BYTES = 16;
const SLOT_BYTES = 24;
const WORDS = 4;
/** Kafka's log.cleaner.io.buffer.load.factor: fuller, and looking for a key that is not there takes long. */
const MAX_LOAD = 0.9;

/** 16 bytes, of which any bit is as good as any other. */
export type KeyHash = (key: Uint8Array) => Uint8Array;

export class OffsetMap {
  readonly #hash: KeyHash;
  readonly #slots: number;
  readonly #hashes: Uint32Array;
  /** One more than the offset; 0: the slot is empty. */
  readonly #offsets: Float64Array;
  #size = 0;

  constructor(bytes: number, hash: KeyHash) {
    this.#slots = Math.floor(bytes / SLOT_BYTES);
    assert(this.#slots >= 2, 'an offset map has room for two keys', bytes);
    this.#hash = hash;
    this.#hashes = new Uint32Array(this.#slots * WORDS);
    this.#offsets = new Float64Array(this.#slots);
  }

  /** Keys in it. */
  get size(): number {
    return this.#size;
  }

  /** Keys that fit. */
  get capacity(): number {
    return Math.floor(this.#slots * MAX_LOAD);
  }

  /** The key's newest offset is this one. False: there is no room for one more key. */
  put(key: Uint8Array, offset: number): boolean {
    const slot = this.#find(this.#hash(key));
    if (this.#offsets[slot] === 0) {
      if (this.#size >= this.capacity) return false;
      this.#size++;
    }
    this.#offsets[slot] = offset + 1;
    return true;
  }

  /** Undefined: no record with the key was put. */
  get(key: Uint8Array): number | undefined {
    const stored = this.#offsets[this.#find(this.#hash(key))] ?? 0;
    return stored === 0 ? undefined : stored - 1;
  }

  clear(): void {
    this.#offsets.fill(0);
    this.#size = 0;
  }

  /** The slot of the hash, which takes it when it is empty. */
  #find(hash: Uint8Array): number {
    assert(hash.length === HASH_BYTES, 'a key hash has 16 bytes', hash.length);
    const first = readUint32(hash, 0);
    const [second, third, fourth] = [readUint32(hash, 4), readUint32(hash, 8), readUint32(hash, 12)];
    for (let slot = first % this.#slots; ; slot = slot + 1 === this.#slots ? 0 : slot + 1) {
      const at = slot * WORDS;
      if (this.#offsets[slot] === 0) {
        this.#hashes.set([first, second, third, fourth], at);
        return slot;
      }
      const isSame =
        this.#hashes[at] === first && this.#hashes[at + 1] === second && this.#hashes[at + 2] === third && this.#hashes[at + 3] === fourth;
      if (isSame) return slot;
    }
  }
}

/**
 * The newest offset of each key, for compaction: keys by their 128-bit hashes, in memory that is given beforehand and never grows (Kafka: SkimpyOffsetMap).
 * Open addressing; 24 bytes a slot.
 */
import { assert } from '../base/assert.ts';
import { murmur3 } from './murmur3.ts';

const SLOT_BYTES = 24;
const WORDS = 4;
/** Kafka's log.cleaner.io.buffer.load.factor: fuller, and looking for a key that is not there takes long. */
const MAX_LOAD = 0.9;

/** Writes a 128-bit hash of the key as four words, uniformly distributed: the first alone chooses a slot. */
export type KeyHash = (key: Uint8Array, into: Uint32Array) => void;

/** Keys that fit into a map of so many bytes. */
export function mapCapacity(bytes: number): number {
  return Math.floor(Math.floor(bytes / SLOT_BYTES) * MAX_LOAD);
}

/** Bytes of a map that so many keys fit into. */
export function mapBytesFor(keys: number): number {
  return (Math.ceil(keys / MAX_LOAD) + 2) * SLOT_BYTES;
}

export class OffsetMap {
  readonly capacity: number;
  readonly #hash: KeyHash;
  readonly #slots: number;
  readonly #hashes: Uint32Array;
  /** One more than the offset; 0: the slot is empty. */
  readonly #offsets: Float64Array;
  readonly #words = new Uint32Array(WORDS);
  #size = 0;

  constructor(bytes: number, hash: KeyHash = murmur3) {
    this.#slots = Math.floor(bytes / SLOT_BYTES);
    assert(this.#slots >= 2, 'an offset map has room for two keys', bytes);
    this.capacity = mapCapacity(bytes);
    this.#hash = hash;
    this.#hashes = new Uint32Array(this.#slots * WORDS);
    this.#offsets = new Float64Array(this.#slots);
  }

  /** Keys in it. */
  get size(): number {
    return this.#size;
  }

  /** Notes the key's offset, unless a newer one is there. False: there is no room for one more key. */
  put(key: Uint8Array, offset: number): boolean {
    const slot = this.#find(key);
    const stored = this.#offsets[slot] ?? 0;
    if (stored === 0) {
      if (this.#size >= this.capacity) return false;
      this.#size++;
      this.#hashes.set(this.#words, slot * WORDS);
    }
    if (offset >= stored) this.#offsets[slot] = offset + 1;
    return true;
  }

  /** Undefined: no record with the key was put. */
  get(key: Uint8Array): number | undefined {
    const stored = this.#offsets[this.#find(key)] ?? 0;
    return stored === 0 ? undefined : stored - 1;
  }

  /** The slot of the key, or the empty one that it would take. */
  #find(key: Uint8Array): number {
    const words = this.#words;
    this.#hash(key, words);
    const [first = 0, second, third, fourth] = words;
    for (let slot = first % this.#slots; ; slot = slot + 1 === this.#slots ? 0 : slot + 1) {
      if (this.#offsets[slot] === 0) return slot;
      const at = slot * WORDS;
      const hashes = this.#hashes;
      if (hashes[at] === first && hashes[at + 1] === second && hashes[at + 2] === third && hashes[at + 3] === fourth) return slot;
    }
  }
}

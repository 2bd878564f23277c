/** What is known of the records of compacted topics, and what may be missing of them. */
import type { SeededRandom } from './random.ts';

/** Records that get a key before the next ones get others: keys that nobody writes any more show what became of them. */
const RECORDS_A_KEY = 30;

/** Where a key of a partition stands. */
export interface Newest {
  readonly id: string;
  readonly offset: number;
  readonly tombstone: boolean;
}

interface Sent {
  /** Partition and key. */
  readonly place: string;
  readonly tombstone: boolean;
  offset: number | undefined;
}

export class KeyedRecords {
  readonly #random: SeededRandom;
  readonly #keysAtOnce: number;
  readonly #sent = new Map<string, Sent>();
  readonly #newest = new Map<string, Newest>();
  #count = 0;

  constructor(random: SeededRandom, keysAtOnce: number) {
    this.#random = random;
    this.#keysAtOnce = keysAtOnce;
  }

  nextKey(): string {
    return `k${Math.floor(this.#count++ / RECORDS_A_KEY) + this.#random.below(this.#keysAtOnce)}`;
  }

  sent(id: string, partition: number, key: string, tombstone: boolean): void {
    this.#sent.set(id, { place: `${partition}/${key}`, tombstone, offset: undefined });
  }

  /** It was acknowledged with the offset, or read there. */
  seen(id: string, offset: number): void {
    const sent = this.#sent.get(id);
    if (sent === undefined || offset < 0) return;
    sent.offset = offset;
    if (offset >= (this.#newest.get(sent.place)?.offset ?? 0)) this.#newest.set(sent.place, { id, offset, tombstone: sent.tombstone });
  }

  /** The newest record that is known, of each key of a partition. */
  *newestOf(partition: number): Iterable<readonly [key: string, newest: Newest]> {
    const prefix = `${partition}/`;
    for (const [place, newest] of this.#newest) if (place.startsWith(prefix)) yield [place.slice(prefix.length), newest];
  }

  /** There is a newer record of its key, it is a tombstone, or one may have deleted it that nobody knows the fate of. */
  mayBeGone(id: string): boolean {
    const sent = this.#sent.get(id);
    if (sent === undefined) return false;
    if (sent.tombstone || (this.#newest.get(sent.place)?.offset ?? 0) > (sent.offset ?? -1)) return true;
    return this.mayBeDeleted(sent.place);
  }

  /** A tombstone of the key was sent of which nobody knows where it is. */
  mayBeDeleted(place: string): boolean {
    for (const sent of this.#sent.values()) if (sent.place === place && sent.tombstone && sent.offset === undefined) return true;
    return false;
  }
}

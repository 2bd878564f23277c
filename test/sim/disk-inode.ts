/** The bytes of a simulated file: as reads see them, and as a crash leaves them. */
import { type Random, randomBelow } from '../../src/base/environment.ts';

export const SECTOR_BYTES = 512;

export type Change = { readonly position: number; readonly bytes: Uint8Array } | { readonly truncateTo: number };

/** The number of the newest inode. */
export const newestInode = (): number => inodes;

/** Told of each range of bytes that has become durable. */
export type Told = (position: number, length: number) => void;

let inodes = 0;

export class Inode {
  /** In the order in which they were made. */
  readonly number = ++inodes;
  readonly directory: boolean;
  readonly #seen = new Content();
  readonly #durable = new Content();
  /** Changes that no finished sync covers, in their order. */
  #pending: { readonly number: number; readonly change: Change }[] = [];
  #changes = 0;

  constructor(directory: boolean) {
    this.directory = directory;
  }

  get size(): number {
    return this.#seen.size;
  }

  /** A view, for the moment. */
  get content(): Uint8Array {
    return this.#seen.view();
  }

  read(position: number, length: number): Uint8Array {
    return this.#seen.bytes.slice(position, Math.max(position, Math.min(position + length, this.#seen.size)));
  }

  /** Reads see it at once. */
  change(change: Change): void {
    this.#seen.apply(change);
    this.#pending.push({ number: ++this.#changes, change });
  }

  /** What a sync that begins now will cover. */
  get changes(): number {
    return this.#changes;
  }

  /** A sync that began when there were so many changes has ended. One that failed leaves what it covered clean and not durable (fsyncgate). */
  synced(changes: number, failed: boolean, durable: Told): void {
    let covered = 0;
    while (covered < this.#pending.length && (this.#pending[covered]?.number ?? 0) <= changes) covered++;
    for (const { change } of this.#pending.splice(0, covered)) if (!failed) this.#keep(change, durable);
  }

  /** The bytes that a crash would leave. A view, for the moment. */
  get durable(): Uint8Array {
    return this.#durable.view();
  }

  /** After a crash: each pending change survives whole, not at all, or (a write) in a random subset of its sectors. */
  settle(random: Random, durable: Told): void {
    this.#surviving(this.#durable, random, SECTOR_BYTES, durable);
    this.#pending = [];
    this.#seen.become(this.#durable);
  }

  /** What a crash at this moment could leave, as an inode of its own. */
  settledCopy(random: Random, sectorBytes: number): Inode {
    const copy = new Inode(this.directory);
    copy.#durable.copy(this.#durable);
    this.#surviving(copy.#durable, random, sectorBytes, () => {});
    copy.#seen.copy(copy.#durable);
    return copy;
  }

  #surviving(content: Content, random: Random, sectorBytes: number, durable: Told): void {
    for (const { change } of this.#pending) {
      const choice = randomBelow(random, 3);
      if (choice === 0) continue;
      if (choice === 1 || 'truncateTo' in change) {
        content.apply(change);
        if ('bytes' in change) durable(change.position, change.bytes.length);
      } else {
        for (const sector of sectorsOf(change, sectorBytes)) if (randomBelow(random, 2) === 0) content.apply(sector);
        durable(change.position, change.bytes.length);
      }
    }
  }

  #keep(change: Change, durable: Told): void {
    this.#durable.apply(change);
    if ('bytes' in change) durable(change.position, change.bytes.length);
  }

  /** Changes what is stored, as rot and misdirected writes do: durably, and no sync tells of it. */
  corrupt(position: number, mask: number): void {
    this.#seen.flip(position, mask);
    this.#durable.flip(position, mask);
  }
}

/** Bytes that grow, and remember which of them changed since they last were the same as another's. */
class Content {
  bytes = new Uint8Array(0);
  size = 0;
  /** The range that was changed since {@link become}. */
  #changedFrom = Number.POSITIVE_INFINITY;
  #changedTo = 0;

  view(): Uint8Array {
    return this.bytes.subarray(0, this.size);
  }

  apply(change: Change): void {
    if ('truncateTo' in change) {
      this.#reserve(change.truncateTo);
      this.#changed(Math.min(this.size, change.truncateTo), Math.max(this.size, change.truncateTo));
      if (change.truncateTo < this.size) this.bytes.fill(0, change.truncateTo, this.size);
      this.size = change.truncateTo;
      return;
    }
    const end = change.position + change.bytes.length;
    this.#reserve(end);
    this.bytes.set(change.bytes, change.position);
    this.#changed(change.position, end);
    this.size = Math.max(this.size, end);
  }

  flip(position: number, mask: number): void {
    if (position >= this.size) return;
    this.bytes[position] = (this.bytes[position] ?? 0) ^ mask;
    this.#changed(position, position + 1);
  }

  /** All of another's, which stays as it is. For one that is new. */
  copy(other: Content): void {
    this.bytes = other.bytes.slice(0, other.size);
    this.size = other.size;
  }

  /** Copies what differs, which after a crash is little beside the whole. */
  become(other: Content): void {
    const from = Math.min(this.#changedFrom, other.#changedFrom);
    const to = Math.max(this.#changedTo, other.#changedTo);
    this.#reserve(other.bytes.length);
    if (from < to) {
      this.bytes.fill(0, from, Math.min(to, this.bytes.length));
      this.bytes.set(other.bytes.subarray(from, Math.min(to, other.bytes.length)), from);
    }
    this.size = other.size;
    for (const each of [this, other]) {
      each.#changedFrom = Number.POSITIVE_INFINITY;
      each.#changedTo = 0;
    }
  }

  #changed(from: number, to: number): void {
    this.#changedFrom = Math.min(this.#changedFrom, from);
    this.#changedTo = Math.max(this.#changedTo, to);
  }

  #reserve(size: number): void {
    if (this.bytes.length >= size) return;
    const grown = new Uint8Array(Math.max(size, this.bytes.length * 2, 4096));
    grown.set(this.bytes);
    this.bytes = grown;
  }
}

function* sectorsOf(
  { position, bytes }: { position: number; bytes: Uint8Array },
  sectorBytes: number,
): Generator<{ position: number; bytes: Uint8Array }> {
  let at = 0;
  while (at < bytes.length) {
    const next = Math.min(bytes.length, at + sectorBytes - ((position + at) % sectorBytes));
    yield { position: position + at, bytes: bytes.subarray(at, next) };
    at = next;
  }
}

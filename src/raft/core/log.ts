import { assert } from '../../base/assert.ts';
import type { ReplicaId } from '../../base/ids.ts';
import { ConfigurationHistory, type EffectiveConfiguration } from './configuration-history.ts';
import type { Entry } from './entry.ts';
import { entrySize } from './entry-codec.ts';
import { TermTable } from './term-table.ts';
import type { Configuration, InitialLog, LogPosition } from './types.ts';

const DEFAULT_WINDOW_BYTES = 16 * 1024 * 1024;

/**
 * A replica's log as Raft sees it: all of it by term, its newest part (the window) in memory. What is below the window is
 * committed and in segments. Four indexes move along it, in this order where the replica alone decides:
 *
 *   base <= released … commit … lastIndex          durable <= handed <= lastIndex
 *
 * `handed`: given to the write-ahead log. `durable`: known to be synced there, and still the same entries (hazards B07, B09).
 */
export class RaftLog {
  /** The first index that can be sent to a follower. */
  #firstReplicableIndex: number;
  readonly #terms: TermTable;
  readonly #configurations: ConfigurationHistory;
  /** A ring: the entry at `index` is in slot `index & mask`. */
  #ring: (Entry | undefined)[];
  /** The position before the window's first entry. */
  #base: LogPosition;
  #last: LogPosition;
  #windowBytes = 0;
  #commitIndex: number;
  #durableIndex: number;
  #handedIndex: number;
  #truncatedTo: number | undefined;
  #surfacedIndex: number;
  #releasedIndex: number;

  /** `configuration`: the last one up to the base, from the entry at `index`; 0: from the group's creation. */
  constructor(initial: InitialLog, commitHint: number, configuration: EffectiveConfiguration) {
    const { base, tail } = initial;
    this.#configurations = new ConfigurationHistory(configuration);
    this.#firstReplicableIndex = initial.firstReplicableIndex;
    this.#terms = new TermTable(initial.terms);
    this.#base = positionOf(base);
    this.#last = this.#base;
    this.#ring = new Array(ringSize(tail.length));
    for (const entry of tail) this.append(entry);
    assert(base.index === 0 || this.termAt(base.index) === base.term, 'the term table reaches the base', base);
    this.#commitIndex = Math.max(commitHint, base.index);
    assert(this.#commitIndex <= this.lastIndex, 'the log lost entries that were committed', { commit: commitHint, last: this.lastIndex });
    this.#durableIndex = this.lastIndex;
    this.#handedIndex = this.lastIndex;
    this.#surfacedIndex = base.index;
    this.#releasedIndex = base.index;
    this.#configurations.commitTo(this.#commitIndex);
  }

  get firstReplicableIndex(): number {
    return this.#firstReplicableIndex;
  }
  get last(): LogPosition {
    return this.#last;
  }
  get lastIndex(): number {
    return this.#last.index;
  }
  get lastTerm(): number {
    return this.#last.term;
  }
  /** The first index that is sent from memory. What compaction or retention took is in it for a while: sent as it was, it would bring back what all others have forgotten. */
  get firstSendableIndex(): number {
    return Math.max(this.firstWindowIndex, this.#firstReplicableIndex);
  }

  get firstWindowIndex(): number {
    return this.#base.index + 1;
  }
  get commitIndex(): number {
    return this.#commitIndex;
  }
  get durableIndex(): number {
    return this.#durableIndex;
  }
  /** The last configuration in the log: in force since it was appended. */
  get configuration(): Configuration {
    return this.#configurations.current.configuration;
  }
  get configurationIndex(): number {
    return this.#configurations.current.index;
  }

  mayLead(id: ReplicaId): boolean {
    return this.#configurations.mayLead(id);
  }

  /** 0 at index 0; undefined past the end, and where the terms are no longer known. */
  termAt(index: number): number | undefined {
    if (index === 0) return 0;
    if (index > this.lastIndex || index < 0) return undefined;
    return this.#terms.termAt(index);
  }

  /** The best guess of where a log agrees that has not `term` at `index`: the last index here up to it of a term not above (etcd). */
  lastIndexUpTo(index: number, term: number): number {
    return this.#terms.lastIndexUpTo(Math.min(index, this.lastIndex), term);
  }

  /** True when a log that ends so is at least as up to date as this one (paper 5.4.1). */
  isUpToDate(lastIndex: number, lastTerm: number): boolean {
    return lastTerm > this.lastTerm || (lastTerm === this.lastTerm && lastIndex >= this.lastIndex);
  }

  /** The entry, when it is in the window. */
  get(index: number): Entry | undefined {
    if (index <= this.#base.index || index > this.lastIndex) return undefined;
    return this.#ring[index & (this.#ring.length - 1)];
  }

  /** The position at an index from the window's base to the end. */
  positionAt(index: number): LogPosition | undefined {
    return index === this.#base.index ? this.#base : this.get(index);
  }

  /** Entries from..to, both included; undefined unless all are in the window. */
  between(from: number, to: number): Entry[] | undefined {
    if (from <= this.#base.index || to > this.lastIndex) return undefined;
    const entries: Entry[] = [];
    for (let index = from; index <= to; index++) entries.push(this.get(index) as Entry);
    return entries;
  }

  /** Entries of the window from an index on, up to `maxBytes` but at least one. Empty past the end. */
  from(index: number, maxBytes: number): Entry[] {
    assert(index > this.#base.index, 'entries below the window come from segments', { index, base: this.#base.index });
    const entries: Entry[] = [];
    let bytes = 0;
    for (let at = index; at <= this.lastIndex; at++) {
      const entry = this.get(at) as Entry;
      bytes += entrySize(entry);
      if (bytes > maxBytes && entries.length > 0) break;
      entries.push(entry);
    }
    return entries;
  }

  append(entry: Entry): void {
    const last = this.#last;
    assert(entry.index === last.index + 1 && entry.term >= last.term, 'an entry follows the last one', {
      last: last.index,
      next: entry.index,
    });
    if (entry.index - this.#base.index > this.#ring.length) this.#grow();
    this.#ring[entry.index & (this.#ring.length - 1)] = entry;
    this.#terms.append(entry.term, entry.index);
    this.#windowBytes += entrySize(entry);
    this.#last = entry;
    this.#configurations.append(entry);
  }

  /** Cuts off what is above `index`: never what is committed (hazard B06). Writes of it that are still under way count no more. */
  truncateTo(index: number): void {
    assert(index >= this.#commitIndex, 'a committed entry is never truncated', { index, commit: this.#commitIndex });
    for (let at = this.lastIndex; at > index; at--) {
      const slot = at & (this.#ring.length - 1);
      this.#windowBytes -= entrySize(this.#ring[slot] as Entry);
      this.#ring[slot] = undefined;
    }
    this.#last = this.positionAt(index) ?? this.#base;
    this.#terms.truncateTo(index);
    this.#configurations.truncateTo(index);
    this.#durableIndex = Math.min(this.#durableIndex, index);
    // Also of what was not handed out yet: a leader's proposals are known to their owner before that.
    this.#truncatedTo = Math.min(this.#truncatedTo ?? index, index);
    this.#handedIndex = Math.min(this.#handedIndex, index);
  }

  commitTo(index: number): void {
    assert(index >= this.#commitIndex && index <= this.lastIndex, 'commit moves forward, within the log', { index, last: this.lastIndex });
    this.#commitIndex = index;
    this.#configurations.commitTo(index);
  }

  durableTo(index: number): void {
    assert(index <= this.#handedIndex, 'what is durable was handed out', { index, handed: this.#handedIndex });
    if (index > this.#durableIndex) this.#durableIndex = index;
  }

  get hasUnhanded(): boolean {
    return this.#handedIndex < this.lastIndex || this.#truncatedTo !== undefined;
  }

  /** What the write-ahead log has not been given yet: a truncation, then entries. */
  hand(): { truncateTo: number | undefined; entries: Entry[] } {
    const entries = this.#handedIndex < this.lastIndex ? this.from(this.#handedIndex + 1, Number.POSITIVE_INFINITY) : [];
    const truncateTo = this.#truncatedTo;
    this.#handedIndex = this.lastIndex;
    this.#truncatedTo = undefined;
    return { truncateTo, entries };
  }

  /** Entries below `index` can't be read any more. */
  startAt(index: number): void {
    this.#firstReplicableIndex = Math.max(this.#firstReplicableIndex, index);
  }

  get hasUnsurfaced(): boolean {
    return this.#surfacedIndex < this.#commitIndex;
  }

  /** Entries committed since the last call. */
  surface(): Entry[] {
    const entries: Entry[] = [];
    for (let index = this.#surfacedIndex + 1; index <= this.#commitIndex; index++) entries.push(this.get(index) as Entry);
    this.#surfacedIndex = this.#commitIndex;
    return entries;
  }

  /** Entries up to `index` are in segments: the window drops them, keeping about `keepBytes` of the newest for followers. */
  release(index: number, keepBytes = DEFAULT_WINDOW_BYTES): void {
    this.#releasedIndex = Math.max(this.#releasedIndex, Math.min(index, this.#surfacedIndex, this.#durableIndex));
    let dropped: Entry | undefined;
    while (this.#windowBytes > keepBytes) {
      const at = (dropped ?? this.#base).index + 1;
      if (at > this.#releasedIndex) break;
      const slot = at & (this.#ring.length - 1);
      dropped = this.#ring[slot] as Entry;
      this.#ring[slot] = undefined;
      this.#windowBytes -= entrySize(dropped);
    }
    if (dropped === undefined) return;
    const end = this.#last === dropped;
    this.#base = positionOf(dropped);
    if (!end) return;
    this.#last = this.#base;
    this.#ring = new Array(1);
  }

  #grow(): void {
    const old = this.#ring;
    const ring = new Array<Entry | undefined>(old.length * 2);
    for (let index = this.firstWindowIndex; index <= this.lastIndex; index++)
      ring[index & (ring.length - 1)] = old[index & (old.length - 1)];
    this.#ring = ring;
  }
}

/** A copy that keeps no payload alive. */
function positionOf({ index, term, nextOffset, chainHigh, chainLow }: LogPosition): LogPosition {
  return { index, term, nextOffset, chainHigh, chainLow };
}

function ringSize(entries: number): number {
  let size = 1;
  while (size < entries) size *= 2;
  return size;
}

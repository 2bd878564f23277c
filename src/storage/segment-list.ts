/** The segments of one log, in their order, and where the log starts for Raft. */
import { must } from '../base/assert.ts';
import type { Segment } from './segment.ts';

export class SegmentList implements Iterable<Segment> {
  /** The first entry that a follower can get: see PartitionLog. */
  firstReplicableIndex: number;
  readonly #segments: Segment[];

  constructor(segments: readonly Segment[], firstReplicableIndex: number) {
    this.#segments = [...segments];
    this.firstReplicableIndex = firstReplicableIndex;
  }

  [Symbol.iterator](): Iterator<Segment> {
    return this.#segments[Symbol.iterator]();
  }

  /** The first entry that they hold something of; undefined: they hold nothing. */
  get firstIndex(): number | undefined {
    return this.first?.base.index;
  }

  get first(): Segment | undefined {
    return this.#segments[0];
  }

  get last(): Segment | undefined {
    return this.#segments.at(-1);
  }

  /** The segment that follows it. */
  after(segment: Segment): Segment | undefined {
    return this.#segments[this.#segments.indexOf(segment) + 1];
  }

  /** The one that starts last at or below the entry. */
  ofIndex(index: number): Segment | undefined {
    return this.#segments.findLast(({ base }) => base.index <= index);
  }

  /** The one that starts last at or below the offset: those without records share their base with the next. */
  ofOffset(offset: number): Segment | undefined {
    let low = 0;
    let high = this.#segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#segments[middle]?.base.offset ?? 0) > offset) high = middle;
      else low = middle + 1;
    }
    return this.#segments[low - 1];
  }

  push(segment: Segment): void {
    this.#segments.push(segment);
  }

  /** Puts one in the place of neighbours. */
  replace(former: readonly Segment[], by: Segment): void {
    const at = this.#segments.indexOf(must(former[0], 'something is replaced'));
    must(at >= 0 || undefined, 'the segments are in the list', by.base);
    this.#segments.splice(at, former.length, by);
  }

  /** Takes out all before this one. */
  dropBefore(segment: Segment): Segment[] {
    const at = this.#segments.indexOf(segment);
    must(at >= 0 || undefined, 'the segment is in the list', segment.base);
    return this.#segments.splice(0, at);
  }
}

import { assert } from '../../base/assert.ts';
import type { TermStart } from './types.ts';

/** The first index of each term in a log: the term of any entry, without the entry. Few terms make a long log. */
export class TermTable {
  #starts: TermStart[];

  constructor(starts: readonly TermStart[]) {
    this.#starts = [...starts];
  }

  append(term: number, index: number): void {
    const last = this.#starts.at(-1);
    if (last?.term === term) return;
    assert(last === undefined || (last.term < term && last.index < index), 'terms grow along the log', { last, term, index });
    // Neither pushed nor spread: those make room for 16 more, in each of thousands of groups, and terms are few.
    this.#starts = this.#starts.concat({ term, index });
  }

  truncateTo(index: number): void {
    while ((this.#starts.at(-1)?.index ?? 0) > index) this.#starts.pop();
  }

  /** The term at an index up to the log's end; undefined below the first known start. */
  termAt(index: number): number | undefined {
    return this.#startAtOrBefore(index)?.term;
  }

  /** The last index at or below `index` whose term is at most `term`: etcd's findConflictByTerm. 0 when there is none. */
  lastIndexUpTo(index: number, term: number): number {
    for (let i = this.#starts.length - 1; i >= 0; i--) {
      const start = this.#starts[i] as TermStart;
      if (start.index > index || start.term > term) continue;
      const next = this.#starts[i + 1];
      return next === undefined ? index : Math.min(index, next.index - 1);
    }
    return 0;
  }

  #startAtOrBefore(index: number): TermStart | undefined {
    for (let i = this.#starts.length - 1; i >= 0; i--) {
      const start = this.#starts[i] as TermStart;
      if (start.index <= index) return start;
    }
    return undefined;
  }
}

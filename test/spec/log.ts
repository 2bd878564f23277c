import type { Configuration } from '../../src/raft/core/types.ts';
import type { TraceEntry, TraceLog } from './trace.ts';

interface Placed {
  readonly index: number;
  readonly configuration: Configuration;
}

/** A log by its terms, and the configurations in it. */
export class SpecLog {
  #terms: { readonly term: number; readonly index: number }[];
  #configurations: Placed[];
  last: number;

  constructor({ terms, lastIndex, configurations }: TraceLog) {
    this.#terms = [...terms];
    this.#configurations = [...configurations];
    this.last = lastIndex;
  }

  copy(): SpecLog {
    return new SpecLog({ terms: this.#terms, lastIndex: this.last, configurations: this.#configurations });
  }

  get lastTerm(): number {
    return this.termAt(this.last);
  }

  get configuration(): Configuration {
    return (this.#configurations.at(-1) as Placed).configuration;
  }

  get configurationIndex(): number {
    return (this.#configurations.at(-1) as Placed).index;
  }

  /** Those that may yet turn out to be in force: the last that is committed, and all after it. */
  configurationsSince(commit: number): readonly Configuration[] {
    const committed = this.#configurations.findLastIndex(({ index }) => index <= commit);
    return this.#configurations.slice(Math.max(0, committed)).map(({ configuration }) => configuration);
  }

  /** 0 at index 0 and past the end. */
  termAt(index: number): number {
    if (index > this.last) return 0;
    for (let at = this.#terms.length - 1; at >= 0; at--) {
      const start = this.#terms[at] as { term: number; index: number };
      if (start.index <= index) return start.term;
    }
    return 0;
  }

  truncateTo(index: number): void {
    this.last = Math.min(this.last, index);
    while ((this.#terms.at(-1)?.index ?? 0) > index) this.#terms.pop();
    while (this.#configurations.length > 1 && this.configurationIndex > index) this.#configurations.pop();
  }

  append({ index, term, configuration }: TraceEntry): void {
    this.last = index;
    if (this.#terms.at(-1)?.term !== term) this.#terms.push({ term, index });
    if (configuration !== undefined) this.#configurations.push({ index, configuration });
  }

  /** True when this log has all of the other's entries up to `index`. */
  agreesWith(other: SpecLog, index: number): boolean {
    return index <= Math.min(this.last, other.last) && this.termAt(index) === other.termAt(index);
  }

  /** True for a log whose end is at least as new as this one's (paper 5.4.1). */
  isReachedBy(lastIndex: number, lastTerm: number): boolean {
    return lastTerm > this.lastTerm || (lastTerm === this.lastTerm && lastIndex >= this.last);
  }
}

/** What an event did to a replica's log, and how much of it is explained so far: what is, its log and its disk have taken. */
import type { Disk } from './disk.ts';
import type { SpecLog } from './log.ts';
import { must } from './rejected.ts';
import type { TraceEntry, TraceEvent } from './trace.ts';

interface Changed {
  readonly log: SpecLog;
  readonly disk: Disk;
}

export class LogChange {
  readonly #change: TraceEvent['log'];
  #appended: readonly TraceEntry[];
  #truncatedTo: number | undefined;

  constructor(change: TraceEvent['log']) {
    this.#change = change;
    this.#appended = change?.appended ?? [];
    this.#truncatedTo = change?.truncatedTo;
  }

  /** The first entry that was appended, and is not explained. */
  get next(): TraceEntry | undefined {
    return this.#appended[0];
  }

  get isExplained(): boolean {
    return this.next === undefined && this.#truncatedTo === undefined;
  }

  checkExplained(): void {
    must(this.isExplained, `the log changed without reason: ${JSON.stringify(this.#change)}`);
  }

  /** The log has these entries now, of which the first conflict decided what went; never what is committed (hazard B06). */
  adopt({ log, disk, commit }: Changed & { readonly commit: number }, entries: readonly TraceEntry[]): 'same' | 'new' | 'conflict' {
    const fresh = entries.findIndex(({ index, term }) => index > log.last || log.termAt(index) !== term);
    if (fresh < 0) return 'same';
    const { index } = entries[fresh] as TraceEntry;
    const isConflict = index <= log.last;
    if (isConflict) {
      must(index > commit, `entry ${index} is committed and conflicts`);
      must(this.#truncatedTo === index - 1, `should have cut off from ${index} on, cut off above ${this.#truncatedTo}`);
      this.#truncatedTo = undefined;
      disk.truncateTo(index - 1, log);
      log.truncateTo(index - 1);
    }
    for (const entry of entries.slice(fresh)) {
      const own = this.next;
      must(own !== undefined && sameEntry(own, entry), `should have appended entry ${entry.index} of term ${entry.term}`);
      this.#take(log);
    }
    return isConflict ? 'conflict' : 'new';
  }

  /** A leader of the term appended an entry of such a kind. */
  appendOwn({ log, term }: { readonly log: SpecLog; readonly term: number }, isKind: (kind: number) => boolean): void {
    const entry = this.next;
    must(entry !== undefined && isKind(entry.kind), 'should have appended an entry of its own');
    must(entry.index === log.last + 1 && entry.term === term, `appended entry ${entry.index} of term ${entry.term} as its own`);
    this.#take(log);
  }

  #take(log: SpecLog): void {
    const [entry, ...rest] = this.#appended;
    if (entry === undefined) return;
    log.append(entry);
    this.#appended = rest;
  }
}

function sameEntry(a: TraceEntry, b: TraceEntry): boolean {
  return a.index === b.index && a.term === b.term && a.kind === b.kind && a.chainHigh === b.chainHigh && a.chainLow === b.chainLow;
}

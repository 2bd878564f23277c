import type { SpecLog } from './log.ts';
import { must } from './rejected.ts';
import type { Happening } from './trace.ts';

interface Write {
  readonly token: number;
  readonly term: number;
  readonly vote: number;
  /** The log is durable up to here once this is written; less after a truncation (hazard B07). */
  covers: number;
  /** As it was when it was handed over. */
  readonly handed: number;
}

/** What a replica's disk holds, and what is on its way there. */
export class Disk {
  term: number;
  vote: number;
  /** The log is durable up to here. */
  index: number;
  #writes: Write[] = [];
  #handed: number;
  #truncatedTo: number | undefined;
  #completed = 0;
  #issued = 0;
  /** Logs as they were before a truncation, until the write that cuts is durable: a crash may bring back what it cut off. */
  #uncut: { readonly token: number; readonly log: SpecLog }[] = [];
  /** By term: the vote that became durable. */
  readonly #votes = new Map<number, number>();

  constructor(term: number, vote: number, index: number) {
    this.term = term;
    this.vote = vote;
    this.index = index;
    this.#handed = index;
    this.#votes.set(term, vote);
  }

  /** What a crash may leave: what is durable, and any of what is on its way, from the first on. */
  mayHold(term: number, vote: number): boolean {
    return [{ term: this.term, vote: this.vote }, ...this.#writes].some((held) => held.term === term && held.vote === vote);
  }

  /** The same for a log: it has what is durable and stays, and nothing that never stood in it. */
  mayHoldLog(log: SpecLog, present: SpecLog): boolean {
    return (
      present.agreesWith(log, this.index) &&
      [present, ...this.#uncut.map((uncut) => uncut.log)].some((held) => held.agreesWith(log, log.last))
    );
  }

  restart(term: number, vote: number, index: number): void {
    this.term = term;
    this.vote = vote;
    this.#votes.set(term, vote);
    this.index = index;
    this.#handed = index;
    this.#writes = [];
    this.#uncut = [];
    this.#truncatedTo = undefined;
    this.#completed = 0;
    this.#issued = 0;
  }

  /** Before the log is cut. */
  truncateTo(index: number, log: SpecLog): void {
    this.#uncut.push({ token: this.#issued + 1, log: log.copy() });
    this.index = Math.min(this.index, index);
    if (index < this.#handed) this.#truncatedTo = Math.min(this.#truncatedTo ?? index, index);
    this.#handed = Math.min(this.#handed, index);
    for (const write of this.#writes) write.covers = Math.min(write.covers, index);
  }

  /** Everything that the disk has not been given, once, in order. */
  hand(
    write: Extract<Happening, { type: 'write' }>,
    { log, term, vote, commit }: { log: SpecLog; term: number; vote: number; commit: number },
  ): void {
    const { token, truncateTo, firstIndex, lastIndex, hardState } = write;
    must(token === this.#issued + 1, `write ${token} follows write ${this.#issued}`);
    const cut = this.#truncatedTo !== undefined;
    must(
      !cut || (truncateTo !== undefined && truncateTo <= (this.#truncatedTo as number)),
      `write ${token} does not cut off above ${this.#truncatedTo}`,
    );
    must(truncateTo === undefined || truncateTo >= Math.min(this.#handed, commit), `write ${token} cuts off what is committed`);
    const first = firstIndex ?? log.last + 1;
    must(first === Math.min(this.#handed, truncateTo ?? this.#handed) + 1, `write ${token} begins at ${first}, after ${this.#handed}`);
    must((lastIndex ?? this.#handed) === log.last, `write ${token} ends at ${lastIndex}, the log at ${log.last}`);
    const before = this.#writes.at(-1) ?? this;
    const held = hardState ?? before;
    must(
      held.term === term && held.vote === vote,
      `write ${token} holds term ${held.term} and vote ${held.vote} in term ${term} with vote ${vote}`,
    );
    must(
      hardState === undefined || hardState.commit <= Math.min(commit, Math.max(this.index, hardState.commit)),
      `write ${token} commits ahead`,
    );
    this.#writes.push({ token, term, vote, covers: log.last, handed: log.last });
    this.#issued = token;
    this.#handed = log.last;
    this.#truncatedTo = undefined;
  }

  /** False: known before. */
  written(token: number): boolean {
    must(token <= this.#issued, `write ${token} was never handed over`);
    if (token <= this.#completed) return false;
    for (let write = this.#writes[0]; write !== undefined && write.token <= token; write = this.#writes[0]) {
      this.#writes.shift();
      must(write.term >= this.term, `the durable term goes back from ${this.term} to ${write.term}`);
      const before = this.#votes.get(write.term) ?? 0;
      must(before === 0 || before === write.vote, `two votes in term ${write.term}: ${before} and ${write.vote}`);
      this.term = write.term;
      this.vote = write.vote;
      this.#votes.set(write.term, write.vote);
      this.index = Math.max(this.index, write.covers);
    }
    this.#uncut = this.#uncut.filter((uncut) => uncut.token > token);
    this.#completed = token;
    return true;
  }

  /** True when the vote became durable. */
  voted(term: number, vote: number): boolean {
    return this.#votes.get(term) === vote;
  }

  /** True when the vote can't be given again: it is durable, or a later term is. */
  binds(term: number, vote: number): boolean {
    return this.term > term || this.voted(term, vote);
  }

  /** The write that must be durable before entry `index` is; 0: it is. */
  writeOf(index: number): number {
    if (index <= this.index) return 0;
    return this.#writes.find(({ covers }) => covers >= index)?.token ?? this.#issued + 1;
  }

  isWritten(token: number): boolean {
    return token <= this.#completed;
  }
}

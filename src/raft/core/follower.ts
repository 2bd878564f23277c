import type { ReplicaId } from '../../base/ids.ts';
import { continuesChain, isWellFormed } from './append-check.ts';
import type { Entry } from './entry.ts';
import type { RaftLog } from './log.ts';
import type { Outbox } from './outbox.ts';
import type { PersistQueue } from './persistence.ts';
import type { AppendRequest, LogPosition } from './types.ts';

/** What a replica does with the entries that a leader sends: makes its log the leader's (paper 5.3), and answers once that is durable. */
export class Follower {
  readonly #id: ReplicaId;
  readonly #log: RaftLog;
  readonly #persistence: PersistQueue;
  readonly #outbox: Outbox;
  /** See RaftCore.divergedIndex. */
  divergedIndex = 0;

  constructor(id: ReplicaId, log: RaftLog, persistence: PersistQueue, outbox: Outbox) {
    this.#id = id;
    this.#log = log;
    this.#persistence = persistence;
    this.#outbox = outbox;
  }

  /** An append of the present term's leader. */
  handleAppend(message: AppendRequest): void {
    const { prevIndex, prevTerm, entries, from, term } = message;
    const log = this.#log;
    if (!isWellFormed(message)) return;
    const ownTerm = log.termAt(prevIndex);
    if (ownTerm === undefined && prevIndex < log.commitIndex) {
      this.#accept(from, term, log.commitIndex);
      return;
    }
    if (ownTerm !== prevTerm) {
      const hintIndex = log.lastIndexUpTo(prevIndex, prevTerm);
      this.reject(from, term, prevIndex, hintIndex);
      return;
    }
    if (!this.adopt(prevIndex, entries)) return;
    const lastNew = prevIndex + entries.length;
    this.commitTo(Math.min(message.commit, lastNew));
    this.#accept(from, term, lastNew);
  }

  commitTo(index: number): void {
    if (index > this.#log.commitIndex) this.#log.commitTo(index);
  }

  /** What the sender believes does not hold here, or its term has passed. */
  reject(to: ReplicaId, term: number, rejectedIndex: number, hintIndex: number): void {
    const hintTerm = this.#log.termAt(hintIndex) ?? 0;
    const response = { from: this.#id, to, term, rejected: true, matchIndex: 0, rejectedIndex, hintIndex, hintTerm };
    this.#outbox.afterPersisted({ type: 'appendResponse', ...response });
  }

  /**
   * Takes entries that follow `prevIndex`, at which the logs agree. Only from the first conflict on is anything changed: what comes late or twice
   * changes nothing (hazard B06). False: they don't continue this log.
   */
  adopt(prevIndex: number, entries: readonly Entry[]): boolean {
    const fresh = this.#known(prevIndex, entries);
    return fresh === entries.length || this.#appendFrom(entries, fresh);
  }

  /** The index of the first of these entries that would replace another; undefined: none. */
  conflict(prevIndex: number, entries: readonly Entry[]): number | undefined {
    const index = prevIndex + 1 + this.#known(prevIndex, entries);
    return index <= Math.min(prevIndex + entries.length, this.#log.lastIndex) ? index : undefined;
  }

  /** How many of these entries are in the log. */
  #known(prevIndex: number, entries: readonly Entry[]): number {
    let known = 0;
    while (known < entries.length && this.#log.termAt(prevIndex + 1 + known) === entries[known]?.term) known++;
    return known;
  }

  #appendFrom(entries: readonly Entry[], at: number): boolean {
    const first = entries[at] as Entry;
    let previous: LogPosition | undefined = this.#log.positionAt(first.index - 1);
    for (let i = at; i < entries.length; i++) {
      const entry = entries[i] as Entry;
      if (previous !== undefined && !continuesChain(previous, entry)) {
        if (this.divergedIndex === 0) this.divergedIndex = entry.index;
        return false;
      }
      previous = entry;
    }
    if (first.index <= this.#log.lastIndex) {
      this.#log.truncateTo(first.index - 1);
      this.#persistence.truncateTo(first.index - 1);
    }
    for (let i = at; i < entries.length; i++) this.#log.append(entries[i] as Entry);
    return true;
  }

  #accept(to: ReplicaId, term: number, matchIndex: number): void {
    const response = { from: this.#id, to, term, rejected: false, matchIndex, rejectedIndex: 0, hintIndex: 0, hintTerm: 0 };
    this.#outbox.afterPersisted({ type: 'appendResponse', ...response });
  }
}

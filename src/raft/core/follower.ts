import type { ReplicaId } from '../../base/ids.ts';
import { continuesChain, isWellFormed } from './append-check.ts';
import { checkAt, isSame } from './divergence.ts';
import type { Entry } from './entry.ts';
import type { RaftLog } from './log.ts';
import type { Outbox } from './outbox.ts';
import type { PersistQueue } from './persistence.ts';
import type { AppendRequest, HeartbeatRequest, LogCheck, LogPosition, Message } from './types.ts';

/** What a replica does with the entries that a leader sends: makes its log the leader's (paper 5.3), and answers once that is durable. */
export class Follower {
  readonly #id: ReplicaId;
  readonly #log: RaftLog;
  readonly #persistence: PersistQueue;
  readonly #outbox: Outbox;
  /** See RaftCore.divergedIndex. */
  divergedIndex = 0;
  /** The term of the leader that sent it. */
  #divergedTerm = 0;
  /** See RaftCore.damage. */
  damage: LogCheck | undefined;
  /** See RaftOptions.probation. */
  probation: number;

  constructor(id: ReplicaId, log: RaftLog, persistence: PersistQueue, outbox: Outbox, probation: number) {
    this.#id = id;
    this.probation = probation;
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
    if (!this.adopt(prevIndex, entries)) {
      this.#divergedTerm = term;
      return;
    }
    const lastNew = prevIndex + entries.length;
    this.commitTo(Math.min(message.commit, lastNew));
    this.#accept(from, term, lastNew);
  }

  /** A heartbeat of the present term's leader. True: the group rests here from now on, since the log ends, all durable, where the leader's does. */
  handleHeartbeat({ from, term, commit, readContext, quiesce, check, verdict }: HeartbeatRequest): boolean {
    // What it acknowledged before its probation, it may not have. Else a leader says no more than what was acknowledged: what is not here was lost.
    if (this.probation === 0) this.commitTo(Math.min(commit, this.#log.lastIndex));
    // A leader that believes it to have everything sends nothing that it could answer so.
    else this.reject(from, term, 0, 0);
    if (this.probation === 0 && commit > this.#log.lastIndex) {
      this.damage = { index: commit, chainHigh: 0, chainLow: 0 };
      return false;
    }
    const own = check === undefined ? this.#beforeDivergence(term) : checkAt(this.#log, check.index);
    const differs = check !== undefined && (own === undefined || !isSame(own, check));
    if (verdict && differs) {
      this.damage = check;
      return false;
    }
    const { lastIndex, durableIndex, commitIndex } = this.#log;
    const isWhole =
      this.probation === 0 && commit === lastIndex && commitIndex === lastIndex && durableIndex === lastIndex && this.#persistence.isEmpty;
    if (quiesce && isWhole && this.divergedIndex === 0 && !differs) return true;
    this.answerHeartbeat(from, term, readContext, quiesce, own);
    return false;
  }

  /** At rest, in the present term: a late answer to a leader, or what made this follower rest, once more. */
  leavesAtRest(message: Message): boolean {
    if (message.type === 'heartbeatResponse') return !message.awake;
    return message.type === 'heartbeat' && message.quiesce && message.commit === this.#log.lastIndex;
  }

  answerHeartbeat(to: ReplicaId, term: number, readContext: number, awake: boolean, check?: LogCheck): void {
    const confirmed = this.probation === 0 ? readContext : 0;
    this.#outbox.messages.push({ type: 'heartbeatResponse', from: this.#id, to, term, readContext: confirmed, awake, check });
  }

  /** What the leader is to compare, after entries of its that don't continue this log. */
  #beforeDivergence(term: number): LogCheck | undefined {
    return this.divergedIndex === 0 || this.#divergedTerm !== term ? undefined : checkAt(this.#log, this.divergedIndex - 1);
  }

  commitTo(index: number): void {
    if (index > this.#log.commitIndex) this.#log.commitTo(index);
  }

  /** What the sender believes does not hold here, or its term has passed. */
  reject(to: ReplicaId, term: number, rejectedIndex: number, hintIndex: number): void {
    const hintTerm = this.#log.termAt(hintIndex) ?? 0;
    const response = {
      from: this.#id,
      to,
      term,
      rejected: true,
      matchIndex: 0,
      rejectedIndex,
      hintIndex,
      hintTerm,
      probation: this.probation,
    };
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
        this.divergedIndex = entry.index;
        return false;
      }
      previous = entry;
    }
    if (first.index <= this.#log.lastIndex) {
      this.#log.truncateTo(first.index - 1);
      this.#persistence.truncateTo(first.index - 1);
    }
    for (let i = at; i < entries.length; i++) this.#log.append(entries[i] as Entry);
    this.divergedIndex = 0;
    return true;
  }

  #accept(to: ReplicaId, term: number, matchIndex: number): void {
    const response = {
      from: this.#id,
      to,
      term,
      rejected: false,
      matchIndex,
      rejectedIndex: 0,
      hintIndex: 0,
      hintTerm: 0,
      probation: this.probation,
    };
    this.#outbox.afterPersisted({ type: 'appendResponse', ...response });
  }
}

import { assert } from '../../base/assert.ts';
import type { ReplicaId } from '../../base/ids.ts';
import type { RaftLog } from './log.ts';
import type { HardState, PersistUnit } from './types.ts';

interface Unit {
  readonly token: number;
  /** Up to here the log is durable once this unit is. Lowered when a later truncation voids entries of it. */
  lastIndex: number;
  readonly term: number;
  readonly vote: ReplicaId | 0;
}

/**
 * The persist units that the host has and has not completed, oldest first. A truncation lowers what the units under way will
 * make durable, so a completion that arrives after the truncation claims nothing of what was cut off, nor of the entries that
 * took its place (hazards B07, B09); units complete in order, so durability never goes backwards (B08).
 */
export class PersistQueue {
  readonly #units: Unit[] = [];
  #issued = 0;
  #completed = 0;
  /** The newest term and vote that are durable. */
  durableTerm: number;
  durableVote: ReplicaId | 0;
  /** The last one handed to the host. */
  #hardState: HardState;

  constructor(hardState: HardState) {
    this.durableTerm = hardState.term;
    this.durableVote = hardState.vote;
    this.#hardState = hardState;
  }

  /** A term or vote that the host has not been handed. */
  isNews(term: number, vote: ReplicaId | 0): boolean {
    return term !== this.#hardState.term || vote !== this.#hardState.vote;
  }

  /** What there is to persist. `waiting`: responses wait for what is still under way, so there is a unit even if it is empty. */
  take(log: RaftLog, term: number, vote: ReplicaId | 0, waiting: boolean): PersistUnit | undefined {
    const { truncateTo, entries } = log.hand();
    // What commit names must be durable before it: the log may write a unit in several frames, and a crash may leave the first of them alone.
    const commit = Math.max(this.#hardState.commit, Math.min(log.commitIndex, log.durableIndex));
    // The commit index rides along with entries; alone it is not worth a write.
    const commitMoved = entries.length > 0 && commit !== this.#hardState.commit;
    const hardState = this.isNews(term, vote) || commitMoved ? { term, vote, commit } : undefined;
    const empty = hardState === undefined && truncateTo === undefined && entries.length === 0;
    if (empty && (this.isEmpty || !waiting)) return undefined;
    if (hardState !== undefined) this.#hardState = hardState;
    return { token: this.#issue(log.lastIndex, term, vote), hardState, truncateTo, entries };
  }

  get isEmpty(): boolean {
    return this.#units.length === 0;
  }

  truncateTo(index: number): void {
    for (const unit of this.#units) unit.lastIndex = Math.min(unit.lastIndex, index);
  }

  /** Completes the unit and all before it. The index up to which the log is durable now; undefined: stale, it was completed before. */
  complete(token: number): number | undefined {
    assert(token <= this.#issued, 'only what was handed out is persisted', { token, issued: this.#issued });
    if (token <= this.#completed) return undefined;
    const done = this.#units.splice(0, token - this.#completed);
    this.#completed = token;
    const last = done.at(-1);
    assert(last?.token === token, 'persist units complete in order', { token, last });
    this.durableTerm = last.term;
    this.durableVote = last.vote;
    return last.lastIndex;
  }

  #issue(lastIndex: number, term: number, vote: ReplicaId | 0): number {
    const token = ++this.#issued;
    this.#units.push({ token, lastIndex, term, vote });
    return token;
  }
}

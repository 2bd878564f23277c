import { assert } from '../../base/assert.ts';
import type { ReplicaId } from '../../base/ids.ts';

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

  constructor(term: number, vote: ReplicaId | 0) {
    this.durableTerm = term;
    this.durableVote = vote;
  }

  get isEmpty(): boolean {
    return this.#units.length === 0;
  }

  issue(lastIndex: number, term: number, vote: ReplicaId | 0): number {
    const token = ++this.#issued;
    this.#units.push({ token, lastIndex, term, vote });
    return token;
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
}

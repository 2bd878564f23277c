import { assert } from '../../base/assert.ts';
import type { ReplicaId } from '../../base/ids.ts';
import type { Configuration } from './types.ts';

export type VoteResult = 'won' | 'lost' | 'pending';

/**
 * What the voters of a configuration decide. In a joint configuration both the incoming and the outgoing majority must agree
 * (Raft thesis 4.3); otherwise there is no outgoing half.
 */
export class Quorum {
  readonly #incoming: readonly ReplicaId[];
  readonly #outgoing: readonly ReplicaId[];
  readonly #scratch: number[] = [];

  constructor(configuration: Configuration) {
    assert(configuration.voters.length > 0, 'a configuration has a voter', configuration);
    this.#incoming = configuration.voters.map((member) => member.replicaId);
    this.#outgoing = configuration.outgoing.map((member) => member.replicaId);
  }

  has(id: ReplicaId): boolean {
    return this.#incoming.includes(id) || this.#outgoing.includes(id);
  }

  /** Voters in configuration order, each once. */
  get voters(): readonly ReplicaId[] {
    return [...new Set([...this.#incoming, ...this.#outgoing])];
  }

  get isJoint(): boolean {
    return this.#outgoing.length > 0;
  }

  /** True when `id` decides alone. */
  isAlone(id: ReplicaId): boolean {
    return this.#incoming.length === 1 && this.#incoming[0] === id && this.#outgoing.every((voter) => voter === id);
  }

  /** The highest value that a majority has reached: with match indexes, what may be committed. */
  reached(value: (id: ReplicaId) => number): number {
    const incoming = this.#nthHighest(this.#incoming, majority(this.#incoming.length), value);
    if (this.#outgoing.length === 0) return incoming;
    return Math.min(incoming, this.#nthHighest(this.#outgoing, majority(this.#outgoing.length), value));
  }

  /** The highest value that at least `count` of the (incoming) voters have reached; 0 when there are not so many. */
  reachedBy(count: number, value: (id: ReplicaId) => number): number {
    if (count > this.#incoming.length) return 0;
    return this.#nthHighest(this.#incoming, Math.max(1, count), value);
  }

  tally(votes: ReadonlyMap<ReplicaId, boolean>): VoteResult {
    if (this.reached((id) => (votes.get(id) === true ? 1 : 0)) === 1) return 'won';
    return this.reached((id) => (votes.get(id) === false ? 0 : 1)) === 0 ? 'lost' : 'pending';
  }

  #nthHighest(voters: readonly ReplicaId[], n: number, value: (id: ReplicaId) => number): number {
    const sorted = this.#scratch;
    // Insertion sort, descending: a handful of numbers on the hottest path of a commit.
    for (let i = 0; i < voters.length; i++) {
      const reached = value(voters[i] as ReplicaId);
      let at = i;
      while (at > 0 && (sorted[at - 1] as number) < reached) {
        sorted[at] = sorted[at - 1] as number;
        at--;
      }
      sorted[at] = reached;
    }
    return sorted[n - 1] as number;
  }
}

function majority(voters: number): number {
  return Math.floor(voters / 2) + 1;
}

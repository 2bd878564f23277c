import { membersOf } from '../../../src/raft/core/configuration.ts';
import type { Entry } from '../../../src/raft/core/entry.ts';
import type { Member, Message, ReadState } from '../../../src/raft/core/types.ts';
import { checkPromise } from './promises.ts';
import type { SimulatedReplica } from './simulated-replica.ts';

/** The properties of paper figure 3, and those that Flotilla adds, watched over all replicas. Each check throws with what it saw. */
export class Invariants {
  readonly #replicas: readonly SimulatedReplica[];
  readonly #leaders = new Map<number, number>();
  readonly #chains = new Map<string, string>();
  /** The cluster's committed log: the term at each index, slot i - 1. */
  readonly #committed: number[] = [];
  readonly #reads = new Map<number, number>();
  confirmedReads = 0;

  constructor(replicas: readonly SimulatedReplica[]) {
    this.#replicas = replicas;
  }

  get committedIndex(): number {
    return this.#committed.length;
  }

  /** Election safety and leader completeness. */
  led(replica: SimulatedReplica): void {
    const core = replica.core;
    if (core?.role !== 'leader') return;
    const other = this.#leaders.get(core.term);
    if (other === replica.id) return;
    check(other === undefined, `election safety: ${other} and ${replica.id} lead term ${core.term}`);
    this.#leaders.set(core.term, replica.id);
    check(replica.votes.get(core.term) === replica.id, `replica ${replica.id} leads term ${core.term} without a durable vote of its own`);
    const last = this.#committed.length;
    if (last === 0) return;
    check(
      core.termAt(last) === this.#committed[last - 1],
      `leader completeness: ${replica.id} lacks committed entry ${last} in term ${core.term}`,
    );
  }

  /** Log matching: same index and term, same chain. */
  appended(entries: readonly Entry[]): void {
    for (const { index, term, chainHigh, chainLow } of entries) {
      const key = `${index}:${term}`;
      const chain = `${chainHigh}:${chainLow}`;
      const known = this.#chains.get(key);
      check(known === undefined || known === chain, `log matching: two logs up to (${key})`);
      this.#chains.set(key, chain);
    }
  }

  /** State machine safety, order, that what commits is durable on a majority, and that a leader commits through an entry of its own term (B05). */
  committed(replica: SimulatedReplica, entries: readonly Entry[]): void {
    const last = entries.at(-1);
    check(
      last === undefined || replica.core?.role !== 'leader' || last.term === replica.core.term,
      `replica ${replica.id} leads term ${replica.core?.term} and committed entry ${last?.index} of term ${last?.term}`,
    );
    for (const entry of entries) {
      check(entry.index === replica.appliedIndex + 1, `replica ${replica.id} committed ${entry.index} after ${replica.appliedIndex}`);
      replica.appliedIndex = entry.index;
      const known = this.#committed[entry.index - 1];
      check(known === undefined || known === entry.term, `state machine safety: at ${entry.index} terms ${known} and ${entry.term}`);
      if (known !== undefined) continue;
      this.#committed.push(entry.term);
      const configuration = replica.core?.configuration;
      check(
        configuration !== undefined &&
          this.#onMajority(configuration.voters, entry) &&
          (configuration.outgoing.length === 0 || this.#onMajority(configuration.outgoing, entry)),
        `entry ${entry.index} committed, and is not on a majority of ${JSON.stringify(configuration)}`,
      );
    }
  }

  #onMajority(voters: readonly Member[], { index, term }: Entry): boolean {
    const copies = voters.filter(({ replicaId }) => this.#replicas[replicaId - 1]?.hasDurable(index, term));
    return copies.length * 2 > voters.length;
  }

  /** What a message promises is on the sender's disk when it leaves (hazard B01). */
  sent(replica: SimulatedReplica, message: Message): void {
    checkPromise(replica, message);
  }

  /** What a replica takes for durable is on its disk (hazards B07 to B09). */
  durable(replica: SimulatedReplica): void {
    const index = replica.core?.durableIndex ?? 0;
    const term = replica.core?.termAt(index);
    check(
      index === 0 || term === undefined || replica.hasDurable(index, term),
      `replica ${replica.id} takes ${index}/${term} for durable, which is not on its disk`,
    );
  }

  /** No log is damaged in these worlds, so none may be taken for it (hazard B29). */
  intact({ id, core }: SimulatedReplica): void {
    check(core?.damage === undefined && core?.divergedIndex === 0, `replica ${id} was taken for damaged`);
  }

  /** A leader rests only when every replica has all of its log, committed; a follower when it has all that its leader had. */
  rests({ id, core }: SimulatedReplica): void {
    if (core === undefined) return;
    check(core.commitIndex === core.lastIndex && core.durableIndex === core.lastIndex, `replica ${id} rests with something under way`);
    if (core.role !== 'leader') return;
    const members = membersOf(core.configuration).map(({ replicaId }) => replicaId);
    for (const other of this.#replicas.filter((each) => members.includes(each.id))) {
      check(other.hasDurable(core.lastIndex, core.lastTerm), `replica ${id} rests without ${other.id} having all of its log`);
    }
  }

  readBegins(context: number): void {
    this.#reads.set(context, this.#committed.length);
  }

  /** A read sees all that was committed anywhere when it began. */
  readConfirmed({ context, index }: ReadState): void {
    const begun = this.#reads.get(context);
    check(begun !== undefined, `read ${context} confirmed twice or never asked`);
    check(index >= begun, `stale read: began when ${begun} was committed, served at ${index}`);
    this.#reads.delete(context);
    this.confirmedReads++;
  }
}

function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

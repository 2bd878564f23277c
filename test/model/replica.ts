/** One replica of the model: the production core, with a disk under it that loses what was not synced. */
import { FlotillaError } from '../../src/base/errors.ts';
import type { BrokerId, DirectoryId, ReplicaId } from '../../src/base/ids.ts';
import { CHAIN_START } from '../../src/raft/core/chain.ts';
import { membersOf } from '../../src/raft/core/configuration.ts';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import type { Members } from '../../src/raft/core/membership.ts';
import { RaftCore } from '../../src/raft/core/raft.ts';
import type { Configuration, HardState, Member, Message, PersistUnit, Proposal, Ready } from '../../src/raft/core/types.ts';
import { checkPromise } from '../sim/core/promises.ts';
import { FIRST_ID } from './describe.ts';

const ELECTION_TICKS = 2;

export type Input =
  | { readonly type: 'deliver'; readonly message: Message }
  /** An election timeout: campaigns through PreVote, or pulls. */
  | { readonly type: 'timeout' }
  /** Campaigns at once, as if its leader had said so (TimeoutNow): any replica at any time, which is the most that Raft allows. */
  | { readonly type: 'campaign' }
  /** At a leader: a heartbeat, and the watch over its quorum. */
  | { readonly type: 'tick' }
  | { readonly type: 'propose'; readonly value: number }
  /** These slots are to be the voters, and the others learners. */
  | { readonly type: 'change'; readonly voters: readonly number[] }
  /** The oldest write under way is durable. */
  | { readonly type: 'persisted' }
  /** A crash that the first `kept` writes under way survive, and a restart. */
  | { readonly type: 'crash'; readonly kept: number };

interface Pending {
  readonly unit: PersistUnit;
  readonly afterwards: readonly Message[];
}

/** A broken rule. */
export class Violation extends Error {}

export function memberOf(slot: number): Member {
  return {
    replicaId: (FIRST_ID + slot) as ReplicaId,
    brokerId: (FIRST_ID + slot) as BrokerId,
    directoryId: (FIRST_ID + slot).toString(16).padStart(32, '0') as DirectoryId,
  };
}

export class ModelReplica {
  readonly #configuration: Configuration;
  readonly id: ReplicaId;
  core: RaftCore;
  hardState: HardState = { term: 0, vote: 0, commit: 0 };
  /** Durable entries, the one at index i in slot i - 1. */
  durable: Entry[] = [];
  pending: Pending[] = [];
  applied = 0;

  constructor(slot: number, configuration: Configuration) {
    this.id = (FIRST_ID + slot) as ReplicaId;
    this.#configuration = configuration;
    this.core = this.#start();
  }

  /**
   * Takes an input; the messages that leave. `slow`: what is to be written stays under way until it is said to be `persisted`, or lost; otherwise it is durable at
   * once, if nothing is under way before it. Throws {@link Violation}, or the core's own InvariantError.
   */
  apply(input: Input, slow: boolean): Message[] {
    const before = { term: this.core.term, commit: this.core.commitIndex, leader: this.core.leader };
    const behindSlow = this.pending.length > 0;
    const sent: Message[] = [];
    this.#input(input, sent);
    this.#drain(sent);
    if (!slow && !behindSlow) while (this.pending.length > 0) this.#complete(sent);
    this.#check(input, before);
    if (input.type === 'deliver') this.#checkPeace(input.message, before, sent);
    return sent;
  }

  #input(input: Input, sent: Message[]): void {
    const { core } = this;
    switch (input.type) {
      case 'deliver':
        core.step(input.message);
        break;
      case 'timeout':
        for (let i = 0; i < ELECTION_TICKS; i++) core.tick();
        break;
      case 'campaign':
        core.step({ type: 'timeoutNow', from: 0 as ReplicaId, to: this.id, term: core.term });
        break;
      case 'tick':
        core.tick();
        break;
      case 'propose':
        attempt(() => void core.propose([proposalOf(input.value)]));
        break;
      case 'change':
        attempt(() => void core.proposeMembers(this.#members(input.voters)));
        break;
      case 'persisted':
        this.#complete(sent);
        break;
      case 'crash':
        for (const { unit } of this.pending.slice(0, input.kept)) this.#write(unit);
        this.pending = [];
        this.core = this.#start();
        break;
    }
  }

  #start(): RaftCore {
    this.applied = 0;
    return new RaftCore({
      id: this.id,
      hardState: this.hardState,
      configuration: this.#configuration,
      configurationIndex: 0,
      log: { base: { index: 0, term: 0, nextOffset: 0, ...CHAIN_START }, tail: [...this.durable], terms: [], firstReplicableIndex: 1 },
      electionTicks: ELECTION_TICKS,
      heartbeatTicks: 1,
      uint32: () => 0,
      // One entry a message: the most that can come apart.
      maxAppendBytes: 1,
      maxInflightBytes: 1 << 20,
      maxInflightMessages: 8,
      maxUncommittedBytes: 1 << 20,
    });
  }

  #members(slots: readonly number[]): Members {
    const voters = slots.map(memberOf);
    const others = membersOf(this.#configuration).filter(({ replicaId }) => !voters.some((voter) => voter.replicaId === replicaId));
    return { voters, learners: others };
  }

  #drain(sent: Message[]): void {
    while (this.core.hasReady()) {
      const ready = this.core.ready();
      for (const message of ready.messages) this.#send(message, sent);
      if (ready.persist !== undefined) this.pending.push({ unit: ready.persist, afterwards: ready.afterPersist });
      else check(ready.afterPersist.length === 0, 'messages wait for a write that does not exist');
      this.#committed(ready);
    }
  }

  #complete(sent: Message[]): void {
    const pending = this.pending.shift();
    if (pending === undefined) return;
    this.#write(pending.unit);
    this.core.persisted(pending.unit.token);
    for (const message of pending.afterwards) this.#send(message, sent);
    this.#drain(sent);
  }

  #send(message: Message, sent: Message[]): void {
    checkPromise({ id: this.id, votes: new Map([[this.hardState.term, this.hardState.vote]]), durable: this.durable }, message);
    sent.push(message);
  }

  #write({ hardState, truncateTo, entries }: PersistUnit): void {
    if (hardState !== undefined) {
      const { term, vote } = this.hardState;
      check(hardState.term >= term, `the durable term goes back from ${term} to ${hardState.term}`);
      check(hardState.term > term || vote === 0 || hardState.vote === vote, `votes for ${vote} and ${hardState.vote} in term ${term}`);
      this.hardState = hardState;
    }
    if (truncateTo !== undefined) this.durable = this.durable.slice(0, truncateTo);
    for (const entry of entries) {
      check(entry.index === this.durable.length + 1, `a hole before entry ${entry.index} on disk`);
      this.durable.push(entry);
    }
  }

  #committed({ committed }: Ready): void {
    for (const entry of committed) check(entry.index === ++this.applied, `committed ${entry.index} after ${this.applied - 1}`);
  }

  #check(input: Input, before: { readonly term: number; readonly commit: number }): void {
    const { core } = this;
    check(core.term >= before.term || input.type === 'crash', `the term goes back from ${before.term} to ${core.term}`);
    check(core.commitIndex >= before.commit || input.type === 'crash', `the commit index goes back from ${before.commit}`);
    check(
      core.role !== 'leader' || core.commitIndex === before.commit || core.termAt(core.commitIndex) === core.term,
      `leads term ${core.term} and commits entry ${core.commitIndex} of term ${core.termAt(core.commitIndex)}`,
    );
    for (let index = 1; index <= core.durableIndex; index++) {
      check(this.durable[index - 1]?.term === core.termAt(index), `believes entry ${index} durable, and it is not`);
    }
  }

  /** A pre-vote changes nobody's term, and who hears a leader is not to be disturbed by who does not (hazard B16). No clock runs at followers: a lease ends by a timeout. */
  #checkPeace(message: Message, before: { readonly term: number; readonly leader: number }, sent: readonly Message[]): void {
    if (message.type !== 'vote' || message.transfer) return;
    const same = this.core.term === before.term;
    check(same || !message.pre, `a pre-vote moved the term from ${before.term} to ${this.core.term}`);
    if (before.leader === 0 || message.term <= before.term) return;
    check(
      same && sent.length === 0,
      `hears leader ${before.leader} of term ${before.term} and takes part in an election of term ${message.term}`,
    );
  }
}

function proposalOf(value: number): Proposal {
  return { kind: EntryKind.batch, payload: Uint8Array.of(value), recordCount: 1, payloadChecksum: value };
}

/** Does what a leader may refuse. */
function attempt(task: () => void): void {
  try {
    task();
  } catch (error) {
    if (!(error instanceof FlotillaError)) throw error;
  }
}

export function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Violation(message);
}

import type { BrokerId, DirectoryId, ReplicaId } from '../../../src/base/ids.ts';
import { LOG_ORIGIN } from '../../../src/raft/core/chain.ts';
import { decodeConfiguration, membersOf } from '../../../src/raft/core/configuration.ts';
import { type Entry, EntryKind } from '../../../src/raft/core/entry.ts';
import type { RaftCore } from '../../../src/raft/core/raft.ts';
import type { Configuration, HardState, Member, Message, PersistUnit, TermStart } from '../../../src/raft/core/types.ts';
import { type Record, RecordedCore } from '../../spec/recorder.ts';
import type { SeededRandom } from '../random.ts';

export interface Pending {
  readonly unit: PersistUnit;
  readonly afterwards: readonly Message[];
}

export function memberOf(id: number): Member {
  return { replicaId: id as ReplicaId, brokerId: id as BrokerId, directoryId: id.toString(16).padStart(32, '0') as DirectoryId };
}

export function configurationOf(voters: number): Configuration {
  return { voters: Array.from({ length: voters }, (_, i) => memberOf(i + 1)), outgoing: [], learners: [] };
}

export interface SimulatedOptions {
  readonly quiesceTicks: number;
  /** Gets the trace. */
  readonly record: Record;
}

/** A core with the disk under it: what is durable, and what is on the way there. */
export class SimulatedReplica {
  readonly id: ReplicaId;
  readonly #configuration: Configuration;
  readonly #random: SeededRandom;
  readonly #maxWindowBytes: number;
  readonly #quiesceTicks: number;
  readonly #record: Record;
  /** Undefined: crashed. */
  core: RaftCore | undefined;
  /** Its disk is gone: it never comes back. */
  lost = false;
  hardState: HardState = { term: 0, vote: 0, commit: 0 };
  /** Durable entries, the one at index i in slot i - 1. */
  durable: Entry[] = [];
  /** Up to here the entries are in segments and out of the write-ahead log. */
  segmentIndex = 0;
  /** The first entry that segments still hold. */
  firstIndex = 1;
  pending: Pending[] = [];
  appliedIndex = 0;
  /** Votes that became durable, by term: never two. */
  readonly votes = new Map<number, number>();

  constructor(id: ReplicaId, configuration: Configuration, random: SeededRandom, maxWindowBytes: number, options: SimulatedOptions) {
    this.id = id;
    this.#configuration = configuration;
    this.#random = random;
    this.#maxWindowBytes = maxWindowBytes;
    this.#quiesceTicks = options.quiesceTicks;
    this.#record = options.record;
    this.start();
  }

  start(): void {
    const base = this.segmentIndex === 0 ? LOG_ORIGIN : (this.durable[this.segmentIndex - 1] as Entry);
    const terms: TermStart[] = [];
    for (const { term, index } of this.durable.slice(0, this.segmentIndex)) if (terms.at(-1)?.term !== term) terms.push({ term, index });
    this.appliedIndex = this.segmentIndex;
    const inForce = this.durable.slice(0, this.segmentIndex).findLast(({ kind }) => kind === EntryKind.config);
    this.core = new RecordedCore(
      {
        id: this.id,
        hardState: this.hardState,
        configuration: inForce === undefined ? this.#configuration : decodeConfiguration(inForce.payload),
        configurationIndex: inForce?.index ?? 0,
        log: { base, tail: this.durable.slice(this.segmentIndex), terms, firstReplicableIndex: this.firstIndex },
        electionTicks: 10,
        heartbeatTicks: 2,
        quiesceTicks: this.#quiesceTicks,
        uint32: () => this.#random.uint32(),
        maxAppendBytes: 256,
        maxInflightBytes: 1024,
        maxInflightMessages: 6,
        maxUncommittedBytes: 4096,
        maxWindowBytes: this.#maxWindowBytes,
      },
      this.#record,
    );
  }

  /** Loses all that is not durable; the disk may have finished some of what was under way without anyone having heard of it. */
  crash(): void {
    const finished = this.#random.below(this.pending.length + 1);
    for (let i = 0; i < finished; i++) this.write((this.pending[i] as Pending).unit);
    this.pending = [];
    this.core = undefined;
  }

  write(unit: PersistUnit): void {
    if (unit.hardState !== undefined) {
      const { term, vote } = unit.hardState;
      const before = this.votes.get(term);
      if (vote !== 0) {
        if (before !== undefined && before !== vote) throw new Error(`replica ${this.id} voted for ${before} and ${vote} in term ${term}`);
        this.votes.set(term, vote);
      }
      if (term < this.hardState.term) throw new Error(`replica ${this.id}: the durable term went back to ${term}`);
      this.hardState = unit.hardState;
    }
    if (unit.truncateTo !== undefined) this.durable.length = Math.min(this.durable.length, unit.truncateTo);
    for (const entry of unit.entries) {
      if (entry.index !== this.durable.length + 1) throw new Error(`replica ${this.id}: a hole before entry ${entry.index} on disk`);
      this.durable.push(entry);
    }
  }

  /**
   * What the host's heartbeats tell of another broker: it is silent, or the two differ about who rests (hazard B39).
   * It must be enough for a group at rest never to be stuck.
   */
  hear(other: SimulatedReplica, silent: boolean): void {
    const { core } = this;
    if (core === undefined || !core.quiesced || !membersOf(core.configuration).some(({ replicaId }) => replicaId === other.id)) return;
    if (other.core === undefined || silent) {
      if (core.leader === other.id) core.leaderUnreachable();
      else core.wake();
      return;
    }
    const follows = core.leader === other.id;
    const agree = other.core.quiesced && other.core.term === core.term && other.core.leader === core.leader;
    if ((follows || core.role === 'leader') && !agree) core.wake();
  }

  /** Writes what is committed and durable to segments, and lets the core drop it. */
  release(): void {
    if (this.core === undefined) return;
    this.segmentIndex = Math.max(this.segmentIndex, Math.min(this.appliedIndex, this.core.durableIndex, this.durable.length));
    this.core.release(this.segmentIndex, this.firstIndex);
  }

  /** Drops some of what is in segments: a snapshot stands for it. */
  drop(): void {
    const index = this.#random.chance(0.5) ? this.segmentIndex : this.#random.below(this.segmentIndex + 1);
    this.firstIndex = Math.max(this.firstIndex, index + 1);
    this.core?.release(this.segmentIndex, this.firstIndex);
  }

  /** Takes another's snapshot, up to `index`, in place of its log. */
  install(from: SimulatedReplica, index: number): void {
    this.durable = from.durable.slice(0, index);
    this.segmentIndex = index;
    this.firstIndex = from.firstIndex;
    this.hardState = { ...this.hardState, commit: index };
    this.start();
  }

  hasDurable(index: number, term: number): boolean {
    return this.durable[index - 1]?.term === term;
  }
}

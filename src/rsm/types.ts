/** The interfaces of the replicated-state-machine runtime: what a state machine is, and what the runtime stands on. */
import type { Environment, Logger, StateStore } from '../base/environment.ts';
import type { ErrorCode } from '../base/errors.ts';
import type { Entry } from '../raft/core/entry.ts';
import type { Replica } from '../raft/types.ts';
import type { RecordCodec } from './codec.ts';

/**
 * A deterministic state machine. `State` is immutable: `apply` returns another one and shares what did not change.
 * Nothing here reads a clock, draws a random number or depends on anything but its arguments.
 */
export interface StateMachine<State, R, Delta> {
  readonly empty: State;
  readonly codec: RecordCodec<R>;
  /** The state after the records of the entry at `index`, and what they changed. */
  apply(state: State, index: number, records: readonly R[]): Applied<State, Delta>;
  /** Deterministic: equal states, equal bytes. */
  encodeState(state: State): Uint8Array;
  decodeState(bytes: Uint8Array): State;
}

export interface Applied<State, Delta> {
  readonly state: State;
  readonly delta: Delta;
}

/** A function of the newest state, pending records included. It throws a FlotillaError to refuse. */
export type Operation<State, R, Response> = (state: State) => { readonly records: readonly R[]; readonly response: Response };

export interface Committed<Response> {
  readonly response: Response;
  /** The index of the operation's entry; of the newest entry it saw when it had no records. */
  readonly index: number;
}

/** The part of a Replica that the runtime needs: a {@link Replica} is one. */
export type StateMachineReplica = Pick<Replica, 'propose' | 'readIndex' | 'commitIndex'> & { readonly log: CommittedLog };

/** Committed entries, from memory or segments, above a checkpoint that stands for what is gone: a PartitionLog is one. */
export interface CommittedLog {
  readonly lastIndex: number;
  /** Entries below it are gone. */
  readonly firstReplicableIndex: number;
  /** The newest checkpoint that came with the log. */
  readonly snapshot: { readonly index: number; readonly state: Uint8Array } | undefined;
  /** Asked for a checkpoint as of the entry when a segment ends there. */
  snapshotSource: ((nextOffset: number, index: number) => Uint8Array | undefined) | undefined;
  /** From the index on, about `maxBytes`, at least one; none past `lastIndex`. */
  readEntries(fromIndex: number, maxBytes: number): Promise<readonly Entry[]>;
}

export interface RuntimeObserver<State, Delta> {
  /** A committed entry was applied. In log order. */
  applied(applied: Applied<State, Delta>): void;
  /** The state came as a whole, from another replica's checkpoint, and not entry by entry. */
  restored(state: State): void;
  /** This replica leads and all earlier entries are applied (true), or does no longer (false). */
  activeChanged(active: boolean): void;
  /** Who leads, as this replica knows, may have changed. */
  leadershipChanged?(): void;
  /** The replica has stopped for good: an unknown record, a damaged one, or storage that failed. The broker must end and say why. */
  failed(error: Error): void;
}

export interface RuntimeOptions<State, R, Delta> {
  /** Names the state in the store and in messages: `metadata`. */
  readonly name: string;
  readonly machine: StateMachine<State, R, Delta>;
  readonly store: StateStore;
  readonly observer: RuntimeObserver<State, Delta>;
  readonly environment: Environment;
  readonly logger: Logger;
  /** Checksum of an entry's payload, as Proposal.payloadChecksum wants it. */
  readonly checksum: (payload: Uint8Array) => number;
  /** What an operation gets where this replica is not the leader. */
  readonly notLeader: ErrorCode & ('NOT_CONTROLLER' | 'NOT_COORDINATOR');
}

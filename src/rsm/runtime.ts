/**
 * The replicated-state-machine runtime: one for the metadata quorum, the group coordinators and the transaction coordinators.
 * Kafka's QuorumController and CoordinatorRuntime are the same machine, written twice.
 *
 * On the leader an operation runs on the newest state, which is the applied one plus the records that are still pending. Its
 * records become one entry; its response is parked until that entry is applied. A leader that steps down drops what was
 * pending. All replicas apply the same entries in the same order, so all hold the same state.
 *
 * The state is checkpointed together with its index in one value of the StateStore (hazard B28), lazily: a restart loads it and
 * reads the rest from the log.
 */
import { assert, must } from '../base/assert.ts';
import type { Timer } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { type Entry, EntryKind } from '../raft/core/entry.ts';
import type { Leadership, ReplicaOwner } from '../raft/types.ts';
import { decodeCheckpoint, encodeCheckpoint } from './checkpoint.ts';
import { decodeRecords, encodeRecords } from './codec.ts';
import { PendingOperations } from './pending.ts';
import type { Committed, CommittedLog, Operation, RuntimeOptions, StateMachineReplica } from './types.ts';

/** An operation whose entry is larger is refused: entries are copied to every follower and held in memory. */
export const MAX_OPERATION_BYTES = 1 << 20;
/** Entries applied since the last checkpoint that ask for the next. */
export const CHECKPOINT_ENTRIES = 1_000;
/** A checkpoint is written this long after the first entry that none holds yet. */
export const CHECKPOINT_IDLE_MS = 5_000;
const REPLAY_PAGE_BYTES = 1 << 20;

export class StateMachineRuntime<State, R, Delta> implements ReplicaOwner {
  readonly #options: RuntimeOptions<State, R, Delta>;
  readonly #pending: PendingOperations;
  #replica: StateMachineReplica | undefined;
  #leadership: Leadership = { role: 'follower', term: 0, leader: undefined, ready: false };
  #active = false;

  #state: State;
  #appliedIndex: number;
  /** The applied state plus all pending records; the same as #state when nothing is pending. */
  #newest: State;

  /** Committed here as far as the host has told; ahead of #appliedIndex while the log is being replayed. */
  #knownCommit = 0;
  #replaying = false;
  #checkpointIndex: number;
  #checkpointing: Promise<void> | undefined;
  #checkpointTimer: Timer | undefined;
  #failure: Error | undefined;
  #closed = false;

  /** Loads the newest checkpoint. `attach` the replica next. */
  static async load<State, R, Delta>(options: RuntimeOptions<State, R, Delta>): Promise<StateMachineRuntime<State, R, Delta>> {
    const bytes = await storedCheckpoint(options);
    if (bytes === undefined) return new StateMachineRuntime(options, options.machine.empty, 0);
    const { index, state } = decodeCheckpoint(bytes);
    return new StateMachineRuntime(options, options.machine.decodeState(state), index);
  }

  private constructor(options: RuntimeOptions<State, R, Delta>, state: State, appliedIndex: number) {
    this.#options = options;
    this.#state = state;
    this.#newest = state;
    this.#appliedIndex = appliedIndex;
    this.#checkpointIndex = appliedIndex;
    this.#pending = new PendingOperations(options.environment);
  }

  /** Binds the replica (ReplicaOptions.owner) and replays what its log holds above the checkpoint. */
  attach(replica: StateMachineReplica): this {
    assert(this.#replica === undefined, 'a runtime has one replica', this.#options.name);
    this.#replica = replica;
    this.#adopt(replica);
    if (this.#appliedIndex < this.#knownCommit) void this.#replay(replica);
    return this;
  }

  /** The applied state: what is committed. */
  get state(): State {
    return this.#state;
  }

  get appliedIndex(): number {
    return this.#appliedIndex;
  }

  get leadership(): Leadership {
    return this.#leadership;
  }

  /** True while operations are taken: leader, own-term no-op committed, everything before it applied. */
  get active(): boolean {
    return this.#active;
  }

  /**
   * Runs the operation on the newest state and resolves once its records are committed and applied. An operation without records, or one that is refused, is
   * answered once all that it saw has committed and a majority has confirmed this leader: a deposed one decides on a state that is old (hazard B19).
   * Rejects with what the operation throws; `notLeader` where this replica does not lead or steps down (the records may commit even so);
   * THROTTLING_QUOTA_EXCEEDED; REQUEST_TIMED_OUT and ABORTED (may commit as well).
   */
  async run<Response>(operation: Operation<State, R, Response>, signal: AbortSignal): Promise<Committed<Response>> {
    if (signal.aborted) throw new FlotillaError('ABORTED', 'the call was aborted before it began');
    if (this.#failure !== undefined) throw this.#notLeader(`stopped: ${this.#failure.message}`);
    if (!this.#active) throw this.#notLeader(this.#whyNotActive());
    this.#pending.checkRoom();
    const decided = decide(operation, this.#newest);
    if ('refusal' in decided) {
      await this.#confirmed(undefined, signal);
      throw decided.refusal;
    }
    const { records, response } = decided;
    if (records.length === 0) return this.#confirmed(response, signal);
    const { machine, checksum } = this.#options;
    const payload = encodeRecords(machine.codec, records);
    if (payload.length > MAX_OPERATION_BYTES) {
      throw new FlotillaError(
        'INVALID_REQUEST',
        `the request takes ${payload.length} bytes of ${this.#options.name} log, at most ${MAX_OPERATION_BYTES} are allowed: split it`,
      );
    }
    // Before it is proposed: records that can't be applied must never reach the log.
    const next = machine.apply(this.#newest, (this.#pending.last?.index ?? this.#appliedIndex) + 1, records).state;
    const replica = must(this.#replica, 'active without a replica');
    const { index, term } = this.#propose(replica, payload, checksum(payload));
    this.#newest = next;
    return this.#pending.park(index, term, response, signal);
  }

  /** What was decided on the newest state counts: its last pending operation has committed, or without one this leader is confirmed. */
  async #confirmed<Response>(response: Response, signal: AbortSignal): Promise<Committed<Response>> {
    const { last } = this.#pending;
    if (last !== undefined) return this.#pending.park(last.index, last.term, response, signal);
    const index = this.#appliedIndex;
    try {
      await must(this.#replica, 'active without a replica').readIndex(signal);
    } catch (error) {
      throw this.#notLeaderIf(error);
    }
    return { response, index };
  }

  #propose(replica: StateMachineReplica, payload: Uint8Array, payloadChecksum: number): { readonly index: number; readonly term: number } {
    try {
      return replica.propose({ kind: EntryKind.batch, payload, recordCount: 0, payloadChecksum });
    } catch (error) {
      throw this.#notLeaderIf(error);
    }
  }

  /** What the replica says of its leadership, as this state machine's clients are told. */
  #notLeaderIf(error: unknown): unknown {
    return error instanceof FlotillaError && error.code === 'NOT_LEADER_OR_FOLLOWER' ? this.#notLeader(error.message) : error;
  }

  // ReplicaOwner, called by the Raft host in log order.

  apply(entries: readonly Entry[]): void {
    const last = entries.at(-1);
    if (last === undefined) return;
    this.#knownCommit = Math.max(this.#knownCommit, last.index);
    if (this.#closed || this.#failure !== undefined || this.#replaying) return;
    const first = must(entries[0], 'entries are not empty').index;
    if (first > this.#appliedIndex + 1) {
      void this.#replay(must(this.#replica, 'entries before the replica was attached'));
      return;
    }
    this.#guard(() => this.#applyAll(entries));
  }

  leadershipChanged(leadership: Leadership): void {
    this.#leadership = leadership;
    // The host may say `ready` before it hands over the entries up to the own-term no-op: operations wait for those.
    if (leadership.ready) this.#knownCommit = Math.max(this.#knownCommit, this.#replica?.commitIndex ?? 0);
    const stillLeads = leadership.role === 'leader' && leadership.ready;
    const last = this.#pending.last;
    if (!stillLeads || (last !== undefined && last.term !== leadership.term)) this.#dropPending('stepped down');
    this.#updateActive();
    this.#options.observer.leadershipChanged?.();
  }

  appended(): void {}

  async restored(): Promise<void> {
    const replica = must(this.#replica, 'a snapshot before the replica was attached');
    this.#dropPending('got a snapshot');
    this.#guard(() => this.#adopt(replica));
    this.#updateActive();
  }

  truncated(index: number): void {
    const last = this.#pending.last;
    if (last !== undefined && last.index > index) this.#dropPending('stepped down');
  }

  progressed(): void {}

  /** Writes a last checkpoint and stops. Parked responses reject. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#checkpointTimer?.cancel();
    this.#dropPending('closed');
    this.#updateActive();
    await this.#checkpointing;
    if (this.#failure === undefined && this.#appliedIndex > this.#checkpointIndex) await this.#writeCheckpoint();
  }

  /** Writes the applied state now. */
  async checkpoint(): Promise<void> {
    await this.#checkpointing;
    if (this.#appliedIndex > this.#checkpointIndex) await this.#startCheckpoint();
  }

  /** Goes on from the replica's log: from the checkpoint that came with it where what this one would apply next is gone. */
  #adopt({ log }: StateMachineReplica): void {
    const { machine, observer } = this.#options;
    this.#knownCommit = log.lastIndex;
    log.snapshotSource = (_offset, index) =>
      index === this.#appliedIndex && this.#failure === undefined ? encodeCheckpoint(index, machine.encodeState(this.#state)) : undefined;
    if (this.#appliedIndex + 1 >= log.firstReplicableIndex || this.#closed) return;
    const { index, state } = decodeCheckpoint(must(log.snapshot, 'a log whose beginning is gone has a checkpoint').state);
    this.#state = machine.decodeState(state);
    this.#newest = this.#state;
    this.#appliedIndex = index;
    observer.restored(this.#state);
    this.#scheduleCheckpoint();
  }

  #applyAll(entries: readonly Entry[]): void {
    for (const entry of entries) if (entry.index > this.#appliedIndex) this.#applyOne(entry);
    if (this.#pending.last === undefined) this.#newest = this.#state;
    this.#updateActive();
    this.#scheduleCheckpoint();
  }

  #applyOne(entry: Entry): void {
    assert(entry.index === this.#appliedIndex + 1, 'entries apply without gaps', { applied: this.#appliedIndex, entry: entry.index });
    const { machine, observer } = this.#options;
    const records = entry.kind === EntryKind.batch ? decodeRecords(machine.codec, entry.payload) : [];
    const applied = machine.apply(this.#state, entry.index, records);
    this.#state = applied.state;
    this.#appliedIndex = entry.index;
    observer.applied(applied);
    this.#pending.complete(entry.index, entry.term);
  }

  /** Reads committed entries from the log until the present, while `apply` only notes how far that is. */
  async #replay(replica: StateMachineReplica): Promise<void> {
    this.#replaying = true;
    try {
      while (!this.#closed && this.#appliedIndex < this.#knownCommit) {
        const entries = await this.#readOn(replica.log);
        if (this.#closed) return;
        const committed = entries.filter((entry) => entry.index <= this.#knownCommit);
        if (committed.length === 0) await new Promise<void>((resolve) => this.#options.environment.after(1, resolve));
        else this.#applyAll(committed);
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#replaying = false;
    }
    this.#updateActive();
  }

  /** None when a snapshot is taking the log's place. */
  async #readOn(log: CommittedLog): Promise<readonly Entry[]> {
    try {
      return await log.readEntries(this.#appliedIndex + 1, REPLAY_PAGE_BYTES);
    } catch (error) {
      if (error instanceof FlotillaError && error.retriable) return [];
      throw error;
    }
  }

  #guard(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    const name = this.#options.name;
    this.#failure = new Error(`${name}: can't apply entry ${this.#appliedIndex + 1}: ${messageOf(error)}`, { cause: error });
    this.#checkpointTimer?.cancel();
    this.#options.logger.error('state machine stopped', { name, index: this.#appliedIndex + 1, error: messageOf(error) });
    this.#dropPending('stopped');
    this.#updateActive();
    this.#options.observer.failed(this.#failure);
  }

  #updateActive(): void {
    const { role, ready } = this.#leadership;
    const caughtUp = !this.#replaying && this.#appliedIndex >= this.#knownCommit;
    // Once active, a commit that is not applied yet is this leader's own and already in the overlay.
    const active = role === 'leader' && ready && !this.#closed && this.#failure === undefined && (this.#active || caughtUp);
    if (active === this.#active) return;
    this.#active = active;
    this.#newest = this.#state;
    this.#options.observer.activeChanged(active);
  }

  #dropPending(why: string): void {
    const error = this.#notLeader(`${why} while the operation was pending; it may have been committed, look before asking again`);
    this.#newest = this.#state;
    // A leadership that ended and began again between two calls: what observers hold of it is void as well.
    if (this.#active) {
      this.#active = false;
      this.#options.observer.activeChanged(false);
    }
    this.#pending.rejectAll(error);
  }

  #notLeader(why: string): FlotillaError {
    return new FlotillaError(this.#options.notLeader, `${this.#options.name}: ${why}`);
  }

  #whyNotActive(): string {
    const { role, leader, ready } = this.#leadership;
    if (role === 'leader' && (!ready || !this.#active)) return 'this broker was just elected and is not ready yet';
    return leader === undefined ? 'no leader is known' : `broker ${leader.brokerId} is the leader`;
  }

  #scheduleCheckpoint(): void {
    if (this.#closed || this.#checkpointing !== undefined || this.#appliedIndex === this.#checkpointIndex) return;
    if (this.#appliedIndex - this.#checkpointIndex >= CHECKPOINT_ENTRIES) {
      void this.#startCheckpoint();
    } else {
      this.#checkpointTimer ??= this.#options.environment.after(CHECKPOINT_IDLE_MS, () => void this.#startCheckpoint());
    }
  }

  async #startCheckpoint(): Promise<void> {
    if (this.#checkpointing !== undefined || this.#failure !== undefined) return;
    this.#checkpointTimer?.cancel();
    this.#checkpointTimer = undefined;
    this.#checkpointing = this.#writeCheckpoint();
    try {
      await this.#checkpointing;
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#checkpointing = undefined;
    }
    this.#scheduleCheckpoint();
  }

  async #writeCheckpoint(): Promise<void> {
    const { name, machine, store, checksum } = this.#options;
    const index = this.#appliedIndex;
    const value = encodeCheckpoint(index, machine.encodeState(this.#state));
    await store.write([
      { key: storeKey(name), value },
      { key: checksumKey(name), value: checksumOf(value, checksum) },
    ]);
    this.#checkpointIndex = index;
  }
}

/** What the operation decides; only a refusal that clients are told is a decision. */
function decide<State, R, Response>(
  operation: Operation<State, R, Response>,
  state: State,
): ReturnType<typeof operation> | { readonly refusal: FlotillaError } {
  try {
    return operation(state);
  } catch (error) {
    if (error instanceof FlotillaError) return { refusal: error };
    throw error;
  }
}

function storeKey(name: string): string {
  return `rsm/${name}/checkpoint`;
}

/** Beside it, in the same batch: what a store keeps may rot unnoticed. */
function checksumKey(name: string): string {
  return `rsm/${name}/checkpoint-crc32`;
}

function checksumOf(value: Uint8Array, checksum: (payload: Uint8Array) => number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, checksum(value));
  return bytes;
}

/** Undefined: there is none, or it rotted, and the state is made anew from the log. */
async function storedCheckpoint<State, R, Delta>({
  name,
  store,
  checksum,
  logger,
}: RuntimeOptions<State, R, Delta>): Promise<Uint8Array | undefined> {
  const value = await store.get(storeKey(name));
  const stated = await store.get(checksumKey(name));
  if (value === undefined) return undefined;
  const actual = checksumOf(value, checksum);
  // One without is no other: what made the value rot may have had both.
  if (stated?.length === actual.length && stated.every((byte, at) => byte === actual[at])) return value;
  logger.error('checkpoint damaged: the state is made anew from the log', { name });
  return undefined;
}

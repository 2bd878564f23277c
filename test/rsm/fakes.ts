/** A clock that tests move, a store in memory, and a raft group without networks: proposals commit when the test says so. */
import type { Environment, StateOperation, StateStore, Timer } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import type { BrokerId, ReplicaId } from '../../src/base/ids.ts';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import type { Proposal } from '../../src/raft/core/types.ts';
import type { Leadership, ReplicaOwner } from '../../src/raft/types.ts';
import type { StateMachineReplica } from '../../src/rsm/types.ts';

export class ManualEnvironment implements Environment {
  now = 0;
  readonly #timers = new Set<{ at: number; order: number; task: () => void }>();
  #order = 0;
  #random = 0x2545f491;

  monotonicMs(): number {
    return this.now;
  }
  wallMs(): number {
    return this.now;
  }
  uint32(): number {
    this.#random ^= this.#random << 13;
    this.#random ^= this.#random >>> 17;
    this.#random ^= this.#random << 5;
    return this.#random >>> 0;
  }
  after(ms: number, task: () => void): Timer {
    const timer = { at: this.now + ms, order: this.#order++, task };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }
  soon(task: () => void): void {
    queueMicrotask(task);
  }
  nextTurn(task: () => void): void {
    this.after(0, task);
  }
  get timers(): number {
    return this.#timers.size;
  }

  /** Runs what is due within the next `ms`, with all promises between. */
  async advance(ms: number): Promise<void> {
    const until = this.now + ms;
    for (;;) {
      await settled();
      const due = [...this.#timers].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at || a.order - b.order)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.now = Math.max(this.now, due.at);
      due.task();
    }
    this.now = until;
  }
}

/** All promises that can go on without a timer have. */
export async function settled(): Promise<void> {
  for (let i = 0; i < 30; i++) await Promise.resolve();
}

export class MemoryStateStore implements StateStore {
  readonly map = new Map<string, Uint8Array>();
  writes = 0;
  failure: Error | undefined;

  async get(key: string): Promise<Uint8Array | undefined> {
    return this.map.get(key);
  }
  async entries(prefix: string): Promise<[string, Uint8Array][]> {
    return [...this.map].filter(([key]) => key.startsWith(prefix)).sort();
  }
  async write(operations: readonly StateOperation[]): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    this.writes++;
    for (const { key, value } of operations) {
      if (value === undefined) this.map.delete(key);
      else this.map.set(key, value);
    }
  }
  async close(): Promise<void> {}
}

export class FakeLog {
  readonly entries: Entry[] = [];
  committed = 0;
  firstReplicableIndex = 1;
  snapshot: { readonly index: number; readonly state: Uint8Array } | undefined;
  snapshotSource: ((nextOffset: number, index: number) => Uint8Array | undefined) | undefined;
  /** Reads wait for it: a slow disk. */
  gate: Promise<void> | undefined;

  get lastIndex(): number {
    return this.committed;
  }
  async readEntries(fromIndex: number, maxBytes: number): Promise<Entry[]> {
    await this.gate;
    if (fromIndex < this.firstReplicableIndex) throw new FlotillaError('OFFSET_OUT_OF_RANGE', 'below the start');
    const page: Entry[] = [];
    let bytes = 0;
    for (const entry of this.entries.slice(fromIndex - 1, this.committed)) {
      if (page.length > 0 && bytes + entry.payload.length > maxBytes) break;
      page.push(entry);
      bytes += entry.payload.length;
    }
    return page;
  }
}

/** One log and any number of owners that all see what commits; one of them leads. */
export class FakeGroup {
  readonly log = new FakeLog();
  readonly members: FakeReplica[] = [];
  term = 0;
  leader: FakeReplica | undefined;
  autoCommit = true;
  /** Confirmations of leadership wait for it: nobody answers. */
  confirmation: Promise<void> | undefined;

  member(broker: number): FakeReplica {
    const member = new FakeReplica(this, broker);
    this.members.push(member);
    return member;
  }

  /** The member wins a new term. What the old leader had not committed is cut off. */
  elect(winner: FakeReplica, keep = false): void {
    this.term++;
    const old = this.leader;
    if (!keep) this.log.entries.length = this.log.committed;
    this.leader = winner;
    if (old !== undefined && old !== winner) old.lead(this.leadership('follower', false));
    winner.lead(this.leadership('leader', false));
    this.append({ kind: EntryKind.noop, payload: new Uint8Array(), recordCount: 0, payloadChecksum: 0 });
    this.commit();
    for (const member of this.members) member.lead(this.leadership(member === winner ? 'leader' : 'follower', member === winner));
  }

  leadership(role: 'leader' | 'follower', ready: boolean): Leadership {
    const { leader } = this;
    return {
      role,
      ready,
      term: this.term,
      leader: leader && { replicaId: leader.broker as number as ReplicaId, brokerId: leader.broker as BrokerId },
    };
  }

  append({ kind, payload, recordCount, payloadChecksum }: Proposal): Entry {
    const entry: Entry = {
      index: this.log.entries.length + 1,
      term: this.term,
      kind,
      payload,
      recordCount,
      payloadChecksum,
      nextOffset: 0,
      chainHigh: 0,
      chainLow: 0,
      header: new Uint8Array(48),
    };
    this.log.entries.push(entry);
    return entry;
  }

  commit(upTo = this.log.entries.length): void {
    const entries = this.log.entries.slice(this.log.committed, upTo);
    this.log.committed = Math.max(this.log.committed, upTo);
    if (entries.length > 0) for (const member of this.members) member.owner?.apply(entries);
  }
}

export class FakeReplica implements StateMachineReplica {
  readonly group: FakeGroup;
  readonly broker: number;
  owner: ReplicaOwner | undefined;
  leadership: Leadership = { role: 'follower', term: 0, leader: undefined, ready: false };

  constructor(group: FakeGroup, broker: number) {
    this.group = group;
    this.broker = broker;
  }
  get log(): FakeLog {
    return this.group.log;
  }
  get commitIndex(): number {
    return this.group.log.committed;
  }
  lead(leadership: Leadership): void {
    this.leadership = leadership;
    this.owner?.leadershipChanged(leadership);
  }
  propose(proposal: Proposal): { index: number; term: number; nextOffset: number } {
    if (this.group.leader !== this) throw new FlotillaError('NOT_LEADER_OR_FOLLOWER', 'not the leader');
    const { index, term } = this.group.append(proposal);
    if (this.group.autoCommit) queueMicrotask(() => this.group.commit());
    return { index, term, nextOffset: 0 };
  }
  async readIndex(): Promise<number> {
    await this.group.confirmation;
    if (this.group.leader !== this) throw new FlotillaError('NOT_LEADER_OR_FOLLOWER', 'not the leader');
    return this.commitIndex;
  }
}

export const neverAborted = new AbortController().signal;

/** The promise's outcome as a value, to look at without waiting. */
export function outcome(promise: Promise<unknown>): { value?: unknown; code?: string; error?: unknown } {
  const seen: { value?: unknown; code?: string; error?: unknown } = {};
  promise.then(
    (value) => {
      seen.value = value ?? 'resolved';
    },
    (error: unknown) => {
      seen.error = error;
      seen.code = error instanceof FlotillaError ? error.code : String(error);
    },
  );
  return seen;
}

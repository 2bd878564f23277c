import { FlotillaError } from '../../src/base/errors.ts';
import { type BrokerId, type DirectoryId, encodeGroupKey, type ReplicaId, type TopicId } from '../../src/base/ids.ts';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import type { Configuration, Proposal } from '../../src/raft/core/types.ts';
import type { Leadership, Replica, ReplicaOwner } from '../../src/raft/types.ts';
import { readBatchHeader } from '../../src/record/batch.ts';
import type { BatchRun, PartitionLog } from '../../src/storage/types.ts';

export const topicId = '0123456789abcdef0123456789abcdef' as TopicId;

export function entry(index: number, term: number, proposal: Proposal, nextOffset: number): Entry {
  return {
    index,
    term,
    kind: proposal.kind,
    nextOffset,
    recordCount: proposal.recordCount,
    payloadChecksum: proposal.payloadChecksum,
    chainHigh: 0,
    chainLow: 0,
    header: new Uint8Array(48),
    payload: proposal.payload,
  };
}

/** Committed entries in memory. */
export class FakeLog {
  entries: Entry[] = [];
  logStartOffset = 0;
  snapshot: { nextOffset: number; state: Uint8Array } | undefined;
  snapshotSource: ((nextOffset: number) => Uint8Array | undefined) | undefined;
  failure: Error | undefined;
  reads = 0;

  get lastIndex(): number {
    return this.entries.at(-1)?.index ?? 0;
  }

  get nextOffset(): number {
    return this.entries.at(-1)?.nextOffset ?? this.logStartOffset;
  }

  get sizeBytes(): number {
    return this.entries.reduce((sum, { payload }) => sum + payload.length, 0);
  }

  configure(): void {}

  append(entries: readonly Entry[]): void {
    this.entries.push(...entries);
  }

  async read(from: number, until: number, maxBytes: number): Promise<BatchRun> {
    this.reads++;
    if (this.failure !== undefined) throw this.failure;
    if (from < this.logStartOffset) throw new FlotillaError('OFFSET_OUT_OF_RANGE', 'below the start');
    const run = { chunks: [] as Uint8Array[], bytes: 0, nextOffset: from };
    for (const { kind, nextOffset, payload } of this.entries) {
      if (kind !== EntryKind.batch || nextOffset <= from || nextOffset > until) continue;
      if (run.chunks.length > 0 && run.bytes + payload.length > maxBytes) break;
      run.chunks.push(payload);
      run.bytes += payload.length;
      run.nextOffset = nextOffset;
    }
    return run;
  }

  async scanBatchHeaders(from: number, visit: (header: Uint8Array, nextOffset: number) => void): Promise<void> {
    for (const { kind, nextOffset, payload } of this.entries) {
      if (kind === EntryKind.batch && nextOffset > from) visit(payload.subarray(0, 61), nextOffset);
    }
  }

  async offsetForTime(timestampMs: number, from = this.logStartOffset): Promise<number | undefined> {
    const found = this.entries.find(({ payload, nextOffset }) => nextOffset > from && readBatchHeader(payload).maxTimestamp >= timestampMs);
    return found && found.nextOffset - found.recordCount;
  }
}

/** A replica that a test moves by hand: what is durable, committed and truncated. */
export class FakeReplica {
  readonly group = encodeGroupKey({ topicId, partition: 0, groupGeneration: 0 });
  readonly replicaId = 1 as ReplicaId;
  readonly fakeLog: FakeLog;
  configuration: Configuration;
  leadership: Leadership = { role: 'leader', term: 1, leader: { replicaId: 1 as ReplicaId, brokerId: 1 as BrokerId }, ready: true };
  entries: Entry[] = [];
  durableIndex = 0;
  /** By voter, this leader first. */
  match: number[] = [0, 0, 0];
  syncBrokers: BrokerId[];
  commitIndex = 0;
  readIndexes: { resolve: (index: number) => void }[] = [];
  owner: ReplicaOwner | undefined;
  full = false;

  constructor(options: { voters?: number; log?: FakeLog } = {}) {
    const voters = Array.from({ length: options.voters ?? 3 }, (_, at) => ({
      replicaId: (at + 1) as ReplicaId,
      brokerId: (at + 1) as BrokerId,
      directoryId: 'f'.repeat(32) as DirectoryId,
    }));
    this.syncBrokers = voters.map(({ brokerId }) => brokerId);
    this.configuration = { voters, outgoing: [], learners: [] };
    this.fakeLog = options.log ?? new FakeLog();
    this.commitIndex = this.fakeLog.lastIndex;
  }

  /** What the broker sees. */
  get replica(): Replica {
    return this as unknown as Replica;
  }

  get log(): PartitionLog {
    return this.fakeLog as unknown as PartitionLog;
  }

  get lastIndex(): number {
    return this.entries.at(-1)?.index ?? this.fakeLog.lastIndex;
  }

  get nextOffset(): number {
    return this.entries.at(-1)?.nextOffset ?? this.fakeLog.nextOffset;
  }

  durableOn(count: number): number {
    return [...this.match].sort((a, b) => b - a)[count - 1] ?? 0;
  }

  inSync(): readonly BrokerId[] {
    return this.syncBrokers;
  }

  propose(proposal: Proposal): { index: number; term: number; nextOffset: number } {
    if (this.leadership.role !== 'leader') throw new FlotillaError('NOT_LEADER_OR_FOLLOWER', 'no');
    if (this.full) throw new FlotillaError('THROTTLING_QUOTA_EXCEEDED', 'full');
    const added = entry(this.lastIndex + 1, this.leadership.term, proposal, this.nextOffset + proposal.recordCount);
    this.entries.push(added);
    this.owner?.appended([added]);
    return { index: added.index, term: added.term, nextOffset: added.nextOffset };
  }

  readIndex(): Promise<number> {
    return new Promise((resolve) => this.readIndexes.push({ resolve }));
  }

  /** A follower's append. */
  receive(term: number, proposal: Proposal): void {
    const added = entry(this.lastIndex + 1, term, proposal, this.nextOffset + proposal.recordCount);
    this.entries.push(added);
    this.owner?.appended([added]);
  }

  commitTo(index: number): void {
    const committed = this.entries.filter((entry) => entry.index > this.commitIndex && entry.index <= index);
    this.entries = this.entries.filter((entry) => entry.index > index);
    this.fakeLog.append(committed);
    this.commitIndex = committed.at(-1)?.index ?? this.commitIndex;
    this.owner?.apply(committed);
  }

  truncateTo(index: number): void {
    this.entries = this.entries.filter((entry) => entry.index <= index);
    this.owner?.truncated(index, this.nextOffset);
  }

  become(leadership: Partial<Leadership>): void {
    this.leadership = { ...this.leadership, ...leadership };
    this.owner?.leadershipChanged(this.leadership);
  }
}

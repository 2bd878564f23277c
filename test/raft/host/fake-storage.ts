import type { Environment } from '../../../src/base/environment.ts';
import type { DirectoryId, GroupKey } from '../../../src/base/ids.ts';
import { decodeConfiguration } from '../../../src/raft/core/configuration.ts';
import { type Entry, EntryKind } from '../../../src/raft/core/entry.ts';
import { entrySize } from '../../../src/raft/core/entry-codec.ts';
import type { HardState, TermStart } from '../../../src/raft/core/types.ts';
import type { PartitionLog, Storage, WalWrite, WriteAheadLog } from '../../../src/storage/types.ts';

interface DurableGroup {
  hardState: HardState;
  entries: Entry[];
  segments: Entry[];
  whole: boolean;
}

/** What survives a crash. */
export class FakeDisk {
  readonly directoryId: DirectoryId;
  readonly groups = new Map<GroupKey, DurableGroup>();
  constructor(directoryId: DirectoryId) {
    this.directoryId = directoryId;
  }

  group(key: GroupKey): DurableGroup {
    let group = this.groups.get(key);
    if (group === undefined) {
      group = { hardState: { term: 0, vote: 0, commit: 0 }, entries: [], segments: [], whole: true };
      this.groups.set(key, group);
    }
    return group;
  }
}

function bytesOf(writes: readonly WalWrite[]): number {
  let bytes = 0;
  for (const { entries } of writes) for (const entry of entries) bytes += entrySize(entry);
  return bytes;
}

/** A write-ahead log with one flush in flight, 0.2 ms each; what is not flushed is lost when the process dies. */
class FakeWal implements WriteAheadLog {
  dead = false;
  /** Flushes wait until this is undefined again. */
  stalledSince: number | undefined;
  failWith: Error | undefined;
  readonly statistics = { flushes: 0, bytes: 0, fileTurns: 0 };
  pendingBytes = 0;
  #queue: { writes: readonly WalWrite[]; resolve: () => void; reject: (error: Error) => void }[] = [];
  #flushing = false;
  readonly #environment: Environment;
  readonly #disk: FakeDisk;

  constructor(environment: Environment, disk: FakeDisk) {
    this.#environment = environment;
    this.#disk = disk;
  }

  append(writes: readonly WalWrite[]): Promise<void> {
    this.pendingBytes += bytesOf(writes);
    return new Promise((resolve, reject) => {
      this.#queue.push({ writes, resolve, reject });
      this.pump();
    });
  }

  pump(): void {
    if (this.#flushing || this.#queue.length === 0 || this.stalledSince !== undefined) return;
    this.#flushing = true;
    const queue = this.#queue;
    this.#queue = [];
    this.#environment.after(0.2, () => {
      if (this.dead) return;
      this.#flushing = false;
      this.statistics.flushes++;
      for (const { writes, resolve, reject } of queue) {
        if (this.failWith !== undefined) reject(this.failWith);
        else {
          for (const write of writes) this.#apply(write);
          this.pendingBytes -= bytesOf(writes);
          resolve();
        }
      }
      this.pump();
    });
  }

  #apply({ group, hardState, truncateTo, entries }: WalWrite): void {
    const durable = this.#disk.group(group);
    if (hardState !== undefined) durable.hardState = hardState;
    if (truncateTo !== undefined) durable.entries = durable.entries.filter((entry) => entry.index <= truncateTo);
    for (const entry of entries) {
      const last = durable.entries.at(-1);
      if (last !== undefined && entry.index !== last.index + 1)
        throw new Error(`hole in the write-ahead log: ${last.index}, ${entry.index}`);
      durable.entries.push(entry);
    }
  }

  stalledMs(): number {
    return this.stalledSince === undefined ? 0 : this.#environment.monotonicMs() - this.stalledSince;
  }

  async markWhole(): Promise<void> {}
  async markDamaged(group: GroupKey): Promise<void> {
    this.#disk.group(group).whole = false;
  }

  async forget(group: GroupKey): Promise<void> {
    this.#disk.groups.delete(group);
  }

  async close(): Promise<void> {}
}

export class FakePartitionLog implements PartitionLog {
  readonly #disk: DurableGroup;
  readonly entries: Entry[];
  readonly recovered: number;
  snapshotSource = undefined;
  readonly snapshot = undefined;
  readonly sizeBytes = 0;
  readonly logStartOffset = 0;
  readonly firstReplicableIndex = 1;
  readonly lastSnapshot = undefined;
  closed = false;
  readonly #isDead: () => boolean;

  constructor(disk: DurableGroup, isDead: () => boolean) {
    this.#disk = disk;
    this.#isDead = isDead;
    this.entries = [...disk.segments];
    this.recovered = this.entries.length;
  }

  get initial() {
    const last = this.entries.at(-1);
    const { index, term, nextOffset, chainHigh, chainLow } = last ?? { index: 0, term: 0, nextOffset: 0, chainHigh: 0, chainLow: 0 };
    return { base: { index, term, nextOffset, chainHigh, chainLow }, terms: this.terms, firstReplicableIndex: 1 };
  }

  get terms(): TermStart[] {
    return this.entries.filter(({ term }, at) => term !== this.entries[at - 1]?.term).map(({ term, index }) => ({ term, index }));
  }

  get configuration() {
    const entry = this.entries.findLast(({ kind }) => kind === EntryKind.config);
    return entry === undefined ? undefined : { index: entry.index, configuration: decodeConfiguration(entry.payload) };
  }

  get lastIndex(): number {
    return this.entries.length;
  }

  get nextOffset(): number {
    return this.entries.at(-1)?.nextOffset ?? 0;
  }

  get writtenIndex(): number {
    return this.entries.length;
  }

  append(entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (entry.index !== this.entries.length + 1) throw new Error(`log gap: ${this.entries.length} then ${entry.index}`);
      this.entries.push(entry);
    }
  }

  async readEntries(fromIndex: number, maxBytes: number): Promise<Entry[]> {
    const entries: Entry[] = [];
    let bytes = 0;
    for (let at = fromIndex - 1; at < this.entries.length && (bytes < maxBytes || entries.length === 0); at++) {
      const entry = this.entries[at]!;
      bytes += entry.payload.length;
      entries.push(entry);
    }
    return entries;
  }

  async read(): Promise<never> {
    throw new Error('not used by the host');
  }
  async offsetForTime(): Promise<undefined> {}
  async openSnapshot(): Promise<undefined> {}
  async dropBefore(): Promise<number> {
    return this.firstReplicableIndex;
  }
  reclaimSoon(): void {}
  configure(): void {}
  segments(): [] {
    return [];
  }
  readonly tombstoneFloor = 0;
  readonly cleanedTo = 0;
  rollIfOld(): void {}
  cleanable(): [] {
    return [];
  }
  async clean() {
    return { before: 0, after: 0 };
  }
  async scanBatchHeaders(): Promise<void> {}

  async flush(): Promise<void> {
    if (!this.#isDead()) this.#disk.segments = [...this.entries];
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

export class FakeStorage implements Storage {
  readonly directoryId: DirectoryId;
  readonly wal: FakeWal;
  readonly recovered = new Map();
  unwrittenBytes = 0;
  readonly #disk: FakeDisk;

  constructor(environment: Environment, disk: FakeDisk) {
    this.directoryId = disk.directoryId;
    this.wal = new FakeWal(environment, disk);
    this.#disk = disk;
  }

  groups(): readonly GroupKey[] {
    return [...this.#disk.groups.keys()];
  }

  async openLog(group: GroupKey) {
    const disk = this.#disk.group(group);
    const log = new FakePartitionLog(disk, () => this.wal.dead);
    const tail = disk.entries.filter((entry) => entry.index > log.lastIndex);
    return { log, tail, hardState: disk.hardState, whole: disk.whole };
  }

  async stageSnapshot(): Promise<never> {
    throw new Error('these logs have no snapshots');
  }
  async installSnapshot(): Promise<never> {
    throw new Error('these logs have no snapshots');
  }
  async discardStaged(): Promise<void> {}
  onDamage = undefined;
  async restartLog(): Promise<never> {
    throw new Error('these logs do not begin anew');
  }
  async releaseAside(): Promise<void> {}
  repairOf(): undefined {
    return undefined;
  }

  async deleteLog(group: GroupKey): Promise<number> {
    this.#disk.groups.delete(group);
    return 0;
  }

  async close(): Promise<void> {}
}

/**
 * A broker's disk at work, by seed: replicas that append, vote, truncate, commit, roll segments, clean them, forget their beginnings, are deleted and made anew, over
 * restarts and power cuts. Before operations of the disk, after-crash states of it are taken, as ALICE does (OSDI '14).
 */
import { randomBelow } from '../../../src/base/environment.ts';
import type { ReplicaId } from '../../../src/base/ids.ts';
import { type Entry, EntryKind } from '../../../src/raft/core/entry.ts';
import { encodeLogStart } from '../../../src/storage/log-start.ts';
import type { BrokerStorage, StorageSettings } from '../../../src/storage/storage.ts';
import type { PartitionLog } from '../../../src/storage/types.ts';
import type { SimDisk } from '../../sim/disk.ts';
import { cleanBy, Fixture, fateOf, groupKey, nextEntry, seeded, TestEnvironment } from '../fixture.ts';
import { type Acknowledged, LOG_SETTINGS, startOf } from './model.ts';

const REPLICAS = 3;
const WAL: StorageSettings = { walFileBytes: 32 * 1024, walFiles: 2 };
/** What file systems tear at: a disk's sector, and a page. */
const SECTOR_BYTES = [512, 4096];

/** What a power cut left, and what must be in it. */
export interface CrashState {
  readonly disk: SimDisk;
  readonly promises: readonly Acknowledged[];
  /** The operation before which the power went. */
  readonly before: string;
}

class Replica {
  readonly group;
  replicaId: ReplicaId;
  log: PartitionLog | undefined;
  entries: Entry[] = [];
  /** Durable for certain. */
  acknowledged: readonly Entry[] = [];
  committed = 0;
  term = 1;
  durableTerm = 0;
  vote = 0;
  durableVote = 0;
  furthestStart = 0;
  furthestCleaned = 0;
  /** A cleaning is under way. */
  cleaning = false;

  constructor(partition: number) {
    this.group = groupKey(partition);
    this.replicaId = (10 * (partition + 1)) as ReplicaId;
  }

  promise(): Acknowledged {
    const { group, replicaId, acknowledged, durableTerm, durableVote, furthestStart, furthestCleaned } = this;
    return { group, replicaId, entries: acknowledged, term: durableTerm, vote: durableVote, furthestStart, furthestCleaned };
  }
}

export class CrashWorkload {
  readonly #fixture: Fixture;
  readonly #random: { uint32(): number };
  readonly #replicas = Array.from({ length: REPLICAS }, (_, partition) => new Replica(partition));
  readonly #share: number;
  #storage: BrokerStorage | undefined;
  #states: CrashState[] = [];

  /** `share`: of all operations of the disk, before so many the power is cut. */
  constructor(seed: number, share: number) {
    this.#fixture = new Fixture(seed, WAL);
    this.#random = seeded(seed);
    this.#share = share;
  }

  async start(): Promise<void> {
    await this.#open();
    this.#fixture.disk.intercept = ({ kind, path }) => {
      // Looking changes nothing.
      if (kind !== 'read' && kind !== 'size' && this.#draw(1_000) < 1_000 * this.#share) this.#take(`${kind} of ${path}`);
      return undefined;
    };
  }

  /** One step of the workload; returns the states that were taken in it. */
  async step(): Promise<CrashState[]> {
    const replica = this.#replicas[this.#draw(REPLICAS)] as Replica;
    const choice = this.#draw(100);
    if (choice < 60) await this.#append(replica);
    else if (choice < 70) await this.#vote(replica);
    else if (choice < 78) await this.#startAt(replica);
    else if (choice < 84) await replica.log?.flush();
    else if (choice < 88) replica.log?.reclaimSoon();
    else if (choice < 91) await this.#replace(replica);
    else if (choice < 94) await this.#restart();
    else if (choice < 98) await this.#clean(replica);
    this.#fixture.environment.advance(this.#draw(120));
    if (this.#fixture.failures[0] !== undefined) throw this.#fixture.failures[0];
    return this.#states.splice(0);
  }

  #draw(bound: number): number {
    return randomBelow(this.#random, bound);
  }

  #take(before: string): void {
    const sectorBytes = SECTOR_BYTES[this.#draw(SECTOR_BYTES.length)];
    const disk = this.#fixture.disk.afterPowerCut(new TestEnvironment(1), seeded(this.#draw(2 ** 31)), sectorBytes);
    const promises = this.#replicas.filter(({ log }) => log !== undefined).map((replica) => replica.promise());
    this.#states.push({ disk, promises, before });
  }

  /** What followers and leaders do: sometimes the end is another leader's, and what is committed lags behind. */
  async #append(replica: Replica): Promise<void> {
    const uncommitted = replica.entries.length - replica.committed;
    const truncates = uncommitted > 0 && this.#draw(5) === 0;
    if (truncates) {
      replica.term++;
      replica.entries = replica.entries.slice(0, replica.committed + this.#draw(uncommitted));
    }
    const truncateTo = truncates ? replica.entries.length : undefined;
    const added: Entry[] = [];
    for (let count = 1 + this.#draw(4); count > 0; count--) {
      const previous = added.at(-1) ?? replica.entries.at(-1);
      const noop = this.#draw(8) === 0 && { kind: EntryKind.noop };
      added.push(nextEntry(previous, { term: replica.term, bytes: 61 + this.#draw(2_000), records: 1 + this.#draw(3), ...noop }));
    }
    await this.#write(replica, added, truncateTo);
    this.#commit(replica);
  }

  async #write(replica: Replica, added: readonly Entry[], truncateTo: number | undefined): Promise<void> {
    replica.entries = [...replica.entries, ...added];
    // Until the write is durable neither the old end nor the new one is certain.
    if (truncateTo !== undefined) replica.acknowledged = replica.acknowledged.slice(0, truncateTo);
    const { group, term, entries } = replica;
    const vote = replica.term > replica.durableTerm ? 0 : replica.vote;
    const hardState = { term, vote: vote as ReplicaId, commit: replica.committed };
    await this.#storage?.wal.append([{ group, hardState, truncateTo, entries: added }]);
    Object.assign(replica, { acknowledged: entries, durableTerm: term, vote, durableVote: vote });
  }

  #commit(replica: Replica): void {
    const { log } = replica;
    if (log === undefined) return;
    replica.committed += this.#draw(replica.acknowledged.length - replica.committed + 1);
    if (replica.committed > log.lastIndex) log.append(replica.entries.slice(log.lastIndex, replica.committed));
  }

  async #vote(replica: Replica): Promise<void> {
    replica.term++;
    replica.vote = 1 + this.#draw(5);
    const hardState = { term: replica.term, vote: replica.vote as ReplicaId, commit: replica.committed };
    await this.#storage?.wal.append([{ group: replica.group, hardState, truncateTo: undefined, entries: [] }]);
    Object.assign(replica, { durableTerm: replica.term, durableVote: replica.vote });
  }

  async #startAt(replica: Replica): Promise<void> {
    const end = replica.entries[replica.committed - 1]?.nextOffset ?? 0;
    const start = this.#draw(4) === 0 ? end : this.#draw(end + 1);
    // A leader that was elected since knows all starts that have committed.
    if (start <= startOf(replica.entries)) return;
    const entry = nextEntry(replica.entries.at(-1), { kind: EntryKind.setLogStart, payload: encodeLogStart(start), term: replica.term });
    await this.#write(replica, [entry], undefined);
    replica.furthestStart = Math.max(replica.furthestStart, start);
    this.#commit(replica);
  }

  /** Sometimes others go on meanwhile, or the process ends. */
  async #clean(replica: Replica): Promise<void> {
    const { log } = replica;
    const cleanable = log?.cleanable() ?? [];
    const last = cleanable[this.#draw(cleanable.length + 1)] ?? cleanable.at(-1);
    if (log === undefined || last === undefined || replica.cleaning) return;
    replica.furthestCleaned = Math.max(replica.furthestCleaned, last.lastIndex);
    replica.cleaning = true;
    const cleaning = log
      .clean(last.lastIndex, cleanBy(fateOf), new AbortController().signal)
      .catch((error: Error) => void this.#fixture.failures.push(error))
      .finally(() => {
        if (replica.log === log) replica.cleaning = false;
      });
    if (this.#draw(2) === 0) await cleaning;
  }

  /** It is deleted, and another one gets its place. */
  async #replace(replica: Replica): Promise<void> {
    replica.log = undefined;
    await this.#storage?.deleteLog(replica.group);
    Object.assign(replica, new Replica(0), { group: replica.group, replicaId: replica.replicaId + 1 });
    await this.#openLog(replica);
  }

  async #restart(): Promise<void> {
    const how = this.#draw(3);
    const logs = this.#replicas.map((replica) => replica.log);
    if (how === 0) await this.#storage?.close();
    for (const replica of this.#replicas) replica.log = undefined;
    if (how === 1) this.#fixture.revive();
    else if (how === 2) {
      this.#fixture.disk.crash();
      this.#fixture.restart();
    }
    logs.length = 0;
    await this.#open();
  }

  async #open(): Promise<void> {
    this.#storage = await this.#fixture.open();
    for (const replica of this.#replicas) await this.#openLog(replica);
  }

  /** What it finds is the newest log from now on. */
  async #openLog(replica: Replica): Promise<void> {
    const { log, tail, hardState } = (await this.#storage?.openLog(replica.group, LOG_SETTINGS, replica.replicaId)) ?? {};
    if (log === undefined || tail === undefined || hardState === undefined) return;
    log.snapshotSource = (nextOffset, index) => new TextEncoder().encode(`${nextOffset} ${index}`);
    const kept = replica.entries.slice(0, log.firstReplicableIndex - 1);
    const found: Entry[] = [];
    while (kept.length + found.length < log.lastIndex) found.push(...(await log.readEntries(kept.length + found.length + 1, 50_000)));
    const entries = [...kept, ...found, ...tail];
    const { term, vote } = hardState;
    Object.assign(replica, {
      cleaning: false,
      log,
      entries,
      acknowledged: entries,
      committed: log.lastIndex,
      vote,
      durableVote: vote,
      durableTerm: term,
    });
    replica.term = Math.max(1, term, entries.at(-1)?.term ?? 0);
  }
}

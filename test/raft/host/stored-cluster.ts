import { crc32c } from '@node-rs/crc32';
import { silentLogger } from '../../../src/base/environment.ts';
import { FlotillaError } from '../../../src/base/errors.ts';
import type { BrokerId } from '../../../src/base/ids.ts';
import { crc32 } from '../../../src/platform/crc32.ts';
import { type Entry, EntryKind } from '../../../src/raft/core/entry.ts';
import { createRaftHost } from '../../../src/raft/raft-host.ts';
import type { RaftReplica } from '../../../src/raft/replica.ts';
import { defaultRaftHostSettings, type RaftHostSettings } from '../../../src/raft/settings.ts';
import type { RaftHost, Replica, ReplicaOwner } from '../../../src/raft/types.ts';
import { initDirectory } from '../../../src/storage/directory.ts';
import { type BrokerStorage, openStorage } from '../../../src/storage/storage.ts';
import { SimDisk } from '../../sim/disk.ts';
import { batchPayload, seeded } from '../../storage/fixture.ts';
import { brokers, configurationOf, groupKey, replicaIdOf } from './cluster.ts';
import { FakeNetwork } from './fake-network.ts';
import { Pause } from './pause.ts';
import { VirtualEnvironment } from './virtual-environment.ts';

const GROUP = groupKey(0);
/** Where a batch has its timestamp: the command's number. */
const NUMBER_AT = 35;

/** What each entry said: its term, and the number of the command in it. A function of the log, so its snapshot is all of it. */
export class HistoryOwner implements ReplicaOwner {
  readonly history = new Map<number, string>();
  readonly #replica: Replica;
  restores = 0;
  #complete = false;
  readonly #onRestore: () => void;

  constructor(replica: Replica, onRestore: () => void) {
    this.#replica = replica;
    this.#onRestore = onRestore;
    this.#giveSnapshots();
  }

  async restore(): Promise<void> {
    const { log } = this.#replica;
    const end = log.lastIndex;
    let next = log.firstReplicableIndex;
    if (log.snapshot !== undefined) {
      for (const [index, said] of JSON.parse(new TextDecoder().decode(log.snapshot.state)) as [number, string][]) this.#say(index, said);
      next = log.snapshot.index + 1;
    }
    while (next <= end) for (const entry of await log.readEntries(next, 4000)) next = this.#take(entry);
    this.#complete = true;
  }

  apply(entries: readonly Entry[]): void {
    for (const entry of entries) this.#take(entry);
  }

  async restored(): Promise<void> {
    this.restores++;
    this.#onRestore();
    this.#complete = false;
    this.#giveSnapshots();
    await this.restore();
  }

  appended(): void {}
  truncated(): void {}
  leadershipChanged(): void {}
  progressed(): void {}

  get numbers(): Set<number> {
    return new Set([...this.history.values()].map((said) => Number(said.split(' ')[1])));
  }

  #giveSnapshots(): void {
    this.#replica.log.snapshotSource = (_offset, index) => {
      if (!this.#complete) return undefined;
      return new TextEncoder().encode(JSON.stringify([...this.history].filter(([at]) => at <= index)));
    };
  }

  #take({ index, term, kind, payload }: Entry): number {
    const number = kind === EntryKind.batch ? new DataView(payload.buffer, payload.byteOffset).getUint32(NUMBER_AT + 4) : 0;
    this.#say(index, `${term} ${number}`);
    return index + 1;
  }

  #say(index: number, said: string): void {
    const before = this.history.get(index) ?? said;
    if (before !== said) throw new Error(`entry ${index} was ${before} and is ${said}`);
    this.history.set(index, said);
  }
}

interface Node {
  readonly host: RaftHost;
  readonly owner: HistoryOwner;
  readonly storage: BrokerStorage;
}

/** Three hosts over the real storage on simulated disks, with one group. */
export class StoredCluster {
  readonly environment: VirtualEnvironment;
  readonly network: FakeNetwork;
  readonly nodes = new Map<BrokerId, Node>();
  readonly disks = new Map<BrokerId, SimDisk>();
  readonly fatal: unknown[] = [];
  /** Replicas that are to be replaced. */
  readonly quarantined: { readonly broker: BrokerId; readonly reason: string }[] = [];
  readonly #pauses = new Map<BrokerId, Pause>();
  readonly #settings: RaftHostSettings;
  readonly #stateAlone: boolean;
  readonly #mayReturn: boolean;
  /** Snapshots that took the place of a log. */
  installs = 0;
  #incarnation = 1;
  #number = 0;

  constructor(seed: number, settings: Partial<RaftHostSettings> = {}, stateAlone = false, mayReturn = false) {
    this.environment = new VirtualEnvironment(seed);
    this.network = new FakeNetwork(this.environment);
    this.#stateAlone = stateAlone;
    this.#mayReturn = mayReturn;
    const small = { maxWindowBytes: 1000, maxAppendBytes: 1500, snapshotChunkBytes: 700, snapshotWindowChunks: 3, snapshotRetryMs: 200 };
    this.#settings = { ...defaultRaftHostSettings, ...small, snapshotTimeoutMs: 2_000, ...settings };
    for (const broker of brokers) {
      const disk = new SimDisk(this.environment, seeded(seed * 10 + broker));
      disk.latencyMs = ({ kind }) => (kind === 'sync' ? 0.5 : 0.02);
      this.disks.set(broker, disk);
    }
  }

  static async start(
    seed: number,
    settings: Partial<RaftHostSettings> = {},
    stateAlone = false,
    mayReturn = false,
  ): Promise<StoredCluster> {
    const cluster = new StoredCluster(seed, settings, stateAlone, mayReturn);
    for (const broker of brokers) await cluster.boot(broker);
    return cluster;
  }

  /** Resolves in virtual time. */
  async settle<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    void promise.then(
      () => {
        settled = true;
      },
      () => {
        settled = true;
      },
    );
    await this.environment.until(() => settled, 'the promise settles', 60_000);
    return promise;
  }

  async boot(broker: BrokerId): Promise<void> {
    await this.settle(this.#boot(broker));
  }

  async #boot(broker: BrokerId): Promise<void> {
    const disk = this.disks.get(broker)!;
    const pause = new Pause(this.environment);
    this.#pauses.set(broker, pause);
    const { environment } = pause;
    const directoryId = String(broker).padStart(32, '0');
    await initDirectory(
      { disk, path: 'data', crc32 },
      { brokerId: broker, random: { uint32: () => Number.parseInt(directoryId.slice(-8), 16) } },
    );
    const fatal = (error: unknown): void => void this.fatal.push(error);
    const checksums = { crc32, crc32c: (bytes: Uint8Array, seed?: number) => crc32c(bytes, seed) };
    const wal = { walFileBytes: 256 * 1024, walFiles: 2 };
    const storage = await openStorage({ disk, path: 'data', environment, log: silentLogger, settings: wal, failed: fatal, ...checksums });
    const member = configurationOf(0).voters.find(({ brokerId }) => brokerId === broker)!;
    const host = createRaftHost({
      environment,
      storage,
      transport: pause.transport(this.network.transport(broker)),
      brokerId: broker,
      directoryId: member.directoryId,
      incarnation: this.#incarnation++,
      log: silentLogger,
      settings: this.#settings,
      fatal,
      quarantined: (_group, _replicaId, reason) => void this.quarantined.push({ broker, reason }),
    });
    host.setPeers(
      configurationOf(0).voters.map(({ brokerId, directoryId: of }) => ({ brokerId, address: `b${brokerId}`, directoryId: of })),
    );
    let owner: HistoryOwner | undefined;
    await host.open({
      group: GROUP,
      replicaId: replicaIdOf(broker),
      configuration: configurationOf(0),
      settings: { segmentBytes: 3_000, stateAlone: this.#stateAlone },
      campaign: false,
      mayReturn: this.#mayReturn,
      // Its id is one for good.
      latest: true,
      owner: (replica) => {
        owner = new HistoryOwner(replica, () => this.installs++);
        return owner;
      },
    });
    this.nodes.set(broker, { host, owner: owner!, storage });
    await this.#restore(host, owner!);
  }

  /** As a partition does: what rotted is put right, and then read again. */
  async #restore(host: RaftHost, owner: HistoryOwner): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        return await owner.restore();
      } catch (error) {
        const isDamage = error instanceof FlotillaError && error.code === 'STORAGE_ERROR';
        if (!isDamage || tries === 5 || !(await host.untilWhole(GROUP))) throw error;
      }
    }
  }

  /** The machine loses power. */
  kill(broker: BrokerId): void {
    const node = this.nodes.get(broker);
    if (node === undefined) return;
    this.nodes.delete(broker);
    this.#pauses.get(broker)!.pause();
    this.network.down(broker);
    const disk = this.disks.get(broker)!;
    disk.crash();
    disk.restart();
  }

  replica(broker: BrokerId): RaftReplica {
    return this.nodes.get(broker)?.host.get(GROUP) as RaftReplica;
  }

  owner(broker: BrokerId): HistoryOwner {
    return this.nodes.get(broker)!.owner;
  }

  leader(): BrokerId | undefined {
    const leaders = [...this.nodes.keys()].filter((broker) => this.replica(broker)?.leadership.ready);
    return leaders.toSorted((a, b) => this.replica(b).leadership.term - this.replica(a).leadership.term)[0];
  }

  async elected(): Promise<BrokerId> {
    await this.environment.until(() => this.leader() !== undefined, 'a leader', 30_000);
    return this.leader()!;
  }

  /** Whoever leads takes so many commands; what it refuses is not sent again. */
  propose(count: number): void {
    for (let i = 0; i < count; i++) {
      const leader = this.leader();
      if (leader === undefined) return;
      const replica = this.replica(leader);
      const payload = batchPayload(replica.nextOffset, 1, 200, ++this.#number);
      try {
        replica.propose({ kind: EntryKind.batch, payload, recordCount: 1, payloadChecksum: crc32c(payload.subarray(21)) });
      } catch (error) {
        if (!(error instanceof FlotillaError && error.retriable)) throw error;
      }
    }
  }

  /** Drops what is in segments, all of it or below an index, as far as it is not being read for a follower. */
  async drop(broker: BrokerId, index = Number.MAX_SAFE_INTEGER): Promise<number> {
    return this.settle(this.replica(broker).log.dropBefore(index));
  }

  /** All up and whole: they agree on all that was ever applied, from entry 1. */
  async converge(): Promise<void> {
    const { index } = await this.lastEntry();
    for (const broker of brokers) {
      const reached = () => (this.replica(broker)?.log.lastIndex ?? 0) >= index && this.owner(broker).history.size >= index;
      await this.environment.until(reached, `broker ${broker} catches up`, 60_000).catch((error: Error) => {
        throw new Error(`${error.message}: ${JSON.stringify(brokers.map((each) => this.replica(each)?.describe()))}`);
      });
    }
    const histories = brokers.map((broker) => [...this.owner(broker).history].filter(([at]) => at <= index).toSorted(([a], [b]) => a - b));
    const [first = []] = histories;
    if (first.length !== index) throw new Error(`${first.length} of ${index} entries`);
    for (const history of histories) if (JSON.stringify(history) !== JSON.stringify(first)) throw new Error('the histories differ');
  }

  async lastEntry(): Promise<{ index: number }> {
    for (;;) {
      const leader = await this.elected();
      this.propose(1);
      await this.environment.run(500);
      const replica = this.replica(leader);
      if (replica?.leadership.ready && replica.commitIndex === replica.lastIndex) return { index: replica.commitIndex };
    }
  }
}

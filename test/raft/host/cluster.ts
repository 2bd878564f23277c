import { silentLogger } from '../../../src/base/environment.ts';
import { FlotillaError } from '../../../src/base/errors.ts';
import {
  type BrokerId,
  type DirectoryId,
  encodeGroupKey,
  type GroupKey,
  METADATA_GROUP,
  type ReplicaId,
  type TopicId,
} from '../../../src/base/ids.ts';
import { type Entry, EntryKind } from '../../../src/raft/core/entry.ts';
import type { Configuration, Proposal } from '../../../src/raft/core/types.ts';
import { createRaftHost } from '../../../src/raft/raft-host.ts';
import type { RaftReplica } from '../../../src/raft/replica.ts';
import { defaultRaftHostSettings, type RaftHostSettings } from '../../../src/raft/settings.ts';
import type { Leadership, RaftHost, Replica, ReplicaOwner } from '../../../src/raft/types.ts';
import { FakeNetwork } from './fake-network.ts';
import { FakeDisk, FakeStorage } from './fake-storage.ts';
import { Pause } from './pause.ts';
import { VirtualEnvironment } from './virtual-environment.ts';

export const brokers = [1, 2, 3] as BrokerId[];
export const replicaIdOf = (broker: BrokerId, group = 0): ReplicaId => (group * 100 + broker * 10 + 1) as ReplicaId;
/** The number of group 0 here. */
export const METADATA = 1_000_000;
export const groupKey = (partition: number): GroupKey =>
  partition === METADATA
    ? METADATA_GROUP
    : encodeGroupKey({ topicId: 'a0000000000000000000000000000001' as TopicId, partition, groupGeneration: 0 });
export const directoryOf = (broker: BrokerId) => String(broker).padStart(32, '0') as DirectoryId;

export function configurationOf(partition: number, members: readonly BrokerId[] = brokers): Configuration {
  const voters = members.map((brokerId) => ({ replicaId: replicaIdOf(brokerId, partition), brokerId, directoryId: directoryOf(brokerId) }));
  return { voters, outgoing: [], learners: [] };
}

/** Keeps all it is told, and checks that it is told in the order of the log. */
export class RecordingOwner implements ReplicaOwner {
  readonly events: string[] = [];
  readonly applied: Entry[] = [];
  readonly leaderships: Leadership[] = [];
  appendedIndex: number;
  appliedIndex: number;
  progress = 0;
  /** The term of each entry it was told of, until that is applied. */
  readonly #appended = new Map<number, number>();

  constructor(replica: Replica) {
    this.appendedIndex = replica.log.lastIndex;
    this.appliedIndex = replica.log.lastIndex;
  }

  apply(entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (entry.index !== this.appliedIndex + 1) throw new Error(`applied ${entry.index} after ${this.appliedIndex}`);
      if (entry.index > this.appendedIndex) throw new Error(`applied ${entry.index} before it was appended`);
      const term = this.#appended.get(entry.index);
      if (term !== entry.term) throw new Error(`applied ${entry.index} of term ${entry.term}, appended was one of term ${term}`);
      this.#appended.delete(entry.index);
      this.appliedIndex = entry.index;
      this.applied.push(entry);
    }
    this.events.push(`apply ${this.appliedIndex}`);
  }

  appended(entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (entry.index !== this.appendedIndex + 1) throw new Error(`appended ${entry.index} after ${this.appendedIndex}`);
      this.appendedIndex = entry.index;
      this.#appended.set(entry.index, entry.term);
    }
    this.events.push(`appended ${this.appendedIndex}`);
  }

  truncated(index: number, nextOffset: number): void {
    if (index < this.appliedIndex) throw new Error(`truncated to ${index}, applied ${this.appliedIndex}`);
    this.appendedIndex = index;
    this.events.push(`truncated ${index} ${nextOffset}`);
  }

  async restored(): Promise<void> {
    throw new Error('these logs have no snapshots');
  }

  leadershipChanged(leadership: Leadership): void {
    this.leaderships.push(leadership);
    this.events.push(`${leadership.role}${leadership.ready ? ' ready' : ''}`);
  }

  progressed(): void {
    this.progress++;
  }

  /** The payloads of applied batches, as text. */
  get commands(): string[] {
    return this.applied.filter(({ kind }) => kind === EntryKind.batch).map(({ payload }) => new TextDecoder().decode(payload));
  }
}

export interface Node {
  readonly host: RaftHost;
  readonly storage: FakeStorage;
  readonly owners: Map<GroupKey, RecordingOwner>;
  readonly fatal: unknown[];
  readonly quarantined: { readonly group: GroupKey; readonly replicaId: ReplicaId; readonly reason: string }[];
  /** Messages that were logged as errors. */
  readonly errors: string[];
}

/** Hosts, three unless told, over an in-memory network and disks that lose what was not flushed. */
export class Cluster {
  readonly environment: VirtualEnvironment;
  readonly network: FakeNetwork;
  readonly members: readonly BrokerId[];
  readonly disks: Map<BrokerId, FakeDisk>;
  readonly nodes = new Map<BrokerId, Node>();
  /** Groups that are opened as internal ones. */
  readonly internal = new Set<number>();
  readonly pauses = new Map<BrokerId, Pause>();
  readonly #settings: RaftHostSettings;
  #incarnation = 1;

  constructor(settings: Partial<RaftHostSettings> = {}, seed = 1, members: readonly BrokerId[] = brokers) {
    this.members = members;
    this.disks = new Map(members.map((broker) => [broker, new FakeDisk(directoryOf(broker))]));
    this.environment = new VirtualEnvironment(seed);
    this.network = new FakeNetwork(this.environment);
    this.#settings = { ...defaultRaftHostSettings, ...settings };
  }

  /** Starts all brokers with the given groups. */
  static async start(
    groups: readonly number[] = [0],
    settings: Partial<RaftHostSettings> = {},
    seed = 1,
    members: readonly BrokerId[] = brokers,
  ): Promise<Cluster> {
    const cluster = new Cluster(settings, seed, members);
    for (const broker of members) cluster.boot(broker);
    for (const broker of members) for (const group of groups) await cluster.open(broker, group);
    return cluster;
  }

  boot(broker: BrokerId): Node {
    const pause = new Pause(this.environment);
    this.pauses.set(broker, pause);
    const storage = new FakeStorage(pause.environment, this.disks.get(broker)!);
    const fatal: unknown[] = [];
    const quarantined: Node['quarantined'] = [];
    const errors: string[] = [];
    const { directoryId } = this.disks.get(broker)!;
    const host = createRaftHost({
      environment: pause.environment,
      storage,
      transport: pause.transport(this.network.transport(broker)),
      brokerId: broker,
      directoryId,
      incarnation: this.#incarnation++,
      log: { ...silentLogger, error: (message) => errors.push(message) },
      quarantined: (group, replicaId, reason) => quarantined.push({ group, replicaId, reason }),
      settings: this.#settings,
      fatal: (error) => {
        fatal.push(error);
        if (!(error instanceof FlotillaError) && !String(error).includes('EIO')) console.error(error);
      },
    });
    host.setPeers(this.members.map((brokerId) => ({ brokerId, address: `b${brokerId}`, directoryId: directoryOf(brokerId) })));
    const node = { host, storage, owners: new Map<GroupKey, RecordingOwner>(), fatal, quarantined, errors };
    this.nodes.set(broker, node);
    return node;
  }

  async open(
    broker: BrokerId,
    group = 0,
    campaign = false,
    replicaId = replicaIdOf(broker, group),
    configuration = configurationOf(group, this.members),
  ): Promise<RaftReplica> {
    const node = this.node(broker);
    const key = groupKey(group);
    const replica = await node.host.open({
      group: key,
      replicaId,
      configuration,
      settings: { segmentBytes: 1 << 20 },
      campaign,
      internal: this.internal.has(group),
      owner: (self) => {
        const owner = new RecordingOwner(self);
        node.owners.set(key, owner);
        return owner;
      },
    });
    return replica as RaftReplica;
  }

  node(broker: BrokerId): Node {
    return this.nodes.get(broker)!;
  }

  replica(broker: BrokerId, group = 0): RaftReplica {
    return this.node(broker).host.get(groupKey(group)) as RaftReplica;
  }

  owner(broker: BrokerId, group = 0): RecordingOwner {
    return this.node(broker).owners.get(groupKey(group))!;
  }

  /** kill -9: what was not flushed is lost. */
  kill(broker: BrokerId): void {
    const node = this.node(broker);
    node.storage.wal.dead = true;
    this.nodes.delete(broker);
    this.network.down(broker);
    // A dead process does nothing: its loop has no way out any more, and this stops its ticks.
    void node.host.stop();
  }

  /** The broker's disk is gone, and it gets an empty one. */
  wipe(broker: BrokerId): DirectoryId {
    this.kill(broker);
    const directoryId = `f${String(broker).padStart(31, '0')}` as DirectoryId;
    this.disks.set(broker, new FakeDisk(directoryId));
    this.boot(broker);
    return directoryId;
  }

  /** The broker that leads, ready, at the highest term. */
  leader(group = 0): BrokerId | undefined {
    let best: BrokerId | undefined;
    for (const broker of this.nodes.keys()) {
      const { role, ready, term } = this.replica(broker, group)?.leadership ?? { role: 'follower', ready: false, term: 0 };
      if (role === 'leader' && ready && (best === undefined || term > this.replica(best, group).leadership.term)) best = broker;
    }
    return best;
  }

  async elected(group = 0, not?: BrokerId): Promise<BrokerId> {
    const found = () => {
      const leader = this.leader(group);
      return leader !== undefined && leader !== not ? leader : undefined;
    };
    await this.environment.until(() => found() !== undefined, 'a leader');
    return found()!;
  }

  propose(broker: BrokerId, text: string, group = 0) {
    return this.replica(broker, group).propose(command(text));
  }

  async applied(broker: BrokerId, commands: readonly string[], group = 0): Promise<void> {
    const want = commands.join();
    await this.environment.until(() => this.owner(broker, group).commands.join() === want, `broker ${broker} applies ${want}`);
  }

  assertHealthy(): void {
    for (const { fatal } of this.nodes.values()) if (fatal.length > 0) throw fatal[0];
  }
}

export function command(text: string): Proposal {
  return { kind: EntryKind.batch, payload: new TextEncoder().encode(text), recordCount: 1, payloadChecksum: 0 };
}

/** Puts the rooms of a broker together once its cluster is known, and takes them apart again. */
import type { Compute } from '../base/compute.ts';
import type { Disk, Environment, Logger, StateStore } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { type BrokerId, type GroupKey, METADATA_GROUP, type ReplicaId, type TopicId } from '../base/ids.ts';
import { QuorumController } from '../controller/controller.ts';
import { controllerService } from '../controller/controller-service.ts';
import { MetadataFollower } from '../controller/follow.ts';
import type { FormedCluster } from '../controller/forming.ts';
import { routeController } from '../controller/remote-controller.ts';
import type { ControllerHint } from '../controller/wire.ts';
import { MetadataStore } from '../metadata/view.ts';
import { createRaftHost } from '../raft/raft-host.ts';
import { defaultRaftHostSettings, type RaftHostSettings } from '../raft/settings.ts';
import type { MakeCore, Peer, PeerIdentity, PeerTransport, RaftHost } from '../raft/types.ts';
import type { CompressionTable } from '../record/compression.ts';
import type { Crc32c } from '../record/types.ts';
import type { Connect, StreamHandler } from '../rpc/types.ts';
import { type BrokerStorage, openStorage } from '../storage/storage.ts';
import { adminHandlers } from './admin.ts';
import { Cleaner } from './cleaner.ts';
import { type BrokerConfig, validateTopicConfig } from './config.ts';
import type { BrokerContext } from './context.ts';
import { segmentsOfTopic } from './describe-topic.ts';
import { DiskRoom } from './disk-room.ts';
import { fetchHandler } from './fetch.ts';
import { type Home, ownVoter } from './home.ts';
import { Leaders } from './leaders.ts';
import { listOffsetsHandler } from './list-offsets.ts';
import { ProduceLoad } from './old-reads.ts';
import { Partitions } from './partitions.ts';
import { produceHandler } from './produce.ts';
import { Reassignments } from './reassignments.ts';
import { Registration } from './registration.ts';
import { Retention } from './retention.ts';
import { scrubHandler } from './scrub.ts';
import { Scrubber } from './scrubber.ts';
import { openState } from './state.ts';
import type { Switchboard } from './switchboard.ts';
import { TombstoneFloors } from './tombstone-floors.ts';
import { transferLeadership } from './transfer-leader.ts';
import { TrustedClock } from './trusted-clock.ts';

/** Segments of the metadata log. */
const METADATA_SEGMENT_BYTES = 64 * 1024 * 1024;

/** A write-ahead log file is whole pages. */
const PAGE_BYTES = 4096;

/** A transport between brokers, and what this broker serves for it. */
export interface ServedTransport extends PeerTransport {
  handlers(): [string, StreamHandler][];
}

/** All that is impure or belongs to a transport. */
export interface BrokerOptions {
  readonly config: BrokerConfig;
  readonly environment: Environment;
  readonly disk: Disk;
  readonly openStateStore: (path: string) => Promise<StateStore>;
  readonly connect: Connect;
  readonly createTransport: (options: {
    readonly identity: PeerIdentity;
    readonly connect: Connect;
    readonly environment: Environment;
    readonly log: Logger;
  }) => ServedTransport;
  readonly serve: Serve;
  /** IEEE, for files and state machines. */
  readonly crc32: (bytes: Uint8Array, seed?: number) => number;
  readonly crc32c: Crc32c;
  /** To look into batches: nothing that is produced or fetched needs it. */
  readonly compression: CompressionTable;
  /** For compaction. Closed with the broker. */
  readonly compute: Compute;
  readonly log: Logger;
  /** See RaftHostOptions.makeCore. */
  readonly makeCore?: MakeCore | undefined;
  /** Ends the process: storage is lost, an invariant is broken, or the directory can't be used. Called at most once. */
  readonly fatal: (error: Error) => void;
}

export type Serve = (options: {
  readonly listeners: BrokerConfig['listeners'];
  readonly service: Switchboard;
  readonly log: Logger;
}) => Promise<Served> | Served;

export interface Served {
  /** `host:port` in effect, by listener name. */
  readonly addresses: ReadonlyMap<string, string>;
  close(deadlineMs: number): Promise<void>;
}

export interface AssemblyOptions {
  readonly options: BrokerOptions;
  readonly home: Home;
  readonly cluster: FormedCluster;
  readonly switchboard: Switchboard;
  /** What the others are told, by listener name. */
  readonly advertised: ReadonlyMap<string, string>;
}

/** A broker's rooms, running. */
export interface Assembly {
  readonly storage: BrokerStorage;
  readonly store: StateStore | undefined;
  readonly host: RaftHost;
  readonly metadata: MetadataStore;
  readonly controller: QuorumController | undefined;
  readonly follower: MetadataFollower | undefined;
  readonly partitions: Partitions;
  readonly reassignments: Reassignments;
  readonly registration: Registration;
  readonly retention: Retention;
  readonly compute: Compute;
  readonly cleaner: Cleaner;
  readonly tombstoneFloors: TombstoneFloors;
  readonly scrubber: Scrubber;
  readonly diskRoom: DiskRoom;
  /** From now on clients are answered. */
  serveClients(): void;
  /** Closes the channels to other brokers. */
  disconnect(): void;
}

export async function assemble(assembly: AssemblyOptions): Promise<Assembly> {
  const { options, home, cluster, switchboard, advertised } = assembly;
  const { config, environment, disk, connect, crc32, crc32c, log, makeCore } = options;
  const fatal = (error: unknown) => options.fatal(error instanceof Error ? error : new Error(messageOf(error)));
  let diskRoom: DiskRoom | undefined;
  const storage = await openStorage({
    disk,
    path: config.dataDirectory,
    environment,
    log,
    crc32,
    crc32c,
    settings: {
      walFileBytes: config.walFileBytes - (config.walFileBytes % PAGE_BYTES),
      walFiles: config.walFileCount,
      reserveBytes: config.diskReserveBytes,
      deleteDelayMs: config.deleteDelayMs,
    },
    failed: fatal,
    reserveReleased: () => diskRoom?.reserveReleased(),
  });
  const { nodeId: brokerId } = config;
  const { directoryId } = home;
  const { incarnation } = storage;
  const identity = { clusterId: cluster.clusterId, brokerId, directoryId, incarnation };
  const transport = options.createTransport({ identity, connect, environment, log });
  switchboard.addStreams(...transport.handlers());
  const settings = raftSettings(config);
  let partitions: Partitions | undefined;
  const quarantined = (group: GroupKey, replicaId: ReplicaId) => partitions?.quarantined(group, replicaId);
  const host = createRaftHost({
    environment,
    storage,
    transport,
    brokerId,
    directoryId,
    incarnation,
    log,
    settings,
    makeCore,
    fatal,
    quarantined,
  });
  diskRoom = new DiskRoom({
    disk,
    directory: config.dataDirectory,
    environment,
    log,
    minFreeBytes: config.diskMinFreeBytes,
    minFreePercent: config.diskMinFreePercent,
    prepareReserve: () => storage.prepareReserve(),
    changed: (room) => host.setRoom(room),
  });
  const metadata = new MetadataStore();
  followPeers(host, metadata, config, cluster);

  const leaders = new Leaders(connect);
  const hint = () => controllerHint(host, metadata, config);
  let registration: Registration | undefined;
  let reassignments: Reassignments | undefined;
  partitions = new Partitions({
    brokerId,
    directoryId,
    incarnation,
    held: new Set(storage.groups()),
    host,
    metadata,
    topicDefaults: config.topicDefaults,
    environment,
    crc32c,
    compression: options.compression,
    checkRoom: () => diskRoom?.checkRecords(),
    log,
    leadershipChanged: (partition) => {
      registration?.leadershipChanged(partition);
      reassignments?.changed();
    },
    failedChanged: () => reassignments?.changed(),
  });
  const context: BrokerContext = { config, partitions, metadata, environment, produceLoad: new ProduceLoad(), crc32c, log, fatal };
  const { openStateStore } = options;
  const stateOptions = { disk, directory: config.dataDirectory, incarnation, openStateStore, log };
  const store = config.isController ? await openState(stateOptions) : undefined;
  let controller: QuorumController | undefined;
  const routed = routeController({
    local: () => (controller?.active ? controller : undefined),
    leaderAddress: () => (hint()?.brokerId === brokerId ? undefined : hint()?.address),
    addresses: () => otherVoters(config),
    connect,
    environment,
  });
  if (store !== undefined) {
    const leaderChanged = () => routed.leaderChanged();
    controller = await openController({ ...assembly, context, host, store, leaders, hint, leaderChanged });
  }
  const follower = controller === undefined ? startFollower(assembly, metadata, fatal) : undefined;

  registration = new Registration({
    registration: {
      brokerId,
      directoryId,
      incarnation,
      rack: config.rack,
      listeners: advertised,
      peerAddress: advertised.get(config.interBrokerListener) ?? '',
    },
    controller: routed,
    partitions,
    metadata,
    environment,
    log,
    heartbeatIntervalMs: config.heartbeatIntervalMs,
    requestTimeoutMs: config.requestTimeoutMs,
  });
  reassignments = new Reassignments({
    brokerId,
    incarnation,
    controller: routed,
    partitions,
    metadata,
    environment,
    log,
    requestTimeoutMs: config.requestTimeoutMs,
  });
  const clock = new TrustedClock(environment, log);
  const retention = new Retention({
    partitions,
    segmentsOf: (topic, signal) => segmentsOfTopic(context, leaders, topic, signal),
    environment,
    clock,
    log,
    intervalMs: config.retentionCheckIntervalMs,
    requestTimeoutMs: config.requestTimeoutMs,
  });
  const room = diskRoom;
  const scrubber = new Scrubber({
    host,
    storage,
    environment,
    log,
    bytesPerSecond: config.scrubBytesPerSecond,
    intervalMs: config.scrubIntervalMs,
    mayRead: () => room.room === 'ample' && storage.wal.stalledMs() < settings.diskFreshMs,
  });
  const { compute } = options;
  const writtenBytes = () => storage.wal.statistics.bytes;
  const cleaner = new Cleaner({ partitions, compute, environment, clock, log, config: config.cleaner, writtenBytes });
  const tombstoneFloors = new TombstoneFloors({
    partitions,
    channel: (broker) => leaders.channel(context, broker),
    isAlive: (broker) => host.isAlive(broker),
    environment,
    log,
    intervalMs: config.cleaner.backoffMs,
    requestTimeoutMs: config.requestTimeoutMs,
  });
  const serveClients = () => {
    switchboard.addStreams(produceHandler(context), fetchHandler(context));
    const admin = adminHandlers({ context, controller: routed, local: controller, hint, leaders, host });
    switchboard.addUnary(listOffsetsHandler(context), scrubHandler(context, scrubber, host), ...admin);
  };
  partitions.start();
  reassignments.start();
  registration.start();
  retention.start();
  cleaner.start();
  tombstoneFloors.start();
  scrubber.start();
  diskRoom.start();
  const disconnect = () => {
    routed.close();
    leaders.close();
  };
  return {
    storage,
    store,
    host,
    metadata,
    controller,
    follower,
    partitions,
    reassignments,
    registration,
    retention,
    compute,
    cleaner,
    tombstoneFloors,
    scrubber,
    diskRoom,
    serveClients,
    disconnect,
  };
}

/** This broker's replica of the metadata log, and what it serves of it. */
async function openController(
  parts: AssemblyOptions & {
    readonly context: BrokerContext;
    readonly host: RaftHost;
    readonly store: StateStore;
    readonly leaders: Leaders;
    readonly hint: () => ControllerHint | undefined;
    readonly leaderChanged: () => void;
  },
): Promise<QuorumController> {
  const { options, cluster, switchboard, context, host, store, leaders, hint, leaderChanged } = parts;
  const { config, environment, crc32, log } = options;
  const metadata = context.metadata as MetadataStore;
  const controller = await QuorumController.open({
    environment,
    logger: log,
    store,
    metadata,
    settings: {
      brokerSessionTimeoutMs: config.sessionTimeoutMs,
      defaultPartitions: config.numPartitions,
      defaultReplicationFactor: config.defaultReplicationFactor,
    },
    cluster,
    checksum: (payload) => crc32(payload),
    validateTopicConfig: (configs) => {
      validateTopicConfig(configs, config.topicDefaults);
    },
    transfer: (topicId: TopicId, partition: number, to: BrokerId, timeoutMs: number) =>
      transferLeadership(context, leaders, { topicId, partition, to, timeoutMs, forwarded: false, signal: undefined }),
    leaderChanged,
    failed: context.fatal,
  });
  const replica = await host.open({
    group: METADATA_GROUP,
    replicaId: ownVoter(cluster, config.nodeId).replicaId,
    configuration: { voters: cluster.voters, outgoing: [], learners: [] },
    settings: { segmentBytes: METADATA_SEGMENT_BYTES, stateAlone: true },
    campaign: false,
    // Where it is the only copy, or one of two, nobody could give back what it lost.
    mayReturn: cluster.voters.length >= 3,
    // It has one id for good.
    latest: true,
    owner: (opened) => controller.attach(opened),
  });
  const service = controllerService({ controller, leader: hint, metadata, replica, environment, logger: log });
  switchboard.addUnary(...service.unary);
  switchboard.addStreams(...service.streams);
  return controller;
}

function startFollower({ options }: AssemblyOptions, metadata: MetadataStore, failed: (error: Error) => void): MetadataFollower {
  const { config, connect, environment } = options;
  const addresses = () => otherVoters(config);
  const follower = new MetadataFollower({
    brokerId: config.nodeId,
    addresses,
    connect,
    metadata,
    environment,
    logger: options.log,
    failed,
  });
  follower.start();
  return follower;
}

function otherVoters(config: BrokerConfig): readonly string[] {
  return config.voters.filter(({ brokerId }) => brokerId !== config.nodeId).map(({ address }) => address);
}

/** The host talks to the voters as configured, and to all brokers as they registered. */
function followPeers(host: RaftHost, metadata: MetadataStore, config: BrokerConfig, cluster: FormedCluster): void {
  metadata.subscribe(({ image, changedBrokers }) => {
    if (changedBrokers.length === 0 && image.index > 0) return;
    const peers = new Map<BrokerId, Peer>();
    for (const { brokerId, address } of config.voters) {
      const directoryId = cluster.voters.find((voter) => voter.brokerId === brokerId)?.directoryId;
      peers.set(brokerId, { brokerId, address, directoryId });
    }
    for (const { brokerId, peerAddress, directoryId } of image.brokers.values())
      peers.set(brokerId, { brokerId, address: peerAddress, directoryId });
    peers.delete(config.nodeId);
    host.setPeers([...peers.values()]);
  });
}

/** Who leads the metadata quorum, as this broker's replica of it knows. */
function controllerHint(host: RaftHost, metadata: MetadataStore, config: BrokerConfig): ControllerHint | undefined {
  const leadership = host.get(METADATA_GROUP)?.leadership;
  const brokerId = leadership?.leader?.brokerId;
  if (leadership === undefined || brokerId === undefined) return undefined;
  const configured = config.voters.find((voter) => voter.brokerId === brokerId)?.address;
  return { brokerId, address: metadata.image.brokers.get(brokerId)?.peerAddress ?? configured ?? '', leaderEpoch: leadership.term };
}

/** Ticks per election timeout: fine enough that random timeouts differ. */
const ELECTION_TICKS = 10;

function raftSettings(config: BrokerConfig): RaftHostSettings {
  const { diskStallTimeoutMs, raftElectionTimeoutMs, raftHeartbeatIntervalMs, requestTimeoutMs } = config;
  const { catchUpBytesPerSecond, snapshotBytesPerSecond } = config;
  return {
    ...defaultRaftHostSettings,
    fatalStallMs: diskStallTimeoutMs,
    catchUpBytesPerSecond,
    snapshotBytesPerSecond,
    quiesceAfterMs: 3 * raftHeartbeatIntervalMs,
    tickMs: Math.min(raftHeartbeatIntervalMs, Math.floor(raftElectionTimeoutMs / ELECTION_TICKS)),
    electionTicks: Math.ceil(raftElectionTimeoutMs / Math.min(raftHeartbeatIntervalMs, Math.floor(raftElectionTimeoutMs / ELECTION_TICKS))),
    heartbeatMs: raftHeartbeatIntervalMs,
    heartbeatTimeoutMs: Math.max(3 * raftHeartbeatIntervalMs, Math.floor(raftElectionTimeoutMs * 0.6)),
    readTimeoutMs: Math.min(requestTimeoutMs, defaultRaftHostSettings.readTimeoutMs),
  };
}

/** Takes the rooms apart within `ms`: whoever waits is told, then logs are flushed, then files are closed. */
export async function disassemble(assembly: Assembly, step: (what: string, work: () => Promise<unknown>) => Promise<void>): Promise<void> {
  const { registration, reassignments, retention, diskRoom, partitions, follower, controller, host, store, storage } = assembly;
  const { scrubber, compute, cleaner, tombstoneFloors } = assembly;
  await step('registration', () => registration.stop());
  await step('reassignments', () => reassignments.stop());
  await step('retention', () => retention.stop());
  await step('scrubber', () => scrubber.stop());
  await step('cleaner', () => cleaner.stop());
  await step('compute', () => compute.close());
  await step('tombstone floors', () => tombstoneFloors.stop());
  await step('disk room', () => diskRoom.stop());
  follower?.stop();
  await step('partitions', () => partitions.stop());
  if (controller !== undefined) await step('controller', () => controller.close());
  await step('raft', () => host.stop());
  assembly.disconnect();
  if (store !== undefined) await step('state', () => store.close());
  await step('storage', () => storage.close());
}

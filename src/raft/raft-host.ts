/**
 * The Raft host: all raftGroups of a broker on one turn loop, over one write-ahead log, and one stream and one heartbeat a peer.
 * README.md tells how the parts fit together.
 */
import { assert } from '../base/assert.ts';
import { type Environment, type Logger, randomBelow, type Timer } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { type BrokerId, type DirectoryId, formatGroupKey, type GroupKey, METADATA_GROUP, type ReplicaId } from '../base/ids.ts';
import type { OpenedLog, PartitionLog, Storage } from '../storage/types.ts';
import { CatchUp } from './catch-up.ts';
import { decodeFrame, type GroupMessage } from './codec.ts';
import { membersOf } from './core/configuration.ts';
import { type Entry, EntryKind } from './core/entry.ts';
import { RaftCore } from './core/raft.ts';
import type { Message, RaftOptions } from './core/types.ts';
import { within } from './deadline.ts';
import { decodeHeartbeat, type NodeHeartbeat } from './heartbeat-codec.ts';
import { Heartbeats } from './heartbeats.ts';
import { Outbox } from './outbox.ts';
import { Quiescence } from './quiescence.ts';
import { REPAIR_MAGIC } from './repair-codec.ts';
import { type RepairStatistics, Repairs } from './repairs.ts';
import { RaftReplica, type ReplicaHost } from './replica.ts';
import { CAMPAIGN_PACE_MS, type RaftHostSettings } from './settings.ts';
import { installSnapshot, type SnapshotInstallOptions } from './snapshot-install.ts';
import { SnapshotTransfer } from './snapshot-transfer.ts';
import { TurnLoop } from './turn-loop.ts';
import type { Lane, MakeCore, Peer, PeerTransport, RaftHost, Replica, ReplicaOptions, Room } from './types.ts';

export interface RaftHostOptions {
  readonly environment: Environment;
  /** Its write-ahead log is this host's alone. Closed by whoever opened it, after {@link RaftHost.stop}. */
  readonly storage: Storage;
  /** Started, and closed at stop, by the host. */
  readonly transport: PeerTransport;
  readonly brokerId: BrokerId;
  readonly directoryId: DirectoryId;
  /** Differs for each process that runs on the data directory; below 2^53. */
  readonly incarnation: number;
  readonly log: Logger;
  readonly settings: RaftHostSettings;
  /** Instead of the core itself, one that tells what it does. Default: the core. */
  readonly makeCore?: MakeCore | undefined;
  /** Storage failed or an invariant is broken (hazard B25). Called once; it must end the process: nothing runs or is answered after it. */
  readonly fatal: (error: unknown) => void;
  /** A replica here takes no part any more, since a majority of the voters has another log (hazard B29): it is to be replaced. */
  readonly quarantined?: (group: GroupKey, replicaId: ReplicaId, reason: string) => void;
}

/** Late ticks are made up for up to this many: after a pause of ours the others must get to speak before our timeouts fire. */
const MAX_TICKS_AT_ONCE = 2;
/** Vote requests kept for groups that are not open here yet; when a group is created, its first candidate is often ahead of its peers. */
const MAX_EARLY_VOTES = 4096;
const MS_BETWEEN_HAND_OVERS = 1000;
/** See RaftOptions.probation: u32 on the wire. */
const MAX_PROBATION = 2 ** 31;
/** One long pause is no slow loop: only several late ticks make one. */
const MAX_LATE_MS_OF_A_TICK = 500;

/** Makes the host, starts the transport and the ticks. */
export function createRaftHost(options: RaftHostOptions): RaftHost {
  return new GroupHost(options);
}

class GroupHost implements RaftHost, ReplicaHost {
  readonly settings: RaftHostSettings;
  readonly deadlines: Environment;
  readonly #options: RaftHostOptions;
  readonly #heartbeats: Heartbeats;
  readonly #quiescence: Quiescence;
  readonly #loop: TurnLoop;
  readonly #snapshots: SnapshotTransfer;
  readonly #repairs: Repairs;
  readonly #replicas = new Map<GroupKey, RaftReplica>();
  readonly #opening = new Set<GroupKey>();
  readonly #earlyVotes = new Map<GroupKey, { readonly from: BrokerId; readonly message: Message }>();
  #timer: Timer;
  #tickedAt: number;
  /** Milliseconds of running time until these are due. */
  #untilBeat = 0;
  #untilLagSample = 0;
  #untilHandOver = 0;
  /** Milliseconds of running time that the present flush has been waiting for the disk. */
  #stalledMs = 0;
  /** How long every tick has been coming late; 0: the last one did not. */
  #lateMs = 0;
  #room: Room = 'ample';
  #stopped = false;
  /** Of this life of the process. */
  readonly #probation: number;
  /** Shared by all cores. */
  readonly #uint32 = () => this.#options.environment.uint32();
  readonly #isAway = (broker: BrokerId) => !this.isAlive(broker);

  constructor(options: RaftHostOptions) {
    const { environment, storage, transport, brokerId, incarnation, log, settings, fatal } = options;
    this.#options = options;
    this.settings = settings;
    this.deadlines = environment;
    this.#probation = 1 + (incarnation % MAX_PROBATION);
    this.#quiescence = new Quiescence(brokerId);
    this.#heartbeats = new Heartbeats({
      transport,
      incarnation,
      timeoutMs: settings.heartbeatTimeoutMs,
      peerDown: (broker) => this.#peerDown(broker),
      peerUp: (broker, returned) => this.#peerUp(broker, returned),
      quiescedWith: (broker) => this.#quiescence.ledWith(broker),
    });
    this.#loop = new TurnLoop({
      scheduler: environment,
      wal: storage.wal,
      outbox: new Outbox(transport, this.#heartbeats),
      catchUp: new CatchUp({ scheduler: environment, log, settings }),
      snapshotWanted: (replica, to) => this.#snapshots.wanted(replica, to),
      fatal,
    });
    const installing: SnapshotInstallOptions = {
      storage,
      loop: this.#loop,
      scheduler: environment,
      schedule: (replica) => this.schedule(replica),
      newCore: (replicaOptions, opened) => this.#newCore(replicaOptions, opened),
      abandon: (replica, error) => this.#abandon(replica, error),
      replaced: (group) => this.#repairs.forget(group, true),
    };
    this.#snapshots = new SnapshotTransfer({
      environment,
      storage,
      transport,
      settings,
      log,
      replica: (group) => this.#replicas.get(group),
      install: (replica, snapshot) => installSnapshot(installing, replica, snapshot),
      doubted: ({ group }) => {
        for (const firstIndex of storage.repairOf(group)?.segments() ?? []) this.#repairs.suspect(group, firstIndex);
      },
    });
    this.#repairs = new Repairs({
      environment,
      storage,
      transport,
      log,
      replica: (group) => this.#replicas.get(group),
      isAlive: (broker) => this.isAlive(broker),
      irreparable: (replica, reason) => this.quarantined(replica, reason),
    });
    storage.onDamage = (group, index) => this.#repairs.suspect(group, index);
    this.#tickedAt = environment.monotonicMs();
    // The first tick at a random point of its interval, so that brokers started together do not tick together.
    this.#timer = environment.after(randomBelow(environment, settings.tickMs), () => this.#tick());
    transport.start({
      frame: (from, lane, frame) => this.#loop.guard(() => this.#frame(from, lane, frame)),
      // The bulk lane says nothing of a peer's life.
      connected: (broker, lane) => this.#loop.guard(() => lane !== 'bulk' && this.#heartbeats.connected(broker, lane)),
      disconnected: (broker, lane) => this.#loop.guard(() => lane !== 'bulk' && this.#heartbeats.disconnected(broker, lane)),
    });
  }

  get replicas(): Iterable<Replica> {
    return this.#replicas.values();
  }

  get(group: GroupKey): Replica | undefined {
    return this.#replicas.get(group);
  }

  setPeers(peers: readonly Peer[]): void {
    const others = peers.filter((peer) => peer.brokerId !== this.#options.brokerId);
    this.#heartbeats.setPeers(others);
    this.#options.transport.setPeers(others);
  }

  isAlive(broker: BrokerId): boolean {
    return broker === this.#options.brokerId || this.#heartbeats.isAlive(broker);
  }

  isDiskFresh(broker: BrokerId): boolean {
    return broker === this.#options.brokerId ? this.#stalledMs < this.settings.diskFreshMs : this.#heartbeats.isDiskFresh(broker);
  }

  mayLead(broker: BrokerId): boolean {
    if (broker !== this.#options.brokerId) return this.#heartbeats.mayLead(broker);
    return this.#lateMs === 0 && this.#room === 'ample' && this.isDiskFresh(broker);
  }

  setRoom(room: Room): void {
    this.#room = room;
    // At once, with the next tick.
    this.#untilHandOver = 0;
  }

  get someDiskStalls(): boolean {
    return this.#stalledMs >= this.settings.diskFreshMs || this.#heartbeats.someDiskStalls;
  }

  get diskStalls(): boolean {
    return this.#stalledMs >= this.settings.electionTicks * this.settings.tickMs;
  }

  quarantined({ group, replicaId, options }: RaftReplica, reason: string): void {
    const { log, storage } = this.#options;
    log.error('replica quarantined', { group: formatGroupKey(group), replicaId, reason });
    // It stays so after a restart, before it is found out again: then it is replaced, or returns on probation. Without a voter of the metadata group that may do neither the broker would not start.
    if (group !== METADATA_GROUP || options.mayReturn === true) storage.wal.markDamaged(group).catch(() => {}); // Who writes the log is told of its failures.
    this.#options.quarantined?.(group, replicaId, reason);
  }

  schedule(replica: RaftReplica): void {
    this.#loop.schedule(replica);
    this.#quiescence.settle(replica);
  }

  guard(inputs: () => void): void {
    this.#loop.guard(inputs);
  }

  repair(group: GroupKey, firstIndex: number): void {
    this.#repairs.suspect(group, firstIndex);
  }

  untilWhole(group: GroupKey): Promise<boolean> {
    return this.#repairs.untilWhole(group);
  }

  damageOf(group: GroupKey): string | undefined {
    return this.#repairs.damageOf(group);
  }

  get repairs(): RepairStatistics {
    return this.#repairs.statistics;
  }

  get pendingDiskBytes(): number {
    const { wal, unwrittenBytes } = this.#options.storage;
    return wal.pendingBytes + unwrittenBytes;
  }

  diskIsBehind(): boolean {
    return this.pendingDiskBytes > this.settings.maxPendingDiskBytes;
  }

  /**
   * @throws FlotillaError STORAGE_ERROR when the write-ahead log can't prove that the group's records are whole: then the replica may have
   * voted or acknowledged what it no longer knows, so it takes no part at all until the quorum replaces it (hazards B03, B22);
   * DATA_DIRECTORY when the replica is bound to another broker or directory (hazard B14); CLOSED after `stop`.
   */
  async open(options: ReplicaOptions): Promise<Replica> {
    const { group } = options;
    if (this.#stopped) throw new FlotillaError('CLOSED', 'this broker is stopping.');
    assert(!this.#replicas.has(group) && !this.#opening.has(group), 'a group is open once', formatGroupKey(group));
    this.#opening.add(group);
    try {
      const opened = await this.#openLog(options);
      try {
        if (this.#stopped) throw new FlotillaError('CLOSED', 'this broker is stopping.');
        return this.#start(options, opened);
      } catch (error) {
        await opened.log.close();
        throw error;
      }
    } finally {
      this.#opening.delete(group);
    }
  }

  /** A replica that may return does so with an empty log where its own can't be proved whole, or read. */
  async #openLog({ group, settings, replicaId, mayReturn = false, latest = false }: ReplicaOptions): Promise<OpenedLog> {
    const { storage, log } = this.#options;
    let why = 'its log can not be proved whole';
    try {
      const opened = await storage.openLog(group, settings, replicaId, latest);
      if (opened.whole || !mayReturn) return opened;
    } catch (error) {
      if (!mayReturn || !(error instanceof FlotillaError && error.code === 'STORAGE_ERROR')) throw error;
      why = error.message;
    }
    log.error('replica on probation', { group: formatGroupKey(group), replicaId, why });
    return storage.restartLog(group, settings, replicaId);
  }

  probationOver({ group, replicaId }: RaftReplica): void {
    const { storage, log } = this.#options;
    // Its term, and its vote for the leader that it returned to, go to the log before this does.
    storage.releaseAside(group).then(
      () => log.info('replica whole again', { group: formatGroupKey(group), replicaId }),
      (error: unknown) => log.warn('replica stays marked', { group: formatGroupKey(group), error: messageOf(error) }),
    );
  }

  async close(group: GroupKey): Promise<void> {
    const replica = this.#replicas.get(group);
    if (replica === undefined) return;
    this.#detach(replica);
    await this.#within(
      'close',
      group,
      this.#settled(replica).then(() => flushAndClose(replica.log)),
    );
  }

  async remove(group: GroupKey): Promise<void> {
    const replica = this.#replicas.get(group);
    const { storage } = this.#options;
    if (replica !== undefined) {
      this.#detach(replica);
      await this.#within(
        'remove',
        group,
        this.#settled(replica).then(() => replica.log.close()),
      );
    }
    await storage.deleteLog(group);
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#timer.cancel();
    const replicas = [...this.#replicas.values()];
    this.#repairs.stop();
    for (const replica of replicas) this.#detach(replica);
    this.#snapshots.stop();
    try {
      const closed = Promise.all(replicas.map((replica) => this.#settled(replica).then(() => flushAndClose(replica.log))));
      await this.#within('stop', undefined, closed);
    } finally {
      await this.#within('stop', undefined, this.#options.transport.close());
    }
  }

  /** Nothing of the replica is in flight any more. */
  async #settled(replica: RaftReplica): Promise<void> {
    await this.#loop.drained();
    await replica.installing;
  }

  /** A snapshot was installed that its owner can't read. */
  async #abandon(replica: RaftReplica, error: unknown): Promise<void> {
    const { group, log } = replica;
    this.#options.log.error('replica closed: its owner can not go on from the snapshot', {
      group: formatGroupKey(group),
      error: messageOf(error),
    });
    this.#detach(replica);
    await log.close();
  }

  #newCore(options: ReplicaOptions, { log, tail, hardState, whole }: OpenedLog): RaftCore {
    const { group, replicaId, mayReturn = false } = options;
    if (!whole && !mayReturn) throw notWhole(group);
    const { brokerId, directoryId } = this.#options;
    // Those in the tail the core reads itself: they may be taken back.
    const { configuration, index: configurationIndex } = log.configuration ?? { configuration: options.configuration, index: 0 };
    const self = membersOf(configuration).find((member) => member.replicaId === replicaId);
    if (self !== undefined && (self.brokerId !== brokerId || self.directoryId !== directoryId)) {
      throw new FlotillaError(
        'DATA_DIRECTORY',
        `replica ${replicaId} of ${formatGroupKey(group)} belongs to directory ${self.directoryId} of broker ${self.brokerId}, not to this one: ` +
          'bring that directory back, or have the replica replaced.',
      );
    }
    const { settings } = this;
    const { makeCore = (given: RaftOptions) => new RaftCore(given) } = this.#options;
    const core: RaftOptions = {
      id: replicaId,
      hardState,
      configuration,
      configurationIndex,
      log: { ...log.initial, tail },
      electionTicks: settings.electionTicks,
      heartbeatTicks: Math.max(1, Math.round(settings.heartbeatMs / settings.tickMs)),
      quiesceTicks: Math.ceil(settings.quiesceAfterMs / settings.tickMs),
      probation: whole ? 0 : this.#probation,
      uint32: this.#uint32,
      isAway: this.#isAway,
      maxAppendBytes: settings.maxAppendBytes,
      maxInflightBytes: settings.maxInflightBytes,
      maxInflightMessages: settings.maxInflightMessages,
      maxUncommittedBytes: settings.maxUncommittedBytes,
      maxWindowBytes: settings.maxWindowBytes,
    };
    return makeCore(core, options.group);
  }

  #start(options: ReplicaOptions, opened: OpenedLog): Replica {
    const { group } = options;
    const replica = new RaftReplica(options, this.#newCore(options, opened), opened.log, this);
    this.#replicas.set(group, replica);
    this.#quiescence.add(replica);
    replica.recovered(opened.tail);
    const early = this.#earlyVotes.get(group);
    this.#earlyVotes.delete(group);
    if (early !== undefined) replica.receive(early.from, early.message);
    // The only voter has nobody to wait for or to disturb: its election is paced by nothing, and shares flushes with those of the others that open.
    if (options.campaign || isOnlyVoter(replica)) replica.campaign();
    this.#loop.schedule(replica);
    return replica;
  }

  #frame(from: BrokerId, lane: Lane, frame: Uint8Array): void {
    if (this.#stopped) return;
    try {
      if (lane === 'raft') this.#receive(from, decodeFrame(frame));
      else if (lane === 'bulk' && frame[0] === REPAIR_MAGIC) this.#repairs.frame(from, frame);
      else if (lane === 'bulk') this.#snapshots.frame(from, frame);
      else this.#heartbeat(from, decodeHeartbeat(frame));
    } catch (error) {
      if (!(error instanceof FlotillaError)) throw error;
      this.#options.log.warn('frame dropped', { peer: from, lane, error: messageOf(error) });
    }
  }

  #heartbeat(from: BrokerId, heartbeat: NodeHeartbeat): void {
    if (!this.#heartbeats.received(from, heartbeat)) return;
    this.#receive(from, heartbeat.messages);
    if (heartbeat.wake) this.#quiescence.wakeLedWith(from);
    if (!this.#quiescence.differs(from, heartbeat.quiesced)) return;
    this.#quiescence.wakeFollowed(from);
    this.#heartbeats.askToWake(from);
  }

  #receive(from: BrokerId, messages: readonly GroupMessage[]): void {
    // Each leader keeps to its window, but together those of thousands of groups would fill the memory of a follower whose disk hangs.
    const full = this.pendingDiskBytes > this.settings.maxPendingAppendBytes;
    for (const { group, message } of messages) {
      if (message.type === 'append' && (full ? message.entries.length > 0 : this.#lacksRoomFor(group, message.entries))) continue;
      const replica = this.#replicas.get(group);
      if (replica !== undefined) replica.receive(from, message);
      else if (message.type === 'vote') this.#keepEarlyVote(group, from, message);
    }
  }

  /** What is no record goes on: it elects, and tells what may be deleted. So do the metadata. */
  #lacksRoomFor(group: GroupKey, entries: readonly Entry[]): boolean {
    return this.#room === 'none' && group !== METADATA_GROUP && entries.some(({ kind }) => kind === EntryKind.batch);
  }

  #keepEarlyVote(group: GroupKey, from: BrokerId, message: Message): void {
    this.#earlyVotes.delete(group);
    const [oldest] = this.#earlyVotes.keys();
    if (oldest !== undefined && this.#earlyVotes.size >= MAX_EARLY_VOTES) this.#earlyVotes.delete(oldest);
    this.#earlyVotes.set(group, { from, message });
  }

  #peerDown(broker: BrokerId): void {
    if (this.#stopped) return;
    this.#options.log.info('peer down', { peer: broker });
    const orphans: RaftReplica[] = [];
    for (const replica of this.#replicas.values()) {
      if (replica.leaderBroker === broker) orphans.push(replica);
      else replica.peerDown(broker, 0);
    }
    this.#pace(broker, orphans);
  }

  /** Elections of thousands of groups at once would hold up each other, and all else: the groups that others wait for come first. */
  #pace(broker: BrokerId, orphans: RaftReplica[]): void {
    const { tickMs, campaignsPerPace } = this.settings;
    const rank = ({ group, internal }: RaftReplica) => (group === METADATA_GROUP ? 0 : internal ? 1 : 2);
    orphans.sort((a, b) => rank(a) - rank(b) || (a.group < b.group ? -1 : 1));
    orphans.forEach((replica, at) => {
      const paces = Math.floor(at / campaignsPerPace);
      replica.peerDown(broker, Math.round((paces * CAMPAIGN_PACE_MS) / tickMs));
    });
  }

  /** `returned`: its heartbeats come again. Groups that rest without it have something to tell it. */
  #peerUp(broker: BrokerId, returned: boolean): void {
    if (this.#stopped) return;
    if (returned) this.#quiescence.wakeLedWith(broker);
    for (const replica of this.#quiescence.active) replica.peerUp(broker);
  }

  #tick(): void {
    if (this.#stopped) return;
    const { tickMs } = this.settings;
    const now = this.#options.environment.monotonicMs();
    const ticks = Math.min(MAX_TICKS_AT_ONCE, Math.max(1, Math.floor((now - this.#tickedAt) / tickMs)));
    this.#watchLoop(now - this.#tickedAt - tickMs);
    this.#tickedAt = now;
    this.#timer = this.#options.environment.after(tickMs, () => this.#tick());
    this.#loop.run(() => {
      this.#watchDisk(ticks * tickMs);
      this.#heartbeats.advance(ticks * tickMs);
      for (const replica of this.#quiescence.active) {
        for (let i = 0; i < ticks; i++) replica.tick();
        this.#quiescence.settle(replica);
      }
    });
    // After the turn, so that what the tick brought goes out with this heartbeat.
    this.#loop.guard(() => this.#periodic(ticks * tickMs));
  }

  #watchLoop(lateMs: number): void {
    this.#lateMs = lateMs > this.settings.loopFreshMs ? this.#lateMs + Math.min(lateMs, MAX_LATE_MS_OF_A_TICK) : 0;
  }

  /** @throws FlotillaError STORAGE_ERROR when the disk has stalled for so long that the process is to end. */
  #watchDisk(ms: number): void {
    // Not longer than this process ran: after a pause the flush may long be done, and only its callback wait.
    this.#stalledMs = Math.min(this.#options.storage.wal.stalledMs(), this.#stalledMs + ms);
    if (this.#stalledMs <= this.settings.fatalStallMs) return;
    throw new FlotillaError(
      'STORAGE_ERROR',
      `the disk has not finished a flush of the write-ahead log for ${Math.round(this.#stalledMs / 1000)} s. This broker ends, so that others take its place: ` +
        'look at the disk, then start the broker again.',
    );
  }

  #periodic(ms: number): void {
    const { settings } = this;
    const stalledMs = this.#stalledMs;
    this.#untilBeat -= ms;
    this.#untilLagSample -= ms;
    this.#untilHandOver -= ms;
    this.#snapshots.advance(ms);
    if (this.#untilBeat <= 0) {
      this.#untilBeat = settings.heartbeatMs;
      this.#heartbeats.beat({
        diskFresh: stalledMs < settings.diskFreshMs,
        loopFresh: this.#lateMs === 0,
        hasRoom: this.#room === 'ample',
      });
    }
    if (this.#untilLagSample <= 0) {
      this.#untilLagSample = settings.inSyncLagMs;
      for (const replica of this.#quiescence.active) replica.sampleLag();
      this.#quiescence.release();
    }
    const keepsUp = Math.max(stalledMs, this.#lateMs) <= settings.handOverStallMs;
    const allHandOver = !keepsUp || this.#room !== 'ample';
    if ((allHandOver || this.#repairs.statistics.damaged > 0) && this.#untilHandOver <= 0) {
      this.#untilHandOver = MS_BETWEEN_HAND_OVERS;
      for (const replica of this.#replicas.values()) if (allHandOver || this.damageOf(replica.group) !== undefined) replica.handOver();
    }
  }

  #detach(replica: RaftReplica): void {
    this.#replicas.delete(replica.group);
    this.#quiescence.remove(replica);
    this.#repairs.forget(replica.group, false);
    replica.close();
  }

  async #within(what: string, group: GroupKey | undefined, work: Promise<unknown>): Promise<void> {
    const { environment, log } = this.#options;
    const result = await within(environment, this.settings.stopTimeoutMs, work);
    if (result === 'timeout') log.warn('gave up waiting', { what, ...(group === undefined ? {} : { group: formatGroupKey(group) }) });
  }
}

function isOnlyVoter({ replicaId, configuration: { voters, outgoing } }: RaftReplica): boolean {
  return outgoing.length === 0 && voters.length === 1 && voters[0]?.replicaId === replicaId;
}

async function flushAndClose(log: PartitionLog): Promise<void> {
  await log.flush();
  await log.close();
}

function notWhole(group: GroupKey): FlotillaError {
  return new FlotillaError(
    'STORAGE_ERROR',
    `the write-ahead log can't prove that ${formatGroupKey(group)} is whole on this broker, so this replica neither votes nor serves: replace it.`,
  );
}

/**
 * One replica of a raftGroup: its core, its log and its owner, which the turn loop (turn-loop.ts) drives.
 *
 * A turn is in two halves. `take` empties the core's Ready, whose messages and writes leave together with those of all other
 * groups; `deliver` then tells the owner what happened, in the order of the log: leadership, truncation, appended entries, committed
 * entries, confirmed reads. So nothing that an owner does can hold up a message or a flush.
 */

import { must } from '../base/assert.ts';
import type { Clock } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import { type BrokerId, formatGroupKey, type GroupKey, type ReplicaId } from '../base/ids.ts';
import type { PartitionLog } from '../storage/types.ts';
import { membersOf } from './core/configuration.ts';
import type { Entry } from './core/entry.ts';
import type { Members } from './core/membership.ts';
import type { FollowerProgress } from './core/progress.ts';
import { Quorum } from './core/quorum.ts';
import type { RaftCore } from './core/raft.ts';
import type { Configuration, Member, Message, Proposal, Ready } from './core/types.ts';
import { type Deadlines, deadline } from './deadline.ts';
import { describeReplica } from './describe.ts';
import type { RaftHostSettings } from './settings.ts';
import type { Leadership, Replica, ReplicaDescription, ReplicaOptions, ReplicaOwner } from './types.ts';

/** What a replica needs of the host that runs it. */
export interface ReplicaHost {
  readonly settings: RaftHostSettings;
  readonly deadlines: Deadlines & Pick<Clock, 'monotonicMs'>;
  /** Gives the replica a turn. */
  schedule(replica: RaftReplica): void;
  /** Does it; anything thrown ends the process. For what nobody waits for, whose errors would get lost. */
  guard(inputs: () => void): void;
  isAlive(broker: BrokerId): boolean;
  /** The broker's disk keeps up; also of this broker's own. */
  isDiskFresh(broker: BrokerId): boolean;
  /** Its disk and its event loop keep up, and it has room for records. */
  mayLead(broker: BrokerId): boolean;
  /** Of this broker or of any other. */
  readonly someDiskStalls: boolean;
  /** A flush here has been waiting for an election timeout: what takes the disk, as a vote does, is not to be begun. */
  readonly diskStalls: boolean;
  /** The replica has returned: all that it can have acknowledged is here again. */
  probationOver(replica: RaftReplica): void;
  /** The replica takes no part any more, and why. */
  quarantined(replica: RaftReplica, reason: string): void;
  /** What rotted in a group's segments here; undefined: nothing, as far as is known. */
  damageOf(group: GroupKey): string | undefined;
  /** The disk is so far behind that nothing more may be proposed. */
  diskIsBehind(): boolean;
}

/** Broker ids learned from messages of members that are not in this replica's configuration yet. */
const MAX_LEARNED_BROKERS = 64;

/** With damage in its segments a replica lets the others campaign first: its time goes so many times slower. */
const STAND_BACK = 4;

/** What most groups never have: shared, or made when it is needed, since there are thousands of them. */
const NOBODY: ReadonlySet<ReplicaId> = new Set();
const NOTHING = Promise.resolve();

interface PendingRead {
  readonly resolve: (index: number) => void;
  readonly reject: (error: FlotillaError) => void;
}

interface PendingTransfer extends PendingRead {
  readonly to: ReplicaId;
}

export class RaftReplica implements Replica {
  readonly group: GroupKey;
  readonly replicaId: ReplicaId;
  /** See {@link ReplicaOptions.internal}. */
  readonly internal: boolean;
  readonly options: ReplicaOptions;
  /** This one and the core until a snapshot takes their place. */
  log: PartitionLog;
  core: RaftCore;
  /** A snapshot is being put in the log's place: messages are dropped, as by a network, and time stands still. */
  paused = false;
  /** Settles, and never rejects, when no snapshot is being installed. */
  installing: Promise<unknown> = NOTHING;
  /** Managed by the turn loop. */
  scheduled = false;
  closed = false;
  /** Followers that a catch-up read is queued or in flight for; managed by catch-up.ts. */
  reading: ReadonlySet<ReplicaId> = NOBODY;

  readonly #host: ReplicaHost;
  readonly #owner: ReplicaOwner;
  #leadership: Leadership;
  /** The leader as announced; its broker may be unknown, so `leadership` does not say it. */
  #announcedLeader: ReplicaId | 0 = 0;
  /** The owner has been told of the entries up to here. */
  #appendedIndex: number;
  #progressed = false;
  #learnedBrokers: Map<ReplicaId, BrokerId> | undefined;
  #configuration: Configuration | undefined;
  #configuredAtMs = 0;
  /** ReadIndex rounds in flight, by context; callers of one turn share one. */
  #reads: Map<number, PendingRead[]> | undefined;
  #nextReadContext = 1;
  #openRead: PendingRead[] | undefined;
  #transfers: Set<PendingTransfer> | undefined;
  #quarantined: string | undefined;
  #ticksStoodBack = 0;
  #onProbation: boolean;
  #heldVote: Message | undefined;
  /** The voter that was last asked to take over because the disk here stalls. */
  #successor: ReplicaId | 0 = 0;
  /** Commit indexes of one and two lag intervals ago: what an in-sync voter holds. */
  #commitBefore = 0;
  #commitNow = 0;

  constructor(options: ReplicaOptions, core: RaftCore, log: PartitionLog, host: ReplicaHost) {
    this.options = options;
    this.group = options.group;
    this.replicaId = options.replicaId;
    this.internal = options.internal ?? false;
    this.log = log;
    this.core = core;
    this.#host = host;
    this.#appendedIndex = log.lastIndex;
    this.#onProbation = core.probation > 0;
    this.#leadership = { role: 'follower', term: core.term, leader: undefined, ready: false };
    this.#configured();
    this.#owner = options.owner(this);
  }

  get leadership(): Leadership {
    return this.#leadership;
  }

  get configuration(): Configuration {
    return this.core.configuration;
  }

  get configurationIndex(): number {
    return this.core.configurationIndex;
  }

  get lastIndex(): number {
    return this.core.lastIndex;
  }

  get nextOffset(): number {
    return this.core.lastNextOffset;
  }

  get commitIndex(): number {
    return this.core.commitIndex;
  }

  get durableIndex(): number {
    return this.core.durableIndex;
  }

  get quarantined(): string | undefined {
    return this.#quarantined;
  }

  /** What rotted in its segments; undefined: nothing, as far as is known. */
  get damage(): string | undefined {
    return this.#host.damageOf(this.group);
  }

  get quiesced(): boolean {
    return this.core.quiesced;
  }

  /** The broker of the leader, as far as both are known. */
  get leaderBroker(): BrokerId | undefined {
    return this.core.leader === 0 ? undefined : this.brokerOf(this.core.leader);
  }

  /** True when a voter or learner of the group is on the broker. */
  isMember(broker: BrokerId): boolean {
    return membersOf(this.core.configuration).some(({ brokerId }) => brokerId === broker);
  }

  durableOn(count: number): number {
    return this.core.durableOn(count);
  }

  inSync(): readonly BrokerId[] {
    if (this.core.role !== 'leader') return [];
    const brokers: BrokerId[] = [];
    const matchOf = ({ matchIndex, damaged, probation }: FollowerProgress) => (damaged || probation > 0 ? -1 : matchIndex);
    const matches = new Map(this.core.progress().map((progress) => [progress.replicaId, matchOf(progress)]));
    for (const { replicaId, brokerId } of this.core.configuration.voters) {
      const match = matches.get(replicaId) ?? 0;
      if (replicaId === this.replicaId || (match >= this.#commitBefore && this.#host.isAlive(brokerId))) brokers.push(brokerId);
    }
    return brokers;
  }

  propose(proposal: Proposal): { readonly index: number; readonly term: number; readonly nextOffset: number } {
    this.#mustLead();
    if (this.#host.diskIsBehind()) {
      throw new FlotillaError('THROTTLING_QUOTA_EXCEEDED', 'the disk is slower than what is produced. Send again later.');
    }
    const { firstIndex, term } = this.core.propose([proposal]);
    this.#host.schedule(this);
    this.#tellAppended(must(this.core.entriesBetween(this.#appendedIndex + 1, this.core.lastIndex), 'what was just proposed is in memory'));
    return { index: firstIndex, term, nextOffset: this.core.lastNextOffset };
  }

  async readIndex(signal: AbortSignal): Promise<number> {
    this.#mustLead();
    return await deadline<number>(this.#host.deadlines, {
      signal,
      timeoutMs: this.#host.settings.readTimeoutMs,
      timeout: `no majority of ${formatGroupKey(this.group)} confirmed its leader in time. Try again; if it persists, check that its brokers reach each other.`,
      start: (resolve, reject) => this.#joinRead({ resolve, reject }),
    });
  }

  async transferLeadership(to: ReplicaId, signal: AbortSignal): Promise<void> {
    this.#mustLead();
    const broker = this.brokerOf(to);
    if (broker !== undefined && !this.#host.isAlive(broker)) throw this.#wentDown(broker);
    if (!this.core.transferLeadership(to)) {
      throw new FlotillaError('INVALID_REQUEST', `replica ${to} is no other voter of ${formatGroupKey(this.group)}: name one that is.`);
    }
    this.#host.schedule(this);
    await deadline<number>(this.#host.deadlines, {
      signal,
      timeoutMs: this.#host.settings.transferTimeoutMs,
      timeout: `replica ${to} did not take over ${formatGroupKey(this.group)} in time: it may lag, or its broker may be out of reach.`,
      start: (resolve, reject) => {
        const transfer = { to, resolve, reject };
        this.#transfers ??= new Set();
        this.#transfers.add(transfer);
        return () => this.#transfers?.delete(transfer);
      },
    });
  }

  changeMembers(target: Members): number {
    this.#mustLead();
    const index = this.core.proposeMembers(target);
    this.#host.schedule(this);
    return index;
  }

  campaign(): void {
    if (this.paused) return;
    this.core.campaign();
    this.#host.schedule(this);
  }

  describe(): ReplicaDescription {
    this.#configured();
    return describeReplica(this, this.#host.deadlines.monotonicMs() - this.#configuredAtMs);
  }

  /** A message from a peer. One that names another replica, or a member on another broker, is dropped (hazard B14). */
  receive(from: BrokerId, message: Message): void {
    if (message.to !== this.replicaId || this.paused) return;
    // A vote takes the disk: while that stalls, none is promised, and no campaign begun that would only raise the term.
    if (this.#host.diskStalls && (message.type === 'timeoutNow' || (message.type === 'vote' && message.pre))) return;
    const known = this.#memberBroker(message.from);
    if (known !== undefined && known !== from) return;
    if (known === undefined) this.#learnBroker(message.from, from);
    if (message.type === 'appendResponse') this.#progressed = true;
    this.#holdVote(message);
    this.core.step(message);
    this.#host.schedule(this);
  }

  /** A write of this replica is durable. */
  persisted(token: number): void {
    this.#progressed = true;
    this.core.persisted(token);
    this.#host.schedule(this);
  }

  /** The group rests no more. */
  wake(): void {
    this.core.wake();
    this.#host.schedule(this);
  }

  /**
   * The broker is down: if it leads this group, there is no leader any more, and an election begins in so many ticks; what it was to take over, it won't.
   * A leader at rest wakes when a majority may be gone with it, to watch its quorum; otherwise it rests on without the member.
   */
  peerDown(broker: BrokerId, ticks: number): void {
    for (const transfer of this.#transfers ?? []) {
      if (this.brokerOf(transfer.to) !== broker) continue;
      this.#transfers?.delete(transfer);
      transfer.reject(this.#wentDown(broker));
    }
    if (this.core.leader !== this.replicaId && this.leaderBroker === broker) this.#orphaned(ticks);
    else if (this.core.quiesced && this.core.role === 'leader' && this.isMember(broker) && !this.#isMajorityAlive) this.core.wake();
    else return;
    this.#host.schedule(this);
  }

  #orphaned(ticks: number): void {
    const held = this.#heldVote;
    this.#heldVote = undefined;
    this.core.leaderUnreachable(ticks);
    if (held !== undefined) this.core.step(held);
  }

  /**
   * A pre-vote that is refused for the leader's sake is kept until that is heard again: another broker may have noticed its death a moment earlier, and
   * would otherwise try again after an election timeout only.
   */
  #holdVote(message: Message): void {
    const { leader, role } = this.core;
    if (message.type === 'vote' && message.pre && role === 'follower' && leader !== 0) this.#heldVote = message;
    else if (message.from === leader) this.#heldVote = undefined;
  }

  /** The broker can be reached (again): where no leader is known, there may be a majority for one now. */
  peerUp(broker: BrokerId): void {
    if (this.core.leader !== 0 || !this.core.configuration.voters.some(({ brokerId }) => brokerId === broker)) return;
    this.core.peerReachable();
  }

  /** Entries above the segments that the write-ahead log gave back at open: appended, as far as the owner is concerned. */
  recovered(tail: readonly Entry[]): void {
    this.#tellAppended(tail);
  }

  /**
   * Leader with a stalled or a full disk, or whose loop is late: lets a voter take over that keeps up, another one than the last time if there is one (hazard B38).
   * An election takes a majority of the disks: without that, things only get worse.
   */
  handOver(): void {
    if (this.core.role !== 'leader' || !this.#reaches(({ brokerId }) => this.#host.isDiskFresh(brokerId))) return;
    const others = this.core.configuration.voters.filter(({ replicaId }) => replicaId !== this.replicaId);
    const fresh = others.filter(({ brokerId }) => this.#host.mayLead(brokerId)).map(({ replicaId }) => replicaId);
    const tried = fresh.indexOf(this.#successor as ReplicaId);
    const successor = fresh[(tried + 1) % fresh.length];
    if (successor === undefined || !this.core.transferLeadership(successor)) return;
    this.#successor = successor;
    this.#host.schedule(this);
  }

  /** Entries that the core asked for, for a follower that lags; none if they could not be read. */
  supply(to: ReplicaId, entries: readonly Entry[]): void {
    if (this.closed) return;
    this.#host.guard(() => this.core.supplyEntries(to, entries));
    this.#host.schedule(this);
  }

  /** Time stands still for what this replica does not lead while the disk stalls: its campaign would not get far. */
  tick(): void {
    if (this.paused) return;
    const leads = this.core.role === 'leader';
    if (!leads && this.damage !== undefined && ++this.#ticksStoodBack % STAND_BACK !== 0) return;
    if (leads || !this.#host.diskStalls) this.core.tick(leads && this.#host.someDiskStalls && this.#disksStall());
    this.release();
    if (this.core.hasReady()) this.#host.schedule(this);
  }

  /** Lets what segments hold leave memory. False: not all of the log is in them yet. */
  release(): boolean {
    const { writtenIndex, firstReplicableIndex } = this.log;
    this.core.release(writtenIndex, firstReplicableIndex);
    return writtenIndex >= this.core.lastIndex;
  }

  /** What became of the snapshot that a follower needed; undefined: it did not get it. */
  snapshotDone(to: ReplicaId, index: number | undefined): void {
    if (this.closed) return;
    this.#host.guard(() => this.core.snapshotDone(to, index));
    this.#host.schedule(this);
  }

  /** True: the log has the last entry of a snapshot that is offered, and needs none. */
  hasCommitted(index: number, term: number): boolean {
    if (!this.core.hasCommitted(index, term)) return false;
    this.#host.schedule(this);
    return true;
  }

  /** Whether a snapshot that ends in this term may take the log's place now. A leader, or who is about to be one, has no need; the vote covers the log. */
  mayInstall(lastTerm: number): boolean {
    const { role, term } = this.core;
    return !this.closed && this.#quarantined === undefined && role !== 'leader' && role !== 'candidate' && term >= lastTerm;
  }

  /** A snapshot took the log's place, and the core goes on from there. */
  async replace(core: RaftCore, log: PartitionLog): Promise<void> {
    this.core = core;
    this.log = log;
    this.#appendedIndex = log.lastIndex;
    this.#rejectWaiting(this.#notLeader());
    if (!this.closed) await this.#owner.restored();
  }

  /** A lag interval has passed; see {@link inSync}. */
  sampleLag(): void {
    this.#commitBefore = this.#commitNow;
    this.#commitNow = this.core.commitIndex;
  }

  /** Where messages to a replica go. Undefined: not known, so the message is dropped. */
  brokerOf(replicaId: ReplicaId): BrokerId | undefined {
    return this.#memberBroker(replicaId) ?? this.#learnedBrokers?.get(replicaId);
  }

  /** The second half of a turn. */
  deliver(ready: Ready | undefined): void {
    this.#openRead = undefined;
    this.#tellLeadership();
    this.#watchDamage();
    this.#watchProbation();
    const persist = ready?.persist;
    if (persist?.truncateTo !== undefined && persist.truncateTo < this.#appendedIndex) {
      const first = persist.entries[0];
      this.#appendedIndex = persist.truncateTo;
      this.#owner.truncated(persist.truncateTo, first === undefined ? this.core.lastNextOffset : first.nextOffset - first.recordCount);
    }
    if (persist !== undefined) this.#tellAppended(persist.entries);
    if (ready !== undefined) this.#commit(ready);
    this.#tellReady();
    for (const { context, index } of ready?.readStates ?? []) this.#confirmRead(context, index);
    if (this.#progressed) {
      this.#progressed = false;
      if (this.core.role === 'leader') this.#owner.progressed();
    }
  }

  /** Ends what waits on this replica; it takes part no more. */
  close(): void {
    this.closed = true;
    this.#rejectWaiting(
      new FlotillaError('NOT_LEADER_OR_FOLLOWER', `${formatGroupKey(this.group)} was closed on this broker: ask for its present leader.`),
    );
  }

  #watchProbation(): void {
    if (!this.#onProbation || this.core.probation > 0) return;
    this.#onProbation = false;
    this.#host.probationOver(this);
  }

  #watchDamage(): void {
    const { damage } = this.core;
    if (damage === undefined || this.#quarantined !== undefined) return;
    const isShort = damage.index > this.core.lastIndex;
    this.#quarantined = isShort
      ? `it acknowledged entry ${damage.index}, and has entries up to ${this.core.lastIndex}: the end of its write-ahead log was lost`
      : `its log differs from that of a majority of the voters, at index ${damage.index} or before`;
    this.#host.quarantined(this, this.#quarantined);
  }

  /** A majority of the voters is in reach, but not one whose disks keep up. */
  #disksStall(): boolean {
    return this.#isMajorityAlive && !this.#reaches(({ brokerId }) => this.#host.isDiskFresh(brokerId));
  }

  get #isMajorityAlive(): boolean {
    return this.#reaches(({ brokerId }) => this.#host.isAlive(brokerId));
  }

  /** A majority of the voters is such. */
  #reaches(is: (voter: Member) => boolean): boolean {
    const { configuration } = this.core;
    const such = new Set([...configuration.voters, ...configuration.outgoing].filter(is).map(({ replicaId }) => replicaId));
    return new Quorum(configuration).reached((id) => (such.has(id) ? 1 : 0)) === 1;
  }

  #commit(ready: Ready): void {
    if (ready.committed.length === 0) return;
    this.log.append(ready.committed);
    this.#owner.apply(ready.committed);
    this.release();
  }

  #tellAppended(entries: readonly Entry[]): void {
    const last = entries.at(-1);
    if (last === undefined || last.index <= this.#appendedIndex) return;
    const first = entries[0];
    const fresh =
      first !== undefined && first.index > this.#appendedIndex ? entries : entries.filter((entry) => entry.index > this.#appendedIndex);
    this.#appendedIndex = last.index;
    this.#owner.appended(fresh);
  }

  /** Role, term or leader, whichever changed. A leader is announced as not ready; {@link #tellReady} follows once its no-op has committed. */
  #tellLeadership(): void {
    const { role, term, leader: leaderId } = this.core;
    const before = this.#leadership;
    if (role === before.role && term === before.term && leaderId === this.#announcedLeader) return;
    this.#announcedLeader = leaderId;
    const brokerId = leaderId === 0 ? undefined : this.brokerOf(leaderId);
    const leader = leaderId === 0 || brokerId === undefined ? undefined : { replicaId: leaderId, brokerId };
    const ready = before.ready && role === 'leader' && term === before.term;
    this.#leadership = { role, term, leader, ready };
    const deposed = before.role === 'leader' && (role !== 'leader' || term !== before.term);
    if (deposed) this.#deposed();
    this.#owner.leadershipChanged(this.#leadership);
  }

  #tellReady(): void {
    if (this.#leadership.role !== 'leader' || this.#leadership.ready || !this.core.isReady) return;
    this.#leadership = { ...this.#leadership, ready: true };
    this.#owner.leadershipChanged(this.#leadership);
  }

  #wentDown(broker: BrokerId): FlotillaError {
    return new FlotillaError('BROKER_NOT_AVAILABLE', `broker ${broker} is down and can't take over ${formatGroupKey(this.group)}.`);
  }

  #deposed(): void {
    for (const transfer of this.#transfers ?? []) transfer.resolve(0);
    this.#transfers = undefined;
    this.#rejectWaiting(this.#notLeader());
  }

  #rejectWaiting(error: FlotillaError): void {
    const waiting = [...[...(this.#reads?.values() ?? [])].flat(), ...(this.#transfers ?? [])];
    this.#reads = undefined;
    this.#transfers = undefined;
    this.#openRead = undefined;
    for (const { reject } of waiting) reject(error);
  }

  /** Adds a reader to the round that this turn starts; the result removes it again. */
  #joinRead(read: PendingRead): () => void {
    if (this.#openRead === undefined) {
      const context = this.#nextReadContext++;
      this.core.readIndex(context);
      this.#openRead = [];
      this.#reads ??= new Map();
      this.#reads.set(context, this.#openRead);
      this.#host.schedule(this);
    }
    const round = this.#openRead;
    round.push(read);
    return () => {
      round.splice(round.indexOf(read), 1);
    };
  }

  #confirmRead(context: number, index: number): void {
    const round = this.#reads?.get(context);
    if (round === undefined) return;
    this.#reads?.delete(context);
    for (const { resolve } of [...round]) resolve(index);
  }

  /**
   * The owner must have been told of everything before this leadership, or its next proposal would build on a state that it
   * does not know; hence the announced term, not only the core's role.
   */
  #mustLead(): void {
    if (this.closed || this.core.role !== 'leader' || this.#leadership.role !== 'leader' || this.#leadership.term !== this.core.term) {
      throw this.#notLeader();
    }
  }

  #notLeader(): FlotillaError {
    const leader = this.#leadership.leader;
    const where = leader === undefined ? 'its leader is not known yet' : `broker ${leader.brokerId} leads it`;
    return new FlotillaError('NOT_LEADER_OR_FOLLOWER', `this broker does not lead ${formatGroupKey(this.group)}; ${where}.`);
  }

  #configured(): Configuration {
    const { configuration } = this.core;
    if (this.#configuration !== configuration) {
      this.#configuration = configuration;
      this.#configuredAtMs = this.#host.deadlines.monotonicMs();
    }
    return configuration;
  }

  /** As the configuration says: looked for rather than kept, a map in each of thousands of groups is more than the group's core. */
  #memberBroker(replicaId: ReplicaId): BrokerId | undefined {
    const { voters, outgoing, learners } = this.#configured();
    return brokerAmong(voters, replicaId) ?? brokerAmong(outgoing, replicaId) ?? brokerAmong(learners, replicaId);
  }

  #learnBroker(replicaId: ReplicaId, broker: BrokerId): void {
    this.#learnedBrokers ??= new Map();
    if (this.#learnedBrokers.size < MAX_LEARNED_BROKERS) this.#learnedBrokers.set(replicaId, broker);
  }
}

function brokerAmong(members: readonly Member[], id: ReplicaId): BrokerId | undefined {
  for (const { replicaId, brokerId } of members) if (replicaId === id) return brokerId;
  return undefined;
}

import { assert, unreachable } from '../../base/assert.ts';
import { FlotillaError } from '../../base/errors.ts';
import type { ReplicaId } from '../../base/ids.ts';
import { proposalOf } from './configuration.ts';
import { answerTo, Campaign, ElectionTimer, refusal, voteRequests } from './election.ts';
import type { Entry } from './entry.ts';
import { entryOf } from './entry-codec.ts';
import { Follower } from './follower.ts';
import { Leader, NOOP } from './leader.ts';
import { RaftLog } from './log.ts';
import { enter, isJoint, leave, type Members } from './membership.ts';
import { Outbox } from './outbox.ts';
import { PersistQueue } from './persistence.ts';
import type { FollowerProgress } from './progress.ts';
import { Pull } from './pull.ts';
import { Quorum } from './quorum.ts';
import { Standing } from './standing.ts';
import type {
  Configuration,
  HeartbeatRequest,
  LogCheck,
  Message,
  Proposal,
  PullResponse,
  RaftOptions,
  Ready,
  Role,
  VoteRequest,
  VoteResponse,
} from './types.ts';

/**
 * One replica of one Raft group, as a pure state machine (Ongaro's paper and thesis; etcd's shape): ticks, messages, proposals and completions of
 * persistence go in, {@link Ready} comes out. It never blocks, reads no clock, and given the same inputs does the same. What the host owes it is on
 * {@link Ready}; README.md is the manual.
 *
 * Nothing that a peer sends makes {@link step} throw, except what only a broken replica could send and going on would lose data
 * (two leaders in a term, a truncation below commit): that is an InvariantError.
 */
export class RaftCore {
  readonly #options: RaftOptions;
  readonly #id: ReplicaId;
  readonly #log: RaftLog;
  readonly #outbox = new Outbox();
  readonly #persistence: PersistQueue;
  readonly #follower: Follower;
  readonly #timer: ElectionTimer;
  /** The configuration that the quorum and the leader go by. */
  #configuration: Configuration;
  #quorum: Quorum;
  #term: number;
  #vote: ReplicaId | 0;
  #role: Role = 'follower';
  #leaderId: ReplicaId | 0 = 0;
  /** What this replica leads with; present exactly when it is the leader. */
  #leader: Leader | undefined;
  #campaign = new Campaign();
  #quiesced = false;
  readonly #pull: Pull;
  readonly #standing: Standing;

  constructor(options: RaftOptions) {
    const { hardState, log, electionTicks, heartbeatTicks } = options;
    assert(electionTicks > heartbeatTicks && heartbeatTicks > 0, 'elections take longer than heartbeats', electionTicks);
    this.#options = options;
    this.#id = options.id;
    this.#log = new RaftLog(log, hardState.commit, { index: options.configurationIndex, configuration: options.configuration });
    this.#timer = new ElectionTimer(options);
    this.#pull = new Pull(options, this.#log, this.#outbox);
    this.#configuration = this.#log.configuration;
    this.#quorum = new Quorum(this.#configuration);
    this.#term = hardState.term;
    this.#vote = hardState.vote;
    assert(this.#term >= this.#log.lastTerm, 'the durable term covers the log', { term: this.#term, lastTerm: this.#log.lastTerm });
    this.#persistence = new PersistQueue(hardState);
    this.#follower = new Follower(options.id, this.#log, this.#persistence, this.#outbox, options.probation ?? 0);
    this.#standing = new Standing(this);
  }

  get id(): ReplicaId {
    return this.#id;
  }
  get role(): Role {
    return this.#role;
  }
  get term(): number {
    return this.#term;
  }
  /** In this term; 0: nobody yet. */
  get vote(): ReplicaId | 0 {
    return this.#vote;
  }
  /** 0: not known. */
  get leader(): ReplicaId | 0 {
    return this.#leaderId;
  }
  get commitIndex(): number {
    return this.#log.commitIndex;
  }
  get lastIndex(): number {
    return this.#log.lastIndex;
  }
  get lastTerm(): number {
    return this.#log.lastTerm;
  }
  /** The offset after the last entry: what the next proposal's first record gets. */
  get lastNextOffset(): number {
    return this.#log.last.nextOffset;
  }
  /** The log up to here is synced on this replica. */
  get durableIndex(): number {
    return this.#log.durableIndex;
  }
  /** The last configuration in the log: in force since it was appended. */
  get configuration(): Configuration {
    return this.#log.configuration;
  }
  get configurationIndex(): number {
    return this.#log.configurationIndex;
  }
  /** Leader, and its own term's no-op has committed (hazard B21). */
  get isReady(): boolean {
    return this.#leader?.isReady ?? false;
  }
  /** The group rests, and needs no ticks until an input wakes it. See {@link leaderUnreachable} and {@link wake} for what the host owes it (hazard B39). */
  get quiesced(): boolean {
    return this.#quiesced;
  }
  /** The first index at which a leader sent an entry whose chain does not continue this log (hazard B29): one of the two is damaged. 0: none. */
  get divergedIndex(): number {
    return this.#follower.divergedIndex;
  }
  /** What a majority of the voters has where this log is something else (hazard B29): this replica takes no part any more. Undefined: nothing. */
  get damage(): LogCheck | undefined {
    return this.#follower.damage;
  }

  /** See RaftOptions.probation. 0: it never was, or is over: said once (term, vote for that leader) are to be persisted. */
  get probation(): number {
    return this.#follower.probation;
  }

  /**
   * A unit of the group's time: elections, heartbeats and the watch over the quorum are counted in it. `disksStall`: a majority of the voters is in
   * reach, but not with disks that keep up, so nobody else could do what this leader can't: it goes on leading.
   */
  tick(disksStall = false): void {
    if (this.#quiesced || this.damage !== undefined || this.probation > 0) return;
    if (this.#leader !== undefined) {
      const verdict = this.#leader.tick(disksStall);
      if (verdict === 'stepDown') this.#becomeFollower(this.#term, 0);
      else this.#quiesced = verdict === 'rest';
      return;
    }
    if (this.#timer.tick()) this.#timeOut();
  }

  /** Ends the rest of a group. A follower tells its leader, which does not know and would leave it without heartbeats, unless that woke it. */
  wake(by: ReplicaId | 0 = 0): void {
    if (!this.#quiesced) return;
    this.#quiesced = false;
    this.#leader?.wake();
    if (this.#leader !== undefined) return;
    this.#timer.reset();
    if (this.#leaderId !== by) this.#follower.answerHeartbeat(this.#leaderId as ReplicaId, this.#term, 0, true);
  }

  /** Takes a message from a peer. What is stale, or not for this replica, is ignored. */
  step(message: Message): void {
    if (message.to !== this.#id || message.from === this.#id || this.damage !== undefined) return;
    if (this.probation > 0 && message.type !== 'append' && message.type !== 'heartbeat') return;
    if (this.#quiesced) {
      if (message.term === this.#term && this.#follower.leavesAtRest(message)) return;
      this.wake(message.from);
    }
    if (this.#isDisruptive(message)) return;
    if (message.term > this.#term) this.#meetHigherTerm(message);
    else if (message.term < this.#term && message.type !== 'pull') {
      this.#meetLowerTerm(message);
      return;
    }
    switch (message.type) {
      case 'append':
        this.#follow(message.from);
        this.#follower.handleAppend(message);
        this.#followConfiguration();
        break;
      case 'heartbeat':
        this.#handleHeartbeat(message);
        break;
      case 'vote':
        this.#handleVote(message);
        break;
      case 'voteResponse':
        this.#handleVoteResponse(message);
        break;
      case 'pull':
        this.#pull.serve(message, this.#term);
        break;
      case 'pullResponse':
        this.#handlePullResponse(message);
        break;
      case 'appendResponse':
        this.#leader?.handleAppendResponse(message);
        if (this.#leader?.wantsMark) this.#appendOwn(this.#leader, NOOP);
        this.#membersCommitted();
        break;
      case 'heartbeatResponse':
        this.#leader?.handleHeartbeatResponse(message);
        this.#standAside(this.#leader?.damage);
        break;
      case 'timeoutNow':
        if (this.#role !== 'leader' && this.#role !== 'candidate' && this.#log.mayLead(this.#id)) this.#campaignForReal(true);
        break;
      default:
        unreachable(message);
    }
  }

  /**
   * Appends to the leader's log. They commit, unless another leader cuts them off; until then they may do either.
   * Throws NOT_LEADER_OR_FOLLOWER (also while leadership is being transferred), THROTTLING_QUOTA_EXCEEDED when more than `maxUncommittedBytes`
   * would be uncommitted.
   */
  propose(proposals: readonly Proposal[]): { readonly firstIndex: number; readonly term: number } {
    const leader = this.#requireStableLeader();
    leader.admit(proposals);
    const firstIndex = this.lastIndex + 1;
    for (const proposal of proposals) this.#appendOwn(leader, proposal);
    return { firstIndex, term: this.#term };
  }

  /**
   * Begins a change of the group's members. If voters change, the group is in a joint configuration until that has committed, and then leaves it by
   * itself; {@link configuration} tells. A leader that is no voter any more steps down once that has committed. Returns the index of the entry.
   * Throws NOT_LEADER_OR_FOLLOWER, REASSIGNMENT_IN_PROGRESS while another change is under way or this leader is new, INELIGIBLE_REPLICA for a new voter
   * that is no learner or has not caught up, INVALID_REQUEST.
   */
  proposeMembers(target: Members): number {
    const leader = this.#requireStableLeader();
    if (!this.isReady || this.#memberChangePending) {
      throw new FlotillaError(
        'REASSIGNMENT_IN_PROGRESS',
        'another change of members is under way, or this leader is new; retry when it has committed',
      );
    }
    const entered = enter(this.configuration, target, (id) => leader.hasCaughtUp(id));
    this.#appendOwn(leader, proposalOf(entered));
    return this.lastIndex;
  }

  /**
   * Asks to confirm leadership for a linearizable read; the answer comes as a ReadState with the same context. A leader that steps down drops what
   * waits: the host sees the role change and fails those reads. Throws NOT_LEADER_OR_FOLLOWER, THROTTLING_QUOTA_EXCEEDED.
   */
  readIndex(context: number): void {
    const leader = this.#requireLeader();
    this.wake();
    leader.read(context);
  }

  /** Lets `to` campaign once its log is complete. False: this is no leader, or `to` no other voter. Given up after an election timeout. */
  transferLeadership(to: ReplicaId): boolean {
    this.wake();
    return this.#leader?.transferTo(to) ?? false;
  }

  /** Campaigns through PreVote (thesis 9.6), if it may lead and does not. */
  campaign(): void {
    this.wake();
    this.#timer.reset();
    if (this.#leader !== undefined || this.damage !== undefined || this.probation > 0 || !this.#log.mayLead(this.#id)) return;
    this.#role = 'preCandidate';
    this.#leaderId = 0;
    this.#campaign = new Campaign();
    this.#pull.end();
    this.#campaign.answered(this.#id, true);
    this.#requestVotes(true, false);
    this.#countVotes();
  }

  /**
   * The leader's broker is known to be gone: its lease ends, and this replica pre-campaigns after so many ticks, after those that stand before it in the
   * configuration (so that the survivors don't split the vote).
   */
  leaderUnreachable(ticks = 0): void {
    if (this.#role !== 'follower' || this.#leaderId === 0) return;
    this.wake(this.#leaderId);
    const survivors = this.#quorum.voters.filter((voter) => voter !== this.#leaderId);
    this.#leaderId = 0;
    this.#timer.expireInTurn(survivors, Math.ceil(this.#options.electionTicks / 2), ticks);
  }

  /**
   * A peer has come within reach. While no leader is known, this replica pre-campaigns soon, again in the order of the configuration, instead of
   * waiting for a timeout: a group that starts has its leader at once. One that runs keeps its leader, as the others' leases refuse the pre-vote.
   */
  peerReachable(): void {
    if (this.#leaderId !== 0 || this.#role === 'candidate') return;
    this.#timer.expireInTurn(this.#quorum.voters, this.#options.heartbeatTicks);
  }

  /** The persist unit with this token, and all before it, are durable. A completion that comes again is ignored. */
  persisted(token: number): void {
    const durable = this.#persistence.complete(token);
    if (durable === undefined) return;
    this.#log.durableTo(durable);
    this.#leader?.persisted();
    this.#membersCommitted();
    if (this.#role === 'candidate' && this.#persistence.durableTerm === this.#term && this.#persistence.durableVote === this.#id) {
      this.#campaign.answered(this.#id, true);
      this.#countVotes();
    }
  }

  /** Entries that `Ready.reads` asked for; empty when they could not be read. */
  supplyEntries(to: ReplicaId, entries: readonly Entry[]): void {
    if (this.#leader !== undefined) this.#leader.supply(to, entries);
    else this.#pull.supply(to, entries, this.#term);
  }

  /** `Ready.snapshots` asked for it: the follower has a snapshot up to `index`; undefined: it could not be brought there, and is asked for again. */
  snapshotDone(to: ReplicaId, index: number | undefined): void {
    this.#leader?.snapshotDone(to, index);
  }

  /** A snapshot up to a committed entry is offered. True: this log has the entry, and now knows that it is committed. */
  hasCommitted(index: number, term: number): boolean {
    const has = this.#log.termAt(index) === term;
    if (has && this.#leader === undefined) this.#follower.commitTo(index);
    return has;
  }

  /** Entries up to `index` can be read from segments, so they may leave memory; whoever needs one below `firstIndex` gets a snapshot. */
  release(index: number, firstIndex: number): void {
    this.#log.startAt(firstIndex);
    // Of a group at rest everybody has everything.
    this.#log.release(index, this.#quiesced ? 0 : this.#options.maxWindowBytes);
  }

  /** Leader: the highest index that is durable on at least `count` voters. */
  durableOn(count: number): number {
    return this.#leader?.durableOn(count) ?? 0;
  }

  /** Leader: its followers, in no particular order. Views of live state, to be read at once. */
  progress(): readonly FollowerProgress[] {
    return this.#leader?.followers ?? [];
  }

  /** Entries from..to, both included; undefined unless all are in memory. */
  entriesBetween(from: number, to: number): Entry[] | undefined {
    return this.#log.between(from, to);
  }

  /** 0 at index 0; undefined past the end or where it is no longer known. */
  termAt(index: number): number | undefined {
    return this.#log.termAt(index);
  }

  hasReady(): boolean {
    return (
      !this.#outbox.isEmpty ||
      this.#log.hasUnhanded ||
      this.#log.hasUnsurfaced ||
      (this.#leader?.hasWork ?? false) ||
      this.#persistence.isNews(this.#term, this.#vote) ||
      this.#standing.isNews(this)
    );
  }

  /** What is to be done since the last call. See {@link Ready} for what the host owes. */
  ready(): Ready {
    this.#leader?.flush();
    const persist = this.#persistence.take(this.#log, this.#term, this.#vote, this.#outbox.afterPersist.length > 0);
    return { persist, ...this.#outbox.take(persist !== undefined), committed: this.#log.surface(), softState: this.#standing.take(this) };
  }

  // Terms and roles

  /** What would raise the terms of a group that has a leader, or is of no use to it. */
  #isDisruptive(message: Message): boolean {
    if (message.type === 'vote') return !message.transfer && message.term > this.#term && this.#hearsLeader();
    return message.type === 'pull' && this.#hearsLeader();
  }

  /** True while a leader's lease holds here: its own, or that of a leader heard within the least election timeout (hazard B16). */
  #hearsLeader(): boolean {
    return this.#leaderId !== 0 && (this.#leader !== undefined || this.#timer.leaseHolds);
  }

  #meetHigherTerm(message: Message): void {
    // A pre-vote's term is one that nobody has yet; a granted one repeats it.
    if (message.type === 'vote' && message.pre) return;
    if (message.type === 'voteResponse' && message.pre && message.granted) return;
    const isLeader = message.type === 'append' || message.type === 'heartbeat';
    this.#becomeFollower(message.term, isLeader ? message.from : 0);
  }

  #meetLowerTerm(message: Message): void {
    if (message.type === 'append' || message.type === 'heartbeat') {
      // A leader of an old term must learn of the new one, or a replica that went ahead in terms would never be heard again.
      this.#follower.reject(message.from, this.#term, 0, 0);
    } else if (message.type === 'vote' && message.pre) {
      this.#outbox.messages.push(refusal(this.#id, message, this.#term));
    }
  }

  #becomeFollower(term: number, leader: ReplicaId | 0): void {
    assert(term >= this.#term, 'terms only grow', { term, own: this.#term });
    if (term > this.#term) {
      this.#term = term;
      this.#vote = 0;
    }
    this.#role = 'follower';
    this.#leaderId = leader;
    this.#leader = undefined;
    this.#timer.reset();
    if (leader !== 0) this.#foundLeader();
  }

  /** What stood in the way of the last campaign is of no more account. */
  #foundLeader(): void {
    this.#campaign = new Campaign();
    this.#pull.end();
  }

  #becomeLeader(): void {
    assert(this.#role === 'candidate', 'only a candidate becomes leader', this.#role);
    this.#role = 'leader';
    this.#leaderId = this.#id;
    this.#leader = new Leader(this.#term, this.#options, this.#log, this.#outbox, this.configuration);
    this.#appendOwn(this.#leader, NOOP);
  }

  #requireStableLeader(): Leader {
    const leader = this.#requireLeader();
    this.wake();
    if (leader.transferee === 0) return leader;
    throw new FlotillaError('NOT_LEADER_OR_FOLLOWER', `leadership is moving to replica ${leader.transferee}; refresh metadata and retry`);
  }

  #requireLeader(): Leader {
    if (this.#leader !== undefined) return this.#leader;
    const hint = this.#leaderId === 0 ? 'no leader is known yet' : `replica ${this.#leaderId} is`;
    throw new FlotillaError('NOT_LEADER_OR_FOLLOWER', `this replica is not the leader (${hint}); refresh metadata and retry`);
  }

  // Elections

  /** No leader for too long. The first time this replica campaigns; if only its log was in the way, the next time it gets a better one. */
  #timeOut(): void {
    const source = this.#campaign.heldUpBy(this.#quorum);
    if (source === undefined) this.campaign();
    else {
      this.#campaign = new Campaign();
      this.#becomeFollower(this.#term, 0);
      this.#pull.begin(source, this.#term);
    }
  }

  #handlePullResponse(message: PullResponse): void {
    if (this.#leaderId !== 0 || this.#role === 'candidate' || !this.#pull.accepts(message)) return;
    const { prevIndex, entries } = message;
    const conflict = this.#follower.conflict(prevIndex, entries);
    if (conflict !== undefined && conflict <= this.commitIndex) return;
    this.#becomeFollower(conflict === undefined ? this.#term : this.#term + 1, 0);
    if (!this.#follower.adopt(prevIndex, entries)) return;
    this.#followConfiguration();
    if (!this.#pull.continue(message, this.#term)) this.campaign();
  }

  /** A real campaign, at the next term: after a pre-vote was won, or at once when the leader asked for it. */
  #campaignForReal(transfer: boolean): void {
    this.#role = 'candidate';
    this.#term++;
    this.#vote = this.#id;
    this.#leaderId = 0;
    // The own vote counts once it is durable: see persisted().
    this.#campaign = new Campaign();
    this.#timer.reset();
    this.#requestVotes(false, transfer);
  }

  #requestVotes(pre: boolean, transfer: boolean): void {
    for (const request of voteRequests(this.#id, this.#quorum.voters, pre ? this.#term + 1 : this.#term, this.#log, { pre, transfer })) {
      if (pre) this.#outbox.messages.push(request);
      else this.#outbox.afterPersisted(request);
    }
  }

  #handleVote(message: VoteRequest): void {
    const { from, pre } = message;
    const free = this.#vote === from || (this.#vote === 0 && this.#leaderId === 0) || (pre && message.term > this.#term);
    const response = answerTo(message, { id: this.#id, term: this.#term, free, log: this.#log, hearsLeader: this.#hearsLeader() });
    const { granted } = response;
    if (pre) {
      if (granted) this.#giveWay(from);
      this.#outbox.messages.push(response);
      return;
    }
    if (granted) {
      assert(this.#vote === 0 || this.#vote === from, 'one vote a term', { vote: this.#vote, from });
      this.#vote = from;
      this.#timer.reset();
      this.#pull.end();
    }
    this.#outbox.afterPersisted(response);
  }

  /** Two pre-candidates that grant each other's pre-vote would both vote for themselves, in one term: the one that stands later in the configuration waits instead. */
  #giveWay(to: ReplicaId): void {
    const { voters } = this.#quorum;
    if (this.#role === 'preCandidate' && voters.indexOf(to) < voters.indexOf(this.#id)) this.#becomeFollower(this.#term, 0);
  }

  #handleVoteResponse(message: VoteResponse): void {
    if (this.#role !== (message.pre ? 'preCandidate' : 'candidate')) return;
    if (message.pre && message.granted && message.term !== this.#term + 1) return;
    const { from, granted, lastIndex, lastTerm } = message;
    if (lastIndex > 0) this.#campaign.isAhead({ by: from, lastIndex, lastTerm });
    else this.#campaign.answered(from, granted);
    this.#countVotes();
  }

  #countVotes(): void {
    const result = this.#campaign.result(this.#quorum);
    if (result === 'lost') this.#becomeFollower(this.#term, 0);
    else if (result === 'won' && this.#role === 'preCandidate') this.#campaignForReal(false);
    else if (result === 'won') this.#becomeLeader();
  }

  // The log and its members

  #appendOwn(leader: Leader, proposal: Proposal): void {
    const entry = entryOf(proposal, this.#term, this.#log.last);
    this.#log.append(entry);
    leader.appended(entry);
    this.#followConfiguration();
  }

  /** Read off the log, never remembered (hazard B13). */
  get #memberChangePending(): boolean {
    return this.configurationIndex > this.commitIndex || isJoint(this.configuration);
  }

  /** What a leader does when a configuration has committed: leaves a joint one, and steps down when it is no voter any more. */
  #membersCommitted(): void {
    const leader = this.#leader;
    if (leader === undefined || !this.isReady || this.configurationIndex > this.commitIndex) return;
    if (isJoint(this.configuration)) this.#appendOwn(leader, proposalOf(leave(this.configuration)));
    else if (!this.#quorum.has(this.#id)) {
      leader.abdicate();
      this.#becomeFollower(this.#term, 0);
    }
  }

  /** The last configuration in the log counts from when it is there, and not when it was taken back. */
  #followConfiguration(): void {
    if (this.#configuration === this.#log.configuration) return;
    this.#configuration = this.#log.configuration;
    this.#quorum = new Quorum(this.#configuration);
    this.#leader?.setConfiguration(this.#configuration);
  }

  // Following

  #follow(leader: ReplicaId): void {
    assert(this.#role !== 'leader', 'two leaders in one term', { term: this.#term, other: leader });
    assert(this.#leaderId === 0 || this.#leaderId === leader, 'two leaders in one term', {
      term: this.#term,
      leader: this.#leaderId,
      other: leader,
    });
    this.#role = 'follower';
    this.#timer.reset();
    if (this.#leaderId === leader) return;
    this.#leaderId = leader;
    this.#foundLeader();
  }

  #handleHeartbeat(message: HeartbeatRequest): void {
    this.#follow(message.from);
    if (message.over > 0 && message.over === this.probation) {
      this.#follower.probation = 0;
      // It may have voted in this term, in the life that it has forgotten: if so, the vote is spent.
      this.#vote = message.from;
    }
    this.#quiesced = this.#follower.handleHeartbeat(message);
    this.#standAside(this.damage);
  }

  #standAside(damage: LogCheck | undefined): void {
    if (damage === undefined) return;
    this.#follower.damage = damage;
    this.#becomeFollower(this.#term, 0);
  }
}

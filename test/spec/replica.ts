/**
 * What one replica may do, in the specification's own words: a relation between its state before an event, the event, and its state after. Where Raft leaves a choice, the event
 * says how it was made, and the specification whether it could be. It keeps of a replica only what anyone could see, and of time nothing: a timeout may come whenever it likes.
 */
import { EntryKind } from '../../src/raft/core/entry.ts';
import type { Role } from '../../src/raft/core/types.ts';
import type { ActionName, Coverage } from './actions.ts';
import { Disk } from './disk.ts';
import type { SpecLog } from './log.ts';
import { LogChange } from './log-change.ts';
import { changeTo, checkLeftJoint, membersOf, votersOf } from './members.ts';
import { checkSent, Promises } from './promises.ts';
import { couldStillWin, holdsMajority, reachedByMajority } from './quorum.ts';
import { must } from './rejected.ts';
import type { Happening, Observed, TraceEvent, TraceMessage } from './trace.ts';

type MessageOf<T extends TraceMessage['type']> = Extract<TraceMessage, { type: T }>;

interface Probation {
  readonly number: number;
  /** An entry that was appended after it was heard of. */
  readonly mark: number;
  match: number;
  told: boolean;
}

const NO_TICKS = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY] as const;

export class SpecReplica {
  readonly id: number;
  readonly coverage: Coverage;
  role: Role = 'follower';
  term = 0;
  vote = 0;
  leader = 0;
  commit = 0;
  rests = false;
  isDamaged = false;
  log: SpecLog;
  readonly disk: Disk;
  promises = new Promises();
  /** Not 0: it can't prove what it voted and acknowledged, in the life of its process that has this number. */
  probation = 0;
  /** A leader's knowledge of members on probation. */
  probations = new Map<number, Probation>();
  /** Answers to the present campaign. */
  #granted = new Set<number>();
  #refused = new Set<number>();
  /** Of the event: a leader says that the group rests where this log ends; logs were compared. */
  #quiesced = false;
  #judged = false;
  /** A voter refused for the log alone. */
  #isBehind = false;
  /** Since the leader was heard. */
  #ticks = 0;
  readonly #electionTicks: number;
  /** The commit index at the last tick, and at the one before. */
  #committedAtTicks: readonly [number, number] = NO_TICKS;
  /** A leader's knowledge of what each member holds. */
  match = new Map<number, number>();
  #change = new LogChange(undefined);

  constructor(id: number, coverage: Coverage, log: SpecLog, electionTicks: number, start: Observed) {
    this.#electionTicks = electionTicks;
    this.id = id;
    this.coverage = coverage;
    this.log = log;
    this.term = start.term;
    this.vote = start.vote;
    this.commit = start.commit;
    this.disk = new Disk(start.term, start.vote, log.last);
  }

  /** Throws Rejected. */
  explain({ what, ticks, log, after }: TraceEvent): void {
    this.#ticks += ticks ?? 0;
    this.#ticked(ticks ?? 0);
    this.#quiesced = false;
    this.#judged = false;
    this.#change = new LogChange(log);
    this.#happened(what, after);
    this.#settle(after);
    this.#change.checkExplained();
    this.#compare(after);
  }

  /** Nothing is committed between an event and the ticks before the next one. */
  #ticked(ticks: number): void {
    if (ticks === 0) return;
    this.#committedAtTicks = [this.commit, ticks === 1 ? this.#committedAtTicks[0] : this.commit];
  }

  /** The process ended and began again, with what its disk had. */
  restart(log: SpecLog, after: Observed, probation: number): void {
    const goesOn = probation > 0 && probation === this.probation;
    if (probation > 0 && !goesOn) this.#beginProbation(after);
    else this.#restarts(log, after);
    this.probation = probation;
    must(after.role === 'follower' && after.leader === 0, 'came back with a role');
    must(after.commit <= Math.max(this.commit, log.last), 'came back with a commit index that it never had');
    this.role = 'follower';
    this.leader = 0;
    this.rests = false;
    this.isDamaged = false;
    this.term = after.term;
    this.vote = after.vote;
    this.commit = after.commit;
    this.log = log;
    this.disk.restart(after.term, after.vote, log.last);
    this.#newCampaign();
  }

  /** What its disk held is lost, or may be: it may come back with anything older. */
  #beginProbation(after: Observed): void {
    this.#take('BeginProbation');
    must(after.term <= this.term, 'came back with a term that it never had');
    this.promises = new Promises();
  }

  #restarts(log: SpecLog, after: Observed): void {
    must(
      this.disk.mayHold(after.term, after.vote),
      `came back with term ${after.term} and vote ${after.vote}, which its disk did not hold`,
    );
    if (this.disk.mayHoldLog(log, this.log)) this.#take('Restart');
    else {
      // A snapshot takes the place of a log that has not its last entry; all of it is committed.
      must(after.commit === log.last && after.term === this.term, `came back without entry ${this.disk.index}, which was durable`);
      must(log.last > this.commit && !this.log.agreesWith(log, log.last), 'a snapshot took the place of a log that had it all');
      this.#take('InstallSnapshot');
    }
  }

  #happened(what: Happening, after: Observed): void {
    switch (what.type) {
      case 'receive':
        this.#receive(what.message, after);
        break;
      case 'send':
        this.#take(checkSent(this, what.message));
        break;
      case 'call':
        this.#called(what.name, after);
        break;
      case 'write':
        this.#take('Write');
        this.disk.hand(what, this);
        break;
      case 'written':
        this.#take(this.disk.written(what.token) ? 'BecomeDurable' : 'BecomeDurableAgain');
        break;
      case 'start':
        must(false, 'a start is no step');
    }
  }

  // Calls

  #called(name: string, after: Observed): void {
    if (name === 'propose') this.#propose();
    else if (name === 'proposeMembers') this.#proposeMembers();
    else if (name === 'tick' || name === 'campaign') this.#timeOut(after, name === 'campaign');
    else if (name === 'leaderUnreachable') this.#forgetLeader(after);
    else if (name === 'hasCommitted') this.#learnCommitted(after.commit);
    else this.#take('Pass');
  }

  /** A client's entries, at the end of a leader's log. */
  #propose(): void {
    if (this.#change.next === undefined) {
      this.#take('Pass');
      return;
    }
    must(this.role === 'leader', 'appended a proposal without being leader');
    this.#take('Propose');
    while (this.#change.next !== undefined) this.#change.appendOwn(this, (kind) => kind !== EntryKind.config && kind !== EntryKind.noop);
  }

  /** One change at a time. */
  #proposeMembers(): void {
    const entry = this.#change.next;
    if (entry === undefined) {
      this.#take('Pass');
      return;
    }
    const target = entry.configuration;
    const before = this.log.configuration;
    must(this.role === 'leader' && target !== undefined, 'changed members without being leader');
    must(this.log.configurationIndex <= this.commit && before.outgoing.length === 0, 'changed members while a change was under way');
    must(this.log.termAt(this.commit) === this.term, 'changed members before an entry of its own term was committed');
    const least = Math.min(this.commit, this.#committedAtTicks[1]);
    this.#take(changeTo(target, before, (id) => (this.match.get(id) ?? 0) >= least));
    this.#change.appendOwn(this, (kind) => kind === EntryKind.config);
  }

  #timeOut(after: Observed, called: boolean): void {
    const began = after.role !== this.role || after.term > this.term || (called && after.role === 'preCandidate');
    if (this.role !== 'leader' && after.role === 'follower') {
      // The campaign failed for the log: instead of the next one, the log is pulled.
      if (this.#isBehind) this.promises.mayPull(this.term);
      this.#take('Pass');
      this.#becomeFollower(this.leader);
    } else if (this.role !== 'leader' && began) this.#preCampaign();
    else this.#take('Pass');
  }

  #preCampaign(): void {
    must(this.role !== 'leader', 'a leader campaigns');
    must(this.#mayLead(), 'campaigns, and is no voter');
    this.#take('PreCampaign');
    this.role = 'preCandidate';
    this.leader = 0;
    this.#newCampaign();
    this.#granted.add(this.id);
    this.#isBehind = false;
    this.promises.campaigns(this.term + 1, true, this.log.last, this.log.lastTerm);
  }

  #forgetLeader(after: Observed): void {
    if (after.leader === this.leader) {
      this.#take('Pass');
      return;
    }
    must(this.role === 'follower', 'forgot the leader in another role than a follower’s');
    this.#take('ForgetLeader');
    this.leader = 0;
  }

  /** It is offered a snapshot of what its log has, so that is committed. That it is, the group's other replicas show. */
  #learnCommitted(commit: number): void {
    if (commit === this.commit) {
      this.#take('Pass');
      return;
    }
    must(this.role !== 'leader' && commit > this.commit && commit <= this.log.last, `takes ${commit} for committed`);
    this.#take('LearnCommitted');
    this.commit = commit;
  }

  // Messages

  #receive(message: TraceMessage, after: Observed): void {
    const { term, type } = message;
    must(message.to === this.id, 'took what was for another');
    if (this.isDamaged || (this.probation > 0 && type !== 'append' && type !== 'heartbeat')) {
      this.#take('Pass');
      return;
    }
    if (this.#keepsLease(message, after)) {
      this.#take('KeepLease');
      return;
    }
    const isPromise = (type === 'vote' && message.pre) || (type === 'voteResponse' && message.pre && message.granted);
    if (term > this.term && !isPromise) this.#adoptTerm(term, type === 'append' || type === 'heartbeat' ? message.from : 0);
    if (term < this.term && type !== 'pull') {
      this.promises.mayReject(message.from);
      this.#take('IgnoreStale');
      return;
    }
    switch (type) {
      case 'append':
        this.#append(message);
        return;
      case 'heartbeat':
        this.#heartbeat(message);
        return;
      case 'vote':
        this.#voteAsked(message, after);
        return;
      case 'voteResponse':
        this.#voteAnswered(message);
        return;
      case 'appendResponse':
        this.#appendAnswered(message);
        return;
      case 'heartbeatResponse':
        this.#judged = message.check !== undefined;
        this.#take('HearFollower');
        return;
      case 'timeoutNow':
        this.#toldToCampaign(after);
        return;
      case 'pull':
        this.#pullAsked(message);
        return;
      case 'pullResponse':
        this.#pulled(message, after);
        return;
    }
  }

  /**
   * While a leader is heard, an election (B16) or a pull of others is not taken part in. A lease lasts for an election timeout of ticks from the leader's last message at
   * least; how much longer, the event says.
   */
  #keepsLease(message: TraceMessage, after: Observed): boolean {
    const isElection = message.type === 'vote' && !message.transfer && message.term > this.term;
    if (this.leader === 0 || !(isElection || message.type === 'pull')) return false;
    if (this.leader === this.id || this.#ticks < this.#electionTicks) {
      must(after.term === this.term, `hears leader ${this.leader}, and takes part in an election of term ${message.term}`);
      return true;
    }
    return after.term === this.term && !(message.type === 'vote' && message.pre) && message.type !== 'pull';
  }

  #adoptTerm(term: number, leader: number): void {
    this.#take('AdoptTerm');
    this.term = term;
    this.vote = 0;
    this.#becomeFollower(leader);
  }

  #becomeFollower(leader: number): void {
    this.role = 'follower';
    this.leader = leader;
    this.#newCampaign();
  }

  #newCampaign(): void {
    this.#granted = new Set();
    this.#refused = new Set();
  }

  #follow(leader: number): void {
    this.#ticks = 0;
    must(this.role !== 'leader', `a second leader of term ${this.term}: ${leader}`);
    must(this.leader === 0 || this.leader === leader, `two leaders of term ${this.term}: ${this.leader} and ${leader}`);
    if (this.role !== 'follower' || this.leader !== leader) this.#take('FollowLeader');
    this.role = 'follower';
    this.leader = leader;
  }

  #append({ from, term, prevIndex, prevTerm, entries, commit }: MessageOf<'append'>): void {
    this.#follow(from);
    // What is below the log's first known term is committed, and so is the same in every leader's log.
    const known = prevIndex === 0 || this.log.termAt(prevIndex) !== 0 || prevIndex >= this.commit;
    if (!known) {
      this.promises.accepts(term, this.commit, this.disk.writeOf(this.commit));
      this.#take('AppendSame');
      return;
    }
    if (prevIndex > this.log.last || this.log.termAt(prevIndex) !== prevTerm) {
      this.promises.mayReject(from);
      this.#take('RejectAppend');
      return;
    }
    const at = this.#change.adopt(this, entries);
    this.#take(at === 'same' ? 'AppendSame' : at === 'new' ? 'AppendNew' : 'TruncateConflict');
    const last = prevIndex + entries.length;
    this.#followCommit(Math.min(commit, last));
    this.promises.accepts(term, last, this.disk.writeOf(last));
  }

  #heartbeat({ from, commit, term, readContext, quiesce, verdict, over }: MessageOf<'heartbeat'>): void {
    this.#follow(from);
    this.#judged = verdict;
    if (this.probation > 0 && over === this.probation) {
      this.#take('EndProbation');
      this.probation = 0;
      this.vote = from;
    }
    if (this.probation > 0) {
      this.promises.mayAnswerHeartbeat(from, term, 0);
      this.promises.mayReject(from);
      return;
    }
    this.#quiesced = quiesce && commit === this.log.last;
    must(commit <= this.log.last, `a heartbeat commits ${commit}, and the log ends at ${this.log.last}`);
    this.#followCommit(commit);
    this.promises.mayAnswerHeartbeat(from, term, readContext);
  }

  #followCommit(commit: number): void {
    if (commit <= this.commit) return;
    this.#take('FollowCommit');
    this.commit = commit;
  }

  #voteAsked({ from, pre, term, lastIndex, lastTerm }: MessageOf<'vote'>, after: Observed): void {
    const isNewEnough = this.log.isReachedBy(lastIndex, lastTerm);
    if (pre) {
      if (isNewEnough) this.promises.mayGrantPreVote(from, term);
      this.#take('AnswerPreVote');
      if (this.role === 'preCandidate' && after.role === 'follower') this.#giveWay(isNewEnough);
      return;
    }
    // One that is asked again may have got a newer log since: its answer is no, and its vote stays.
    if (after.vote !== from || (this.vote === from && !isNewEnough)) {
      this.#take('RefuseVote');
      return;
    }
    must(
      this.vote === from || (this.vote === 0 && this.leader === 0),
      `votes for ${from}, and voted for ${this.vote} or has leader ${this.leader}`,
    );
    must(isNewEnough, `votes for ${from}, whose log is behind`);
    this.#take('GrantVote');
    this.vote = from;
    this.promises.votes(this.term, from);
  }

  /** Of two pre-candidates one waits for the other, so that they don't split the vote; only for one that may win. */
  #giveWay(isNewEnough: boolean): void {
    must(isNewEnough, 'gives way to a log that is behind');
    this.#take('GiveWay');
    this.#becomeFollower(0);
  }

  #voteAnswered({ from, pre, granted, term, lastIndex }: MessageOf<'voteResponse'>): void {
    const counts = this.role === (pre ? 'preCandidate' : 'candidate') && (!pre || !granted || term === this.term + 1);
    if (!counts) {
      this.#take('IgnoreStale');
      return;
    }
    this.#take('CountVote');
    // A campaign may begin again within a tick that shows nothing of it, so a voter may have answered both ways.
    (granted ? this.#granted : this.#refused).add(from);
    if (lastIndex > 0) this.#isBehind = true;
  }

  #appendAnswered({ from, rejected, matchIndex, probation }: MessageOf<'appendResponse'>): void {
    if (this.role !== 'leader' || matchIndex > this.log.last) {
      this.#take('IgnoreStale');
      return;
    }
    const known = this.probations.get(from);
    if (probation > 0 && known?.number !== probation) {
      this.#take('LearnProbation');
      this.match.delete(from);
      this.probations.set(from, { number: probation, mark: this.log.last + 1, match: 0, told: false });
      if (this.#change.next !== undefined) this.#change.appendOwn(this, (kind) => kind === EntryKind.noop);
      return;
    }
    if (probation > 0 && known !== undefined) {
      // It counts for nothing, whatever it has.
      if (!rejected) known.match = Math.max(known.match, matchIndex);
      this.#take(rejected ? 'LearnRejection' : 'LearnMatch');
      return;
    }
    if (known !== undefined && !known.told) {
      this.#take('IgnoreStale');
      return;
    }
    // What it acknowledged on probation counts from here on.
    if (known !== undefined) this.match.set(from, known.match);
    this.probations.delete(from);
    if (rejected) {
      this.#take('LearnRejection');
      return;
    }
    this.#take('LearnMatch');
    if (matchIndex > (this.match.get(from) ?? 0)) this.match.set(from, matchIndex);
  }

  #toldToCampaign(after: Observed): void {
    if (after.role !== 'candidate' && after.role !== 'leader') {
      this.#take('Pass');
      return;
    }
    if (this.role === 'candidate') {
      this.#take('Pass');
      return;
    }
    must(this.role !== 'leader' && this.#mayLead(), 'told to campaign, and is no voter');
    this.#take('CampaignAtOnce');
    this.#campaign();
  }

  #campaign(): void {
    this.role = 'candidate';
    this.term++;
    this.vote = this.id;
    this.leader = 0;
    this.#newCampaign();
    this.promises.campaigns(this.term, false, this.log.last, this.log.lastTerm);
  }

  // Pulls (ADR 6)

  #pullAsked({ from, prevIndex, prevTerm }: MessageOf<'pull'>): void {
    const agrees = prevIndex < this.log.last && this.log.termAt(prevIndex) === prevTerm;
    if (agrees) this.promises.mayServe(from);
    this.#take(agrees ? 'ServePull' : 'RefusePull');
  }

  /** Takes a page of a log that ends in a newer (term, index), where the two agree; what conflicts goes only with a step to the next term. */
  #pulled({ prevIndex, prevTerm, entries, lastIndex, lastTerm }: MessageOf<'pullResponse'>, after: Observed): void {
    if (this.#change.isExplained && after.role === this.role) {
      // Nothing that it lacked; the next page may be asked for.
      if (this.leader === 0 && this.role === 'follower') this.promises.mayPull(this.term);
      this.#take('Pass');
      return;
    }
    must(this.leader === 0 && this.role !== 'candidate' && this.role !== 'leader', 'pulled while it had a leader, or led, or ran for it');
    must(
      lastTerm > this.log.lastTerm || (lastTerm === this.log.lastTerm && lastIndex > this.log.last),
      'pulled from a log that is not ahead',
    );
    must(this.log.termAt(prevIndex) === prevTerm, 'pulled what does not begin where the logs agree');
    const at = this.#change.adopt(this, entries);
    if (at === 'conflict') {
      must(after.term > this.term, `cut off a suffix and stayed in term ${this.term}, whose leader may count it`);
      this.term++;
      this.vote = 0;
    }
    this.#take(at === 'conflict' ? 'PullTruncate' : 'PullExtend');
    this.#becomeFollower(0);
    if (after.role === 'follower') this.promises.mayPull(this.term);
    else this.#preCampaign();
  }

  // What follows from what a replica knows

  /** Takes the steps that lead on to what was observed. */
  #settle(after: Observed): void {
    if (after.isDamaged && !this.isDamaged) this.#standAside();
    if (this.role === 'preCandidate' && (after.role === 'candidate' || after.role === 'leader')) {
      must(holdsMajority(this.log.configuration, this.#granted), 'campaigns without a majority of pre-votes');
      this.#take('Campaign');
      this.#campaign();
    }
    if (this.role === 'candidate' && after.role === 'leader') this.#becomeLeader();
    if (this.role === 'leader') this.#lead(after);
    const lost = (this.role === 'preCandidate' || this.role === 'candidate') && after.role === 'follower' && after.term === this.term;
    if (lost) {
      must(!couldStillWin(this.log.configuration, this.#refused), 'gave up an election that it could win');
      this.#take(this.role === 'preCandidate' ? 'LosePreVote' : 'LoseVote');
      this.#becomeFollower(0);
    }
    if (after.rests !== this.rests) this.#restOrWake();
  }

  /**
   * A group rests that has nothing to do: its leader knows that a majority has all of its log (who has not is away, which a trace does not show), and a follower has it, on
   * disk, and knows that it is committed.
   */
  #restOrWake(): void {
    this.rests = !this.rests;
    if (!this.rests) {
      this.#take('Wake');
      return;
    }
    must(this.commit === this.log.last && this.disk.index === this.log.last, 'rests before all of its log is durable and committed');
    if (this.role === 'leader') {
      const whole = membersOf(this.log.configuration).filter((id) => id === this.id || this.match.get(id) === this.log.last);
      must(holdsMajority(this.log.configuration, new Set(whole)), `rests when only ${whole} have all of its log`);
      this.#take('Rest');
    } else {
      must(this.role === 'follower' && this.leader !== 0 && this.#quiesced, 'rests without a leader that says so');
      this.#take('FollowToRest');
    }
  }

  /** A majority has something else where the heartbeat says (hazard B29). What it has, the group's other replicas show. */
  #standAside(): void {
    must(this.#judged, 'stands aside, and nobody compared its log');
    this.#take('StandAside');
    this.isDamaged = true;
    this.#becomeFollower(0);
  }

  #becomeLeader(): void {
    // The own vote counts like any other: once it is durable.
    if (this.disk.voted(this.term, this.id)) this.#granted.add(this.id);
    must(holdsMajority(this.log.configuration, this.#granted), `leads term ${this.term} without a majority of votes`);
    this.#take('BecomeLeader');
    this.#committedAtTicks = NO_TICKS;
    this.role = 'leader';
    this.leader = this.id;
    this.match = new Map();
    this.probations = new Map();
    this.promises.led.add(this.term);
    this.#change.appendOwn(this, (kind) => kind === EntryKind.noop);
  }

  #lead(after: Observed): void {
    if (after.commit > this.commit) {
      const held = (id: number) => (id === this.id ? this.disk.index : (this.match.get(id) ?? 0));
      must(after.commit <= reachedByMajority(this.log.configuration, held), `commits ${after.commit}, which no majority holds`);
      must(
        this.log.termAt(after.commit) === this.term,
        `commits through an entry of term ${this.log.termAt(after.commit)} in term ${this.term}`,
      );
      this.#take('Commit');
      this.commit = after.commit;
    }
    if (this.#change.next !== undefined) this.#leaveJoint();
    if (after.role !== 'follower' || after.term !== this.term) return;
    this.#take('StepDown');
    this.#becomeFollower(0);
  }

  #leaveJoint(): void {
    const before = this.log.configuration;
    const target = this.#change.next?.configuration;
    must(before.outgoing.length > 0 && target !== undefined, 'appended what nobody proposed');
    must(this.log.configurationIndex <= this.commit, 'left a joint configuration that is not committed');
    checkLeftJoint(target, before);
    this.#take('LeaveJoint');
    this.#change.appendOwn(this, (kind) => kind === EntryKind.config);
  }

  /** A voter of any configuration that may yet turn out to be in force. */
  #mayLead(): boolean {
    return this.log.configurationsSince(this.commit).some((configuration) => votersOf(configuration).includes(this.id));
  }

  #compare(after: Observed): void {
    const { role, term, vote, leader, commit, rests, isDamaged } = this;
    const own: Observed = {
      role,
      term,
      vote,
      leader,
      commit,
      lastIndex: this.log.last,
      lastTerm: this.log.lastTerm,
      durable: this.disk.index,
      rests,
      isDamaged,
    };
    for (const key of Object.keys(own) as (keyof Observed)[]) {
      must(own[key] === after[key], `${key} should be ${own[key]}, and is ${after[key]}`);
    }
  }

  #take(action: ActionName): void {
    this.coverage.took(action);
  }
}

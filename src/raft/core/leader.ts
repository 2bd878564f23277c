import { assert } from '../../base/assert.ts';
import { FlotillaError } from '../../base/errors.ts';
import type { ReplicaId } from '../../base/ids.ts';
import { membersOf } from './configuration.ts';
import { Divergence } from './divergence.ts';
import { ENTRY_HEADER_BYTES, type Entry, EntryKind } from './entry.ts';
import { entrySize } from './entry-codec.ts';
import type { RaftLog } from './log.ts';
import type { Outbox } from './outbox.ts';
import { Progress } from './progress.ts';
import { Quorum } from './quorum.ts';
import { ReadRounds } from './read-index.ts';
import type { AppendResponse, Configuration, HeartbeatResponse, LogCheck, Proposal, RaftOptions } from './types.ts';

/** Bytes of one read from segments for a follower. */
const MAX_READ_BYTES = 4 * 1024 * 1024;

/** What a leader commits first in its term. */
export const NOOP: Proposal = { kind: EntryKind.noop, payload: new Uint8Array(0), recordCount: 0, payloadChecksum: 0 };

/** What a leader does in its one term: replicates, commits, confirms reads, watches its quorum. Dropped when it steps down. */
export class Leader {
  readonly #term: number;
  readonly #options: RaftOptions;
  readonly #log: RaftLog;
  readonly #outbox: Outbox;
  readonly #reads = new ReadRounds();
  readonly #progress = new Map<ReplicaId, Progress>();
  readonly #divergence: Divergence;
  #configuration: Configuration;
  #quorum: Quorum;
  /** Something may be sent that was not. */
  #dirty = true;
  #uncommittedBytes = 0;
  #heartbeatElapsed = 0;
  /** The commit index at the last tick, and at the one before that. */
  #committedAtTick = Number.POSITIVE_INFINITY;
  #committedBefore = Number.POSITIVE_INFINITY;
  #checkElapsed = 0;
  /** Ticks in which entries waited for commit and nothing moved. */
  #stalledTicks = 0;
  /** Ticks in which there was nothing to do. */
  #idleTicks = 0;
  #transferee: ReplicaId | 0 = 0;
  #transferElapsed = 0;

  constructor(term: number, options: RaftOptions, log: RaftLog, outbox: Outbox, configuration: Configuration) {
    this.#term = term;
    this.#options = options;
    this.#log = log;
    this.#outbox = outbox;
    this.#divergence = new Divergence(options.id, log);
    this.#configuration = configuration;
    this.#quorum = new Quorum(configuration);
    this.setConfiguration(configuration);
    for (let index = log.commitIndex + 1; index <= log.lastIndex; index++) this.#uncommittedBytes += sizeAt(log, index);
  }

  get transferee(): ReplicaId | 0 {
    return this.#transferee;
  }
  /** What a majority of the voters has where this leader's log is something else: it is damaged. */
  get damage(): LogCheck | undefined {
    return this.#divergence.damage;
  }
  get hasWork(): boolean {
    return this.#dirty || (this.#reads.isWaiting && this.isReady);
  }
  /** The own term's no-op has committed, so the commit index is known to be that of the cluster (paper 8, hazard B21). */
  get isReady(): boolean {
    return this.#log.termAt(this.#log.commitIndex) === this.#term;
  }
  get followers(): readonly Progress[] {
    return [...this.#progress.values()];
  }

  /**
   * Whether a learner has what was committed one to two ticks ago, and is sent the rest as it comes. All that is committed now is too much to ask: while
   * others write, who is a round trip away never holds it (thesis 4.2.1, hazard B15).
   */
  hasCaughtUp(id: ReplicaId): boolean {
    const progress = this.#progress.get(id);
    return progress?.state === 'replicate' && progress.matchIndex >= Math.min(this.#committedBefore, this.#log.commitIndex);
  }

  setConfiguration(configuration: Configuration): void {
    this.#quorum = new Quorum(configuration);
    const members = new Map(membersOf(configuration).map((member) => [member.replicaId, member]));
    members.delete(this.#options.id);
    for (const id of this.#progress.keys()) if (!members.has(id)) this.#progress.delete(id);
    for (const [id, member] of members) {
      if (this.#progress.has(id)) continue;
      const { maxInflightMessages, maxInflightBytes } = this.#options;
      this.#progress.set(id, new Progress(member, this.#log.lastIndex + 1, maxInflightMessages, maxInflightBytes));
    }
    this.#configuration = configuration;
    if (!this.#isIncoming(this.#transferee)) this.#transferee = 0;
    // Those who have confirmed may be a majority now, and nobody left to answer.
    if (this.#reads.openRound !== 0) this.#confirmReads();
    this.#dirty = true;
  }

  /** Throws THROTTLING_QUOTA_EXCEEDED where these would be too much uncommitted. A single call is always let through. */
  admit(proposals: readonly Proposal[]): void {
    let bytes = 0;
    for (const { kind, payload } of proposals) {
      assert(kind !== EntryKind.config, 'members change by proposeMembers', kind);
      bytes += ENTRY_HEADER_BYTES + payload.length;
    }
    if (this.#uncommittedBytes === 0 || this.#uncommittedBytes + bytes <= this.#options.maxUncommittedBytes) return;
    throw new FlotillaError('THROTTLING_QUOTA_EXCEEDED', 'too much waits to be replicated; retry when some of it has committed');
  }

  /** An entry of this leader's was appended to its log. */
  appended(entry: Entry): void {
    if (this.#uncommittedBytes === 0) this.#stalledTicks = 0;
    this.#uncommittedBytes += entrySize(entry);
    this.#idleTicks = 0;
    this.#dirty = true;
  }

  /**
   * Step down when no majority answers, or nothing moves (CheckQuorum, thesis 6.2), unless `disksStall`; rest when there has long been nothing to do.
   */
  tick(disksStall: boolean): 'lead' | 'rest' | 'stepDown' {
    const { electionTicks, heartbeatTicks, quiesceTicks = 0 } = this.#options;
    this.#committedBefore = this.#committedAtTick;
    this.#committedAtTick = this.#log.commitIndex;
    if (this.#transferee !== 0 && ++this.#transferElapsed >= electionTicks) this.#transferee = 0;
    if (disksStall) {
      this.#stalledTicks = 0;
      this.#checkElapsed = 0;
    } else if (!this.#quorum.isAlone(this.#options.id)) {
      if (this.#log.commitIndex === this.#log.lastIndex) this.#stalledTicks = 0;
      else if (!this.#installs()) this.#stalledTicks++;
      if (this.#stalledTicks > electionTicks) return 'stepDown';
    }
    if (++this.#checkElapsed >= electionTicks && !this.#checkQuorum()) return 'stepDown';
    if (quiesceTicks > 0 && this.#idleFor(quiesceTicks)) {
      this.#broadcastHeartbeat(true);
      return 'rest';
    }
    if (++this.#heartbeatElapsed >= heartbeatTicks) this.#broadcastHeartbeat();
    return 'lead';
  }

  /** The group rests no more: followers hear of it at the next tick, and have an election timeout to answer. */
  wake(): void {
    this.#committedAtTick = this.#log.commitIndex;
    this.#committedBefore = this.#log.commitIndex;
    this.#idleTicks = 0;
    this.#stalledTicks = 0;
    this.#checkElapsed = 0;
    this.#heartbeatElapsed = this.#options.heartbeatTicks;
    for (const progress of this.#progress.values()) progress.active = true;
  }

  handleAppendResponse(message: AppendResponse): void {
    const progress = this.#progress.get(message.from);
    if (progress === undefined || message.matchIndex > this.#log.lastIndex || !this.#counts(progress, message)) return;
    progress.active = true;
    this.#dirty = true;
    if (message.rejected) {
      progress.reject(message.rejectedIndex, this.#log.lastIndexUpTo(message.hintIndex, message.hintTerm));
      return;
    }
    if (progress.acknowledge(message.matchIndex)) {
      this.#stalledTicks = 0;
      this.maybeCommit();
    }
    // What it holds is enough by now, whatever becomes of the snapshot.
    if (progress.state === 'snapshot' && progress.matchIndex + 1 >= this.#log.firstReplicableIndex) progress.probe();
    if (progress.replicaId === this.#transferee) this.#maybeTimeoutNow(progress);
  }

  /** False: it is of an earlier life of the follower, before its probation, or says that there is one. */
  #counts(progress: Progress, { probation }: AppendResponse): boolean {
    if (probation === progress.probation) return true;
    if (probation === 0) {
      if (progress.toldOver) progress.probation = 0;
      return progress.toldOver;
    }
    progress.begin(probation, this.#log.lastIndex + 1);
    this.#dirty = true;
    return false;
  }

  /** A follower's probation needs an entry that is not there yet. */
  get wantsMark(): boolean {
    for (const { probation, mark } of this.#progress.values()) if (probation > 0 && mark > this.#log.lastIndex) return true;
    return false;
  }

  handleHeartbeatResponse(message: HeartbeatResponse): void {
    const progress = this.#progress.get(message.from);
    if (progress === undefined) return;
    if (!progress.awaitsAcknowledgement) progress.active = true;
    progress.answered = true;
    if (message.check !== undefined) this.#compare(progress, message.check);
    this.#recoverLoss(progress);
    if (message.readContext > progress.readRound && message.readContext <= this.#reads.openRound) {
      progress.readRound = message.readContext;
      this.#confirmReads();
    }
  }

  /** Commits what a majority has durable, if the last of it is of this term (paper 5.4.2, hazard B05). This replica counts with what it has synced (B04). */
  maybeCommit(): void {
    const index = this.#quorum.reached(this.#matchOf);
    const commit = this.#log.commitIndex;
    if (index <= commit || this.#log.termAt(index) !== this.#term) return;
    for (let at = commit + 1; at <= index; at++) this.#uncommittedBytes -= sizeAt(this.#log, at);
    this.#log.commitTo(index);
    this.#stalledTicks = 0;
    this.#dirty = true;
  }

  /** This replica's own log became durable further. */
  persisted(): void {
    this.#stalledTicks = 0;
    this.maybeCommit();
  }

  durableOn(count: number): number {
    return this.#quorum.reachedBy(count, this.#matchOf);
  }

  read(context: number): void {
    this.#idleTicks = 0;
    this.#reads.add(context);
  }

  transferTo(to: ReplicaId): boolean {
    const progress = this.#progress.get(to);
    if (progress === undefined || progress.damaged || progress.probation > 0 || !this.#isIncoming(to)) return false;
    if (this.#transferee === to) return true;
    this.#transferee = to;
    this.#transferElapsed = 0;
    this.#maybeTimeoutNow(progress);
    return true;
  }

  /** This replica is no voter any more: it tells its followers what has committed, and lets the voter that holds most campaign at once. */
  abdicate(): void {
    this.#dirty = true;
    this.flush();
    let successor: Progress | undefined;
    for (const progress of this.#progress.values()) {
      const counts = !progress.damaged && progress.probation === 0;
      if (this.#isIncoming(progress.replicaId) && counts && progress.matchIndex > (successor?.matchIndex ?? -1)) successor = progress;
    }
    if (successor !== undefined) this.#timeoutNow(successor);
  }

  /** Sends what can be sent: once a Ready, so that the proposals of a turn share messages. */
  flush(): void {
    if (this.#reads.isWaiting && this.isReady) {
      this.#reads.start(this.#log.commitIndex);
      this.#confirmReads();
      if (this.#reads.openRound !== 0) this.#broadcastHeartbeat();
    }
    if (!this.#dirty) return;
    this.#dirty = false;
    for (const progress of this.#progress.values()) this.#replicate(progress);
  }

  /** Entries below the window, which a Ready asked for. */
  supply(to: ReplicaId, entries: readonly Entry[]): void {
    const progress = this.#progress.get(to);
    if (progress === undefined) return;
    progress.reading = false;
    this.#dirty = true;
    if (progress.blocked || entries.length === 0) return;
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i] as Entry;
      if (entry.index !== progress.nextIndex + i || this.#log.termAt(entry.index) !== entry.term) return;
    }
    for (let from = 0; from < entries.length && !progress.blocked; ) {
      const page = pageOf(entries, from, this.#options.maxAppendBytes);
      if (!this.#sendAppend(progress, page)) return;
      from += page.length;
    }
  }

  /** The host brought a follower a snapshot up to `index`, or could not. */
  snapshotDone(to: ReplicaId, index: number | undefined): void {
    const progress = this.#progress.get(to);
    if (progress?.state !== 'snapshot') return;
    if (index === undefined) progress.snapshotFailed = true;
    else progress.probe(Math.min(index, this.#log.lastIndex));
    this.#dirty = true;
  }

  /**
   * A voter is getting a snapshot, which takes its time. If the others are no majority nothing commits meanwhile, and another leader would be none
   * the better for it. {@link #checkQuorum} goes on watching the others.
   */
  #installs(): boolean {
    for (const { replicaId, state, snapshotFailed } of this.#progress.values())
      if (state === 'snapshot' && !snapshotFailed && this.#quorum.has(replicaId)) return true;
    return false;
  }

  /** A voter that stays one: only such a one takes over. */
  #isIncoming(id: ReplicaId | 0): boolean {
    return this.#configuration.voters.some(({ replicaId }) => replicaId === id);
  }

  /** What a damaged replica has, or one on probation, counts for nothing. */
  readonly #matchOf = (id: ReplicaId): number => {
    if (id === this.#options.id) return this.#log.durableIndex;
    const progress = this.#progress.get(id);
    return progress === undefined || progress.damaged || progress.probation > 0 ? 0 : progress.matchIndex;
  };

  #replicate(progress: Progress): void {
    const log = this.#log;
    while (!progress.blocked && (progress.state === 'probe' || progress.nextIndex <= log.lastIndex)) {
      if (progress.nextIndex < log.firstSendableIndex) {
        this.#wantEntries(progress);
        return;
      }
      if (!this.#sendAppend(progress, log.from(progress.nextIndex, this.#options.maxAppendBytes))) return;
    }
    // A follower with nothing under way would otherwise learn of the commit at the next heartbeat only.
    if (progress.state === 'replicate' && progress.inflight.count === 0 && progress.commitSent < log.commitIndex) {
      this.#sendAppend(progress, []);
    }
  }

  /** False: what comes before is not known here any more. */
  #sendAppend(progress: Progress, entries: readonly Entry[]): boolean {
    const log = this.#log;
    const prevIndex = progress.nextIndex - 1;
    const prevTerm = log.termAt(prevIndex);
    // Terms below what is replicable may be unknown: such a follower needs a snapshot.
    if (prevTerm === undefined) return false;
    progress.commitSent = log.commitIndex;
    this.#outbox.messages.push({
      type: 'append',
      from: this.#options.id,
      to: progress.replicaId,
      term: this.#term,
      prevIndex,
      prevTerm,
      commit: log.commitIndex,
      entries,
    });
    let bytes = 0;
    for (const entry of entries) bytes += entrySize(entry);
    if (entries.length > 0 || progress.state === 'probe') progress.sent(prevIndex + entries.length, bytes);
    return true;
  }

  #wantEntries(progress: Progress): void {
    if (progress.nextIndex < this.#log.firstReplicableIndex) {
      this.#wantSnapshot(progress);
      return;
    }
    progress.reading = true;
    // As much as may be in flight: a follower that is far behind is caught up in few large reads.
    const { maxAppendBytes, maxInflightBytes } = this.#options;
    const room = Math.min(MAX_READ_BYTES, maxInflightBytes - progress.inflight.bytes);
    const maxBytes = progress.state === 'probe' ? maxAppendBytes : Math.max(maxAppendBytes, room);
    this.#outbox.reads.push({ to: progress.replicaId, fromIndex: progress.nextIndex, maxBytes });
  }

  #wantSnapshot(progress: Progress): void {
    progress.awaitSnapshot();
    this.#outbox.snapshots.push({ to: progress.replicaId });
  }

  /**
   * A follower that answers heartbeats but is behind, and acknowledged nothing since its last answer, may have lost what was sent. A probing one is sent to
   * again. A pipelined one is asked by an empty append after all that was sent: it rejects that when something before is missing.
   */
  #recoverLoss(progress: Progress): void {
    const quiet = !progress.acknowledged;
    progress.acknowledged = false;
    if (progress.state === 'probe') {
      progress.paused = false;
      this.#dirty = true;
    } else if (quiet && progress.inflight.count > 0) {
      this.#sendAppend(progress, []);
    }
  }

  #broadcastHeartbeat(quiesce = false): void {
    this.#heartbeatElapsed = 0;
    const readContext = this.#reads.openRound;
    const check = this.#divergence.ask(quiesce);
    const head = { type: 'heartbeat', from: this.#options.id, term: this.#term, readContext, quiesce } as const;
    for (const progress of this.#progress.values()) {
      const commit = Math.min(progress.matchIndex, this.#log.commitIndex);
      const verdict = this.#divergence.verdictOn(progress.replicaId);
      const asked = check !== undefined && progress.matchIndex >= check.index ? check : undefined;
      const over = progress.over(this.#log.commitIndex);
      if (over > 0) progress.toldOver = true;
      this.#outbox.messages.push({
        ...head,
        to: progress.replicaId,
        commit,
        check: verdict ?? asked,
        verdict: verdict !== undefined,
        over,
      });
    }
  }

  /** For so many ticks there was nothing to do, and every member that is there answered in that time; those are a majority. */
  #idleFor(ticks: number): boolean {
    if (!this.#isIdle()) this.#idleTicks = 0;
    else if (++this.#idleTicks === 1) for (const progress of this.#progress.values()) progress.answered = false;
    if (this.#idleTicks < ticks) return false;
    for (const progress of this.#progress.values()) if (!progress.answered && !this.#isAway(progress)) return false;
    return this.#quorum.reached((id) => (id === this.#options.id || this.#progress.get(id)?.answered === true ? 1 : 0)) === 1;
  }

  #isAway({ brokerId }: Progress): boolean {
    return this.#options.isAway?.(brokerId) ?? false;
  }

  /** Every member that is there has everything, committed and durable, and nothing is under way. Never in a joint configuration, which is to be left soon. */
  #isIdle(): boolean {
    const { lastIndex, commitIndex, durableIndex } = this.#log;
    if (commitIndex !== lastIndex || durableIndex !== lastIndex || !this.isReady || this.#quorum.isJoint) return false;
    if (this.#transferee !== 0 || this.#reads.isWaiting || this.#reads.openRound !== 0 || this.#divergence.isDisputed) return false;
    for (const progress of this.#progress.values()) {
      const { matchIndex, state, inflight } = progress;
      const isWhole = matchIndex === lastIndex && state === 'replicate' && inflight.count === 0 && progress.probation === 0;
      if (!isWhole && !this.#isAway(progress)) return false;
    }
    return true;
  }

  #compare(progress: Progress, answer: LogCheck): void {
    this.#divergence.answered(progress.replicaId, answer, this.#quorum);
    for (const other of this.#progress.values()) other.damaged = this.#divergence.verdictOn(other.replicaId) !== undefined;
  }

  #checkQuorum(): boolean {
    this.#checkElapsed = 0;
    const active = this.#quorum.reached((id) => (id === this.#options.id || this.#progress.get(id)?.active === true ? 1 : 0)) === 1;
    for (const progress of this.#progress.values()) {
      progress.active = false;
      if (progress.state === 'snapshot' && progress.snapshotFailed) this.#wantSnapshot(progress);
      if (!progress.reading) continue;
      // The host has not answered for an election timeout: ask again.
      progress.reading = false;
      this.#dirty = true;
    }
    return active;
  }

  #confirmReads(): void {
    const newest = this.#reads.openRound;
    const confirmed = this.#quorum.reached((id) => (id === this.#options.id ? newest : (this.#progress.get(id)?.readRound ?? 0)));
    this.#reads.confirm(confirmed, this.#outbox.readStates);
  }

  #maybeTimeoutNow(progress: Progress): void {
    if (progress.matchIndex >= this.#log.lastIndex) this.#timeoutNow(progress);
  }

  #timeoutNow(progress: Progress): void {
    this.#outbox.messages.push({ type: 'timeoutNow', from: this.#options.id, to: progress.replicaId, term: this.#term });
  }
}

/** The entries from one on that fit a message, at least that one. */
function pageOf(entries: readonly Entry[], from: number, maxBytes: number): readonly Entry[] {
  let bytes = 0;
  let to = from;
  for (; to < entries.length; to++) {
    bytes += entrySize(entries[to] as Entry);
    if (bytes > maxBytes && to > from) break;
  }
  return from === 0 && to === entries.length ? entries : entries.slice(from, to);
}

function sizeAt(log: RaftLog, index: number): number {
  const entry = log.get(index);
  return entry === undefined ? 0 : entrySize(entry);
}

import type { ReplicaId } from '../../base/ids.ts';
import type { RaftLog } from './log.ts';
import type { Quorum, VoteResult } from './quorum.ts';
import type { RaftOptions, VoteRequest, VoteResponse } from './types.ts';

type TimerOptions = Pick<RaftOptions, 'id' | 'electionTicks' | 'uint32'>;

/** The clock of a replica that does not lead, in ticks: when it campaigns, and until when a leader that it heard has its lease. */
export class ElectionTimer {
  readonly #options: TimerOptions;
  /** Since the leader was heard, a vote granted or a campaign begun. */
  #elapsed = 0;
  /** 0: to be drawn at the next tick. */
  #timeout = 0;

  constructor(options: TimerOptions) {
    this.#options = options;
  }

  /** Shorter than the least election timeout ago (hazard B16). */
  get leaseHolds(): boolean {
    return this.#elapsed < this.#options.electionTicks;
  }

  /** True: time to campaign. */
  tick(): boolean {
    if (this.#timeout === 0) this.#timeout = this.#draw();
    return ++this.#elapsed >= this.#timeout;
  }

  reset(): void {
    this.#elapsed = 0;
    this.#timeout = 0;
  }

  /** After so many ticks and, `apart` ticks each, those that stand before this replica in `order`. */
  expireInTurn(order: readonly ReplicaId[], apart: number, ticks = 0): void {
    const { id } = this.#options;
    const before = order.includes(id) ? order.indexOf(id) : order.length;
    this.#elapsed = 0;
    this.#timeout = 1 + ticks + before * apart;
  }

  #draw(): number {
    const { electionTicks, uint32 } = this.#options;
    return electionTicks + Math.floor((uint32() / 2 ** 32) * electionTicks);
  }
}

const NOBODY_AHEAD: readonly LogEnd[] = [];
const NO_VOTES: ReadonlyMap<ReplicaId, boolean> = new Map();

/** The votes of one campaign, real or pre. A voter's first answer counts. */
export class Campaign {
  #votes: Map<ReplicaId, boolean> | undefined;
  /** Voters that refused for their log alone. */
  #ahead: readonly LogEnd[] = NOBODY_AHEAD;

  answered(by: ReplicaId, granted: boolean): void {
    this.#votes ??= new Map();
    if (!this.#votes.has(by)) this.#votes.set(by, granted);
  }

  isAhead(voter: LogEnd): void {
    if (this.#votes?.has(voter.by) !== true) this.#ahead = [...this.#ahead, voter];
    this.answered(voter.by, false);
  }

  result(quorum: Quorum): VoteResult {
    return quorum.tally(this.#votes ?? NO_VOTES);
  }

  /** The voter with the newest log, when with that log the campaign would have been won, and without was not. */
  heldUpBy(quorum: Quorum): ReplicaId | undefined {
    if (this.#ahead.length === 0 || this.result(quorum) === 'won') return undefined;
    const granted = new Map(this.#votes);
    for (const { by } of this.#ahead) granted.set(by, true);
    if (quorum.tally(granted) !== 'won') return undefined;
    return this.#ahead.reduce((best, other) => (isNewer(other, best) ? other : best)).by;
  }
}

interface LogEnd {
  readonly by: ReplicaId;
  readonly lastIndex: number;
  readonly lastTerm: number;
}

function isNewer(a: LogEnd, b: LogEnd): boolean {
  return a.lastTerm > b.lastTerm || (a.lastTerm === b.lastTerm && a.lastIndex > b.lastIndex);
}

/** Asks all other voters. */
export function voteRequests(
  from: ReplicaId,
  voters: readonly ReplicaId[],
  term: number,
  { lastIndex, lastTerm }: { readonly lastIndex: number; readonly lastTerm: number },
  { pre, transfer }: Pick<VoteRequest, 'pre' | 'transfer'>,
): VoteRequest[] {
  return voters.filter((to) => to !== from).map((to) => ({ type: 'vote', from, to, term, pre, lastIndex, lastTerm, transfer }));
}

/** What a voter answers with. */
interface Voter {
  readonly id: ReplicaId;
  readonly term: number;
  /** Has given no other replica its vote of the term that is asked for. */
  readonly free: boolean;
  readonly log: RaftLog;
  readonly hearsLeader: boolean;
}

/** A vote, for a log that is as new as the voter's (paper 5.4.1); or a refusal, which says of a pre-vote where the voter's log ends, if that alone was in the way. */
export function answerTo(request: VoteRequest, { id, term, free, log, hearsLeader }: Voter): VoteResponse {
  const response = refusal(id, request, term);
  if (!free) return response;
  // A granted pre-vote answers at the term that it was asked for, which nobody has yet.
  if (log.isUpToDate(request.lastIndex, request.lastTerm)) return { ...response, term: request.pre ? request.term : term, granted: true };
  const { lastIndex, lastTerm } = log;
  return request.pre && !hearsLeader ? { ...response, lastIndex, lastTerm } : response;
}

/** `lastIndex` 0: the answer says nothing of the log. */
export function refusal(from: ReplicaId, { from: to, pre }: VoteRequest, term: number): VoteResponse {
  return { type: 'voteResponse', from, to, term, pre, granted: false, lastIndex: 0, lastTerm: 0 };
}

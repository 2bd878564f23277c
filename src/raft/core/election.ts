import type { ReplicaId } from '../../base/ids.ts';
import type { Quorum, VoteResult } from './quorum.ts';
import type { RaftOptions } from './types.ts';

/** The clock of a replica that does not lead, in ticks: when it campaigns, and until when a leader that it heard has its lease. */
export class ElectionTimer {
  readonly #options: Pick<RaftOptions, 'electionTicks' | 'uint32'>;
  /** Since the leader was heard, a vote granted or a campaign begun. */
  #elapsed = 0;
  /** 0: to be drawn at the next tick. */
  #timeout = 0;

  constructor(options: Pick<RaftOptions, 'electionTicks' | 'uint32'>) {
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

  expireIn(ticks: number): void {
    this.#elapsed = 0;
    this.#timeout = ticks;
  }

  #draw(): number {
    const { electionTicks, uint32 } = this.#options;
    return electionTicks + Math.floor((uint32() / 2 ** 32) * electionTicks);
  }
}

/** The votes of one campaign, real or pre. A voter's first answer counts. */
export class Campaign {
  readonly #votes = new Map<ReplicaId, boolean>();

  answered(by: ReplicaId, granted: boolean): void {
    if (!this.#votes.has(by)) this.#votes.set(by, granted);
  }

  result(quorum: Quorum): VoteResult {
    return quorum.tally(this.#votes);
  }
}

import type { ReplicaId } from '../../base/ids.ts';
import type { RaftLog } from './log.ts';
import type { Quorum } from './quorum.ts';
import type { LogCheck } from './types.ts';

/** Of so many heartbeats of an active group, one compares the logs. */
const HEARTBEATS_PER_CHECK = 10;

/**
 * A leader's comparison of its followers' logs with its own (hazard B29). A heartbeat now and then names an index that is committed and the chain there, which is
 * all of the log in one number; each follower answers with its own. Where they differ, one of the logs is damaged, and it may well be the leader's: so what
 * a majority of the voters has is right, and whoever has something else is told, the leader too. Until a majority has answered, nothing is decided.
 */
export class Divergence {
  readonly #id: ReplicaId;
  readonly #log: RaftLog;
  #heartbeats = 0;
  /** This leader's log at the index that is compared. */
  #own: LogCheck | undefined;
  readonly #answers = new Map<ReplicaId, LogCheck>();
  readonly #verdicts = new Map<ReplicaId, LogCheck>();
  /** What a majority has where this leader has something else. */
  damage: LogCheck | undefined;

  constructor(id: ReplicaId, log: RaftLog) {
    this.#id = id;
    this.#log = log;
  }

  /** What the next heartbeat asks. While the answers differ, the same index again, until a majority has answered. */
  ask(now: boolean): LogCheck | undefined {
    if (this.isDisputed) return this.#own;
    this.#heartbeats = (this.#heartbeats + 1) % HEARTBEATS_PER_CHECK;
    if (!now && this.#heartbeats !== 0) return undefined;
    this.#begin(checkAt(this.#log, this.#log.commitIndex));
    return this.#own;
  }

  /** True: someone's answer differs, and who is right is not known yet. */
  get isDisputed(): boolean {
    const own = this.#own;
    if (own === undefined) return false;
    for (const answer of this.#answers.values()) if (!isSame(answer, own)) return true;
    return false;
  }

  /** What a majority has where this follower has something else. */
  verdictOn(follower: ReplicaId): LogCheck | undefined {
    return this.#verdicts.get(follower);
  }

  /**
   * A follower that could not append says by itself what its log is before the entries that did not continue it. The two have an entry of one term there, committed or
   * not, so their logs should be the same (paper 5.3).
   */
  answered(follower: ReplicaId, answer: LogCheck, quorum: Quorum): void {
    if (answer.index !== this.#own?.index) {
      const own = checkAt(this.#log, answer.index);
      if (this.isDisputed || own === undefined || isSame(own, answer)) return;
      this.#begin(own);
    }
    this.#answers.set(follower, answer);
    if (this.isDisputed) this.#decide(quorum);
  }

  #begin(own: LogCheck | undefined): void {
    this.#own = own;
    this.#answers.clear();
    if (own !== undefined) this.#answers.set(this.#id, own);
  }

  #decide(quorum: Quorum): void {
    const answers = this.#answers;
    const has = (id: ReplicaId, check: LogCheck) => {
      const answer = answers.get(id);
      return answer !== undefined && isSame(answer, check);
    };
    const right = [...answers.values()].find((check) => quorum.reached((id) => (has(id, check) ? 1 : 0)) === 1);
    if (right === undefined) return;
    for (const [id, answer] of answers) {
      if (isSame(answer, right)) continue;
      if (id === this.#id) this.damage = right;
      else this.#verdicts.set(id, right);
    }
    this.#begin(undefined);
  }
}

/** Undefined: the log is not in memory there. */
export function checkAt(log: RaftLog, index: number): LogCheck | undefined {
  const position = index === 0 ? undefined : log.positionAt(index);
  return position === undefined ? undefined : { index, chainHigh: position.chainHigh, chainLow: position.chainLow };
}

/** For checks of one index. */
export function isSame(a: LogCheck, b: LogCheck): boolean {
  return a.chainHigh === b.chainHigh && a.chainLow === b.chainLow;
}

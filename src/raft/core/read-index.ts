import { FlotillaError } from '../../base/errors.ts';
import type { ReadState } from './types.ts';

interface Round {
  readonly round: number;
  readonly index: number;
  readonly contexts: readonly number[];
}

/** Reads that wait for a leader's confirmation; more are refused. */
const MAX_WAITING_READS = 65_536;

/**
 * ReadIndex (Raft thesis 6.4): a read is linearizable at the commit index of its arrival once a majority has confirmed, after that, that this is
 * still the leader. Reads that arrive together share a round of heartbeats, and a confirmed round confirms all before it.
 */
export class ReadRounds {
  #waiting: number[] = [];
  readonly #rounds: Round[] = [];
  #lastRound = 0;
  #size = 0;

  add(context: number): void {
    if (this.#size >= MAX_WAITING_READS) throw new FlotillaError('THROTTLING_QUOTA_EXCEEDED', 'too many reads wait for the leader; retry');
    this.#waiting.push(context);
    this.#size++;
  }

  get isWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  /** The newest round that is not confirmed; 0: none. */
  get openRound(): number {
    return this.#rounds.length === 0 ? 0 : this.#lastRound;
  }

  /** Starts a round for all that wait, at the present commit index. */
  start(commitIndex: number): void {
    this.#lastRound++;
    this.#rounds.push({ round: this.#lastRound, index: commitIndex, contexts: this.#waiting });
    this.#waiting = [];
  }

  /** A majority has confirmed rounds up to `round`. */
  confirm(round: number, into: ReadState[]): void {
    let confirmed = 0;
    for (const { round: number, index, contexts } of this.#rounds) {
      if (number > round) break;
      confirmed++;
      this.#size -= contexts.length;
      for (const context of contexts) into.push({ context, index });
    }
    this.#rounds.splice(0, confirmed);
  }
}

import type { SeededRandom } from './random.ts';
import type { VirtualTime } from './virtual-environment.ts';

/** Milliseconds between the rests of a topic, and of a rest. */
const FLOOD_MS = [2_000, 15_000] as const;
const EBB_MS = [1_000, 10_000] as const;

/** Which topics get nothing just now, so that their groups come to rest and are woken again. */
export class Tide {
  readonly #time: VirtualTime;
  readonly #random: SeededRandom;
  readonly #topics: { restsFromMs: number; restsToMs: number }[];

  /** No topic rests that is not among the first `topics`. */
  constructor(time: VirtualTime, random: SeededRandom, topics: number) {
    this.#time = time;
    this.#random = random;
    this.#topics = Array.from({ length: topics }, () => this.#next(0));
  }

  rests(topic: number): boolean {
    const state = this.#topics[topic];
    if (state === undefined) return false;
    const { nowMs } = this.#time;
    if (nowMs >= state.restsToMs) Object.assign(state, this.#next(nowMs));
    return nowMs >= state.restsFromMs;
  }

  #next(nowMs: number): { restsFromMs: number; restsToMs: number } {
    const restsFromMs = nowMs + this.#random.between(...FLOOD_MS);
    return { restsFromMs, restsToMs: restsFromMs + this.#random.between(...EBB_MS) };
  }
}

/** What a broker does again and again while it runs: one round at a time, the next an interval after the last one's end. An interval of 0: only when asked. */
import type { Scheduler, Timer } from '../base/environment.ts';

export class Rounds {
  readonly #scheduler: Pick<Scheduler, 'after'>;
  readonly #intervalMs: number;
  readonly #round: () => Promise<void>;
  readonly #stop = new AbortController();
  #timer: Timer | undefined;
  #underWay: Promise<void> | undefined;

  /** A round that rejects is a defect: nobody catches it, so it ends the process. */
  constructor(scheduler: Pick<Scheduler, 'after'>, intervalMs: number, round: () => Promise<void>) {
    this.#scheduler = scheduler;
    this.#intervalMs = intervalMs;
    this.#round = round;
  }

  /** Fires at {@link stop}: a round heeds it wherever it waits, and between its parts. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** The first round comes after `firstMs`. */
  start(firstMs: number = this.#intervalMs): void {
    if (this.#intervalMs > 0) this.#timer = this.#scheduler.after(firstMs, () => this.begin());
  }

  /** A round comes now, unless one is under way, and the next an interval after it. */
  begin(): void {
    if (this.#underWay !== undefined || this.#stop.signal.aborted) return;
    this.#timer?.cancel();
    this.#underWay = this.#round().finally(() => {
      this.#underWay = undefined;
      if (!this.#stop.signal.aborted) this.start();
    });
  }

  /** Resolves when the round under way has ended, and no other comes. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#timer?.cancel();
    await this.#underWay;
  }
}

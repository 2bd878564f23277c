/** The wall clock, as far as it may decide what is deleted (hazard B41). */
import type { Environment, Logger } from '../base/environment.ts';

/** A wall clock that moves so much more or less than time does is wrong now, or was before, and nothing goes by age … */
export const CLOCK_JUMP_MS = 3_600_000;
/** … for so long, in which somebody may set it right. */
export const CLOCK_PAUSE_MS = 3_600_000;

export class TrustedClock {
  readonly #environment: Environment;
  readonly #log: Logger;
  /** When it was last looked at. */
  #clocks: { readonly wallMs: number; readonly monotonicMs: number };
  /** Monotonic; nothing goes by age before. */
  #ageFromMs = Number.NEGATIVE_INFINITY;

  constructor(environment: Environment, log: Logger) {
    this.#environment = environment;
    this.#log = log;
    this.#clocks = this.#read();
  }

  /** Undefined: the clock jumped a while ago. */
  nowMs(): number | undefined {
    const before = this.#clocks;
    const { wallMs, monotonicMs } = this.#read();
    this.#clocks = { wallMs, monotonicMs };
    const jumpMs = wallMs - before.wallMs - (monotonicMs - before.monotonicMs);
    if (Math.abs(jumpMs) > CLOCK_JUMP_MS) {
      this.#ageFromMs = monotonicMs + CLOCK_PAUSE_MS;
      const advice = `nothing is deleted by age for the next ${CLOCK_PAUSE_MS / 60_000} minutes; set the clock right`;
      this.#log.error('clock jumped', { jumpMs: Math.round(jumpMs), advice });
    }
    return monotonicMs < this.#ageFromMs ? undefined : wallMs;
  }

  #read(): { wallMs: number; monotonicMs: number } {
    return { wallMs: this.#environment.wallMs(), monotonicMs: this.#environment.monotonicMs() };
  }
}

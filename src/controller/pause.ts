/** Waiting between tries. */
import { type Random, randomBelow, type Scheduler } from '../base/environment.ts';

/** Resolves after `ms`, or at once when the signal fires: ask it afterwards. */
export function pause(scheduler: Scheduler, ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      timer.cancel();
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = scheduler.after(ms, done);
    signal.addEventListener('abort', done, { once: true });
  });
}

export const MIN_BACKOFF_MS = 50;
export const MAX_BACKOFF_MS = 1_000;

/** Doubles with each failed try up to MAX_BACKOFF_MS; half of it by lot. */
export function backoffMs(failures: number, random: Random): number {
  const full = Math.min(MAX_BACKOFF_MS, MIN_BACKOFF_MS * 2 ** Math.min(failures, 10));
  return full / 2 + randomBelow(random, Math.ceil(full / 2));
}

/** A wait that always ends: by its result, its deadline, or its caller's AbortSignal. */
import type { Scheduler } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';

export type Deadlines = Pick<Scheduler, 'after'>;

export interface Wait<T> {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  /** The message of REQUEST_TIMED_OUT. */
  readonly timeout: string;
  /** Starts the work; the result is called once when the wait ends, however it ends. */
  readonly start: (resolve: (value: T) => void, reject: (error: FlotillaError) => void) => () => void;
}

/** @throws FlotillaError REQUEST_TIMED_OUT, ABORTED, or what the work rejects with. */
export function deadline<T>(deadlines: Deadlines, wait: Wait<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    if (wait.signal.aborted) {
      reject(new FlotillaError('ABORTED', 'the call was aborted.'));
      return;
    }
    let ended = false;
    let stop = () => {};
    const end = (then: () => void) => {
      if (ended) return;
      ended = true;
      timer.cancel();
      wait.signal.removeEventListener('abort', abort);
      stop();
      then();
    };
    const abort = () => end(() => reject(new FlotillaError('ABORTED', 'the call was aborted.')));
    const timer = deadlines.after(wait.timeoutMs, () => end(() => reject(new FlotillaError('REQUEST_TIMED_OUT', wait.timeout))));
    wait.signal.addEventListener('abort', abort);
    try {
      stop = wait.start(
        (value) => end(() => resolve(value)),
        (error) => end(() => reject(error)),
      );
    } catch (error) {
      end(() => reject(error));
    }
  });
}

/** The work, or nothing once `ms` have passed: for closing, which must end even when a disk or peer does not answer. */
export function within(deadlines: Deadlines, ms: number, work: Promise<unknown>): Promise<'done' | 'timeout'> {
  return new Promise((resolve, reject) => {
    const timer = deadlines.after(ms, () => resolve('timeout'));
    work.then(() => resolve('done'), reject).finally(() => timer.cancel());
  });
}

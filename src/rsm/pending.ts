/** Operations that are proposed and not yet applied, in log order, each with its parked response. */
import { assert } from '../base/assert.ts';
import type { Scheduler, Timer } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import type { Committed } from './types.ts';

/** More parked responses than this: THROTTLING_QUOTA_EXCEEDED. */
export const MAX_PENDING_OPERATIONS = 10_000;
/** A parked response rejects after this long, whatever its signal does. */
export const OPERATION_DEADLINE_MS = 30_000;

interface Pending {
  readonly index: number;
  readonly term: number;
  /** Undefined: nobody waits any more; the records are still pending. */
  settle: ((error: FlotillaError | undefined) => void) | undefined;
}

export class PendingOperations {
  readonly #scheduler: Scheduler;
  /** In index order; `#head` is the first that is still pending. */
  #queue: Pending[] = [];
  #head = 0;

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
  }

  /** The newest pending operation: its entry is the last of the overlay. */
  get last(): { readonly index: number; readonly term: number } | undefined {
    return this.#head < this.#queue.length ? this.#queue.at(-1) : undefined;
  }

  checkRoom(): void {
    if (this.#queue.length - this.#head < MAX_PENDING_OPERATIONS) return;
    throw new FlotillaError('THROTTLING_QUOTA_EXCEEDED', `${MAX_PENDING_OPERATIONS} operations wait for a majority already: retry later`);
  }

  /** Parks the response until the entry is applied, the signal fires or the deadline passes. */
  park<Response>(index: number, term: number, response: Response, signal: AbortSignal): Promise<Committed<Response>> {
    return new Promise((resolve, reject) => {
      const abandon = (error: FlotillaError): void => pending.settle?.(error);
      const aborted = (): void => abandon(new FlotillaError('ABORTED', 'the call was aborted; the operation may still commit'));
      const timer: Timer = this.#scheduler.after(OPERATION_DEADLINE_MS, () =>
        abandon(new FlotillaError('REQUEST_TIMED_OUT', 'no majority confirmed the operation in time; it may still commit')),
      );
      const pending: Pending = {
        index,
        term,
        settle: (error) => {
          pending.settle = undefined;
          timer.cancel();
          signal.removeEventListener('abort', aborted);
          if (error === undefined) resolve({ response, index });
          else reject(error);
        },
      };
      signal.addEventListener('abort', aborted, { once: true });
      this.#queue.push(pending);
    });
  }

  /** The entry was applied: resolves what waited for it. */
  complete(index: number, term: number): void {
    for (;;) {
      const first = this.#queue[this.#head];
      if (first === undefined || first.index > index) break;
      assert(first.index === index && first.term === term, "an entry in a pending operation's place is another's", {
        index,
        term,
        pending: first.index,
      });
      this.#head++;
      first.settle?.(undefined);
    }
    if (this.#head === this.#queue.length) this.#reset();
    else if (this.#head >= 1024) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
  }

  rejectAll(error: FlotillaError): void {
    const rejected = this.#queue.slice(this.#head);
    this.#reset();
    for (const pending of rejected) pending.settle?.(error);
  }

  #reset(): void {
    this.#queue = [];
    this.#head = 0;
  }
}

/** Waiting on injected time: every wait of the SDK has a deadline, takes an AbortSignal and leaves no timer or listener behind. */
import type { Environment, Random, Timer } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';

/** A promise with its ends outside. */
export class Deferred<T> {
  readonly promise: Promise<T>;
  resolve: (value: T) => void = () => {};
  reject: (error: unknown) => void = () => {};
  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }
}

/** The error of a fired signal: its reason where that is ours (a handle that was closed), else ABORTED. */
export function abortError(signal: AbortSignal): FlotillaError {
  if (signal.reason instanceof FlotillaError) return signal.reason;
  return new FlotillaError('ABORTED', 'the call was aborted by its AbortSignal', { cause: signal.reason });
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal);
}

/** `promise`, or ABORTED as soon as the signal fires. What the promise stands for goes on by itself. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(abortError(signal));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

/** `promise`, or the error that `onTimeout` makes after `ms`. */
export function withDeadline<T>(environment: Environment, ms: number, promise: Promise<T>, onTimeout: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = environment.after(ms, () => reject(onTimeout()));
    promise.then(resolve, reject).finally(() => timer.cancel());
  });
}

/** Resolves after `ms`; rejects with ABORTED as soon as the signal fires. */
export function sleep(environment: Environment, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(abortError(signal));
    let timer: Timer | undefined;
    const onAbort = () => {
      timer?.cancel();
      if (signal) reject(abortError(signal));
    };
    timer = environment.after(ms, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

export const BACKOFF_FIRST_MS = 20;
export const BACKOFF_MAX_MS = 1_000;

/** The wait before try number `attempt` (1 is the first retry): doubled each time, bounded, and half of it random, so that clients spread. */
export function backoffMs(random: Random, attempt: number): number {
  const full = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempt - 1, 16));
  return full / 2 + (random.uint32() / 2 ** 32) * (full / 2);
}

/** One signal for several: fires with the first. `release` detaches it. */
export function linkSignals(...signals: (AbortSignal | undefined)[]): { signal: AbortSignal; release(): void } {
  const controller = new AbortController();
  const sources = signals.filter((signal): signal is AbortSignal => signal !== undefined);
  const listeners = sources.map((source) => {
    const onAbort = () => controller.abort(source.reason);
    if (source.aborted) onAbort();
    else source.addEventListener('abort', onAbort, { once: true });
    return () => source.removeEventListener('abort', onAbort);
  });
  return {
    signal: controller.signal,
    release() {
      for (const remove of listeners) remove();
    },
  };
}

/** Waits that end: at a deadline on the injected clock, or when their signal aborts. */
import type { Environment } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';

/** Runs `work` with a signal that aborts with REQUEST_TIMED_OUT after `ms`, or with its parent. Rejects then, even when the work does not heed the signal. */
export async function within<T>(
  environment: Environment,
  ms: number,
  parent: AbortSignal | undefined,
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (error: FlotillaError) => {
    reject(error);
    controller.abort(error);
  };
  const onParent = () => abort(new FlotillaError('ABORTED', `The caller gave up: ${what}.`));
  const timer = environment.after(ms, () => abort(new FlotillaError('REQUEST_TIMED_OUT', `Not done within ${ms} ms: ${what}. Try again.`)));
  // Nobody may be listening any more when it aborts.
  aborted.catch(() => undefined);
  if (parent?.aborted) onParent();
  else parent?.addEventListener('abort', onParent);
  try {
    return await Promise.race([work(controller.signal), aborted]);
  } finally {
    timer.cancel();
    parent?.removeEventListener('abort', onParent);
  }
}

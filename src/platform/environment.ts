import { randomFillSync } from 'node:crypto';
import type { Environment } from '../base/environment.ts';

/** The longest that a timer of Node waits, 24.8 days: with more it fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;
const RANDOM_POOL = 256;
const pool = new Uint32Array(RANDOM_POOL);
let poolAt = RANDOM_POOL;

/** The real clock, timers and random numbers. */
export const nodeEnvironment: Environment = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  after(ms, task) {
    const timeout = setTimeout(task, Math.min(ms, MAX_TIMER_MS));
    return { cancel: () => clearTimeout(timeout) };
  },
  soon: queueMicrotask,
  nextTurn(task) {
    setImmediate(task);
  },
  uint32() {
    if (poolAt === RANDOM_POOL) {
      randomFillSync(pool);
      poolAt = 0;
    }
    return pool[poolAt++] ?? 0;
  },
};

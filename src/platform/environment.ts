import { randomFillSync } from 'node:crypto';
import type { Environment } from '../base/environment.ts';

const RANDOM_POOL = 256;
const pool = new Uint32Array(RANDOM_POOL);
let poolAt = RANDOM_POOL;

/** The real clock, timers and random numbers. */
export const nodeEnvironment: Environment = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  after(ms, task) {
    const timeout = setTimeout(task, ms);
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

/**
 * The worlds that a run goes through. One that may do everything is so wide that a minute reaches no depth; so there are narrow ones besides, which
 * reach far in one direction.
 */
import type { Bounds } from './world.ts';

const narrow: Bounds = {
  servers: 3,
  terms: 3,
  values: 0,
  crashes: 0,
  slow: 0,
  duplicates: 0,
  ticks: 0,
  timeouts: 0,
  changes: 0,
  learners: 0,
};

export const worlds: Readonly<Record<string, Bounds>> = {
  elections: narrow,
  values: { ...narrow, values: 2 },
  crash: { ...narrow, terms: 2, values: 1, crashes: 1, slow: 2 },
  network: { ...narrow, terms: 2, values: 2, duplicates: 1, ticks: 1 },
  preVote: { ...narrow, timeouts: 3 },
  removal: { ...narrow, terms: 2, changes: 2 },
  promotion: { ...narrow, terms: 2, changes: 1, learners: 1 },
  pull: { ...narrow, terms: 4, ticks: 1, timeouts: 2 },
  everything: { ...narrow, values: 2, crashes: 1, slow: 2, duplicates: 1, ticks: 1, timeouts: 1, changes: 1 },
};

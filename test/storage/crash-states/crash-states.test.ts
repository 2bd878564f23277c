import { expect, it } from 'vitest';
import { openStates } from './run.ts';

it('every directory that a power cut leaves opens, and has all that was acknowledged (B22, B26, B36)', { timeout: 60_000 }, async () => {
  expect(await openStates({ states: 300, seed: 1 })).toBeGreaterThanOrEqual(300);
});

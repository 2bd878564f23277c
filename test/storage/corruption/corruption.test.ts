import { expect, test } from 'vitest';
import { runTrials } from './trials.ts';

test('files of one replica of three are damaged, and nothing that was acknowledged is lost; all is put right by itself', async () => {
  const { total, failures } = await runTrials(60, 1);
  expect(failures).toEqual([]);
  expect(total).toEqual({ trials: 60, repaired: 60, lost: 0 });
}, 120_000);

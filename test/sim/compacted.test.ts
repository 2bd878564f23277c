import { expect, test } from 'vitest';
import { simulate } from './run.ts';

test('compacted topics keep every promise in stormy worlds, and are compacted in them', async () => {
  let compacted = 0;
  let walks = 0;
  for (const seed of [6, 9]) {
    const result = await simulate({ seed, safetyMs: 8_000, untilItCounts: false });
    expect(result.world.workload.compaction).toBeDefined();
    compacted += result.compacted;
    walks += result.walks;
  }
  expect(compacted).toBeGreaterThan(1_000);
  // Readers that came to the end in time, over one replica after the other.
  expect(walks).toBeGreaterThan(10);
});

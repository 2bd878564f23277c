import { afterEach, expect, test, vi } from 'vitest';
import { Inode } from './disk-inode.ts';
import { simulate } from './run.ts';

afterEach(() => vi.restoreAllMocks());

/** A net that finds nothing must be known to find something. */
test('disks that say that they have synced, and have not, are found out', async () => {
  const { synced } = Inode.prototype;
  let syncs = 0;
  vi.spyOn(Inode.prototype, 'synced').mockImplementation(function (this: Inode, changes, failed, durable) {
    synced.call(this, changes, failed || ++syncs > 150, durable);
  });
  await expect(simulate({ seed: 1, safetyMs: 2_000, faults: ['reset'], untilItCounts: false })).rejects.toThrow(
    /committed with durable copies on|which is not durable|durable is/,
  );
});

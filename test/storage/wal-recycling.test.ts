import { describe, expect, it } from 'vitest';
import type { Entry } from '../../src/raft/core/entry.ts';
import type { StorageSettings } from '../../src/storage/storage.ts';
import type { WalWrite } from '../../src/storage/types.ts';
import { bytesOf, chainOf, Fixture, groupKey, nextEntry, REPLICA, seeded, smallWal } from './fixture.ts';

const settings = { segmentBytes: 1 << 20 };
const committing = groupKey(1);
const stuck = [groupKey(10), groupKey(11), groupKey(12)];

function walFiles(fixture: Fixture): number {
  return fixture.disk.files().filter((name) => name.endsWith('.wal')).length;
}

function write(group: WalWrite['group'], entries: readonly Entry[]): WalWrite {
  return { group, hardState: undefined, truncateTo: undefined, entries };
}

describe('files of the write-ahead log', () => {
  // Groups that lost their majority keep what they appended, uncommitted, for as long as that lasts.
  it.each([1, 2, 3, 23, 24])('stay few while what is uncommitted fills whole ones, seed %i', async (seed) => {
    const random = seeded(seed);
    const below = (bound: number): number => random.uint32() % bound;
    const fixture = new Fixture(seed);
    const most = 8;
    fixture.disk.intercept = ({ kind, path }) =>
      kind === 'open' && path.endsWith('.wal') && walFiles(fixture) > most ? 'ENOSPC' : undefined;
    const storage = await fixture.open();
    const { log } = await storage.openLog(committing, settings, REPLICA);
    for (const group of stuck) await storage.openLog(group, settings, REPLICA);
    const tails: Entry[][] = stuck.map(() => []);
    let live = 0;
    let last: Entry | undefined;
    for (let round = 0; round < 150; round++) {
      const writes: WalWrite[] = [];
      if (live < 1.5 * 64 * 1024 && below(3) > 0) {
        const at = below(stuck.length);
        const tail = tails[at] as Entry[];
        const entries = chainOf(1 + below(4), { after: tail.at(-1), bytes: 100 + below(6000) });
        tail.push(...entries);
        for (const entry of entries) live += entry.payload.length;
        writes.push(write(stuck[at] as WalWrite['group'], entries));
      }
      last = nextEntry(last, { bytes: 100 + below(3000) });
      writes.push(write(committing, [last]));
      await storage.wal.append(writes);
      log.append([last]);
    }
    expect(fixture.failures).toEqual([]);
    fixture.disk.crash();
    fixture.restart();
    const reopened = await fixture.open();
    for (const [at, group] of stuck.entries()) {
      const { tail, whole } = await reopened.openLog(group, settings, REPLICA);
      expect(whole).toBe(true);
      expect(bytesOf(tail)).toEqual(bytesOf(tails[at] as Entry[]));
    }
    expect((await reopened.openLog(committing, settings, REPLICA)).whole).toBe(true);
  });

  it.each([
    [64, 1024],
    [1024, 64],
  ])('may get another size: from %i KiB to %i', async (before, after) => {
    const sized = (kib: number): StorageSettings => ({ walFileBytes: kib * 1024, walFiles: 2 });
    const fixture = new Fixture(1, sized(before));
    const small = chainOf(40, { bytes: 3000 });
    const storage = await fixture.open();
    await storage.openLog(committing, settings, REPLICA);
    for (const entry of small) await storage.wal.append([write(committing, [entry])]);
    fixture.disk.crash();
    fixture.restart();
    const resized = new Fixture(2, sized(after), fixture.disk);
    const reopened = await resized.open();
    const large = chainOf(8, { after: small.at(-1), bytes: (after * 1024) / 8 });
    for (const entry of large) await reopened.wal.append([write(committing, [entry])]);
    expect(resized.failures).toEqual([]);
    fixture.disk.crash();
    resized.restart();
    const { tail, whole } = await (await resized.open()).openLog(committing, settings, REPLICA);
    expect(whole).toBe(true);
    expect(bytesOf(tail)).toEqual(bytesOf([...small, ...large]));
  });

  it('stay few while the process dies soon after each start', async () => {
    const fixture = new Fixture();
    const entries = chainOf(5, { bytes: 1000 });
    const storage = await fixture.open();
    await storage.openLog(committing, settings, REPLICA);
    await storage.wal.append([write(committing, entries)]);
    for (let start = 0; start < 20; start++) {
      fixture.disk.crash();
      fixture.restart();
      await fixture.open();
    }
    expect(walFiles(fixture)).toBeLessThanOrEqual(2 * (smallWal.walFiles ?? 0) + 1);
    fixture.disk.crash();
    fixture.restart();
    const { tail } = await (await fixture.open()).openLog(committing, settings, REPLICA);
    expect(bytesOf(tail)).toEqual(bytesOf(entries));
  });
});

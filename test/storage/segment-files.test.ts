import { describe, expect, it } from 'vitest';
import type { GroupKey } from '../../src/base/ids.ts';
import type { Entry } from '../../src/raft/core/entry.ts';
import { SegmentFiles } from '../../src/storage/segment-files.ts';
import { SimDisk } from '../sim/disk.ts';
import { bytesOf, chainOf, Fixture, groupKey, seeded, smallWal, TestEnvironment } from './fixture.ts';

const settings = { segmentBytes: 2000 };
const ofSegments = (path: string): boolean => /\.(log|entries|control)$/.test(path);

describe('open files of segments', () => {
  it('are bounded over all logs, and everything can still be read', async () => {
    const limit = 6;
    const fixture = new Fixture(1, { ...smallWal, walFileBytes: 256 * 1024, maxOpenSegmentFiles: limit });
    const storage = await fixture.open();
    let most = 0;
    fixture.disk.intercept = () => {
      most = Math.max(most, fixture.disk.openFiles.filter(ofSegments).length);
      return undefined;
    };
    const groups: GroupKey[] = Array.from({ length: 20 }, (_, i) => groupKey(i));
    const logs = await Promise.all(groups.map(async (group) => (await storage.openLog(group, settings)).log));
    const written: Entry[] = [];
    for (let round = 0; round < 5; round++) {
      const entries = chainOf(4, { after: written.at(-1), bytes: 400 });
      written.push(...entries);
      await storage.wal.append(groups.map((group) => ({ group, hardState: undefined, truncateTo: undefined, entries })));
      for (const log of logs) log.append(entries);
      await Promise.all(logs.map((log) => log.flush()));
    }
    const read = await Promise.all(logs.map((log) => log.readEntries(1, 1)));
    for (const entries of read) expect(bytesOf(entries)).toEqual(bytesOf(written.slice(0, 1)));
    expect(most).toBe(limit);
    expect(fixture.failures).toEqual([]);
    await storage.close();
    expect(fixture.disk.openFiles).toEqual([]);
    const reopened = await fixture.open();
    const { log, whole } = await reopened.openLog(groups[7] as GroupKey, settings);
    expect(whole).toBe(true);
    expect(bytesOf(await log.readEntries(17, 10_000))).toEqual(bytesOf(written.slice(16)));
  });

  it('of a log that is deleted are closed once nothing uses them, and none is opened again', async () => {
    const fixture = new Fixture();
    const storage = await fixture.open();
    const A = groupKey(3);
    const { log } = await storage.openLog(A, { segmentBytes: 1 << 20 });
    const entries = chainOf(4, { bytes: 1000 });
    await storage.wal.append([{ group: A, hardState: undefined, truncateTo: undefined, entries }]);
    log.append(entries);
    let deleted: Promise<number> | undefined;
    fixture.disk.intercept = ({ kind, path }) => {
      if (kind === 'sync' && path.endsWith('.log')) deleted ??= Promise.resolve().then(() => storage.deleteLog(A));
      return undefined;
    };
    await log.flush();
    await deleted;
    expect(fixture.disk.openFiles.filter(ofSegments)).toEqual([]);
    await storage.close();
    expect(fixture.failures).toEqual([]);
  });

  it('is not closed under a read', async () => {
    const { disk, files } = pool(1);
    const [a, b] = [files.file('a'), files.file('b')];
    await a.write(0, [Uint8Array.of(1, 2, 3)]);
    await a.sync();
    const reads = [a.read(0, 3), b.size(), a.read(1, 2), b.size()];
    expect(await Promise.all(reads)).toEqual([Uint8Array.of(1, 2, 3), 0, Uint8Array.of(2, 3), 0]);
    expect(disk.openFiles).toHaveLength(1);
  });

  it('is synced before it makes room, and a sync that failed there is never forgotten (B25)', async () => {
    const { disk, files } = pool(1);
    const [a, b] = [files.file('a'), files.file('b')];
    await a.write(0, [Uint8Array.of(1)]);
    let syncs = 0;
    disk.intercept = ({ kind }) => (kind === 'sync' && ++syncs === 1 ? 'EIO' : undefined);
    await expect(b.size()).rejects.toThrow('EIO');
    await expect(a.sync()).rejects.toThrow('EIO');
    expect(syncs).toBe(1);
  });

  it('that could not be opened is tried again', async () => {
    const { disk, files } = pool(1);
    const a = files.file('a');
    disk.intercept = ({ kind }) => (kind === 'open' ? 'EIO' : undefined);
    await expect(a.size()).rejects.toThrow('EIO');
    disk.intercept = undefined;
    expect(await a.size()).toBe(0);
  });
});

function pool(limit: number): { disk: SimDisk; files: SegmentFiles } {
  const disk = new SimDisk(new TestEnvironment(), seeded(1));
  return { disk, files: new SegmentFiles(disk, limit) };
}

import { describe, expect, it } from 'vitest';
import type { BrokerId, ClusterId } from '../../src/base/ids.ts';
import { crc32 } from '../../src/platform/crc32.ts';
import { formatDirectory, initDirectory, nextIncarnation, readDirectory } from '../../src/storage/directory.ts';
import { SimDisk } from '../sim/disk.ts';
import { seeded, TestEnvironment } from './fixture.ts';

const one = { brokerId: 1 as BrokerId, random: seeded(1) };
const cluster = { clusterId: 'c'.repeat(32) as ClusterId };

describe('data directory', () => {
  it('is minted, formatted and counted, and refuses others (B14)', async () => {
    const access = { disk: new SimDisk(new TestEnvironment(), seeded(2)), path: 'data', crc32 };
    expect(await readDirectory(access)).toBeUndefined();
    const { directoryId, clusterId } = await initDirectory(access, one);
    expect(directoryId).toMatch(/^[0-9a-f]{32}$/);
    expect(clusterId).toBeUndefined();
    await formatDirectory(access, cluster);
    expect((await nextIncarnation(access)).incarnation).toBe(1);
    expect((await nextIncarnation(access)).incarnation).toBe(2);
    expect(await initDirectory(access, { ...one, ...cluster })).toMatchObject({ directoryId, ...cluster, incarnation: 2 });
    await expect(initDirectory(access, { ...one, brokerId: 2 as BrokerId })).rejects.toThrow('belongs to broker 1, not 2');
    await expect(formatDirectory(access, { clusterId: 'd'.repeat(32) as ClusterId })).rejects.toThrow('belongs to cluster');
    access.disk.corrupt('data/directory.json', 40, 1);
    expect((await nextIncarnation(access)).incarnation).toBe(3);
    access.disk.corrupt('data/directory.copy.json', 40, 1);
    expect((await nextIncarnation(access)).incarnation).toBe(4);
    for (const file of ['directory.json', 'directory.copy.json']) access.disk.corrupt(`data/${file}`, 40, 1);
    await expect(readDirectory(access)).rejects.toThrow('damaged');
  });
});

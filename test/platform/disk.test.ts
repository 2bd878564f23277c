import { spawnSync } from 'node:child_process';
import fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../src/base/environment.ts';
import type { BrokerId } from '../../src/base/ids.ts';
import { crc32 } from '../../src/platform/crc32.ts';
import { NodeDisk } from '../../src/platform/disk.ts';
import { nodeEnvironment } from '../../src/platform/environment.ts';
import { openLevelStore } from '../../src/platform/state-store.ts';
import { initDirectory } from '../../src/storage/directory.ts';
import { MemoryStateStore } from '../../src/storage/memory-state-store.ts';
import { openStorage } from '../../src/storage/storage.ts';
import { bytesOf, chainOf, checksums, groupKey, REPLICA } from '../storage/fixture.ts';

let path: string;
beforeEach(async () => {
  path = await fs.mkdtemp(join(tmpdir(), 'flotilla-disk-'));
});
afterEach(() => fs.rm(path, { recursive: true, force: true }));

describe('the real disk', () => {
  const disk = new NodeDisk();

  it('makes directories with their parents, and says what it could not make', async () => {
    await disk.makeDirectory(`${path}/a/b/c`);
    await disk.makeDirectory(`${path}/a/b/c`);
    expect(await disk.exists(`${path}/a/b/c`)).toBe(true);
    await (await disk.open(`${path}/file`, { create: true })).close();
    await expect(disk.makeDirectory(`${path}/file`)).rejects.toThrow('EEXIST');
    await expect(disk.makeDirectory(`${path}/file/x`)).rejects.toThrow('ENOTDIR');
  });

  it.runIf(process.platform === 'linux')('gives up where nothing can be made, instead of trying for ever', async () => {
    await expect(disk.makeDirectory('/proc/flotilla/x')).rejects.toThrow('ENOENT');
  });

  it('writes more buffers than one writev takes, and reads them back', async () => {
    const file = await disk.open(`${path}/a`, { create: true });
    const buffers = Array.from({ length: 2500 }, (_, i) => Uint8Array.of(i & 0xff, i >> 8));
    await file.write(7, buffers);
    await file.sync();
    expect(await file.size()).toBe(7 + 5000);
    expect(Buffer.concat(buffers).equals(await file.read(7, 9999))).toBe(true);
    await file.close();
    expect(await disk.list(`${path}/none`)).toEqual([]);
  });

  it('locks a directory for one process', async () => {
    const lock = await disk.lock(path);
    await expect(disk.lock(path)).rejects.toThrow(`in use by process ${process.pid}`);
    await lock.release();
    await (await disk.lock(path)).release();
  });

  it('takes over the lock of a dead process, and of a recycled process id', async () => {
    const dead = spawnSync(process.execPath, ['-e', '']).pid;
    const stale = [JSON.stringify({ pid: dead }), JSON.stringify({ pid: process.pid, startedAt: '1' }), 'rubbish'];
    for (const text of stale) {
      await fs.writeFile(join(path, 'lock'), text);
      await (await disk.lock(path)).release();
    }
    expect(await disk.list(path)).toEqual([]);
  });

  it('holds a broker storage over a restart', async () => {
    await initDirectory({ disk, path, crc32 }, { brokerId: 1 as BrokerId, random: nodeEnvironment });
    const failed = (error: Error): void => {
      throw error;
    };
    const options = {
      disk,
      path,
      environment: nodeEnvironment,
      log: silentLogger,
      failed,
      settings: { walFileBytes: 1 << 20, walFiles: 2 },
      ...checksums,
    };
    const storage = await openStorage(options);
    const { log } = await storage.openLog(groupKey(0), { segmentBytes: 1 << 20 }, REPLICA);
    const entries = chainOf(60, { bytes: 50_000 });
    for (let at = 0; at < 60; at += 4) {
      const run = entries.slice(at, at + 4);
      await storage.wal.append([{ group: groupKey(0), hardState: { term: 1, vote: 0, commit: at }, truncateTo: undefined, entries: run }]);
      log.append(run);
    }
    await storage.close();
    const again = await openStorage(options);
    const opened = await again.openLog(groupKey(0), { segmentBytes: 1 << 20 }, REPLICA);
    expect(opened.log.lastIndex).toBe(60);
    expect(bytesOf(await opened.log.readEntries(60, 1))).toEqual(bytesOf(entries.slice(59)));
    expect(again.wal.statistics.fileTurns).toBeGreaterThan(0);
    await again.close();
  });
});

describe.each([
  ['level', () => openLevelStore(`${path}/level`)],
  ['memory', async () => new MemoryStateStore()],
] as const)('state store: %s', (_name, open) => {
  it('keeps an ordered map of bytes, all of a batch or none', async () => {
    const store = await open();
    await store.write([
      { key: 'a/2', value: Uint8Array.of(2) },
      { key: 'a/1', value: Uint8Array.of(1) },
      { key: 'b', value: new Uint8Array(0) },
      { key: 'a/\u{1f600}', value: Uint8Array.of(4) },
      { key: 'a/\uffee', value: Uint8Array.of(3) },
    ]);
    expect((await store.entries('a/')).map(([key, value]) => [key, ...value])).toEqual([
      ['a/1', 1],
      ['a/2', 2],
      ['a/\uffee', 3],
      ['a/\u{1f600}', 4],
    ]);
    await store.write([{ key: 'a/1', value: undefined }]);
    expect(await store.get('a/1')).toBeUndefined();
    expect([...((await store.get('b')) ?? [9])]).toEqual([]);
    await store.close();
  });
});

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../src/base/environment.ts';
import type { BrokerId } from '../../src/base/ids.ts';
import { NodeDisk } from '../../src/platform/disk.ts';
import { nodeEnvironment } from '../../src/platform/environment.ts';
import { initDirectory } from '../../src/storage/directory.ts';
import { openStorage } from '../../src/storage/storage.ts';
import { A, chainOf, checksums, cleanBy, groupKey, REPLICA, write } from '../storage/fixture.ts';
import { flotilla } from './fake.ts';

const topicId = 'a'.repeat(32);
let directory: string;
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'flotilla-log-'));
  const disk = new NodeDisk();
  const access = { disk, path: directory, crc32: checksums.crc32 };
  await initDirectory(access, { brokerId: 4 as BrokerId, random: nodeEnvironment });
  const settings = { walFileBytes: 1 << 20, walFiles: 2 };
  const failed = (error: Error): void => expect.fail(error.message);
  const storage = await openStorage({ ...access, ...checksums, environment: nodeEnvironment, log: silentLogger, settings, failed });
  const { log } = await storage.openLog(A, { segmentBytes: 20_000 }, REPLICA);
  for (const entry of chainOf(30, { bytes: 2000 })) {
    await storage.wal.append([write([entry], { hardState: { term: 1, vote: 0, commit: entry.index } })]);
    log.append([entry]);
  }
  const other = { ...write(chainOf(2)), group: groupKey(1), hardState: { term: 5, vote: 0, commit: 0 } as const };
  await storage.openLog(groupKey(1), { segmentBytes: 20_000 }, REPLICA);
  await storage.wal.append([other]);
  await storage.close();
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const files = () => readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort();

function damage(ending: string, position: number): string {
  const name = join(directory, files().find((file) => file.endsWith(ending)) ?? '');
  const bytes = readFileSync(name);
  bytes[position] = (bytes[position] ?? 0) ^ 0xff;
  writeFileSync(name, bytes);
  return name;
}

describe('log describe', () => {
  it('says whose the directory is and what is in it', async () => {
    const { out, code } = await flotilla(['log', 'describe', directory]);
    expect(code).toBe(0);
    expect(out).toContain('broker 4 of cluster none yet');
    expect(out).toMatch(new RegExp(`${topicId}-0 +7 +1 +1 to 30 +30 +0 +\\d+ +\\d+(\\.\\d)? kB +0 +whole`));
    expect(out).toMatch(new RegExp(`${topicId}-1 +7 +5 +1 to 2 +0 +0 +0 +0 B +2 +whole`));
  });

  it('has it as JSON, and leaves no file behind', async () => {
    const before = files();
    const { json, code } = await flotilla(['log', 'describe', directory, '--json']);
    expect(code).toBe(0);
    expect(json).toMatchObject({ identity: { brokerId: 4 }, replicas: [{ name: `${topicId}-0`, lastIndex: 30 }, { entriesInWal: 2 }] });
    expect(files()).toEqual(before);
  });

  it('refuses what is no data directory, and one that is in use', async () => {
    expect(await flotilla(['log', 'describe', join(directory, 'groups')])).toMatchObject({
      code: 1,
      err: expect.stringContaining('no data directory'),
    });
    expect(await flotilla(['log', 'describe', join(directory, 'none')])).toMatchObject({
      code: 1,
      err: expect.stringContaining('no directory'),
    });
    const lock = await new NodeDisk().lock(directory);
    expect(await flotilla(['log', 'describe', directory])).toMatchObject({ code: 1, err: expect.stringContaining(`${process.pid}`) });
    await lock.release();
  });
});

describe('log verify', () => {
  it('exits 0 where all is as it was written', async () => {
    const { out, err, code } = await flotilla(['log', 'verify', directory]);
    expect({ out, code }).toEqual({ out: '', code: 0 });
    expect(err).toMatch(/^2 replicas, 30 entries in segments, \d+ flush frames: all as it was written\n$/);
  });

  it('names file, position and what is wrong, and exits 1', async () => {
    const name = damage('.log', 2100);
    const { out, err, code } = await flotilla(['log', 'verify', directory]);
    expect(code).toBe(1);
    expect(out).toBe(`${name}:2000: ${topicId}-0: entry 2 does not match its checksum\n`);
    expect(err).toContain('1 damaged place');
    const { json } = await flotilla(['log', 'verify', directory, '--json']);
    expect(json).toMatchObject({ replicas: 2, entries: 30, damage: [{ file: name, position: 2000 }] });
  });
});

describe('log dump', () => {
  const partition = ['--partition', `${topicId}-0`];

  it('has a line for each batch', async () => {
    const { out, code } = await flotilla(['log', 'dump', directory, ...partition, '--from', '3', '--max', '2']);
    expect(code).toBe(0);
    expect(out).toBe(
      'index 4 term 1 offsets 3 to 3 2000 bytes none 1970-01-01T00:00:01.004Z producer 0/0 from 0\n' +
        'index 5 term 1 offsets 4 to 4 2000 bytes none 1970-01-01T00:00:01.005Z producer 0/0 from 0\n',
    );
  });

  it('has what stands in the write-ahead log alone', async () => {
    const { out } = await flotilla(['log', 'dump', directory, '--partition', `${topicId}-1`]);
    expect(out.match(/in the write-ahead log/g)).toHaveLength(2);
  });

  it('has what compaction left', async () => {
    const access = { disk: new NodeDisk(), path: directory, crc32: checksums.crc32 };
    const failed = (error: Error): void => expect.fail(error.message);
    const storage = await openStorage({ ...access, ...checksums, environment: nodeEnvironment, log: silentLogger, failed });
    const { log } = await storage.openLog(A, { segmentBytes: 20_000 }, REPLICA);
    log.snapshotSource = () => new Uint8Array(8);
    const all = chainOf(60, { bytes: 2000 });
    await storage.wal.append([write(all.slice(30), { hardState: { term: 1, vote: 0, commit: 60 } })]);
    for (const entry of all.slice(30)) log.append([entry]);
    await log.flush();
    await storage.wal.append([]);
    await log.clean(
      Number.MAX_SAFE_INTEGER,
      cleanBy((offset) => (offset % 10 === 0 ? 'kept' : 'gone')),
      new AbortController().signal,
    );
    expect(log.cleanedTo).toBeGreaterThan(20);
    const { cleanedTo } = log;
    await storage.close();
    const { out, code } = await flotilla(['log', 'dump', directory, '--partition', `${topicId}-0`]);
    expect(code).toBe(0);
    const lines = out.trim().split('\n');
    const left = lines.filter((line) => !line.endsWith(' cleaned'));
    expect(left.slice(0, 2).map((line) => line.slice(0, 30))).toEqual(['index 1 term 1 offsets 0 to 0 ', 'index 11 term 1 offsets 10 to ']);
    expect(lines.filter((line) => line.endsWith(' cleaned')).join()).toContain(`offsets ${cleanedTo - 1} to ${cleanedTo - 1} 0 bytes`);
    expect((await flotilla(['log', 'verify', directory])).code).toBe(0);
  });

  it('asks which partition, and tells which there are', async () => {
    expect(await flotilla(['log', 'dump', directory])).toMatchObject({
      code: 1,
      err: expect.stringContaining(`${topicId}-0, ${topicId}-1`),
    });
    expect(await flotilla(['log', 'dump', directory, '--partition', 'x/0'])).toMatchObject({
      code: 1,
      err: expect.stringContaining('no partition x/0'),
    });
  });

  it('goes on past what is damaged, marks it, and exits 1', async () => {
    damage('.log', 2100);
    const { out, code } = await flotilla(['log', 'dump', directory, ...partition]);
    expect(code).toBe(1);
    expect(out.split('\n').filter((line) => line.endsWith('DAMAGED'))).toHaveLength(1);
    expect(out.trim().split('\n')).toHaveLength(30);
  });
});

/** Cleaning, while the power goes, the disk fails, a follower lags, and files rot. */
import { describe, expect, it } from 'vitest';
import type { ReplicaId } from '../../src/base/ids.ts';
import { EntryKind } from '../../src/raft/core/entry.ts';
import type { SegmentedLog } from '../../src/storage/partition-log.ts';
import { readStored } from '../../src/storage/stored-directory.ts';
import { type Damage, storedEntries } from '../../src/storage/stored-log.ts';
import { encodeTombstoneFloor } from '../../src/storage/tombstone-floor.ts';
import { ALL, check, filled, open, SIGNAL, settings } from './cleaned-log.ts';
import { A, checksums, cleanBy, Fixture, fateOf, nextEntry, REPLICA, seeded, TestEnvironment, write } from './fixture.ts';

/** Of a log that was cleaned in part: all up to there was. */
const cleanedTo = (log: SegmentedLog) => log.cleanable().findLast(({ cleaned }) => cleaned)?.nextOffset ?? 0;
const segmentFiles = (fixture: Fixture) => fixture.disk.files().filter((name) => /\.(log|entries|control|aside)$/.test(name));

describe('cleaning', () => {
  it('leaves each segment as it was or as it will be, whatever the power cut takes (B22, B26)', { timeout: 60_000 }, async () => {
    const { fixture, log, all } = await filled(new Fixture(3), 60);
    const outcomes = new Map<number, number>();
    const left: { disk: Fixture['disk']; before: string }[] = [];
    let operation = 0;
    fixture.disk.intercept = ({ kind, path }) => {
      operation++;
      if (!['read', 'size', 'exists', 'list', 'open', 'close'].includes(kind))
        for (let seed = 0; seed < 6; seed++)
          left.push({
            disk: fixture.disk.afterPowerCut(new TestEnvironment(1), seeded(100 * operation + seed)),
            before: `${kind} of ${path}, ${seed}`,
          });
      return undefined;
    };
    await log.clean(ALL, cleanBy(fateOf), SIGNAL);
    for (const { disk, before } of left) {
      const found = new Fixture(1, fixture.settings, disk);
      const { log: opened, storage } = await open(found);
      const cleaned = cleanedTo(opened);
      outcomes.set(cleaned, (outcomes.get(cleaned) ?? 0) + 1);
      await check(opened, all, cleaned).catch((error: Error) => {
        throw new Error(`before the ${before}: ${error.message}`, { cause: error });
      });
      await storage.close();
      const entries = segmentFiles(found).filter((name) => name.endsWith('.entries'));
      expect(entries.length, before).toBe(opened.segments().filter(({ base }) => base.index <= opened.lastIndex).length);
    }
    expect(outcomes.size).toBeGreaterThan(2);
  });

  it('removes nothing before the name is durable of what was made from it (B26)', async () => {
    const { fixture, log } = await filled();
    const done: string[] = [];
    fixture.disk.intercept = ({ kind, path }) => {
      if (path.includes('/groups/') && ['write', 'sync', 'rename', 'remove', 'syncDirectory'].includes(kind) && !path.includes('.snapshot'))
        done.push(kind);
      return undefined;
    };
    await log.clean(log.cleanable()[0]?.lastIndex ?? 0, cleanBy(fateOf), SIGNAL);
    // Not all file systems keep the order of changes of a directory; then only a sync between them does.
    const named = done.lastIndexOf('rename');
    expect(done.slice(named, done.indexOf('remove') + 1)).toEqual(['rename', 'syncDirectory', 'remove']);
    expect(done.slice(0, named).join()).toMatch(/sync,sync,syncDirectory(,syncDirectory)*$/);
  });

  it('goes on with the old files where the disk fails, and with the new ones at the next attempt', { timeout: 60_000 }, async () => {
    let failures = 0;
    for (let at = 0; ; at++) {
      const { fixture, log, all, storage } = await filled(new Fixture(at), 40);
      let operation = 0;
      fixture.disk.intercept = ({ kind, path }) =>
        kind !== 'close' && path.includes('/groups/') && operation++ === at ? 'EIO' : undefined;
      const failed = await log.clean(ALL, cleanBy(fateOf), SIGNAL).then(
        () => false,
        () => true,
      );
      fixture.disk.intercept = undefined;
      expect(fixture.failures, `operation ${at}`).toEqual([]);
      await check(log, all, cleanedTo(log));
      if (operation <= at) break;
      if (failed) failures++;
      await log.clean(ALL, cleanBy(fateOf), SIGNAL);
      await check(log, all, cleanedTo(log));
      const size = log.sizeBytes;
      await storage.close();
      fixture.restart();
      const again = await open(fixture);
      await check(again.log, all, cleanedTo(log));
      expect(again.log.sizeBytes).toBe(size);
    }
    expect(failures).toBeGreaterThan(20);
  });

  it('a follower gets what was cleaned as a snapshot, in the place of its log', async () => {
    const leader = await filled(new Fixture(), 100);
    await leader.log.clean(ALL, cleanBy(fateOf), SIGNAL);
    const snapshot = await leader.log.openSnapshot();
    if (snapshot === undefined) throw new Error('there is a snapshot');
    const fixture = new Fixture(2);
    const storage = await fixture.open();
    await storage.openLog(A, settings, REPLICA);
    const fill = async (damaged?: number): Promise<void> => {
      const staging = await storage.stageSnapshot(A, snapshot.files);
      for (const [file, { length, name }] of snapshot.files.entries()) {
        const { bytes } = await snapshot.read(file, 0, length);
        if (damaged !== undefined && /\.1\.entries$/.test(name)) bytes[damaged] = (bytes[damaged] ?? 0) ^ 1;
        await staging.write(file, 0, bytes, checksums.crc32(bytes));
      }
      await staging.verify();
    };
    for (const damaged of [3, 50, 80]) await expect(fill(damaged)).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    await fill();
    const opened = await storage.installSnapshot(A, settings, REPLICA);
    expect(opened.whole).toBe(true);
    const log = opened.log as SegmentedLog;
    expect(log.firstReplicableIndex).toBe(leader.log.firstReplicableIndex);
    const rest = leader.all.slice(log.lastIndex);
    await storage.wal.append([write(rest)]);
    log.append(rest);
    expect(log.cleanedTo).toBe(leader.log.cleanedTo);
    await check(log, leader.all, log.cleanedTo);
    await storage.close();
    fixture.restart();
    await check((await open(fixture)).log, leader.all, log.cleanedTo);
  });

  it('`flotilla log` reads what was cleaned, and names what rotted in it', async () => {
    const { fixture, log, storage, all } = await filled(new Fixture(), 60);
    await log.clean(ALL, cleanBy(fateOf), SIGNAL);
    const first = log.firstReplicableIndex;
    await storage.close();
    const read = async () => {
      const stored = await readStored({ disk: fixture.disk, path: 'data', ...checksums });
      const [replica] = stored.replicas;
      const damage: Damage[] = [...stored.damage];
      const indexes: number[] = [];
      const options = { disk: fixture.disk, directory: replica?.directory ?? '', synced: replica?.wal?.synced, ...checksums };
      for await (const { row, payload } of storedEntries({ ...options, report: (wrong) => damage.push(wrong) }))
        if (payload !== undefined) indexes.push(row.index);
      return { damage, indexes, segments: replica?.segments ?? [] };
    };
    const { damage, indexes, segments } = await read();
    expect(damage).toEqual([]);
    expect(indexes.filter((index) => index >= first)).toEqual(all.slice(first - 1).map(({ index }) => index));
    expect(indexes.filter((index) => index < first).length).toBeLessThan(first / 1.3);
    expect(segments.map(({ base }) => base.generation > 0)).toContain(true);
    expect(segments.findLast(({ base }) => base.generation > 0)?.lastIndex).toBe(first - 1);
    const name = segmentFiles(fixture).find((file) => /\.1\.(log|entries)$/.test(file)) ?? '';
    for (const file of [name.replace(/entries$/, 'log'), name.replace(/log$/, 'entries')]) {
      const size = fixture.disk.bytes(file).length;
      for (let position = 0; position < size; position += Math.ceil(size / 40)) {
        fixture.disk.corrupt(file, position);
        const found = (await read()).damage;
        expect(
          found.map((wrong) => wrong.file),
          `byte ${position}`,
        ).toContain(file);
        fixture.disk.corrupt(file, position);
      }
    }
  });

  it('a record that rotted is neither served nor cleaned away', async () => {
    const { fixture, log, all } = await filled();
    const [segment] = log.cleanable();
    const file = segmentFiles(fixture).find((name) => name.endsWith('.log')) ?? '';
    fixture.disk.corrupt(file, 150);
    await expect(log.clean(ALL, cleanBy(fateOf), SIGNAL)).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    expect(log.cleanedTo).toBe(0);
    fixture.disk.corrupt(file, 150);
    await log.clean(segment?.lastIndex ?? 0, cleanBy(fateOf), SIGNAL);
    await check(log, all, log.cleanedTo);
  });

  it('where the last row of a cleaned segment rotted, the replica is not whole', async () => {
    const { fixture, log, storage } = await filled();
    await log.clean(ALL, cleanBy(fateOf), SIGNAL);
    await storage.close();
    const rows = segmentFiles(fixture).findLast((name) => /\.\d\.entries$/.test(name)) ?? '';
    fixture.disk.corrupt(rows, fixture.disk.bytes(rows).length - 30);
    fixture.restart();
    expect((await (await fixture.open()).openLog(A, settings, REPLICA)).whole).toBe(false);
  });
});

it('the tombstone floor is what the last entry of it says, through restarts and snapshots', async () => {
  const fixture = new Fixture();
  const { log, storage, all } = await filled(fixture, 10);
  const floorEntry = (floor: number) => nextEntry(all.at(-1), { kind: EntryKind.tombstoneFloor, payload: encodeTombstoneFloor(floor) });
  const append = async (into: typeof log, entry: (typeof all)[number]): Promise<void> => {
    all.push(entry);
    await storage.wal.append([write([entry], { hardState: { term: 1, vote: 0 as ReplicaId, commit: entry.index } })]);
    into.append([entry]);
  };
  expect(log.tombstoneFloor).toBe(0);
  await append(log, floorEntry(7));
  expect(log.tombstoneFloor).toBe(7);
  // What says less changes nothing.
  await append(log, floorEntry(3));
  for (let i = 0; i < 40; i++) await append(log, nextEntry(all.at(-1), { bytes: 400 }));
  await append(log, floorEntry(9));
  expect(log.tombstoneFloor).toBe(9);
  await storage.close();
  fixture.restart();
  const again = await open(fixture);
  expect(again.log.tombstoneFloor).toBe(9);
  await again.log.clean(ALL, cleanBy(fateOf), SIGNAL);
  expect(again.log.cleanedTo).toBeGreaterThan(0);
  await again.storage.close();
  fixture.restart();
  expect((await open(fixture)).log.tombstoneFloor).toBe(9);
});

/** A whole data directory as a release left it when it was killed, opened by today's recovery: formats that fit each other, and their files' names. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { Entry } from '../../src/raft/core/entry.ts';
import { EntryKind } from '../../src/raft/core/entry.ts';
import { encodeLogStart } from '../../src/storage/log-start.ts';
import { SimDisk } from '../sim/disk.ts';
import { A, bytesOf, chainOf, Fixture, groupKey, last, nextEntry, REPLICA, seeded, TestEnvironment } from '../storage/fixture.ts';
import { fromFilesText, toFilesText } from './files.ts';

const SMALL_WAL = { walFileBytes: 16 * 1024, walFiles: 2 };
const SEGMENTS = { segmentBytes: 800 };
const LOG_START = 13;
const FILE = new URL('data-directory-v1.txt', import.meta.url);

/** Twelve committed batches, the start of the log moved, and two entries that have yet to commit. */
function entries(): { committed: readonly Entry[]; tail: readonly Entry[] } {
  const batches = chainOf(12, { bytes: 120, term: 2, records: 2 });
  const start = nextEntry(last(batches), { kind: EntryKind.setLogStart, payload: encodeLogStart(LOG_START), term: 3 });
  return { committed: [...batches, start], tail: chainOf(2, { after: start, bytes: 120, term: 3, records: 2 }) };
}

/** As a process leaves it that is killed. */
async function written(): Promise<SimDisk> {
  const fixture = new Fixture(1, SMALL_WAL);
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, SEGMENTS, REPLICA);
  await storage.openLog(groupKey(1), SEGMENTS, REPLICA);
  log.snapshotSource = (nextOffset, index) => new TextEncoder().encode(`${nextOffset} ${index}`);
  const { committed, tail } = entries();
  for (const entry of committed) {
    await storage.wal.append([
      { group: A, hardState: { term: entry.term, vote: 0, commit: entry.index - 1 }, truncateTo: undefined, entries: [entry] },
    ]);
    log.append([entry]);
  }
  await log.flush();
  await log.dropBefore(7);
  // Another leader's end was there before.
  const others = chainOf(3, { after: last(committed), bytes: 120, term: 3, records: 1 });
  await storage.wal.append([{ group: A, hardState: undefined, truncateTo: undefined, entries: others }]);
  await storage.wal.append([{ group: A, hardState: undefined, truncateTo: last(committed).index, entries: tail }]);
  await storage.wal.append([
    { group: A, hardState: { term: 5, vote: REPLICA, commit: last(committed).index }, truncateTo: undefined, entries: [] },
  ]);
  await storage.wal.append([{ group: groupKey(1), hardState: { term: 9, vote: REPLICA, commit: 0 }, truncateTo: undefined, entries: [] }]);
  return fixture.disk;
}

async function diskOf(files: readonly (readonly [path: string, bytes: Uint8Array])[]): Promise<SimDisk> {
  const disk = new SimDisk(new TestEnvironment(), seeded(2));
  for (const [path, bytes] of files) {
    await disk.makeDirectory(path.slice(0, path.lastIndexOf('/')));
    await (await disk.open(path, { create: true })).write(0, [bytes]);
  }
  return disk;
}

test('a data directory of format 1 opens, and has everything', async () => {
  if (process.env['NEW_GOLDEN'] !== undefined && !existsSync(FILE)) {
    const disk = await written();
    writeFileSync(FILE, toFilesText(disk.files().map((path) => [path, disk.bytes(path)])));
  }
  const storage = await new Fixture(3, SMALL_WAL, await diskOf(fromFilesText(readFileSync(FILE, 'utf8')))).open();
  const { committed, tail } = entries();
  const opened = await storage.openLog(A, SEGMENTS, REPLICA);
  expect(opened).toMatchObject({ whole: true, hardState: { term: 5, vote: REPLICA, commit: last(committed).index } });
  expect(bytesOf(opened.tail)).toEqual(bytesOf(tail));
  const { log } = opened;
  const first = log.firstReplicableIndex;
  expect(first).toBeGreaterThan(1);
  expect(log.logStartOffset).toBe(LOG_START);
  const found: Entry[] = [];
  while (first + found.length <= log.lastIndex) found.push(...(await log.readEntries(first + found.length, 1_000)));
  expect(bytesOf(found)).toEqual(bytesOf(committed.slice(first - 1)));
  expect(log.terms).toEqual([
    { term: 2, index: 1 },
    { term: 3, index: 13 },
  ]);
  expect(log.snapshot).toMatchObject({ nextOffset: expect.any(Number), state: expect.any(Uint8Array) });
  expect(await storage.openLog(groupKey(1), SEGMENTS, REPLICA)).toMatchObject({ whole: true, hardState: { term: 9, vote: REPLICA } });
});

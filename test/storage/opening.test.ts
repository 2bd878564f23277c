import { expect, it } from 'vitest';
import type { PartitionLog } from '../../src/storage/types.ts';
import type { DiskOperation } from '../sim/disk.ts';
import { A, chainOf, Fixture, REPLICA, write } from './fixture.ts';

const segmentBytes = 100_000;

/** A log of one segment with entries of so many bytes, all of it durable, in the next process. */
async function written(count: number, bytes: number): Promise<Fixture> {
  const fixture = new Fixture();
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, { segmentBytes }, REPLICA);
  const entries = chainOf(count, { bytes });
  await storage.wal.append([write(entries, { hardState: { term: 1, vote: 0, commit: count } })]);
  log.append(entries);
  await storage.close();
  fixture.revive();
  return fixture;
}

/** What the work asks of files in groups/. */
async function asked(fixture: Fixture, work: () => Promise<unknown>): Promise<DiskOperation['kind'][]> {
  const kinds: DiskOperation['kind'][] = [];
  fixture.disk.intercept = ({ kind, path }) => {
    if (path.includes('groups/')) kinds.push(kind);
    return undefined;
  };
  await work();
  fixture.disk.intercept = undefined;
  return kinds;
}

async function headers(log: PartitionLog, from = 0): Promise<number[]> {
  const seen: number[] = [];
  await log.scanBatchHeaders(from, (_header, nextOffset) => void seen.push(nextOffset));
  return seen;
}

it('opens a log that is known to be clean with few operations: a broker opens thousands at its start', async () => {
  const fixture = await written(20, 300);
  const storage = await fixture.open();
  const operations = await asked(fixture, () => storage.openLog(A, { segmentBytes }, REPLICA));
  // Whose it is; what is there; its rows; the length of its payloads.
  expect(operations).toEqual(['open', 'read', 'close', 'list', 'open', 'size', 'read', 'open', 'size', 'size']);
});

it('removes a segment that is not known to be durable without opening it', async () => {
  const fixture = new Fixture();
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, { segmentBytes }, REPLICA);
  const entries = chainOf(5, { bytes: 300 });
  await storage.wal.append([write(entries, { hardState: { term: 1, vote: 0, commit: 5 } })]);
  log.append(entries);
  await log.flush();
  // The write-ahead log never got to say that they are durable.
  fixture.revive();
  const again = await fixture.open();
  const operations = await asked(fixture, () => again.openLog(A, { segmentBytes }, REPLICA));
  expect(operations.filter((kind) => kind === 'remove')).toHaveLength(2);
  expect(operations.filter((kind) => kind === 'open')).toHaveLength(1);
  expect(again.recovered.size).toBe(0);
});

it.each([
  ['small batches', 300, 1],
  ['large batches', 20_000, 20],
])('reads the headers of %s', async (_, bytes, reads) => {
  const fixture = await written(20, bytes);
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, { segmentBytes: 1e6 }, REPLICA);
  const operations = await asked(fixture, async () => expect(await headers(log)).toHaveLength(20));
  // And once the rows. Of large batches only the headers.
  expect(operations).toEqual(Array.from({ length: reads + 1 }, () => 'read'));
});

it('reads the headers from an offset on, over segments and what is not written yet', async () => {
  const fixture = new Fixture();
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, { segmentBytes: 1000 }, REPLICA);
  const entries = chainOf(12, { bytes: 300, records: 3 });
  await storage.wal.append([write(entries)]);
  for (const entry of entries.slice(0, 8)) log.append([entry]);
  await log.flush();
  for (const entry of entries.slice(8)) log.append([entry]);
  const all = entries.map(({ nextOffset }) => nextOffset);
  expect(await headers(log)).toEqual(all);
  for (const from of [2, 3, 8, 14, 27, 30, 35, 36]) expect(await headers(log, from)).toEqual(all.filter((next) => next > from));
});

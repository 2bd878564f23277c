import { describe, expect, it } from 'vitest';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import { encodeLogStart } from '../../src/storage/log-start.ts';
import type { SegmentedLog } from '../../src/storage/partition-log.ts';
import { decodeSnapshot } from '../../src/storage/segment-snapshot.ts';
import type { BrokerStorage } from '../../src/storage/storage.ts';
import { A, bytesOf, chainOf, checksums, entriesFrom, Fixture, last, nextEntry, REPLICA, write } from './fixture.ts';

const settings = { segmentBytes: 5_000 };

/** 40 batches of two records: offsets 0 to 79. */
const BATCHES = chainOf(40, { bytes: 900, records: 2 });

async function append(storage: BrokerStorage, log: SegmentedLog, entries: readonly Entry[]): Promise<void> {
  const hardState = { term: last(entries).term, vote: 0, commit: last(entries).index } as const;
  await storage.wal.append([write(entries, { hardState })]);
  for (const entry of entries) log.append([entry]);
}

async function open(fixture: Fixture): Promise<{ storage: BrokerStorage; log: SegmentedLog }> {
  const storage = await fixture.open();
  const { log, whole } = await storage.openLog(A, settings, REPLICA);
  expect(whole).toBe(true);
  log.snapshotSource = (nextOffset, index) => new TextEncoder().encode(`${nextOffset} ${index}`);
  return { storage, log: log as SegmentedLog };
}

const startsAt = (offset: number, after: Entry) => nextEntry(after, { kind: EntryKind.setLogStart, payload: encodeLogStart(offset) });

/** A log that starts at `offset` from its last entry on. */
async function cut(fixture: Fixture, offset: number): Promise<{ storage: BrokerStorage; log: SegmentedLog; entries: Entry[] }> {
  const { storage, log } = await open(fixture);
  const entries = [...BATCHES, startsAt(offset, last(BATCHES))];
  await append(storage, log, entries);
  return { storage, log, entries };
}

/** All that a reader gets from the log's start on, and nothing below. */
async function checkReads(log: SegmentedLog, start: number, context: string): Promise<void> {
  expect(log.logStartOffset, context).toBe(start);
  expect(log.nextOffset, context).toBe(80);
  await expect(log.read(start - 1, 80, 1), context).rejects.toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' });
  for (let offset = start; offset < 80; ) {
    const { chunks, nextOffset } = await log.read(offset, 80, 2000);
    const first = offset - (offset % 2);
    const wanted = Array.from({ length: (nextOffset - first) / 2 }, (_, i) => BATCHES[first / 2 + i]?.payload ?? new Uint8Array());
    expect(Buffer.concat(chunks).equals(Buffer.concat(wanted)), `${context}: from ${offset}`).toBe(true);
    offset = nextOffset;
  }
}

const payloadBytes = (fixture: Fixture) =>
  fixture.disk
    .files()
    .filter((name) => /\.(log|control)$/.test(name))
    .reduce((sum, name) => sum + fixture.disk.sizeOf(name), 0);

describe('an entry that moves the start of the log', () => {
  it('moves it for readers at once, into the middle of a segment too', async () => {
    const fixture = new Fixture();
    const { log } = await cut(fixture, 51);
    await checkReads(log, 51, 'not written yet');
    await log.flush();
    await checkReads(log, 51, 'flushed');
  });

  it('frees the segments below, and what it says of its size is what the files have', async () => {
    const fixture = new Fixture();
    const { log, entries } = await cut(fixture, 51);
    await log.flush();
    const before = payloadBytes(fixture);
    expect(log.sizeBytes).toBe(before);
    const freed = await log.reclaim();
    expect(freed).toBeGreaterThan(20_000);
    expect(payloadBytes(fixture)).toBe(before - freed);
    expect(log.sizeBytes).toBe(before - freed);
    await checkReads(log, 51, 'reclaimed');
    const kept = await entriesFrom(log, log.firstReplicableIndex);
    expect(bytesOf(kept)).toEqual(bytesOf(entries.slice(log.firstReplicableIndex - 1)));
    // The batch of offset 51 is entry 26; no segment of 5 entries ends before it.
    expect(log.firstReplicableIndex).toBeGreaterThan(20);
    const { operations } = fixture.disk;
    expect(await log.reclaim()).toBe(0);
    expect(fixture.disk.operations).toBe(operations);
  });

  it('of a log without records keeps the next offset, and nothing else', async () => {
    const fixture = new Fixture();
    const { log, storage } = await cut(fixture, 80);
    await log.reclaim();
    expect(log.sizeBytes).toBe(0);
    expect(payloadBytes(fixture)).toBe(0);
    expect(log.logStartOffset).toBe(80);
    expect(await log.reclaim()).toBe(0);
    await storage.close();
    const again = await open(fixture);
    expect(again.log).toMatchObject({ logStartOffset: 80, nextOffset: 80, firstReplicableIndex: 42 });
    const more = nextEntry(last([...BATCHES, startsAt(80, last(BATCHES))]), { bytes: 300, records: 2 });
    await append(again.storage, again.log, [more]);
    expect((await again.log.read(80, 82, 1)).nextOffset).toBe(82);
  });

  it('waits for an owner that is being restored: then all goes, also what was closed without a snapshot', async () => {
    const fixture = new Fixture();
    const { log } = await cut(fixture, 80);
    const source = log.snapshotSource;
    log.snapshotSource = undefined;
    await log.flush();
    const { operations } = fixture.disk;
    await log.reclaim();
    expect(log.logStartOffset).toBe(80);
    const left = log.sizeBytes;
    log.snapshotSource = source;
    await log.reclaim();
    expect(left).toBeGreaterThan(0);
    expect(log.sizeBytes).toBe(0);
    expect(fixture.disk.operations).toBeGreaterThan(operations);
    expect(log).toMatchObject({ logStartOffset: 80, nextOffset: 80, firstReplicableIndex: 42 });
    // As an emptied log that was rolled while nobody could say its state.
    log.append([nextEntry(startsAt(80, last(BATCHES)), { kind: EntryKind.noop })]);
    log.snapshotSource = undefined;
    expect(await log.dropBefore(1_000)).toBe(42);
    log.snapshotSource = source;
    expect(await log.dropBefore(1_000)).toBe(43);
  });

  it.each([
    ['in the write-ahead log', async () => {}],
    ['in a segment', (log: SegmentedLog) => log.flush()],
    [
      'behind a snapshot that was written after it',
      async (log: SegmentedLog) => {
        log.append(chainOf(1, { after: startsAt(51, last(BATCHES)), bytes: 4990, records: 0 }));
        await log.flush();
      },
    ],
    ['in what was reclaimed', (log: SegmentedLog) => log.reclaim()],
  ])('is there after a restart, found %s', async (_where, before) => {
    const fixture = new Fixture();
    const { storage, log } = await cut(fixture, 51);
    await before(log);
    await storage.close();
    const again = await open(fixture);
    await checkReads(again.log, 51, 'reopened');
  });

  it('is never ahead of the end of a snapshot that a follower gets', async () => {
    const fixture = new Fixture();
    const { log } = await cut(fixture, 79);
    await log.flush();
    const snapshot = (await log.openSnapshot())!;
    const record = decodeSnapshot((await snapshot.read(0, 0, snapshot.files[0]?.length ?? 0)).bytes, checksums.crc32);
    expect(record?.logStartOffset).toBe(record?.nextOffset);
    expect(record?.nextOffset).toBeLessThan(79);
  });

  it('beyond the end, or of an unknown version, stops the replica', async () => {
    const { log } = await open(new Fixture());
    log.append(BATCHES);
    expect(() => log.append([startsAt(81, last(BATCHES))])).toThrow('starts at or before its end');
    const payload = encodeLogStart(1);
    payload[0] = 2;
    const newer = nextEntry(last(BATCHES), { kind: EntryKind.setLogStart, payload });
    expect(() => log.append([newer])).toThrow('this release knows');
  });

  it.each([
    ['some segments', 51],
    ['all', 80],
  ])('holds after a power cut at every operation of freeing %s', { timeout: 60_000 }, async (_what, offset) => {
    let cuts = 0;
    for (let at = 1; ; at++) {
      const fixture = new Fixture(at);
      const { log } = await cut(fixture, offset);
      await log.flush();
      if (!(await fixture.cutPower(at, () => log.reclaim()))) break;
      cuts++;
      fixture.restart();
      const again = await open(fixture);
      await checkReads(again.log, offset, `cut at operation ${at}`);
      await again.log.flush();
      await again.log.reclaim();
      await checkReads(again.log, offset, `cut at operation ${at}, reclaimed`);
      expect(again.log.sizeBytes, `cut at operation ${at}`).toBe(payloadBytes(fixture));
      if (offset === 80) expect(again.log.sizeBytes, `cut at operation ${at}`).toBe(0);
    }
    expect(cuts).toBeGreaterThan(15);
  });
});

it('what lies below the start goes by itself soon after', async () => {
  const fixture = new Fixture();
  const { log } = await cut(fixture, 51);
  await log.flush();
  const before = log.sizeBytes;
  fixture.environment.advance(200);
  while (log.sizeBytes === before) await new Promise((resolve) => setImmediate(resolve));
  expect(log.firstReplicableIndex).toBeGreaterThan(20);
});

it.each(['EIO', 'ENOSPC'] as const)(
  'a disk that fails to drop segments with %s loses nothing and ends nothing; they go the next time',
  async (code) => {
    const fixture = new Fixture();
    const { log } = await cut(fixture, 51);
    await log.flush();
    fixture.disk.intercept = ({ kind, path }) => (kind === 'remove' || path.endsWith('.tmp') ? code : undefined);
    expect(await log.reclaim()).toBe(0);
    await checkReads(log, 51, 'not dropped');
    fixture.disk.intercept = undefined;
    expect(await log.reclaim()).toBeGreaterThan(20_000);
    await checkReads(log, 51, 'dropped');
    expect(fixture.failures).toEqual([]);
  },
);

/** What a disk that failed once, or rots, must never bring about (hazards B22, B24, B25, B27). */
import { describe, expect, it } from 'vitest';
import type { Entry } from '../../src/raft/core/entry.ts';
import type { PartitionLog } from '../../src/storage/types.ts';
import { A, bytesOf, chainOf, Fixture, last, nextEntry, REPLICA, settings, write } from './fixture.ts';

async function allOf({ log, tail }: { log: PartitionLog; tail: readonly Entry[] }): Promise<string[]> {
  const stored = log.lastIndex === 0 ? [] : await log.readEntries(1, 1e9);
  return bytesOf([...stored, ...tail]);
}

/** A log of one segment. */
const whole = { segmentBytes: 1 << 20 };

describe('a sync that failed', () => {
  it('is not tried again, though the next one would succeed (B25)', async () => {
    const fixture = new Fixture();
    const storage = await fixture.open();
    await storage.openLog(A, settings, REPLICA);
    let failed = 0;
    fixture.disk.intercept = ({ kind, path }) => (kind === 'sync' && path.endsWith('.wal') && failed++ === 0 ? 'EIO' : undefined);
    await expect(storage.wal.append([write(chainOf(1))])).rejects.toThrow('EIO');
    expect(fixture.failures).toHaveLength(1);
    expect(failed).toBe(1);
  });

  it('of a segment alone ends the process too (B25)', async () => {
    const fixture = new Fixture();
    const storage = await fixture.open();
    const { log } = await storage.openLog(A, settings, REPLICA);
    const entries = chainOf(3);
    await storage.wal.append([write(entries)]);
    fixture.disk.intercept = ({ kind, path }) => (kind === 'write' && path.endsWith('.log') ? 'EIO' : undefined);
    log.append(entries);
    fixture.environment.advance(1_000);
    while (fixture.failures.length === 0) await new Promise((resolve) => setImmediate(resolve));
    expect(fixture.failures[0]?.message).toContain('segment');
  });

  // The next process may find in the cache what was not synced: it writes that again, and must not count on its file once those before are recycled.
  const starts = [1, 2, 3].flatMap((sync) => [1, 2, 3].map((times) => [sync, times] as const));
  it.each(starts)('at a start costs nothing: sync %i of %i starts in a row (B25)', async (failing, times) => {
    const fileTurns = new Set<number>();
    for (let appends = 0; appends < 30; appends++) {
      const fixture = new Fixture();
      const storage = await fixture.open();
      await storage.openLog(A, whole, REPLICA);
      const entries = chainOf(5, { bytes: 300 });
      await storage.wal.append([write(entries, { hardState: { term: 3, vote: 9, commit: 0 } })]);
      for (let start = 0; start < times; start++) {
        fixture.revive();
        let syncs = 0;
        fixture.disk.intercept = ({ kind, path }) => (kind === 'sync' && path.endsWith('.wal') && ++syncs === failing ? 'EIO' : undefined);
        await expect(fixture.open()).rejects.toThrow('EIO');
        fixture.disk.intercept = undefined;
      }
      fixture.revive();
      if (appends % 2 === 1) {
        // One that wrote all of it again, and was killed before it did anything else.
        await fixture.open();
        fixture.revive();
      }
      const next = await fixture.open();
      const { log } = await next.openLog(A, whole, REPLICA);
      log.append(entries);
      for (let turn = 0; turn < appends; turn++) {
        const entry = nextEntry(entries.at(-1), { bytes: 10_000 });
        entries.push(entry);
        await next.wal.append([write([entry])]);
        log.append([entry]);
      }
      fileTurns.add(next.wal.statistics.fileTurns);
      fixture.disk.crash();
      fixture.restart();
      const again = await (await fixture.open()).openLog(A, whole, REPLICA);
      expect(again.whole).toBe(true);
      expect(await allOf(again)).toEqual(bytesOf(entries));
      expect(again.hardState.term).toBe(3);
    }
    expect(fileTurns.size).toBeGreaterThan(3);
  });

  // The system has marked the pages clean: the next process reads them, syncs them without an error, and they are not on the disk.
  it.each([
    ['entries', undefined],
    ['entries in the place of others', 5],
    ['a truncation with one entry', 3],
  ])('leaves in the cache what the next process writes again before it builds on it: %s (B25, B07)', async (_what, truncateTo) => {
    const fixture = new Fixture();
    const storage = await fixture.open();
    await storage.openLog(A, settings, REPLICA);
    const first = chainOf(10, { bytes: 300 });
    await storage.wal.append([write(first, { hardState: { term: 1, vote: 0, commit: 0 } })]);
    fixture.disk.intercept = ({ kind, path }) => (kind === 'sync' && path.endsWith('.wal') ? 'EIO' : undefined);
    const kept = first.slice(0, truncateTo);
    const next = chainOf(truncateTo === 3 ? 1 : 2, { after: last(kept), term: 2, bytes: 300 });
    await expect(storage.wal.append([write(next, { truncateTo, hardState: { term: 2, vote: 9, commit: 0 } })])).rejects.toThrow('EIO');
    fixture.disk.intercept = undefined;
    fixture.revive();
    const seen = await (await fixture.open()).openLog(A, settings, REPLICA);
    expect(seen.whole).toBe(true);
    const found = await allOf(seen);
    expect(found).toEqual(bytesOf([...kept, ...next]));
    fixture.disk.crash();
    fixture.restart();
    const again = await (await fixture.open()).openLog(A, settings, REPLICA);
    expect(again.whole).toBe(true);
    expect(await allOf(again)).toEqual(found);
    expect(again.hardState).toEqual(seen.hardState);
  });
});

it('what a killed process wrote to segments and did not sync is written again from the log (B25)', async () => {
  const fixture = new Fixture();
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, settings, REPLICA);
  const entries = chainOf(6, { bytes: 300 });
  await storage.wal.append([write(entries)]);
  log.append(entries.slice(0, 3));
  await log.flush();
  await storage.wal.append([write([], { hardState: { term: 1, vote: 0, commit: 0 } })]);
  log.append(entries.slice(3));
  fixture.environment.advance(1_000);
  while (log.writtenIndex < 6) await new Promise((resolve) => setImmediate(resolve));
  fixture.revive();
  const opened = await (await fixture.open()).openLog(A, settings, REPLICA);
  expect(opened.whole).toBe(true);
  expect(opened.log.lastIndex).toBe(3);
  expect(bytesOf(opened.tail)).toEqual(bytesOf(entries.slice(3)));
});

it('a flush of segments claims nothing that was written while it synced (B08)', async () => {
  const fixture = new Fixture();
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, settings, REPLICA);
  const entries = chainOf(6, { bytes: 300 });
  await storage.wal.append([write(entries)]);
  log.append(entries.slice(0, 3));
  fixture.environment.advance(1_000);
  while (log.writtenIndex < 3) await new Promise((resolve) => setImmediate(resolve));
  fixture.disk.latencyMs = ({ kind, path }) => (kind === 'sync' && path.endsWith('.log') ? 1_000 : 0);
  const flushed = log.flush();
  log.append(entries.slice(3));
  fixture.environment.advance(500);
  while (log.writtenIndex < 6) await new Promise((resolve) => setImmediate(resolve));
  fixture.disk.latencyMs = () => 0;
  fixture.environment.advance(1_000);
  await flushed;
  // A frame says how far segments are synced.
  await storage.wal.append([write([], { hardState: { term: 1, vote: 0, commit: 0 } })]);
  fixture.disk.crash();
  fixture.restart();
  const opened = await (await fixture.open()).openLog(A, settings, REPLICA);
  expect(opened.whole).toBe(true);
  expect(opened.log.lastIndex).toBe(3);
  expect(await allOf(opened)).toEqual(bytesOf(entries));
});

describe('rot', () => {
  // Nothing else misses it: no entry is gone, and the term is that of a later frame.
  it('that takes a whole frame with a vote from the middle of the log makes its group suspect (B22)', async () => {
    const fixture = new Fixture(9, { walFileBytes: 1 << 20, walFiles: 2 });
    const storage = await fixture.open();
    await storage.openLog(A, settings, REPLICA);
    const wal = fixture.disk.files().find((name) => name.endsWith('.wal')) ?? '';
    const entries = chainOf(3);
    await storage.wal.append([write(entries)]);
    const at = storage.wal.statistics.bytes;
    await storage.wal.append([write([], { hardState: { term: 1, vote: 2, commit: 0 } })]);
    const end = storage.wal.statistics.bytes;
    await storage.wal.append([write([], { hardState: { term: 2, vote: 0, commit: 0 } })]);
    fixture.disk.kill();
    for (let byte = at; byte < end; byte += 3) fixture.disk.corrupt(wal, byte);
    const { whole, tail } = await (await fixture.open()).openLog(A, settings, REPLICA);
    expect(whole).toBe(false);
    expect(bytesOf(tail)).toEqual(bytesOf(entries));
  });

  it('of the last row of a segment, which was synced, is a loss and no torn tail (B22)', async () => {
    const fixture = new Fixture();
    const storage = await fixture.open();
    const { log } = await storage.openLog(A, settings, REPLICA);
    const entries = chainOf(5, { bytes: 300 });
    await storage.wal.append([write(entries)]);
    log.append(entries);
    await storage.close();
    const rows = fixture.disk.files().find((name) => name.endsWith('.entries')) ?? '';
    fixture.disk.corrupt(rows, fixture.disk.bytes(rows).length - 40);
    const { whole, log: reopened } = await (await fixture.open()).openLog(A, settings, REPLICA);
    expect(whole).toBe(false);
    expect(reopened.lastIndex).toBe(4);
  });
});

it('recovery starts from no snapshot that is ahead of what segments have for certain (B27)', async () => {
  const fixture = new Fixture();
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, { segmentBytes: 2_000 }, REPLICA);
  log.snapshotSource = (nextOffset) => new TextEncoder().encode(String(nextOffset));
  const old = chainOf(3, { bytes: 500, term: 1 });
  const newer = chainOf(6, { after: last(old), bytes: 500, term: 2 });
  const entries = [...old, ...newer];
  await storage.wal.append([write(entries, { hardState: { term: 2, vote: 0, commit: 0 } })]);
  for (const entry of entries) log.append([entry]);
  // Segments roll, each with its snapshot; that they are synced is said in the log's next frame, which never comes.
  await log.flush();
  expect(fixture.disk.files().some((name) => name.endsWith('.snapshot'))).toBe(true);
  fixture.disk.crash();
  fixture.restart();
  const opened = await (await fixture.open()).openLog(A, { segmentBytes: 2_000 }, REPLICA);
  expect(opened.whole).toBe(true);
  expect(await allOf(opened)).toEqual(bytesOf(entries));
  const { base, terms } = opened.log.initial;
  expect(terms.filter(({ index }) => index > base.index)).toEqual([]);
  expect(opened.log.snapshot?.nextOffset ?? 0).toBeLessThanOrEqual(base.nextOffset);
});

it('snapshots ahead of what segments have for certain go at a start: none of them stands for one that recovery starts from (B27)', async () => {
  const fixture = new Fixture();
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, { segmentBytes: 2_000 }, REPLICA);
  log.snapshotSource = (nextOffset) => new TextEncoder().encode(String(nextOffset));
  const entries = chainOf(21, { bytes: 500 });
  await storage.wal.append([write(entries)]);
  for (const entry of entries.slice(0, 5)) log.append([entry]);
  await log.flush();
  await storage.wal.append([]);
  for (const entry of entries.slice(5, 20)) log.append([entry]);
  await log.flush();
  fixture.disk.crash();
  fixture.restart();

  const next = await fixture.open();
  const opened = await next.openLog(A, whole, REPLICA);
  expect(opened.log.snapshot?.index).toBe(4);
  expect(fixture.disk.files().filter((name) => name.endsWith('.snapshot'))).toHaveLength(1);
  opened.log.snapshotSource = log.snapshotSource;
  opened.log.append(entries.slice(5, 20));
  await opened.log.flush();
  await next.wal.append([]);
  opened.log.configure({ segmentBytes: 2_000 });
  opened.log.append(entries.slice(20));
  expect(await opened.log.dropBefore(5)).toBe(5);
});

describe('a read that failed', () => {
  it.each(['read', 'open'] as const)('of a segment that was closed is tried again by the next reader: %s', async (failing) => {
    const fixture = new Fixture();
    const entries = chainOf(30, { bytes: 2000 });
    const storage = await fixture.open();
    const { log } = await storage.openLog(A, settings, REPLICA);
    await storage.wal.append([write(entries)]);
    for (const entry of entries) log.append([entry]);
    await storage.close();
    const reopened = (await (await fixture.open()).openLog(A, settings, REPLICA)).log;
    fixture.disk.intercept = ({ kind, path }) => (kind === failing && path.includes('/groups/') ? 'EIO' : undefined);
    await expect(reopened.read(0, 30, 1 << 20)).rejects.toThrow('EIO');
    fixture.disk.intercept = undefined;
    expect((await reopened.read(0, 30, 1 << 20)).bytes).toBeGreaterThan(0);
    expect((await reopened.readEntries(1, 1 << 20)).length).toBeGreaterThan(0);
  });
});

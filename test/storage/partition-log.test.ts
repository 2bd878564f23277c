import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { BrokerId, DirectoryId, ReplicaId } from '../../src/base/ids.ts';
import { encodeConfiguration } from '../../src/raft/core/configuration.ts';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import { A, bytesOf, chainOf, entriesFrom, Fixture, nextEntry, REPLICA, write } from './fixture.ts';

function concat(chunks: readonly Uint8Array[]): string {
  return Buffer.concat(chunks).toString('hex');
}

describe('partition log', () => {
  it('reads as an array of batches does, from memory and disk (B31)', async () => {
    const action = fc.oneof(
      fc.record({
        type: fc.constant('append' as const),
        count: fc.integer({ min: 1, max: 20 }),
        bytes: fc.integer({ min: 61, max: 600 }),
        noop: fc.boolean(),
      }),
      fc.record({ type: fc.constant('write' as const) }),
      fc.record({ type: fc.constant('flush' as const) }),
      fc.record({ type: fc.constant('reopen' as const) }),
      fc.record({ type: fc.constant('read' as const), at: fc.nat(), until: fc.nat(), max: fc.integer({ min: 1, max: 3000 }) }),
      fc.record({ type: fc.constant('time' as const), at: fc.nat() }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 25 }), async (actions) => {
        const fixture = new Fixture(5);
        let storage = await fixture.open();
        let { log } = await storage.openLog(A, { segmentBytes: 4000 }, REPLICA);
        const all: Entry[] = [];
        for (const step of actions) {
          if (step.type === 'append') {
            const entries = step.noop ? [nextEntry(all.at(-1), { kind: EntryKind.noop, term: (all.at(-1)?.term ?? 0) + 1 })] : [];
            entries.push(...chainOf(step.count, { after: entries.at(-1) ?? all.at(-1), bytes: step.bytes, records: 3 }));
            await storage.wal.append([write(entries)]);
            log.append(entries);
            all.push(...entries);
          } else if (step.type === 'write') {
            fixture.environment.advance(250);
            for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
          } else if (step.type === 'flush') await log.flush();
          else if (step.type === 'reopen') {
            await storage.close();
            storage = await fixture.open();
            ({ log } = await storage.openLog(A, { segmentBytes: 4000 }, REPLICA));
            expect(log.lastIndex).toBe(all.length);
          } else if (step.type === 'time') {
            const batches = all.filter(({ recordCount }) => recordCount > 0);
            const time = 1000 + (all.length === 0 ? 0 : step.at % (all.length + 2));
            const first = batches.find(({ index }) => 1000 + index >= time);
            expect(await log.offsetForTime(time)).toBe(first === undefined ? undefined : first.nextOffset - first.recordCount);
          } else {
            const end = all.at(-1)?.nextOffset ?? 0;
            const from = step.at % (end + 1);
            const until = step.until % (end + 1);
            const run = await log.read(from, until, step.max);
            const wanted = all.filter((entry) => entry.recordCount > 0 && entry.nextOffset > from && entry.nextOffset <= until);
            const served = wanted.filter(({ nextOffset }) => nextOffset <= run.nextOffset);
            expect(concat(run.chunks)).toBe(concat(served.map(({ payload }) => payload)));
            if (wanted.length > 0) expect(served.length).toBeGreaterThan(0);
            expect(run.bytes).toBe(served.reduce((sum, { payload }) => sum + payload.length, 0));
          }
        }
        expect(bytesOf(await entriesFrom(log))).toEqual(bytesOf(all));
        const starts = all.filter((entry, i) => entry.term !== all[i - 1]?.term).map(({ term, index }) => ({ term, index }));
        expect(log.terms).toEqual(starts);
        let headers = 0;
        await log.scanBatchHeaders(0, (header) => {
          expect(header.length).toBe(61);
          headers++;
        });
        expect(headers).toBe(all.filter(({ recordCount }) => recordCount > 0).length);
      }),
      { numRuns: 40, seed: 7 },
    );
  });

  it('keeps the configuration and the state of the last roll', async () => {
    const fixture = new Fixture(2);
    const storage = await fixture.open();
    const { log } = await storage.openLog(A, { segmentBytes: 2000 }, REPLICA);
    log.snapshotSource = (nextOffset) => Uint8Array.of(nextOffset);
    const member = { replicaId: 5 as ReplicaId, brokerId: 1 as BrokerId, directoryId: 'b'.repeat(32) as DirectoryId };
    const configuration = { voters: [member], outgoing: [], learners: [] };
    const config = nextEntry(undefined, { kind: EntryKind.config, payload: encodeConfiguration(configuration) });
    const entries = [config, ...chainOf(30, { after: config, bytes: 300 })];
    await storage.wal.append([write(entries)]);
    for (const entry of entries) log.append([entry]);
    await storage.close();
    const again = await (await fixture.open()).openLog(A, { segmentBytes: 2000 }, REPLICA);
    expect(again.whole).toBe(true);
    expect(again.log.configuration?.configuration).toEqual(configuration);
    expect(again.log.configuration?.index).toBe(1);
    const { snapshot } = again.log;
    expect(snapshot?.state).toEqual(Uint8Array.of(snapshot?.nextOffset ?? -1));
    expect(snapshot?.nextOffset).toBeGreaterThan(20);
  });

  it('reads into memory that was given back, and into no other', async () => {
    const fixture = new Fixture(3, { walFileBytes: 16 << 20, walFiles: 2 });
    const storage = await fixture.open();
    const { log } = await storage.openLog(A, { segmentBytes: 1e8 }, REPLICA);
    const entries = chainOf(10, { bytes: 600_000 });
    await storage.wal.append([write(entries)]);
    log.append(entries);
    await log.flush();
    const read = async (offset: number) => {
      const run = await log.read(offset, log.nextOffset, 1 << 20);
      expect(concat(run.chunks)).toBe(concat([entries[offset]?.payload ?? new Uint8Array()]));
      return run;
    };
    const [first, second] = [await read(0), await read(1)];
    expect(second.chunks[0]?.buffer).not.toBe(first.chunks[0]?.buffer);
    expect(concat(first.chunks)).toBe(concat([entries[0]?.payload ?? new Uint8Array()]));
    first.release?.();
    const third = await read(2);
    expect(third.chunks[0]?.buffer).toBe(first.chunks[0]?.buffer);
    const fourth = await read(3);
    expect([first, second].map(({ chunks }) => chunks[0]?.buffer)).not.toContain(fourth.chunks[0]?.buffer);
  });

  it('refuses an offset below the start, and never hands on a rotten entry (B23)', async () => {
    const fixture = new Fixture(2);
    const storage = await fixture.open();
    const { log } = await storage.openLog(A, { segmentBytes: 1e6 }, REPLICA);
    const entries = chainOf(5, { bytes: 300 });
    await storage.wal.append([write(entries)]);
    log.append(entries);
    await log.flush();
    await expect(log.read(-1, 5, 100)).rejects.toThrow('below');
    const file = fixture.disk.files().find((name) => name.endsWith('.log')) ?? '';
    fixture.disk.corrupt(file, 700, 1);
    await expect(log.readEntries(3, 100)).rejects.toThrow('damaged');
    expect(await log.readEntries(1, 10)).toHaveLength(1);
  });
});

it('a log that was deleted or replaced says so to whoever still reads it: nothing is no answer to what was there', async () => {
  const storage = await new Fixture().open();
  const { log } = await storage.openLog(A, { segmentBytes: 4000 }, REPLICA);
  const entries = chainOf(20, { bytes: 600 });
  await storage.wal.append([write(entries)]);
  log.append(entries.slice(0, 10));
  await log.flush();
  log.append(entries.slice(10));
  await storage.deleteLog(A);
  const gone = { code: 'NOT_LEADER_OR_FOLLOWER' };
  for (const from of [0, 9, 10, 15]) await expect(log.read(from, 20, 1000)).rejects.toMatchObject(gone);
  await expect(log.scanBatchHeaders(15, () => {})).rejects.toMatchObject(gone);
  await expect(log.offsetForTime(1018, 15)).rejects.toMatchObject(gone);
  await expect(log.readEntries(15, 1000)).rejects.toMatchObject(gone);
});

describe('segments under damage', () => {
  // Bytes 0 to 7 of a batch are its base offset, which its CRC32C does not cover.
  it.each([
    ['first', 0, 7, 0x10],
    ['first', 0, 0, 0x80],
    ['second', 1, 7, 0x01],
    ['second', 1, 7, 0x10],
    ['last', 4, 7, 0x04],
  ])('never hand on the batches behind an offset that rotted: the %s batch (B23)', async (_, batch, byte, mask) => {
    const fixture = new Fixture();
    const storage = await fixture.open();
    const { log } = await storage.openLog(A, { segmentBytes: 1e6 }, REPLICA);
    const entries = chainOf(5, { bytes: 300, records: 3 });
    await storage.wal.append([write(entries)]);
    log.append(entries);
    await log.flush();
    fixture.disk.corrupt(fixture.disk.files().find((name) => name.endsWith('.log')) ?? '', batch * 300 + byte, mask);
    const good = batch * 3;
    if (batch > 0) expect(await log.read(1, 15, 10_000)).toMatchObject({ bytes: batch * 300, nextOffset: good });
    await expect(log.read(good, 15, 10_000)).rejects.toThrow('damaged');
    const seen: number[] = [];
    await expect(log.scanBatchHeaders(0, (_header, nextOffset) => seen.push(nextOffset))).rejects.toThrow('damaged');
    expect(seen).toEqual([3, 6, 9, 12].slice(0, batch));
  });

  it('serve nothing of a batch whose place is zeros, though its offset would be 0 and its checksum that of nothing (B23)', async () => {
    const fixture = new Fixture();
    const storage = await fixture.open();
    const { log } = await storage.openLog(A, { segmentBytes: 1e6 }, REPLICA);
    const entries = chainOf(2, { bytes: 300 });
    await storage.wal.append([write(entries)]);
    log.append(entries);
    await log.flush();
    const path = fixture.disk.files().find((name) => name.endsWith('.log')) ?? '';
    for (const [at, byte] of fixture.disk.bytes(path).subarray(0, 300).entries()) fixture.disk.corrupt(path, at, byte);
    await expect(log.read(0, 2, 10_000)).rejects.toThrow('damaged');
    await expect(log.scanBatchHeaders(0, () => {})).rejects.toThrow('damaged');
  });

  // A batch's own checksum begins at byte 21: its leader stamps what is before that.
  it.each([0, 7, 8, 12, 15, 16, 20, 21, 60])('serve no batch behind another one of whose header byte %i rotted (B23)', async (byte) => {
    const fixture = new Fixture();
    const storage = await fixture.open();
    const { log } = await storage.openLog(A, { segmentBytes: 1e6 }, REPLICA);
    // More than one look-up has rows of.
    const entries = chainOf(200, { bytes: 300 });
    await storage.wal.append([write(entries)]);
    log.append(entries);
    await log.flush();
    const path = fixture.disk.files().find((name) => name.endsWith('.log')) ?? '';
    for (const batch of [1, 150]) {
      fixture.disk.corrupt(path, 300 * batch + byte);
      expect((await log.read(0, 200, 1e6)).nextOffset).toBe(batch);
      await expect(log.read(batch, 200, 1e6)).rejects.toThrow('damaged');
      fixture.disk.corrupt(path, 300 * batch + byte);
    }
    expect((await log.read(0, 200, 1e6)).nextOffset).toBe(200);
  });

  it('serve what is before a damaged row, however far a read goes (B23)', async () => {
    const fixture = new Fixture();
    const storage = await fixture.open();
    const { log } = await storage.openLog(A, { segmentBytes: 1e6 }, REPLICA);
    const entries = chainOf(200, { bytes: 300 });
    await storage.wal.append([write(entries)]);
    log.append(entries);
    await log.flush();
    fixture.disk.corrupt(fixture.disk.files().find((name) => name.endsWith('.entries')) ?? '', 72 * 150);
    expect((await log.read(0, 200, 1e6)).nextOffset).toBe(150);
    await expect(log.read(150, 200, 1e6)).rejects.toThrow('damaged');
  });

  it('are not whole when a row is lost that recovery needs: the terms behind it are not known (B22)', async () => {
    const fixture = new Fixture();
    const storage = await fixture.open();
    const { log } = await storage.openLog(A, { segmentBytes: 2000 }, REPLICA);
    let last: Entry | undefined;
    for (let term = 1; term <= 6; term++) {
      const entries = chainOf(3, { after: last, bytes: 500, term });
      last = entries.at(-1);
      await storage.wal.append([write(entries, { hardState: { term, vote: 0, commit: 0 } })]);
      log.append(entries);
      await log.flush();
    }
    const terms = [...log.terms];
    await storage.close();
    const files = fixture.disk.files();
    for (const snapshot of files.filter((name) => name.endsWith('.snapshot'))) fixture.disk.corrupt(snapshot, 20);
    const intact = await (await fixture.open()).openLog(A, { segmentBytes: 2000 }, REPLICA);
    expect(intact.whole).toBe(true);
    expect(intact.log.terms).toEqual(terms);
    fixture.disk.crash();
    fixture.restart();
    fixture.disk.corrupt(files.filter((name) => name.endsWith('.entries'))[1] as string, 10);
    expect((await (await fixture.open()).openLog(A, { segmentBytes: 2000 }, REPLICA)).whole).toBe(false);
  });
});

describe('the write-ahead log under damage', () => {
  async function written(): Promise<{ fixture: Fixture; entries: Entry[]; wal: string }> {
    const fixture = new Fixture(9, { walFileBytes: 1 << 20, walFiles: 2 });
    const storage = await fixture.open();
    await storage.openLog(A, { segmentBytes: 1e6 }, REPLICA);
    const entries: Entry[] = [];
    for (let i = 0; i < 10; i++) {
      const entry = nextEntry(entries.at(-1), { bytes: 2000 });
      entries.push(entry);
      await storage.wal.append([write([entry], { hardState: { term: 1, vote: 0, commit: 0 } })]);
    }
    fixture.disk.kill();
    return { fixture, entries, wal: fixture.disk.files().find((name) => name.endsWith('.wal')) ?? '' };
  }

  /** Frames of 4 KiB: the head, what a start ends with, the first HardState, then one an entry. */
  const frameOf = (entry: number): number => (3 + entry) * 4096;

  it('cuts a torn last frame and stays whole', async () => {
    const { fixture, entries, wal } = await written();
    fixture.disk.corrupt(wal, frameOf(9) + 900);
    const { tail, whole } = await (await fixture.open()).openLog(A, { segmentBytes: 1e6 }, REPLICA);
    expect(whole).toBe(true);
    expect(bytesOf(tail)).toEqual(bytesOf(entries.slice(0, 9)));
  });

  it.each([10, 60, 100, 300, 1500])('tells rot before a later frame from a torn tail, at byte %i (B22)', async (at) => {
    const { fixture, entries, wal } = await written();
    fixture.disk.corrupt(wal, frameOf(4) + at);
    const { tail, whole } = await (await fixture.open()).openLog(A, { segmentBytes: 1e6 }, REPLICA);
    // Only rot of the entry itself loses it; all else stands twice.
    expect(whole).toBe(at < 192);
    expect(bytesOf(tail)).toEqual(bytesOf(entries.slice(0, whole ? 10 : 4)));
  });

  it('a group that is not whole stays so after its file is gone (B03)', async () => {
    const { fixture, wal } = await written();
    fixture.disk.corrupt(wal, frameOf(4) + 1500);
    let storage = await fixture.open();
    for (let turn = 0; turn < 3; turn++) {
      const { whole, hardState } = await storage.openLog(A, { segmentBytes: 1e6 }, REPLICA);
      expect(whole).toBe(false);
      expect(hardState.term).toBe(1);
      await storage.close();
      storage = await fixture.open();
    }
  });

  it('a group that is called damaged while a vote waits keeps the vote (B02, B29)', async () => {
    const { fixture } = await written();
    const storage = await fixture.open();
    await storage.openLog(A, { segmentBytes: 1e6 }, REPLICA);
    const first = storage.wal.append([write([], { hardState: { term: 7, vote: 8, commit: 0 } })]);
    const second = storage.wal.append([write([], { hardState: { term: 8, vote: 9, commit: 0 } })]);
    await Promise.all([first, second, storage.wal.markDamaged(A)]);
    fixture.disk.crash();
    fixture.restart();
    const { whole, hardState } = await (await fixture.open()).openLog(A, { segmentBytes: 1e6 }, REPLICA);
    expect(whole).toBe(false);
    expect(hardState).toMatchObject({ term: 8, vote: 9 });
  });

  it('a directory without any HardState is not whole (B03)', async () => {
    const { fixture } = await written();
    for (const name of fixture.disk.files().filter((file) => file.endsWith('.wal'))) await fixture.disk.remove(name);
    const { whole } = await (await fixture.open()).openLog(A, { segmentBytes: 1e6 }, REPLICA);
    expect(whole).toBe(false);
  });
});

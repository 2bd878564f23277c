import { describe, expect, it } from 'vitest';
import type { BrokerId, DirectoryId, ReplicaId } from '../../src/base/ids.ts';
import { encodeConfiguration } from '../../src/raft/core/configuration.ts';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import { encodeLogStart } from '../../src/storage/log-start.ts';
import { decodeSnapshot } from '../../src/storage/segment-snapshot.ts';
import type { BrokerStorage } from '../../src/storage/storage.ts';
import type { PartitionLog } from '../../src/storage/types.ts';
import { A, bytesOf, chainOf, checksums, entriesFrom, Fixture, last, nextEntry, REPLICA, write } from './fixture.ts';

const settings = { segmentBytes: 5_000 };
const member = { replicaId: REPLICA as ReplicaId, brokerId: 1 as BrokerId, directoryId: 'b'.repeat(32) as DirectoryId };
const configuration = { voters: [member], outgoing: [], learners: [] };

/** A configuration, then 40 batches of three terms, all committed. */
function history(): Entry[] {
  const config = nextEntry(undefined, { kind: EntryKind.config, payload: encodeConfiguration(configuration) });
  const first = chainOf(15, { after: config, bytes: 900, term: 1, records: 2 });
  const second = chainOf(15, { after: last(first), bytes: 900, term: 4, records: 2 });
  return [config, ...first, ...second, ...chainOf(10, { after: last(second), bytes: 900, term: 9, records: 2 })];
}

async function append(storage: BrokerStorage, log: PartitionLog, entries: readonly Entry[]): Promise<void> {
  const term = last(entries).term;
  await storage.wal.append([write(entries, { hardState: { term, vote: 0, commit: 0 } })]);
  for (const entry of entries) log.append([entry]);
}

async function filled(fixture: Fixture): Promise<{ storage: BrokerStorage; log: PartitionLog; entries: Entry[] }> {
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, settings, REPLICA);
  log.snapshotSource = (nextOffset, index) => new TextEncoder().encode(`${nextOffset} ${index}`);
  const entries = history();
  await append(storage, log, entries);
  await log.flush();
  return { storage, log, entries };
}

const termStarts = [
  { term: 1, index: 1 },
  { term: 4, index: 17 },
  { term: 9, index: 32 },
];

/** It starts where it says, has everything from there on, and knows all terms before. */
async function check(log: PartitionLog, entries: readonly Entry[], context: string): Promise<void> {
  const first = log.firstReplicableIndex;
  const before = entries[first - 2];
  expect(log.logStartOffset, context).toBe(before?.nextOffset ?? 0);
  expect(bytesOf(await entriesFrom(log, first)), context).toEqual(bytesOf(entries.slice(first - 1)));
  expect(log.terms, context).toEqual(termStarts);
  expect(log.configuration, context).toMatchObject({ index: 1, configuration });
  expect(log.nextOffset, context).toBe(last(entries).nextOffset);
  if (first === 1) return;
  await expect(log.readEntries(first - 1, 1)).rejects.toThrow('below the first that is kept');
  await expect(log.read(log.logStartOffset - 1, log.nextOffset, 1)).rejects.toThrow(`below the log's start, ${log.logStartOffset}`);
}

describe('the start of a log', () => {
  it('moves to a segment’s, and stays there over a restart', async () => {
    const fixture = new Fixture();
    const { storage, log, entries } = await filled(fixture);
    const size = log.sizeBytes;
    const first = await log.dropBefore(25);
    expect(first).toBeGreaterThan(15);
    expect(first).toBeLessThanOrEqual(25);
    expect(log.sizeBytes).toBeLessThan(size - 10_000);
    await check(log, entries, 'dropped');
    expect(await log.dropBefore(3)).toBe(first);
    await storage.close();
    const again = await (await fixture.open()).openLog(A, settings, REPLICA);
    expect(again.whole).toBe(true);
    expect(again.log.firstReplicableIndex).toBe(first);
    expect(again.log.sizeBytes).toBe(log.sizeBytes);
    await check(again.log, entries, 'reopened');
  });

  it('an emptied log goes on at its offset, never at 0 (B36)', async () => {
    const fixture = new Fixture();
    const { storage, log, entries } = await filled(fixture);
    expect(await log.dropBefore(1000)).toBe(42);
    expect(log.sizeBytes).toBe(0);
    await check(log, entries, 'emptied');
    await storage.close();
    const reopened = await fixture.open();
    const again = await reopened.openLog(A, settings, REPLICA);
    expect(again.whole).toBe(true);
    expect(again.log.initial).toMatchObject({ firstReplicableIndex: 42, base: { index: 41, term: 9, nextOffset: 80 } });
    expect(again.log.snapshot).toEqual({ index: 41, nextOffset: 80, state: new TextEncoder().encode('80 41') });
    await check(again.log, entries, 'reopened');
    const more = [...entries, ...chainOf(10, { after: last(entries), bytes: 900, records: 2 })];
    await append(reopened, again.log, more.slice(41));
    await check(again.log, more, 'went on');
    await reopened.close();
    const third = await (await fixture.open()).openLog(A, settings, REPLICA);
    expect(third.whole).toBe(true);
    await check(third.log, more, 'reopened again');
  });

  it('does not go back when it moves on while segments are dropped', async () => {
    const fixture = new Fixture();
    const { log, entries } = await filled(fixture);
    const start = 70;
    // Committed just when the drop says durably where the log starts.
    fixture.disk.intercept = ({ kind, path }) => {
      if (kind !== 'write' || !path.endsWith('.snapshot.tmp')) return undefined;
      fixture.disk.intercept = () => undefined;
      log.append([nextEntry(last(entries), { kind: EntryKind.setLogStart, payload: encodeLogStart(start), term: 9 })]);
      return undefined;
    };
    expect(await log.dropBefore(25)).toBeGreaterThan(1);
    expect(log.logStartOffset).toBe(start);
  });

  it('does not pass what a snapshot covers, or what is read for a follower', async () => {
    const fixture = new Fixture();
    const { log, entries } = await filled(fixture);
    const snapshot = (await log.openSnapshot())!;
    expect(await log.dropBefore(30)).toBe(1);
    expect(snapshot.lastIndex).toBeGreaterThan(30);
    expect(bytesOf([entries[snapshot.lastIndex - 1] as Entry])[0]).toContain(`${snapshot.lastIndex}/${snapshot.lastTerm}:`);
    const record = decodeSnapshot(await readFile(snapshot, 0), checksums.crc32);
    expect(record).toMatchObject({
      group: `${'a'.repeat(32)}-0.0`,
      lastIndex: snapshot.lastIndex,
      firstReplicableIndex: 1,
      terms: termStarts,
    });
    for (const [at, { name }] of snapshot.files.slice(1).entries()) {
      const path = fixture.disk.files().find((file) => file.endsWith(name)) as string;
      expect(Buffer.from(await readFile(snapshot, at + 1)).equals(fixture.disk.bytes(path))).toBe(true);
    }
    snapshot.release();
    await expect(snapshot.read(1, 0, 1)).rejects.toThrow('released');
    expect(await log.dropBefore(30)).toBeGreaterThan(20);
    const forgotten = (await log.openSnapshot())!;
    fixture.environment.now += 61_000;
    expect(await log.dropBefore(1000)).toBe(42);
    await expect(forgotten.read(1, 0, 1)).rejects.toThrow('released');
  });

  it('a log whose state says all gives its snapshot without segments, and drops nothing that no state covers', async () => {
    const fixture = new Fixture();
    const storage = await fixture.open();
    const { log } = await storage.openLog(A, { ...settings, stateAlone: true }, REPLICA);
    await append(storage, log, history());
    expect(await log.dropBefore(1000)).toBe(1);
    expect(await log.openSnapshot()).toBeUndefined();
    log.snapshotSource = (_offset, index) => Uint8Array.of(index);
    await append(storage, log, chainOf(1, { after: last(history()), bytes: 100 }));
    expect(await log.dropBefore(1000)).toBe(43);
    const snapshot = (await log.openSnapshot())!;
    expect(snapshot).toMatchObject({ lastIndex: 42, lastTerm: 9 });
    expect(snapshot.files).toHaveLength(1);
    expect(decodeSnapshot(await readFile(snapshot, 0), checksums.crc32)?.state).toEqual(Uint8Array.of(42));
  });

  it.each([
    ['some segments', 25],
    ['all', 1000],
  ])('is as it was or as it will be after a power cut at every operation of dropping %s', { timeout: 60_000 }, async (_what, index) => {
    let cuts = 0;
    for (let at = 1; ; at++) {
      const fixture = new Fixture(at);
      const { log, entries } = await filled(fixture);
      if (!(await fixture.cutPower(at, () => log.dropBefore(index)))) break;
      cuts++;
      fixture.restart();
      const context = `cut at operation ${at}`;
      const storage = await fixture.open();
      const opened = await storage.openLog(A, settings, REPLICA);
      expect(opened.whole, context).toBe(true);
      opened.log.append(opened.tail);
      const more = chainOf(1, { after: last(entries), bytes: 300, records: 2 });
      await append(storage, opened.log, more);
      await check(opened.log, [...entries, ...more], context);
      await opened.log.flush();
      const kept = fixture.disk.files().filter((name) => name.includes('/groups/') && !/\.(snapshot|tmp)$|replica$/.test(name));
      for (const name of kept)
        expect(Number(/-(\d{20})\./.exec(name)?.[1]), `${context}: ${name}`).toBeGreaterThanOrEqual(opened.log.firstReplicableIndex);
    }
    expect(cuts).toBeGreaterThan(15);
  });
});

it('the start of a log does not go ahead of what the log says to be synced: a power cut finds one or the other (B36)', async () => {
  for (let at = 1; ; at++) {
    const fixture = new Fixture(at);
    const { storage, log, entries } = await filled(fixture);
    // A frame says that all so far is synced; of what follows, none does.
    await storage.wal.append([write([], { hardState: { term: 9, vote: 0, commit: 0 } })]);
    const more = chainOf(20, { after: last(entries), bytes: 900, term: 9, records: 2 });
    await append(storage, log, more);
    await log.flush();
    const wasCut = await fixture.cutPower(at, () => log.dropBefore(1000));
    fixture.disk.crash();
    fixture.restart();
    const opened = await (await fixture.open()).openLog(A, settings, REPLICA);
    expect(opened.whole, `cut at operation ${at}`).toBe(true);
    opened.log.append(opened.tail);
    await check(opened.log, [...entries, ...more], `cut at operation ${at}`);
    if (!wasCut) break;
  }
});

async function readFile(
  snapshot: { files: readonly { length: number }[]; read(file: number, at: number, length: number): Promise<{ bytes: Uint8Array }> },
  file: number,
) {
  const { length = 0 } = snapshot.files[file] ?? {};
  const parts: Uint8Array[] = [];
  for (let at = 0; at < length; at += 700) parts.push((await snapshot.read(file, at, Math.min(700, length - at))).bytes);
  return new Uint8Array(Buffer.concat(parts));
}

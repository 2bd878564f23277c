import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ReplicaId } from '../../src/base/ids.ts';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import type { BrokerStorage } from '../../src/storage/storage.ts';
import type { LogSnapshot, OpenedLog, Staging } from '../../src/storage/types.ts';
import { A, bytesOf, chainOf, entriesFrom, Fixture, last, nextEntry, REPLICA, write } from './fixture.ts';

const settings = { segmentBytes: 4_000 };
const CHUNK = 1000;
const vote = { term: 6, vote: 3 as ReplicaId, commit: 8 };

/** What leader and follower agree on: 10 entries of term 1. */
const common = chainOf(10, { bytes: 500, records: 2 });
/** What the follower appended and nobody committed. */
const conflicting = chainOf(4, { after: last(common), term: 2, bytes: 700 });
const committed = [...common, nextEntry(last(common), { kind: EntryKind.noop, term: 5 })];
for (let i = 0; i < 30; i++) committed.push(nextEntry(last(committed), { bytes: 500, records: 2 }));

/** The log of a leader that has dropped what the follower needs, and its snapshot. */
async function leader(entries: readonly Entry[] = committed): Promise<{ fixture: Fixture; snapshot: LogSnapshot }> {
  const fixture = new Fixture(77);
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, settings, 9 as ReplicaId);
  log.snapshotSource = (nextOffset, index) => new TextEncoder().encode(`${nextOffset} ${index}`);
  await storage.wal.append([write(entries, { hardState: { term: 5, vote: 0, commit: 0 } })]);
  for (const entry of entries) log.append([entry]);
  expect(await log.dropBefore(20)).toBeGreaterThan(12);
  return { fixture, snapshot: (await log.openSnapshot())! };
}

async function follower(fixture: Fixture): Promise<BrokerStorage> {
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, settings, REPLICA);
  await storage.wal.append([write([...common, ...conflicting], { hardState: vote })]);
  log.append(common.slice(0, 8));
  await log.flush();
  return storage;
}

/** Pulls what is not there; returns how many chunks had to come. */
async function pull(snapshot: LogSnapshot, staging: Staging, atMost = Number.POSITIVE_INFINITY): Promise<number> {
  let pulled = 0;
  for (const [file, { length }] of snapshot.files.entries()) {
    for (let at = 0; at < length; at += CHUNK) {
      const { bytes, checksum } = await snapshot.read(file, at, Math.min(CHUNK, length - at));
      if ((await staging.storedChecksum(file, at, bytes.length)) === checksum) continue;
      if (pulled === atMost) return pulled;
      pulled++;
      expect(await staging.write(file, at, bytes, checksum)).toBe(true);
    }
  }
  return pulled;
}

async function expectInstalled(opened: OpenedLog, snapshot: LogSnapshot, context: string): Promise<void> {
  const { lastIndex } = snapshot;
  expect(opened, context).toMatchObject({ whole: true, hardState: { ...vote, commit: lastIndex }, tail: [] });
  const { log } = opened;
  expect(log.lastIndex, context).toBe(lastIndex);
  expect(log.logStartOffset, context).toBe(committed[log.firstReplicableIndex - 2]?.nextOffset);
  expect(bytesOf(await entriesFrom(opened.log, opened.log.firstReplicableIndex)), context).toEqual(
    bytesOf(committed.slice(log.firstReplicableIndex - 1, lastIndex)),
  );
  const { nextOffset } = committed[lastIndex - 1] as Entry;
  expect(log.snapshot, context).toEqual({ index: lastIndex, nextOffset, state: new TextEncoder().encode(`${nextOffset} ${lastIndex}`) });
  expect(log.terms, context).toEqual([
    { term: 1, index: 1 },
    { term: 5, index: 11 },
  ]);
}

/** What follows the snapshot is appended as to any log, and is there at the next start. */
async function goesOn(fixture: Fixture, storage: BrokerStorage, { log }: OpenedLog, context: string): Promise<void> {
  const from = log.lastIndex;
  const rest = committed.slice(from);
  await storage.wal.append([write(rest)]);
  log.append(rest.slice(0, -2));
  fixture.disk.crash();
  fixture.restart();
  const again = await (await fixture.open()).openLog(A, settings, REPLICA);
  expect(again.whole, context).toBe(true);
  expect(again.hardState, context).toMatchObject({ term: vote.term, vote: vote.vote });
  const start = again.log.firstReplicableIndex;
  expect(bytesOf([...(await entriesFrom(again.log, again.log.firstReplicableIndex)), ...again.tail]), context).toEqual(
    bytesOf(committed.slice(start - 1)),
  );
}

describe('a snapshot from a leader', () => {
  it('takes the place of a log that lacks it or conflicts with it (B27)', async () => {
    const { snapshot } = await leader();
    const fixture = new Fixture(1);
    const storage = await follower(fixture);
    const staging = await storage.stageSnapshot(A, snapshot.files);
    await pull(snapshot, staging);
    expect(await staging.verify()).toMatchObject({ lastIndex: snapshot.lastIndex, lastTerm: snapshot.lastTerm });
    const opened = await storage.installSnapshot(A, settings, REPLICA);
    await expectInstalled(opened, snapshot, 'installed');
    await goesOn(fixture, storage, opened, 'went on');
  });

  it('is not sent again as far as it came, after a power cut either', async () => {
    const { snapshot } = await leader();
    for (let seed = 1; seed <= 20; seed++) {
      const fixture = new Fixture(seed);
      let storage = await follower(fixture);
      const all = snapshot.files.reduce((chunks, { length }) => chunks + Math.ceil(length / CHUNK), 0);
      const staging = await storage.stageSnapshot(A, snapshot.files);
      expect(await pull(snapshot, staging, 9)).toBe(9);
      if (seed % 2 === 0) {
        await staging.close();
        await storage.close();
      } else {
        fixture.disk.crash();
        fixture.restart();
      }
      storage = await fixture.open();
      await storage.openLog(A, settings, REPLICA);
      const resumed = await storage.stageSnapshot(A, snapshot.files);
      const pulled = await pull(snapshot, resumed);
      if (seed % 2 === 0) expect(pulled).toBe(all - 9);
      await resumed.verify();
      await expectInstalled(await storage.installSnapshot(A, settings, REPLICA), snapshot, `seed ${seed}`);
    }
  });

  it('is refused with any byte of it changed', async () => {
    const { snapshot } = await leader();
    const fixture = new Fixture(3);
    const storage = await follower(fixture);
    await pull(snapshot, await storage.stageSnapshot(A, snapshot.files));
    await (await storage.stageSnapshot(A, snapshot.files)).verify();
    const files = fixture.disk.files().filter((name) => name.includes('.staged/'));
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.nat(), fc.integer({ min: 1, max: 255 }), async (which, where, mask) => {
        const path = files[which % files.length] as string;
        const at = where % fixture.disk.bytes(path).length;
        // Reserved bits of the record's flags.
        if (path.endsWith('.snapshot') && at >= 6 && at < 8) return;
        fixture.disk.corrupt(path, at, mask);
        await expect((await storage.stageSnapshot(A, snapshot.files)).verify()).rejects.toThrow();
        fixture.disk.corrupt(path, at, mask);
      }),
      { numRuns: 150, seed: 5 },
    );
    await (await storage.stageSnapshot(A, snapshot.files)).verify();
  });

  it('is refused when a segment of it is another log’s, though all in it is sound (B27, B29)', async () => {
    const { snapshot } = await leader();
    // The same in number, lengths and offsets, of another term.
    const other = [...common, nextEntry(last(common), { kind: EntryKind.noop, term: 4 })];
    while (other.length < committed.length) other.push(nextEntry(last(other), { bytes: 500, records: 2 }));
    const { snapshot: otherSnapshot } = await leader(other);
    expect(otherSnapshot.files).toEqual(snapshot.files);
    const { name } = last([...snapshot.files]);
    const mixed = {
      ...snapshot,
      files: snapshot.files,
      read: (file: number, at: number, length: number) =>
        (snapshot.files[file]?.name.slice(0, 41) === name.slice(0, 41) ? otherSnapshot : snapshot).read(file, at, length),
    };
    const storage = await follower(new Fixture());
    const staging = await storage.stageSnapshot(A, snapshot.files);
    await pull(mixed as LogSnapshot, staging);
    await expect(staging.verify()).rejects.toThrow('not whole');
  });

  it('has files of a snapshot and no others', async () => {
    const storage = await follower(new Fixture(4));
    const { snapshot } = await leader();
    const [record, ...rest] = snapshot.files;
    for (const files of [
      [],
      rest,
      [...snapshot.files, record!],
      [record!, { name: '../../directory.json', length: 10 }],
      [{ ...record!, length: 0 }],
    ])
      await expect(storage.stageSnapshot(A, files)).rejects.toThrow('no snapshot');
  });

  it('that is of no more use is removed at a start', async () => {
    const { snapshot } = await leader();
    const fixture = new Fixture(5);
    const storage = await follower(fixture);
    await pull(snapshot, await storage.stageSnapshot(A, snapshot.files));
    await storage.close();
    const second = await fixture.open();
    const { log } = await second.openLog(A, settings, REPLICA);
    expect(fixture.disk.files().some((name) => name.includes('.staged'))).toBe(true);
    await second.wal.append([write(committed.slice(10), { truncateTo: 10 })]);
    log.append([...common.slice(8), ...committed.slice(10)]);
    await second.close();
    await (await fixture.open()).openLog(A, settings, REPLICA);
    expect(fixture.disk.files().some((name) => name.includes('.staged'))).toBe(false);
  });

  it('a power cut at every operation of its installation leaves the old log or the new one, and the vote', {
    timeout: 120_000,
  }, async () => {
    const { snapshot } = await leader();
    let cuts = 0;
    let old = 0;
    for (let at = 1; ; at++) {
      const fixture = new Fixture(at);
      const storage = await follower(fixture);
      const staging = await storage.stageSnapshot(A, snapshot.files);
      await pull(snapshot, staging);
      const install = () => staging.verify().then(() => storage.installSnapshot(A, settings, REPLICA));
      if (!(await fixture.cutPower(at, install))) break;
      cuts++;
      // The next start is cut as well, now and then, while it finishes what it found.
      fixture.restart();
      if (at % 3 === 0) {
        await fixture.cutPower(1 + (at % 41), async () => (await fixture.open()).openLog(A, settings, REPLICA));
        fixture.disk.crash();
        fixture.restart();
      }
      const context = `cut at operation ${at}`;
      const reopened = await fixture.open();
      const opened = await reopened.openLog(A, settings, REPLICA);
      expect(opened.whole, context).toBe(true);
      if (opened.log.lastIndex < snapshot.lastIndex) {
        old++;
        expect(opened.hardState, context).toEqual(vote);
        expect(bytesOf([...(await entriesFrom(opened.log, opened.log.firstReplicableIndex)), ...opened.tail]), context).toEqual(
          bytesOf([...common, ...conflicting]),
        );
      } else {
        await expectInstalled(opened, snapshot, context);
        await goesOn(fixture, reopened, opened, context);
      }
      expect(
        fixture.disk.files().some((name) => name.includes('.installed')),
        context,
      ).toBe(false);
    }
    expect(old).toBeGreaterThan(10);
    expect(cuts - old).toBeGreaterThan(10);
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ReplicaId } from '../../src/base/ids.ts';
import { crc32 } from '../../src/platform/crc32.ts';
import { decodeReplicaFile, encodeReplicaFile } from '../../src/storage/replica-file.ts';
import { A, bytesOf, chainOf, Fixture, REPLICA, write } from './fixture.ts';

const settings = { segmentBytes: 5_000 };
const EARLIER = 6 as ReplicaId;
const SUCCESSOR = 8 as ReplicaId;
const vote = { term: 5, vote: 3, commit: 30 };

/** A replica that voted, acknowledged 40 entries and has 30 of them in segments. */
async function formerReplica(fixture: Fixture) {
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, settings, REPLICA);
  const entries = chainOf(40, { bytes: 900, term: 5 });
  await storage.wal.append([write(entries, { hardState: { ...vote, vote: 3 as ReplicaId } })]);
  for (const entry of entries.slice(0, 30)) log.append([entry]);
  await log.flush();
  return { storage, entries };
}

const nothing = { term: 0, vote: 0, commit: 0 };

describe('the binding of a directory to a replica', () => {
  it('is read as it was written, and with any byte changed it is nobody’s', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 53 - 1 }), fc.nat(19), fc.integer({ min: 1, max: 255 }), (id, at, mask) => {
        const bytes = encodeReplicaFile(id as ReplicaId, crc32);
        expect(decodeReplicaFile(bytes, crc32)).toBe(id);
        bytes[at] = (bytes[at] as number) ^ mask;
        expect(decodeReplicaFile(bytes, crc32)).toBeUndefined();
      }),
    );
  });

  it('a replica in the place of another adopts none of its entries, votes or sync marks (B14)', async () => {
    const fixture = new Fixture();
    const { storage } = await formerReplica(fixture);
    await storage.closeLog(A);
    const opened = await storage.openLog(A, settings, SUCCESSOR);
    expect(opened).toMatchObject({ whole: true, hardState: nothing, tail: [] });
    expect(opened.log.lastIndex).toBe(0);
    expect(fixture.disk.files().filter((name) => name.includes('quarantine')).length).toBeGreaterThan(3);
    const own = chainOf(3, { term: 1 });
    await storage.wal.append([write(own, { hardState: { term: 1, vote: SUCCESSOR, commit: 0 } })]);
    await storage.close();
    const again = await (await fixture.open()).openLog(A, settings, SUCCESSOR);
    expect(again).toMatchObject({ whole: true, hardState: { term: 1, vote: SUCCESSOR, commit: 0 } });
    expect(bytesOf(again.tail)).toEqual(bytesOf(own));
  });

  it('is not given back to an earlier replica: metadata that are replayed may name it', async () => {
    const fixture = new Fixture();
    const { storage } = await formerReplica(fixture);
    await storage.close();
    const reopened = await fixture.open();
    await expect(reopened.openLog(A, settings, EARLIER)).rejects.toThrow('of replica 7, which took the place of replica 6');
    expect(await reopened.openLog(A, settings, REPLICA)).toMatchObject({ whole: true, hardState: vote });
  });

  describe.each(['damaged', 'gone'])('that is %s', (how) => {
    /** After the replica was closed. */
    async function rotted(): Promise<Fixture> {
      const fixture = new Fixture();
      const { storage } = await formerReplica(fixture);
      await storage.close();
      const path = fixture.disk.files().find((name) => name.endsWith('/replica')) as string;
      if (how === 'gone') await fixture.disk.remove(path);
      else fixture.disk.corrupt(path, 9);
      return fixture;
    }

    it('makes the replica one that takes no part, until another takes its place', async () => {
      const fixture = await rotted();
      for (let life = 0; life < 2; life++) {
        const reopened = await fixture.open();
        expect((await reopened.openLog(A, settings, REPLICA, true)).whole).toBe(false);
        await reopened.close();
      }
      expect(await (await fixture.open()).openLog(A, settings, SUCCESSOR)).toMatchObject({ whole: true, hardState: nothing });
    });

    it('is not given to an earlier replica that a start meets: what it belongs to would pass for a successor (B03)', async () => {
      const fixture = await rotted();
      for (let life = 0; life < 2; life++) {
        const reopened = await fixture.open();
        for (const id of [EARLIER, REPLICA, SUCCESSOR])
          await expect(reopened.openLog(A, settings, id)).rejects.toThrow(`replica ${id} waits`);
        await reopened.close();
      }
      const caughtUp = await fixture.open();
      expect(await caughtUp.openLog(A, settings, REPLICA, true)).toMatchObject({ whole: false });
      await caughtUp.close();
      const bound = await fixture.open();
      await expect(bound.openLog(A, settings, EARLIER)).rejects.toThrow('of replica 7, which took the place of replica 6');
      expect(await bound.openLog(A, settings, REPLICA)).toMatchObject({ whole: false });
    });

    it('gives nothing of what is there to the replica that the newest metadata name: it may be a successor (B14)', async () => {
      expect((await (await rotted()).open().then((storage) => storage.openLog(A, settings, SUCCESSOR, true))).whole).toBe(false);
    });
  });

  it('a directory that vanished leaves records that nobody may adopt', async () => {
    const fixture = new Fixture();
    const { storage } = await formerReplica(fixture);
    await storage.close();
    const path = (fixture.disk.files().find((name) => name.endsWith('/replica')) as string).replace('/replica', '');
    await fixture.disk.removeTree(path);
    for (let life = 0; life < 2; life++) {
      const reopened = await fixture.open();
      expect((await reopened.openLog(A, settings, REPLICA)).whole).toBe(false);
      await reopened.close();
    }
  });

  it('the replacement is safe from a power cut at every operation', { timeout: 60_000 }, async () => {
    let cuts = 0;
    for (let at = 1; ; at++) {
      const fixture = new Fixture(at);
      const { storage, entries } = await formerReplica(fixture);
      await storage.closeLog(A);
      if (!(await fixture.cutPower(at, () => storage.openLog(A, settings, SUCCESSOR)))) break;
      cuts++;
      fixture.restart();
      const reopened = await fixture.open();
      const context = `cut at operation ${at}`;
      if (at % 2 === 0) {
        // Whoever comes next: the successor finds nothing.
        const opened = await reopened.openLog(A, settings, SUCCESSOR);
        expect(opened, context).toMatchObject({ whole: true, hardState: nothing, tail: [] });
        expect(opened.log.lastIndex, context).toBe(0);
        continue;
      }
      // While its directory is there, the former one has all of its own, or takes no part.
      if (!reopened.groups().includes(A)) continue;
      const opened = await reopened.openLog(A, settings, REPLICA).catch((error: Error) => error.message);
      if (typeof opened === 'string') expect(opened, context).toContain('of replica 8');
      else if (opened.whole) {
        expect(opened.hardState, context).toEqual(vote);
        expect(bytesOf(opened.tail), context).toEqual(bytesOf(entries.slice(30)));
      }
    }
    expect(cuts).toBeGreaterThan(10);
  });

  it('a power cut in a deletion never leaves the log’s records to a later replica', { timeout: 60_000 }, async () => {
    for (let at = 1; ; at++) {
      const fixture = new Fixture(at);
      const { storage } = await formerReplica(fixture);
      if (!(await fixture.cutPower(at, () => storage.deleteLog(A)))) break;
      fixture.restart();
      const opened = await (await fixture.open()).openLog(A, settings, SUCCESSOR);
      expect(opened, `cut at operation ${at}`).toMatchObject({ whole: true, hardState: nothing, tail: [] });
    }
  });
});

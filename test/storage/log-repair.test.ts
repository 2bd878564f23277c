import { describe, expect, test } from 'vitest';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import { makeEntry, putUint64 } from '../../src/raft/core/entry-codec.ts';
import type { LogRepair } from '../../src/storage/types.ts';
import { filled } from './cleaned-log.ts';
import { A, type Fixture, nextEntry } from './fixture.ts';

interface Broken {
  readonly fixture: Fixture;
  readonly repair: LogRepair;
  readonly firstIndex: number;
  /** The damaged one, and the one before it. */
  readonly was: Entry;
  readonly before: Entry;
  readonly files: readonly string[];
}

/** A log with one batch damaged in its second segment, and of its row nothing left: the third of the segment, or its last. */
async function broken(which: 'third' | 'last'): Promise<Broken> {
  const { fixture, storage, all } = await filled();
  const repair = storage.repairOf(A)!;
  const [, firstIndex = 0, end = 0] = repair.segments();
  const index = which === 'third' ? firstIndex + 2 : end - 1;
  const [before, was] = all.slice(index - 2, index) as [Entry, Entry];
  expect(was.kind).toBe(EntryKind.batch);
  const name = String(firstIndex).padStart(20, '0');
  const files = fixture.disk.files().filter((path) => new RegExp(`-${name}\\.(log|entries)$`).test(path));
  expect(files).toHaveLength(2);
  const rows = files.find((path) => path.endsWith('entries'))!;
  fixture.disk.corrupt(rows, (index - firstIndex) * 72 + 40, 0xff);
  return { fixture, repair, firstIndex, was, before, files };
}

/** One that follows the same entry, as another leader might have written it. */
const other = ({ before, was }: Broken) => nextEntry(before, { bytes: was.payload.length, records: was.recordCount, timestamp: 9_999 });

function changed({ payload, ...entry }: Entry, change: (bytes: Uint8Array) => void): Entry {
  const bytes = payload.slice();
  change(bytes);
  return { ...entry, payload: bytes };
}

const foreign: Record<string, (log: Broken) => Entry> = {
  'another batch that follows the same entry': (log) => other(log),
  'the same batch behind another entry': ({ was, before }) =>
    makeEntry({ ...was, previous: { ...before, chainLow: (before.chainLow ^ 1) >>> 0 } }),
  'its bytes, but for one': ({ was }) => changed(was, (bytes) => bytes.fill(1 ^ bytes[70]!, 70, 71)),
  'its bytes, stamped with another offset': ({ was }) => changed(was, (bytes) => putUint64(bytes, 0, was.nextOffset)),
};

describe('what a peer sends for an entry that rotted', () => {
  for (const which of ['third', 'last'] as const) {
    for (const [what, made] of Object.entries(foreign)) {
      test(`the ${which} of a segment: ${what}: is refused, and nothing written`, async () => {
        const log = await broken(which);
        const { fixture, repair, firstIndex, was, files } = log;
        const bytes = files.map((path) => fixture.disk.bytes(path));
        await expect(repair.write(firstIndex, [made(log)], was.index)).rejects.toMatchObject({ code: 'CORRUPT_MESSAGE' });
        expect(files.map((path) => fixture.disk.bytes(path))).toEqual(bytes);
        expect(await repair.check(firstIndex, async () => {})).not.toEqual([]);
      });
    }

    test(`the ${which} of a segment: what this log had: is written where it stood`, async () => {
      const { fixture, repair, firstIndex, was, files } = await broken(which);
      const damaged = files.map((path) => fixture.disk.bytes(path));
      await repair.write(firstIndex, [was], was.index);
      expect(files.map((path) => fixture.disk.bytes(path))).not.toEqual(damaged);
      expect(await repair.check(firstIndex, async () => {})).toEqual([]);
      expect(fixture.failures).toEqual([]);
    });
  }
});

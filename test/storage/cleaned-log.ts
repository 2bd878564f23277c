/** A log to clean, and what readers must find in it afterwards. */
import { expect } from 'vitest';
import { concat } from '../../src/base/bytes.ts';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import type { SegmentedLog } from '../../src/storage/partition-log.ts';
import type { BrokerStorage } from '../../src/storage/storage.ts';
import { A, cleaned, entriesFrom, type Fate, Fixture, fateOf, nextEntry, REPLICA, write } from './fixture.ts';

export const settings = { segmentBytes: 4_000 };
export const SIGNAL = new AbortController().signal;
export const ALL = Number.MAX_SAFE_INTEGER;

export async function open(fixture: Fixture): Promise<{ storage: BrokerStorage; log: SegmentedLog }> {
  const storage = await fixture.open();
  const { log, tail, whole } = await storage.openLog(A, settings, REPLICA);
  expect(whole).toBe(true);
  log.append(tail);
  log.snapshotSource = () => new Uint8Array(8);
  return { storage, log: log as SegmentedLog };
}

/** Batches of several records, and entries of Raft's own between them, in some segments. */
function entries(count: number): Entry[] {
  const made: Entry[] = [];
  for (let i = 0; i < count; i++) {
    const noop = i % 7 === 3;
    made.push(
      nextEntry(made.at(-1), noop ? { kind: EntryKind.noop } : { bytes: 200 + 10 * (i % 13), records: 1 + (i % 3), timestamp: 1_000 + i }),
    );
  }
  return made;
}

export async function filled(
  fixture = new Fixture(),
  count = 100,
): Promise<{ fixture: Fixture; storage: BrokerStorage; log: SegmentedLog; all: Entry[] }> {
  const { storage, log } = await open(fixture);
  const all = entries(count);
  for (const entry of all) {
    await storage.wal.append([write([entry], { hardState: { term: 1, vote: 0, commit: entry.index } })]);
    log.append([entry]);
  }
  await log.flush();
  await storage.wal.append([]);
  return { fixture, storage, log, all };
}

/** Compares all that readers see with what is due; batches that end at or below `cleanedTo` were cleaned. */
export async function check(
  log: SegmentedLog,
  all: readonly Entry[],
  cleanedTo: number,
  fates: (baseOffset: number) => Fate = fateOf,
): Promise<void> {
  const due: Uint8Array[] = [];
  for (const { payload, nextOffset, recordCount } of all) {
    if (recordCount === 0) continue;
    const left = nextOffset <= cleanedTo ? cleaned(payload, fates(nextOffset - recordCount)) : payload;
    if (left !== undefined) due.push(left);
  }
  for (const bytes of [1, 700, 1 << 20]) {
    const read: Uint8Array[] = [];
    for (let offset = 0; offset < log.nextOffset; ) {
      const { chunks, nextOffset } = await log.read(offset, log.nextOffset, bytes);
      expect(nextOffset).toBeGreaterThan(offset);
      read.push(...chunks.map((chunk) => chunk.slice()));
      offset = nextOffset;
    }
    expect(Buffer.from(concat(read)).equals(Buffer.from(concat(due)))).toBe(true);
  }
  // From every offset: the first batch that ends above it.
  for (let offset = 0; offset < log.nextOffset; offset++) {
    const wanted = due.find((batch) => nextOffsetOf(batch) > offset);
    const { chunks } = await log.read(offset, log.nextOffset, 1);
    expect(Buffer.from(chunks[0]?.subarray(0, 61) ?? []).equals(Buffer.from(wanted?.subarray(0, 61) ?? []))).toBe(true);
  }
  for (const time of [0, 1_001, 1_030, 1_059, 1_099, 2_000]) {
    const wanted = due.find((batch) => timeOf(batch) >= time);
    expect(await log.offsetForTime(time), `at ${time}`).toBe(wanted && baseOf(wanted));
  }
  const headers: number[] = [];
  await log.scanBatchHeaders(0, (_header, nextOffset) => void headers.push(nextOffset));
  expect(headers).toEqual(due.map(nextOffsetOf));
  const first = log.firstReplicableIndex;
  const stored = await entriesFrom(log, first);
  expect(stored.map(({ index }) => index)).toEqual(all.slice(first - 1).map(({ index }) => index));
  if (first > 1) await expect(log.readEntries(first - 1, 1)).rejects.toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' });
}

export const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset);
export const baseOf = (batch: Uint8Array) => Number(view(batch).getBigInt64(0));
const nextOffsetOf = (batch: Uint8Array) => baseOf(batch) + view(batch).getInt32(23) + 1;
const timeOf = (batch: Uint8Array) => Number(view(batch).getBigInt64(35));

import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import { encodeLogStart } from '../../src/storage/log-start.ts';
import type { SegmentedLog } from '../../src/storage/partition-log.ts';
import type { BrokerStorage } from '../../src/storage/storage.ts';
import { A, bytesOf, cleanBy, cleaned, entriesFrom, Fixture, fateOf, hex, nextEntry, REPLICA, write } from './fixture.ts';

const settings = { segmentBytes: 3_000 };

const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('append' as const),
      times: fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 1, maxLength: 12 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('start' as const), at: fc.double({ min: 0, max: 1, noNaN: true }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('elect' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('flush' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('reclaim' as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('clean' as const),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      /** The power goes before that many more operations of the disk. */
      cutBefore: fc.option(fc.nat(40), { nil: undefined }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('reopen' as const),
      how: fc.constantFrom('close' as const, 'kill' as const, 'power cut' as const),
    }),
  },
);

/** A log and what it should be: all entries that were ever appended, and where readers start. */
class Model {
  readonly #fixture: Fixture;
  #storage: BrokerStorage | undefined;
  #log: SegmentedLog | undefined;
  readonly #entries: Entry[] = [];
  #start = 0;
  /** The last entry that a cleaning was to reach, and the last that was cleaned. */
  #cleanedAtMost = 0;
  #cleanedTo = 0;

  constructor(seed: number) {
    this.#fixture = new Fixture(seed);
  }

  get log(): SegmentedLog {
    return this.#log as SegmentedLog;
  }

  get end(): number {
    return this.#entries.at(-1)?.nextOffset ?? 0;
  }

  async open(): Promise<void> {
    this.#storage = await this.#fixture.open();
    const { log, tail, whole } = await this.#storage.openLog(A, settings, REPLICA);
    expect(whole).toBe(true);
    this.#log = log as SegmentedLog;
    log.append(tail);
    log.snapshotSource = (nextOffset) => new TextEncoder().encode(String(nextOffset));
  }

  async append(entries: readonly Entry[]): Promise<void> {
    await this.#storage?.wal.append([write(entries)]);
    this.log.append(entries);
    this.#entries.push(...entries);
  }

  batches(times: readonly number[]): Entry[] {
    const entries: Entry[] = [];
    for (const timestamp of times)
      entries.push(
        nextEntry(entries.at(-1) ?? this.#entries.at(-1), {
          bytes: 100 + 40 * timestamp,
          records: 1 + (timestamp % 3),
          timestamp: 1_000 + timestamp,
        }),
      );
    return entries;
  }

  noop(): Entry {
    const last = this.#entries.at(-1);
    return nextEntry(last, { kind: EntryKind.noop, term: (last?.term ?? 0) + 1 });
  }

  async startAt(offset: number): Promise<void> {
    await this.append([nextEntry(this.#entries.at(-1), { kind: EntryKind.setLogStart, payload: encodeLogStart(offset) })]);
    this.#start = Math.max(this.#start, offset);
  }

  async reopen(how: 'close' | 'kill' | 'power cut'): Promise<void> {
    if (how === 'close') await this.#storage?.close();
    else if (how === 'kill') this.#fixture.revive();
    else {
      this.#fixture.disk.crash();
      this.#fixture.restart();
    }
    await this.open();
  }

  async clean(share: number, cutBefore: number | undefined): Promise<void> {
    const cleanable = this.log.cleanable();
    const last = cleanable[Math.floor(share * cleanable.length)] ?? cleanable.at(-1);
    if (last === undefined) return;
    this.#cleanedAtMost = Math.max(this.#cleanedAtMost, last.lastIndex);
    const { disk } = this.#fixture;
    const cutAt = disk.operations + (cutBefore ?? Number.POSITIVE_INFINITY);
    const cut = new Promise<void>((resolve) => {
      disk.intercept = ({ number }) => {
        if (number < cutAt) return undefined;
        resolve();
        return 'crash';
      };
    });
    await Promise.race([this.log.clean(last.lastIndex, cleanBy(fateOf), new AbortController().signal), cut]);
    disk.intercept = undefined;
    if (disk.off) {
      this.#fixture.restart();
      await this.open();
    } else this.#cleanedTo = Math.max(this.#cleanedTo, last.lastIndex);
    // A crash leaves each segment as it was or as it will be.
    const found = this.log.cleanable().findLast((segment) => segment.cleaned)?.lastIndex ?? 0;
    if (found > 0) expect(found).toBeGreaterThanOrEqual(this.#cleanedTo);
    this.#cleanedTo = Math.max(this.#cleanedTo, found);
  }

  /** What is left of the batch of an entry. */
  #left({ index, payload, nextOffset, recordCount }: Entry): Uint8Array | undefined {
    return index <= this.#cleanedTo ? cleaned(payload, fateOf(nextOffset - recordCount)) : payload;
  }

  async check(): Promise<void> {
    const { log } = this;
    expect(this.#fixture.failures).toEqual([]);
    expect(log.logStartOffset).toBe(this.#start);
    expect(log.nextOffset).toBe(this.end);
    expect(log.lastIndex).toBe(this.#entries.length);
    const first = log.firstReplicableIndex;
    // No more is gone than lies below the start.
    const mayBeGone = ({ index, nextOffset }: Entry) => nextOffset <= this.#start || index <= this.#cleanedAtMost;
    expect(this.#entries.slice(0, first - 1).every(mayBeGone)).toBe(true);
    expect(first).toBeGreaterThan(this.#cleanedTo);
    expect(bytesOf(await entriesFrom(log, first))).toEqual(bytesOf(this.#entries.slice(first - 1)));
    await this.#checkReads();
    await this.#checkTimes();
    const headers: number[] = [];
    await log.scanBatchHeaders(0, (_header, nextOffset) => void headers.push(nextOffset));
    const firstIndex = log.segments()[0]?.base.index ?? first;
    const stored = this.#entries.slice(firstIndex - 1).filter((entry) => entry.recordCount > 0 && this.#left(entry) !== undefined);
    expect(headers).toEqual(stored.map(({ nextOffset }) => nextOffset));
  }

  async #checkReads(): Promise<void> {
    const wanted = this.#entries.filter(({ recordCount, nextOffset }) => recordCount > 0 && nextOffset > this.#start);
    const read: Uint8Array[] = [];
    for (let offset = this.#start; offset < this.end; ) {
      const { chunks, nextOffset } = await this.log.read(offset, this.end, 700);
      expect(nextOffset).toBeGreaterThan(offset);
      read.push(...chunks.map((chunk) => chunk.slice()));
      offset = nextOffset;
    }
    expect(hex(Buffer.concat(read))).toBe(hex(Buffer.concat(wanted.flatMap((entry) => this.#left(entry) ?? []))));
    if (this.#start > 0) await expect(this.log.read(this.#start - 1, this.end, 1)).rejects.toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' });
  }

  async #checkTimes(): Promise<void> {
    for (const time of [1_000, 1_010, 1_025, 1_040, 1_050, 1_051]) {
      const due = this.#entries.find(
        (entry) =>
          entry.recordCount > 0 && entry.nextOffset > this.#start && this.#left(entry) !== undefined && timeOf(entry.payload) >= time,
      );
      expect(await this.log.offsetForTime(time), `at ${time}`).toBe(due && due.nextOffset - due.recordCount);
    }
  }
}

const timeOf = (payload: Uint8Array) => Number(new DataView(payload.buffer, payload.byteOffset).getBigInt64(35));

it('is an array of entries of which the beginning is forgotten or cleaned, whatever happens in between (B31, B36)', {
  timeout: 60_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 25 }), fc.nat(1_000), async (steps, seed) => {
      const model = new Model(seed);
      await model.open();
      for (const each of steps) {
        if (each.do === 'append') await model.append(model.batches(each.times));
        else if (each.do === 'elect') await model.append([model.noop()]);
        else if (each.do === 'start') await model.startAt(Math.round(each.at * model.end));
        else if (each.do === 'flush') await model.log.flush();
        else if (each.do === 'reclaim') await model.log.reclaim();
        else if (each.do === 'clean') await model.clean(each.share, each.cutBefore);
        else await model.reopen(each.how);
        await model.check();
      }
    }),
    { numRuns: 60, seed: 11 },
  );
});

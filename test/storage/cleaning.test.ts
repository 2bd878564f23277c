import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { concat } from '../../src/base/bytes.ts';
import { ALL, baseOf, check, filled, open, SIGNAL, view } from './cleaned-log.ts';
import { chainOf, cleanBy, cleaned, type Fate, Fixture, fateOf, nextEntry, write } from './fixture.ts';

describe('cleaning', () => {
  it('leaves what it is told to, and readers take the gaps', async () => {
    const { fixture, storage, log, all } = await filled();
    const cleanable = log.cleanable();
    expect(cleanable.length).toBeGreaterThan(3);
    expect(cleanable.some((segment) => segment.cleaned)).toBe(false);
    expect(log.cleanedTo).toBe(0);
    const bytes = log.sizeBytes;
    const { before, after } = await log.clean(ALL, cleanBy(fateOf), SIGNAL);
    expect(after).toBeLessThan(before);
    expect(log.sizeBytes).toBe(bytes - before + after);
    const end = cleanable.at(-1);
    expect(log.cleanedTo).toBe(end?.nextOffset);
    expect(log.firstReplicableIndex).toBe((end?.lastIndex ?? 0) + 1);
    await check(log, all, log.cleanedTo);
    const now = log.cleanable();
    expect(now.every((segment) => segment.cleaned)).toBe(true);
    expect(now.at(-1)).toMatchObject({ lastIndex: end?.lastIndex, nextOffset: end?.nextOffset });
    expect((await Promise.all(now.map((segment) => segment.payloadBytes()))).reduce((a, b) => a + b)).toBe(after);
    const size = log.sizeBytes;
    await storage.close();
    fixture.restart();
    const again = await open(fixture);
    expect(again.log.sizeBytes).toBe(size);
    expect(again.log.cleanedTo).toBe(end?.nextOffset);
    expect(again.log.firstReplicableIndex).toBe((end?.lastIndex ?? 0) + 1);
    await check(again.log, all, again.log.cleanedTo);
  });

  it('makes one segment of neighbours, and again, until they fill one', async () => {
    const { log, all, fixture } = await filled(new Fixture(), 200);
    await log.clean(ALL, cleanBy(fateOf), SIGNAL);
    const first = log.cleanable().length;
    const few = (baseOffset: number): Fate => (baseOffset % 3 === 0 && baseOffset % 5 === 0 ? 'kept' : 'gone');
    await log.clean(ALL, cleanBy(few), SIGNAL);
    expect(log.cleanable().length).toBeLessThan(first);
    await check(log, all, log.cleanedTo, few);
    expect(fixture.disk.files().filter((name) => name.endsWith('.entries')).length).toBe(log.segments().length);
  });

  it('keeps the place of what is gone altogether', async () => {
    const { log, all, storage, fixture } = await filled();
    await log.clean(
      ALL,
      cleanBy(() => 'gone'),
      SIGNAL,
    );
    expect(log.cleanable()).toHaveLength(1);
    await check(log, all, log.cleanedTo, () => 'gone');
    await storage.close();
    fixture.restart();
    await check((await open(fixture)).log, all, log.cleanedTo, () => 'gone');
  });

  it('goes as far as it is asked to, and starts at the beginning', async () => {
    const { log, all } = await filled();
    const [, second] = log.cleanable();
    await log.clean(second?.lastIndex ?? 0, cleanBy(fateOf), SIGNAL);
    expect(log.cleanedTo).toBe(second?.nextOffset);
    expect(log.firstReplicableIndex).toBe((second?.lastIndex ?? 0) + 1);
    await check(log, all, log.cleanedTo);
  });

  it('changes nothing of the segment under way when its signal comes', async () => {
    const { log, all, fixture } = await filled();
    const files = fixture.disk.files();
    const controller = new AbortController();
    const never = new Promise<Uint8Array>(() => {});
    const cleaning = log.clean(ALL, () => never, controller.signal);
    await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    expect(await cleaning).toEqual({ before: 0, after: 0 });
    expect(fixture.disk.files()).toEqual(files);
    expect(log.firstReplicableIndex).toBe(1);
    await check(log, all, 0);
  });

  it.each(['close', 'discard'] as const)('ends when the log is to %s', async (how) => {
    const { log } = await filled();
    const cleaning = log.clean(ALL, () => new Promise<Uint8Array>(() => {}), SIGNAL);
    await new Promise((resolve) => setImmediate(resolve));
    await log[how]();
    expect(await cleaning).toEqual({ before: 0, after: 0 });
  });

  it('holds nothing of what was left, however long its signal lives', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const { log } = await filled();
    const given: WeakRef<Uint8Array>[] = [];
    const clean = async (batches: Uint8Array) => {
      const left = batches.slice();
      given.push(new WeakRef(left));
      return left;
    };
    await log.clean(ALL, clean, SIGNAL);
    await new Promise((resolve) => setImmediate(resolve));
    collect();
    expect(given.length).toBeGreaterThan(3);
    expect(given.filter((left) => left.deref() !== undefined)).toEqual([]);
  });

  it('lets be what a follower reads', async () => {
    const { log, all } = await filled();
    const snapshot = await log.openSnapshot();
    expect(await log.clean(ALL, cleanBy(fateOf), SIGNAL)).toEqual({ before: 0, after: 0 });
    snapshot?.release();
    // Also what begins to while a segment is being rewritten.
    let isOpen = false;
    const late = async (batches: Uint8Array) => {
      if (!isOpen) isOpen = (await log.openSnapshot()) !== undefined;
      return cleanBy(fateOf)(batches);
    };
    expect(await log.clean(ALL, late, SIGNAL)).toEqual({ before: 0, after: 0 });
    expect(log.cleanedTo).toBe(0);
    await check(log, all, 0);
  });

  it('keeps what it has put in place, whatever becomes of the entries that are written behind it; and that ends the process (B25)', async () => {
    const { fixture, storage, log, all } = await filled();
    const next = nextEntry(all.at(-1));
    await storage.wal.append([write([next], { hardState: { term: 1, vote: 0, commit: next.index } })]);
    fixture.disk.intercept = ({ kind, path }) => {
      if (kind === 'rename' && path.endsWith('.aside')) {
        log.append([next]);
        fixture.disk.intercept = (other) => (other.kind === 'write' && other.path.endsWith('.log') ? 'EIO' : undefined);
      }
      return undefined;
    };
    await log.clean(log.cleanable()[0]?.lastIndex ?? 0, cleanBy(fateOf), SIGNAL);
    expect(fixture.failures).toEqual([expect.objectContaining({ message: expect.stringContaining('segment could not be written') })]);
    fixture.disk.intercept = undefined;
    fixture.revive();
    const again = await open(fixture);
    expect(again.log.cleanable()[0]?.cleaned).toBe(true);
    await check(again.log, [...all, next], again.log.cleanedTo);
  });

  it('refuses what was none of the batches', async () => {
    const { log, all } = await filled();
    for (const wrong of [(bytes: Uint8Array) => bytes.subarray(1), (bytes: Uint8Array) => concat([bytes, bytes])]) {
      await expect(log.clean(ALL, async (batches) => wrong(batches), SIGNAL)).rejects.toThrow('what is left');
      expect(log.cleanedTo).toBe(0);
    }
    await check(log, all, 0);
  });

  it('gives readers under way the old files or the new', async () => {
    const { log, all } = await filled(new Fixture(), 150);
    let cleaning = true;
    const batches = new Map<number, Set<string>>();
    for (const { payload, nextOffset, recordCount } of all) {
      const base = nextOffset - recordCount;
      if (recordCount > 0)
        batches.set(base, new Set([payload, cleaned(payload, fateOf(base)) ?? payload].map((bytes) => Buffer.from(bytes).toString('hex'))));
    }
    const reader = async (seed: number): Promise<number> => {
      let reads = 0;
      for (let offset = seed; cleaning; offset = (offset + 7) % (log.nextOffset - 1)) {
        const { chunks } = await log.read(offset, log.nextOffset, 1);
        const bytes = chunks[0] ?? new Uint8Array(0);
        expect(batches.get(baseOf(bytes))?.has(Buffer.from(bytes.subarray(0, 12 + view(bytes).getInt32(8))).toString('hex'))).toBe(true);
        await log.offsetForTime(1_000 + offset);
        reads++;
      }
      return reads;
    };
    const readers = Promise.all([1, 2, 3, 4].map(reader));
    await log.clean(ALL, cleanBy(fateOf), SIGNAL);
    cleaning = false;
    expect(Math.min(...(await readers))).toBeGreaterThan(0);
    await check(log, all, log.cleanedTo);
  });

  it('serves nothing behind a batch that stands in the place of another, which would be skipped (B23)', async () => {
    const fixture = new Fixture();
    const { storage, log } = await open(fixture);
    for (const entry of chainOf(40, { bytes: 300 })) {
      await storage.wal.append([write([entry], { hardState: { term: 1, vote: 0, commit: entry.index } })]);
      log.append([entry]);
    }
    await log.flush();
    await storage.wal.append([]);
    await log.clean(
      ALL,
      cleanBy((baseOffset) => (baseOffset % 2 === 0 ? 'kept' : 'gone')),
      SIGNAL,
    );
    const path = fixture.disk.files().find((name) => /-0{19}1\.\d+\.log$/.test(name))!;
    const bytes = fixture.disk.bytes(path);
    for (let i = 300; i < 600; i++) {
      const mask = (bytes[i] ?? 0) ^ (bytes[i + 600] ?? 0);
      fixture.disk.corrupt(path, i, mask);
      fixture.disk.corrupt(path, i + 600, mask);
    }
    const { chunks, nextOffset } = await log.read(0, log.nextOffset, 10_000);
    expect([concat(chunks).length, nextOffset]).toEqual([300, 1]);
    for (const offset of [1, 2]) await expect(log.read(offset, log.nextOffset, 10_000)).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    expect(baseOf((await log.read(3, log.nextOffset, 300)).chunks[0]!)).toBe(4);
    await expect(log.read(5, log.nextOffset, 300)).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    expect(baseOf((await log.read(7, log.nextOffset, 300)).chunks[0]!)).toBe(8);
  });

  it('goes on where retention has dropped the beginning, and drops what was cleaned', async () => {
    const { log, storage } = await filled();
    await log.clean(ALL, cleanBy(fateOf), SIGNAL);
    const first = log.firstReplicableIndex;
    const [, second] = log.cleanable();
    expect(await log.dropBefore(second?.base.index ?? 0)).toBe(first);
    expect(log.logStartOffset).toBe(second?.base.offset);
    expect(log.segments()[0]?.base).toEqual(second?.base);
    await log.clean(ALL, cleanBy(fateOf), SIGNAL);
    expect(log.firstReplicableIndex).toBe(first);
    await storage.close();
  });
});

import { crc32c } from '@node-rs/crc32';
import { assert, must } from '../../src/base/assert.ts';
import { concat } from '../../src/base/bytes.ts';
import { type Environment, silentLogger } from '../../src/base/environment.ts';
import { type BrokerId, encodeGroupKey, type GroupKey, type ReplicaId, type TopicId } from '../../src/base/ids.ts';
import { crc32 } from '../../src/platform/crc32.ts';
import { LOG_ORIGIN } from '../../src/raft/core/chain.ts';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import { makeEntry, putUint32, putUint64, readUint32 } from '../../src/raft/core/entry-codec.ts';
import { initDirectory } from '../../src/storage/directory.ts';
import { batchBaseOffsetAt, batchLengthAt } from '../../src/storage/payload.ts';
import { type BrokerStorage, openStorage, type StorageSettings } from '../../src/storage/storage.ts';
import type { PartitionLog } from '../../src/storage/types.ts';
import { SimDisk } from '../sim/disk.ts';

export const checksums = { crc32, crc32c: (bytes: Uint8Array, seed?: number) => crc32c(bytes, seed) };

export function seeded(seed: number): { uint32(): number } {
  let state = seed >>> 0;
  return {
    uint32() {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return (t ^ (t >>> 14)) >>> 0;
    },
  };
}

/** Time that passes when a test says so; I/O completes on the real event loop. */
export class TestEnvironment implements Environment {
  now = 0;
  readonly #random: { uint32(): number };
  #timers: { at: number; task: () => void }[] = [];
  constructor(seed = 1) {
    this.#random = seeded(seed);
  }
  monotonicMs = (): number => this.now;
  wallMs = (): number => 1_700_000_000_000 + this.now;
  soon(task: () => void): void {
    queueMicrotask(task);
  }
  nextTurn(task: () => void): void {
    setImmediate(task);
  }
  uint32(): number {
    return this.#random.uint32();
  }
  after(ms: number, task: () => void): { cancel(): void } {
    const timer = { at: this.now + ms, task };
    this.#timers.push(timer);
    const cancel = (): void => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
    return { cancel };
  }
  advance(ms: number): void {
    this.now += ms;
    for (const timer of this.#timers.filter(({ at }) => at <= this.now)) {
      this.#timers = this.#timers.filter((other) => other !== timer);
      timer.task();
    }
  }
}

export function groupKey(partition: number): GroupKey {
  return encodeGroupKey({ topicId: 'a'.repeat(32) as TopicId, partition, groupGeneration: 0 });
}

/** The group most tests write to, and how its log is cut. */
export const A = groupKey(0);
export const settings = { segmentBytes: 20_000 };

/** What the log of group {@link A} appends to the write-ahead log. */
export const write = (entries: readonly Entry[], more: object = {}) => ({
  group: A,
  hardState: undefined,
  truncateTo: undefined,
  entries,
  ...more,
});

/** A RecordBatch v2 of `recordCount` records with filler for records. */
export function batchPayload(baseOffset: number, recordCount: number, bytes: number, timestamp: number, epoch = 1): Uint8Array {
  const payload = new Uint8Array(Math.max(61, bytes));
  for (let i = 61; i < payload.length; i++) payload[i] = (baseOffset * 31 + i * 7) & 0xff;
  putUint64(payload, 0, baseOffset);
  putUint32(payload, 8, payload.length - 12);
  putUint32(payload, 12, epoch);
  payload[16] = 2;
  putUint32(payload, 23, recordCount - 1);
  putUint64(payload, 27, timestamp);
  putUint64(payload, 35, timestamp);
  putUint32(payload, 57, recordCount);
  putUint32(payload, 17, crc32c(payload.subarray(21)));
  return payload;
}

export function nextEntry(
  previous: Entry | undefined,
  options: { term?: number; bytes?: number; records?: number; timestamp?: number; kind?: Entry['kind']; payload?: Uint8Array } = {},
): Entry {
  const before = previous ?? LOG_ORIGIN;
  const { term = Math.max(1, before.term), bytes = 100, records = 1, kind = EntryKind.batch } = options;
  const index = before.index + 1;
  if (kind !== EntryKind.batch || records === 0) {
    const payload = options.payload ?? new Uint8Array(0);
    const payloadChecksum = crc32(payload);
    return makeEntry({ index, term, kind, nextOffset: before.nextOffset, recordCount: 0, payloadChecksum, payload, previous: before });
  }
  const payload = batchPayload(before.nextOffset, records, bytes, options.timestamp ?? 1000 + index, term);
  const payloadChecksum = crc32c(payload.subarray(21));
  return makeEntry({
    index,
    term,
    kind,
    nextOffset: before.nextOffset + records,
    recordCount: records,
    payloadChecksum,
    payload,
    previous: before,
  });
}

export function chainOf(
  count: number,
  options: { after?: Entry | undefined; term?: number; bytes?: number; records?: number } = {},
): Entry[] {
  const entries: Entry[] = [];
  const { after, ...rest } = options;
  let last = after;
  for (let i = 0; i < count; i++) {
    last = nextEntry(last, rest);
    entries.push(last);
  }
  return entries;
}

export const smallWal: StorageSettings = { walFileBytes: 64 * 1024, walFiles: 2 };

/** Whose logs the tests open. */
export const REPLICA = 7 as ReplicaId;

export class Fixture {
  environment: TestEnvironment;
  readonly disk: SimDisk;
  readonly settings: StorageSettings;
  failures: Error[] = [];
  constructor(seed = 1, settings: StorageSettings = smallWal, disk?: SimDisk) {
    this.environment = new TestEnvironment(seed);
    this.disk = disk ?? new SimDisk(this.environment, seeded(seed + 1000));
    this.settings = settings;
  }
  /** The machine is back after a power cut: the timers of the process before are gone. */
  restart(): void {
    this.disk.restart();
    this.environment = new TestEnvironment(this.environment.uint32());
  }
  /** The process is back after a kill: the system's cache has what was written and not synced. */
  revive(): void {
    this.disk.kill();
    this.environment = new TestEnvironment(this.environment.uint32());
  }
  /** Does the work, and cuts the power at the `at`th operation on the disk from now on. False: the work ended before. */
  async cutPower(at: number, work: () => Promise<unknown>): Promise<boolean> {
    const { disk } = this;
    const cut = disk.operations + at;
    let working = true;
    const powerCut = async (): Promise<void> => {
      while (working && !disk.off) await new Promise((resolve) => setImmediate(resolve));
    };
    disk.intercept = ({ number }) => (number === cut ? 'crash' : undefined);
    const done = work().finally(() => {
      working = false;
    });
    await Promise.race([done, powerCut()]);
    disk.intercept = undefined;
    return working;
  }
  async open(): Promise<BrokerStorage> {
    const { disk, environment } = this;
    await initDirectory({ disk, path: 'data', crc32 }, { brokerId: 1 as BrokerId, random: environment });
    const failed = (error: Error): void => void this.failures.push(error);
    return openStorage({ disk, path: 'data', environment, log: silentLogger, settings: this.settings, failed, ...checksums });
  }
}

/** What a log can give of its entries from an index on, in runs of about so many bytes. */
export async function entriesFrom(
  log: Pick<PartitionLog, 'lastIndex' | 'readEntries'>,
  firstIndex = 1,
  runBytes = 2_000,
): Promise<Entry[]> {
  const entries: Entry[] = [];
  while (firstIndex + entries.length <= log.lastIndex) {
    const run = await log.readEntries(firstIndex + entries.length, runBytes);
    assert(run.length > 0, 'a log gives what it has');
    entries.push(...run);
  }
  return entries;
}

/** The bytes of entries, to compare. */
export function bytesOf(entries: readonly Entry[]): string[] {
  return entries.map((entry) => `${entry.index}/${entry.term}:${hex(entry.header)}:${checksums.crc32(entry.payload)}`);
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function last<T>(items: readonly T[]): T {
  return must(items.at(-1), 'not empty');
}

/** What a cleaning does to a batch, by its base offset: leaves it, removes some of its records, removes it. */
export type Fate = 'kept' | 'thinned' | 'gone';

/** What {@link PartitionLog.clean} takes. */
export function cleanBy(fateOf: (baseOffset: number) => Fate): (batches: Uint8Array) => Promise<Uint8Array> {
  return async (batches) => concat(batchesIn(batches).flatMap((batch) => cleaned(batch, fateOf(batchBaseOffsetAt(batch, 0))) ?? []));
}

/** Each of them now and then. */
export function fateOf(baseOffset: number): Fate {
  return (['kept', 'thinned', 'gone'] as const)[baseOffset % 3] ?? 'kept';
}

/** A batch as {@link cleanBy} leaves it, however often. */
export function cleaned(batch: Uint8Array, fate: Fate): Uint8Array | undefined {
  if (fate === 'gone') return undefined;
  // One record is left of it, or was.
  if (fate === 'kept' || readUint32(batch, 57) === 1) return batch.slice();
  const left = batch.slice(0, 61 + ((batch.length - 61) >> 1));
  putUint32(left, 8, left.length - 12);
  putUint32(left, 57, 1);
  putUint32(left, 17, crc32c(left.subarray(21)));
  return left;
}

export function batchesIn(bytes: Uint8Array): Uint8Array[] {
  const batches: Uint8Array[] = [];
  for (let at = 0, length = 0; at < bytes.length; at += length) {
    length = must(batchLengthAt(bytes, at), 'a whole batch');
    batches.push(bytes.subarray(at, at + length));
  }
  return batches;
}

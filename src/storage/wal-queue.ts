/** What waits for the next flush frame, in order. */
import { must } from '../base/assert.ts';
import type { Entry } from '../raft/core/entry.ts';
import { ENTRY_HEADER_BYTES } from '../raft/core/entry.ts';
import { bytesOf, ROW_BYTES, RowKind } from './wal-frame.ts';
import type { WalGroup } from './wal-groups.ts';

export interface Waiter {
  resolve(): void;
  reject(error: Error): void;
}

/** One row to be, or (group undefined) only something to do once all before it is durable. */
export interface WalRecord {
  readonly group: WalGroup | undefined;
  readonly kind: RowKind;
  readonly term: number;
  readonly index: number;
  readonly extra: number;
  readonly entries: readonly Entry[] | undefined;
  readonly bytes: number;
  readonly waiter: Waiter | undefined;
}

type NewRecord = Pick<WalRecord, 'kind' | 'term' | 'index' | 'extra' | 'entries'> & { readonly group: WalGroup };

export class WalQueue {
  readonly #maxFrameBytes: number;
  #records: WalRecord[] = [];
  #head = 0;
  #bytes = 0;
  #inFlight: readonly WalRecord[] = [];

  constructor(maxFrameBytes: number) {
    this.#maxFrameBytes = maxFrameBytes;
  }

  get empty(): boolean {
    return this.#head === this.#records.length;
  }

  /** Bytes queued or in flight. */
  get bytes(): number {
    return this.#bytes;
  }

  push(record: NewRecord): void {
    this.#add({ ...record, bytes: ROW_BYTES + bytesOf(record.entries), waiter: undefined });
  }

  /** Queues entries, in runs that are consecutive and fit a frame. */
  pushEntries(group: WalGroup, kind: RowKind, entries: readonly Entry[]): void {
    for (const run of runsOf(entries, this.#maxFrameBytes)) this.#add(entriesRecord(group, kind, run));
  }

  pushBarrier(waiter: Waiter | undefined): void {
    this.#add({ ...NO_ROW, waiter });
  }

  /** The records of the next frame: as many as fit, at least one. */
  take(): { records: WalRecord[]; bytes: number } {
    const records: WalRecord[] = [];
    let bytes = 0;
    while (this.#head < this.#records.length) {
      const record = this.#records[this.#head];
      if (record === undefined || (bytes > 0 && bytes + record.bytes > this.#maxFrameBytes)) break;
      records.push(record);
      bytes += record.bytes;
      this.#head++;
    }
    if (this.empty) {
      this.#records = [];
      this.#head = 0;
    }
    this.#inFlight = records;
    return { records, bytes };
  }

  /** What was taken is durable. */
  completed(bytes: number): void {
    const records = this.#inFlight;
    this.#inFlight = [];
    this.#bytes -= bytes;
    for (const record of records) record.waiter?.resolve();
  }

  failAll(error: Error): void {
    for (const record of [...this.#inFlight, ...this.#records.slice(this.#head)]) record.waiter?.reject(error);
    this.#records = [];
    this.#head = 0;
  }

  #add(record: WalRecord): void {
    this.#records.push(record);
    this.#bytes += record.bytes;
  }
}

const NO_ROW = {
  group: undefined,
  kind: RowKind.truncate,
  term: 0,
  index: 0,
  extra: 0,
  entries: undefined,
  bytes: 0,
} as const;

function entriesRecord(group: WalGroup, kind: RowKind, entries: readonly Entry[]): WalRecord {
  return {
    group,
    kind,
    term: entries.at(-1)?.term ?? 0,
    index: entries[0]?.index ?? 0,
    extra: entries.length,
    entries,
    bytes: ROW_BYTES + bytesOf(entries),
    waiter: undefined,
  };
}

/** A row is a run of consecutive entries that fits a frame: what recovery moves may have holes where a newer file holds the rest. */
function runsOf(entries: readonly Entry[], maxBytes: number): (readonly Entry[])[] {
  if (entries.length === 0) return [];
  const runs: (readonly Entry[])[] = [];
  let from = 0;
  let bytes = 0;
  let next = 0;
  for (let i = 0; i < entries.length; i++) {
    const entry = must(entries[i], 'an entry is there');
    const size = ENTRY_HEADER_BYTES + entry.payload.length;
    if (bytes > 0 && (bytes + size > maxBytes || entry.index !== next)) {
      runs.push(entries.slice(from, i));
      from = i;
      bytes = 0;
    }
    bytes += size;
    next = entry.index + 1;
  }
  runs.push(from === 0 ? entries : entries.slice(from));
  return runs;
}

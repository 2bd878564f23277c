/** Committed entries of one log that are in no segment yet, in their order. Reads see them as they see what is written. */
import { must } from '../base/assert.ts';
import type { FlotillaError } from '../base/errors.ts';
import type { Entry } from '../raft/core/entry.ts';
import { entrySize } from '../raft/core/entry-codec.ts';
import { BATCH_HEADER_BYTES, isRecordBatch, maxTimestampOf } from './payload.ts';
import type { HeaderVisitor } from './segment.ts';
import type { BatchRun } from './types.ts';

/** The first of the tail, as many as are written at once. */
export interface Run {
  readonly entries: readonly Entry[];
  readonly bytes: number;
  readonly last: Entry;
}

export class LogTail {
  #entries: Entry[] = [];
  #bytes = 0;
  #retired: FlotillaError | undefined;

  get bytes(): number {
    return this.#bytes;
  }

  get firstIndex(): number {
    return this.#entries[0]?.index ?? Number.POSITIVE_INFINITY;
  }

  /** Undefined: nothing waits. */
  get lastIndex(): number | undefined {
    return this.#entries.at(-1)?.index;
  }

  push(entry: Entry): void {
    this.#entries.push(entry);
    this.#bytes += entrySize(entry);
  }

  /** About `maxBytes` from the first on, none above the index; at least one, which there must be. */
  run(untilIndex: number, maxBytes: number): Run {
    let count = 0;
    let bytes = 0;
    for (const entry of this.#entries) {
      if (entry.index > untilIndex || (count > 0 && bytes >= maxBytes)) break;
      bytes += entrySize(entry);
      count++;
    }
    const entries = this.#entries.slice(0, count);
    return { entries, bytes, last: must(entries.at(-1), 'entries are pending') };
  }

  /** They are written. */
  drop({ entries, bytes }: Run): void {
    this.#entries = this.#entries.slice(entries.length);
    this.#bytes -= bytes;
  }

  /** What waits is void. Whoever still reads gets the error: nothing is no answer to what was here. */
  retire(error: FlotillaError): void {
    this.#entries = [];
    this.#bytes = 0;
    this.#retired = error;
  }

  /** See PartitionLog.read; no copies. */
  read(fromOffset: number, untilOffset: number, maxBytes: number): BatchRun {
    this.#check();
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    let nextOffset = fromOffset;
    for (let i = this.#firstAbove(fromOffset); i < this.#entries.length; i++) {
      const entry = this.#entries[i];
      if (entry === undefined || entry.nextOffset > untilOffset) break;
      if (!isRecordBatch(entry)) continue;
      if (bytes > 0 && bytes + entry.payload.length > maxBytes) break;
      chunks.push(entry.payload);
      bytes += entry.payload.length;
      nextOffset = entry.nextOffset;
    }
    return { chunks, bytes, nextOffset };
  }

  /** Of the batches from an offset on, until `visit` says that it has seen enough. */
  visitHeaders(fromOffset: number, untilOffset: number, visit: HeaderVisitor): void {
    this.#check();
    for (let i = this.#firstAbove(fromOffset); i < this.#entries.length; i++) {
      const entry = this.#entries[i];
      if (entry === undefined || entry.nextOffset > untilOffset) return;
      if (isRecordBatch(entry) && !visit(entry.payload.subarray(0, BATCH_HEADER_BYTES), entry.nextOffset)) return;
    }
  }

  /** From one that is in it on, about `maxBytes`, at least that one. */
  entriesFrom(index: number, maxBytes: number): Entry[] {
    const entries: Entry[] = [];
    let bytes = 0;
    for (let i = index - this.firstIndex; i < this.#entries.length; i++) {
      const entry = this.#entries[i];
      if (entry === undefined || (bytes > 0 && bytes + entrySize(entry) > maxBytes)) break;
      entries.push(entry);
      bytes += entrySize(entry);
    }
    return entries;
  }

  offsetForTime(timestampMs: number, fromOffset: number): number | undefined {
    this.#check();
    const found = this.#entries.find((entry) => entry.nextOffset > fromOffset && maxTimestampOf(entry) >= timestampMs);
    return found && found.nextOffset - found.recordCount;
  }

  #check(): void {
    if (this.#retired !== undefined) throw this.#retired;
  }

  #firstAbove(offset: number): number {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#entries[middle]?.nextOffset ?? 0) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

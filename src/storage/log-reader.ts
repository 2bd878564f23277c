/** Reads one log: what is in segments, and behind it what waits to be written. */
import { must } from '../base/assert.ts';
import { FlotillaError } from '../base/errors.ts';
import type { Entry } from '../raft/core/entry.ts';
import type { LogTail } from './log-tail.ts';
import { batchBaseOffsetAt, batchLengthAt, batchMaxTimestampAt, batchNextOffsetAt } from './payload.ts';
import type { ReadBuffers } from './read-buffers.ts';
import type { HeaderVisitor } from './segment.ts';
import type { SegmentList } from './segment-list.ts';
import type { BatchRun } from './types.ts';

export interface LogReaderOptions {
  readonly directory: string;
  readonly segments: SegmentList;
  readonly tail: LogTail;
  readonly readBuffers: ReadBuffers;
  /** The offset behind what is in segments. */
  readonly writtenOffset: () => number;
}

/** See PartitionLog for what each of these gives; where readers may start is not known here. */
export class LogReader {
  readonly #options: LogReaderOptions;

  constructor(options: LogReaderOptions) {
    this.#options = options;
  }

  async read(fromOffset: number, untilOffset: number, maxBytes: number): Promise<BatchRun> {
    const { segments, tail, readBuffers, writtenOffset } = this.#options;
    if (fromOffset >= untilOffset) return { chunks: [], bytes: 0, nextOffset: fromOffset };
    if (fromOffset >= writtenOffset()) return tail.read(fromOffset, untilOffset, maxBytes);
    const segment = must(segments.ofOffset(fromOffset), 'a segment holds the offset', fromOffset);
    const read = await segment.readBatches(fromOffset, maxBytes, (length) => readBuffers.take(length));
    const stored = must(read, 'the segment holds the offset', fromOffset);
    const first = batchLengthAt(stored, 0);
    // The look-up knows the first batch's length, so only a batch that its own header states otherwise is cut short: damage.
    if (first === undefined || first > stored.length) throw this.#damaged(fromOffset);
    const { bytes, nextOffset } = wholeBatches(stored, fromOffset, untilOffset);
    return { chunks: bytes === 0 ? [] : [stored.subarray(0, bytes)], bytes, nextOffset, release: () => readBuffers.give(stored) };
  }

  async readEntries(fromIndex: number, maxBytes: number): Promise<Entry[]> {
    const { segments, tail } = this.#options;
    if (fromIndex >= tail.firstIndex) return tail.entriesFrom(fromIndex, maxBytes);
    return must(segments.ofIndex(fromIndex), 'a segment holds the entry', fromIndex).readEntries(fromIndex, maxBytes);
  }

  async offsetForTime(timestampMs: number, fromOffset: number): Promise<number | undefined> {
    const { tail, writtenOffset } = this.#options;
    const segments = [...this.#options.segments];
    for (const [at, segment] of segments.entries()) {
      const end = segments[at + 1]?.base.offset ?? writtenOffset();
      if (end <= fromOffset || (await segment.maxTimestamp()) < timestampMs) continue;
      const found = await segment.batchForTime(timestampMs);
      // One that is below counts for all behind it in the index, so these are looked at one by one.
      const offset =
        found === undefined || found.nextOffset > fromOffset ? found?.baseOffset : await this.#scanForTime(timestampMs, fromOffset, end);
      if (offset !== undefined) return offset;
    }
    return tail.offsetForTime(timestampMs, fromOffset);
  }

  /** The headers of batches, until `visit` says that it has seen enough. */
  async scan(fromOffset: number, untilOffset: number, visit: HeaderVisitor): Promise<void> {
    const { segments, tail, writtenOffset } = this.#options;
    for (let offset = fromOffset; offset < untilOffset; ) {
      const written = writtenOffset();
      if (offset >= written) return tail.visitHeaders(offset, untilOffset, visit);
      const segment = must(segments.ofOffset(offset), 'a segment holds the offset', offset);
      const segmentEnd = segments.after(segment)?.base.offset ?? written;
      if (!(await segment.visitHeaders(offset, Math.min(segmentEnd, untilOffset), visit))) return;
      offset = segmentEnd;
    }
  }

  async #scanForTime(timestampMs: number, fromOffset: number, untilOffset: number): Promise<number | undefined> {
    let found: number | undefined;
    await this.scan(fromOffset, untilOffset, (header) => {
      if (found === undefined && batchMaxTimestampAt(header, 0) >= timestampMs) found = batchBaseOffsetAt(header, 0);
      return found === undefined;
    });
    return found;
  }

  #damaged(offset: number): FlotillaError {
    return new FlotillaError(
      'STORAGE_ERROR',
      `${this.#options.directory}: the batch at offset ${offset} is damaged; read it from another replica`,
    );
  }
}

function wholeBatches(stored: Uint8Array, fromOffset: number, untilOffset: number): { bytes: number; nextOffset: number } {
  let at = 0;
  let nextOffset = fromOffset;
  for (;;) {
    const length = batchLengthAt(stored, at);
    if (length === undefined || at + length > stored.length) break;
    const next = batchNextOffsetAt(stored, at);
    // One that does not follow the one before it rotted: the next read starts there and says so.
    if (next > untilOffset || (at > 0 && batchBaseOffsetAt(stored, at) !== nextOffset)) break;
    at += length;
    nextOffset = next;
  }
  return { bytes: at, nextOffset };
}

/** Reads one log: what is in segments, and behind it what waits to be written. */
import { must } from '../base/assert.ts';
import { FlotillaError } from '../base/errors.ts';
import type { Entry } from '../raft/core/entry.ts';
import type { LogContext } from './log-context.ts';
import type { LogTail } from './log-tail.ts';
import { batchBaseOffsetAt, batchMaxTimestampAt } from './payload.ts';
import type { HeaderVisitor, Segment } from './segment.ts';
import type { SegmentList } from './segment-list.ts';
import { wholeBatches } from './stored-batches.ts';
import type { BatchRun } from './types.ts';

export interface LogReaderOptions {
  readonly context: Pick<LogContext, 'directory' | 'checksums' | 'readBuffers' | 'damaged'>;
  readonly segments: SegmentList;
  readonly tail: LogTail;
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
    const { segments, tail, writtenOffset } = this.#options;
    for (let offset = fromOffset; offset < untilOffset; ) {
      if (offset >= writtenOffset()) return tail.read(offset, untilOffset, maxBytes);
      const segment = must(segments.ofOffset(offset), 'a segment holds the offset', offset);
      const run = await this.#readSegment(segment, offset, untilOffset, maxBytes);
      if (run === 'replaced') continue;
      if (run !== undefined) return run;
      // Compaction left nothing up to the segment's end.
      offset = must(segment.nextOffset, 'a segment holds the offset', offset);
    }
    return { chunks: [], bytes: 0, nextOffset: fromOffset };
  }

  /** Undefined: there is nothing from the offset on. */
  async #readSegment(segment: Segment, offset: number, untilOffset: number, maxBytes: number): Promise<BatchRun | 'replaced' | undefined> {
    const { readBuffers, checksums, damaged: tell } = this.#options.context;
    const stored = await this.#from(segment, () => segment.readBatches(offset, maxBytes, (length) => readBuffers.take(length)));
    if (stored === undefined || stored === 'replaced') return stored;
    const { bytes, nextOffset, damaged } = wholeBatches(stored, offset, untilOffset, checksums);
    if (damaged) {
      tell(segment.base.index);
      // What stands before it is served; the next read begins with it.
      if (bytes === 0) throw this.#damaged(offset);
    }
    return {
      chunks: bytes === 0 ? [] : [stored.bytes.subarray(0, bytes)],
      bytes,
      nextOffset,
      release: () => readBuffers.give(stored.bytes),
    };
  }

  async readEntries(fromIndex: number, maxBytes: number): Promise<Entry[]> {
    const { segments, tail } = this.#options;
    if (fromIndex >= tail.firstIndex) return tail.entriesFrom(fromIndex, maxBytes);
    if (fromIndex >= segments.firstReplicableIndex) {
      const segment = must(segments.ofIndex(fromIndex), 'a segment holds the entry', fromIndex);
      const entries = await this.#from(segment, () => segment.readEntries(fromIndex, maxBytes));
      if (entries !== 'replaced') return entries;
    }
    const { firstReplicableIndex } = segments;
    throw new FlotillaError('OFFSET_OUT_OF_RANGE', `entry ${fromIndex} is below the first that is kept, ${firstReplicableIndex}`);
  }

  async offsetForTime(timestampMs: number, fromOffset: number): Promise<number | undefined> {
    for (;;) {
      const offset = await unlessReplaced(() => this.#offsetForTime(timestampMs, fromOffset));
      if (offset !== 'replaced') return offset;
    }
  }

  async #offsetForTime(timestampMs: number, fromOffset: number): Promise<number | undefined> {
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
      const visited: HeaderVisitor = (header, nextOffset) => {
        offset = nextOffset;
        return visit(header, nextOffset);
      };
      const goOn = await this.#from(segment, () => segment.visitHeaders(offset, Math.min(segmentEnd, untilOffset), visited));
      if (goOn === 'replaced') continue;
      if (!goOn) return;
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

  /** Reads of a segment; damage that is found is put right soon (raft/repairs.ts). */
  async #from<T>({ base }: Segment, work: () => Promise<T>): Promise<T | 'replaced'> {
    try {
      return await unlessReplaced(work);
    } catch (error) {
      if (error instanceof FlotillaError && error.code === 'STORAGE_ERROR') this.#options.context.damaged(base.index);
      throw error;
    }
  }

  #damaged(offset: number): FlotillaError {
    return new FlotillaError(
      'STORAGE_ERROR',
      `${this.#options.context.directory}: the batch at offset ${offset} is damaged; read it from another replica`,
    );
  }
}

/** Compaction has put another segment in the place of the one that is being read: its reader looks again. */
export class SegmentReplaced extends FlotillaError {
  constructor() {
    super('NOT_LEADER_OR_FOLLOWER', 'the segment was cleaned meanwhile; try again');
  }
}

async function unlessReplaced<T>(work: () => Promise<T>): Promise<T | 'replaced'> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof SegmentReplaced) return 'replaced';
    throw error;
  }
}

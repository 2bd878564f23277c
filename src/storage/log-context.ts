/** What one log is given by the storage that it belongs to. */
import type { Disk, Logger } from '../base/environment.ts';
import type { Checksums } from './payload.ts';
import type { ReadBuffers } from './read-buffers.ts';
import type { SegmentWriter } from './segment-writer.ts';

export interface LogContext {
  /** The raftGroup, as its directory is named. */
  readonly group: string;
  readonly disk: Disk;
  readonly directory: string;
  readonly log: Logger;
  readonly checksums: Checksums;
  readonly writer: SegmentWriter;
  readonly readBuffers: ReadBuffers;
  readonly monotonicMs: () => number;
  /** Entries up to the index are written; the write-ahead log may forget them from memory. */
  readonly written: (index: number) => void;
  /** Entries up to the index are durable in segments. */
  readonly synced: (index: number) => void;
  /** What it has of that. */
  readonly syncedDurably: () => number;
  /** A read found something damaged in the segment that begins with the index. */
  readonly damaged: (index: number) => void;
  /** Resolves when the write-ahead log has what {@link synced} said so far, durably. */
  readonly settled: () => Promise<void>;
}

/** Writes committed entries of all logs to their segments, lazily and in large runs, so that a thousand partitions cost one timer; and drops what they hold no longer. */
import type { Scheduler, Timer } from '../base/environment.ts';

/** How long committed entries may wait in memory. */
const WRITE_AFTER_MS = 200;
/** A log with so much waiting is written at once. */
const WRITE_AT_BYTES = 1 << 20;
/** With so much waiting over all logs, all are written at once. */
const WRITE_ALL_AT_BYTES = 32 << 20;
/**
 * A log with so much written is synced, long before the write-ahead log asks for it: the system would write it out in bursts of hundreds of MB, which
 * hold up the syncs of the write-ahead log for as long.
 */
export const SYNC_AT_BYTES = 8 << 20;
/** How long what lies below the start of a log may stay. */
const RECLAIM_AFTER_MS = 200;
/** Logs written side by side: more would keep the write-ahead log waiting for a thread. */
const CONCURRENT = 2;

export interface WritableLog {
  readonly pendingBytes: number;
  /** Writes what is pending; concurrent calls share one pass. */
  write(): Promise<void>;
  /** Written, and not synced. */
  readonly unsyncedBytes: number;
  /** Writes and syncs. */
  flush(): Promise<void>;
  /** Drops whole segments below its start. */
  reclaim(): Promise<number>;
}

export class SegmentWriter {
  readonly #scheduler: Scheduler;
  /** Entries could not be written: the process must end. */
  readonly failed: (error: unknown) => void;
  readonly #dirty = new Set<WritableLog>();
  readonly #due: WritableLog[] = [];
  readonly #reclaimable = new Set<WritableLog>();
  #pendingBytes = 0;
  #writing = 0;
  #timer: Timer | undefined;
  #reclaimTimer: Timer | undefined;
  #reclaiming = false;

  constructor(scheduler: Scheduler, failed: (error: unknown) => void) {
    this.#scheduler = scheduler;
    this.failed = failed;
  }

  /** Bytes that wait, over all logs. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** `bytes` more wait in the log. */
  added(log: WritableLog, bytes: number): void {
    this.#pendingBytes += bytes;
    this.#dirty.add(log);
    if (this.#pendingBytes >= WRITE_ALL_AT_BYTES) this.#writeAll();
    else if (log.pendingBytes >= WRITE_AT_BYTES) this.#write(log);
    if (this.#dirty.size > 0) this.#timer ??= this.#scheduler.after(WRITE_AFTER_MS, () => this.#expired());
  }

  written(bytes: number): void {
    this.#pendingBytes -= bytes;
  }

  /** Soon, and one log after the other: nobody waits for it. */
  reclaimSoon(log: WritableLog): void {
    this.#reclaimable.add(log);
    this.#reclaimTimer ??= this.#scheduler.after(RECLAIM_AFTER_MS, () => {
      this.#reclaimTimer = undefined;
      if (!this.#reclaiming) void this.#reclaim();
    });
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#reclaimTimer?.cancel();
    this.#reclaimable.clear();
    this.#dirty.clear();
    this.#due.length = 0;
  }

  #expired(): void {
    this.#timer = undefined;
    this.#writeAll();
  }

  #writeAll(): void {
    for (const log of this.#dirty) this.#write(log);
  }

  #write(log: WritableLog): void {
    if (!this.#dirty.delete(log)) return;
    this.#due.push(log);
    while (this.#writing < CONCURRENT && this.#due.length > 0) void this.#next();
  }

  async #reclaim(): Promise<void> {
    this.#reclaiming = true;
    try {
      for (const log of this.#reclaimable) {
        this.#reclaimable.delete(log);
        await log.reclaim();
      }
    } catch (error) {
      this.failed(error);
    }
    this.#reclaiming = false;
  }

  async #next(): Promise<void> {
    this.#writing++;
    try {
      for (let log = this.#due.shift(); log !== undefined; log = this.#due.shift()) {
        await log.write();
        if (log.unsyncedBytes >= SYNC_AT_BYTES) await log.flush();
      }
    } catch (error) {
      this.failed(error);
    }
    this.#writing--;
  }
}

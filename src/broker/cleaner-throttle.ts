/**
 * How fast the cleaner works. Never above a rate of bytes (Kafka's log.cleaner.io.max.bytes.per.second). And cleaning is background work: while this broker
 * writes what producers sent, as a leader or as a follower, it has a bounded share of the time; otherwise all of it. The share is of time, not of bytes, so
 * it gives way by itself where the disk or the processors are short: a run of work that took longer is followed by a longer rest.
 */
import type { Environment } from '../base/environment.ts';
import { pause } from '../controller/pause.ts';

/** Of the time, while somebody writes. */
export const SHARE_WHILE_WRITTEN = 1 / 8;
/** Of one rest: what took long may have been a disk that hung. */
export const MAX_REST_MS = 1_000;
/** Shorter waits than this are saved up. */
const LEAST_WAIT_MS = 5;

export interface CleanerThrottleOptions {
  readonly environment: Environment;
  readonly bytesPerSecond: number;
  /** Bytes that this broker's write-ahead log has taken, of all partitions: they only grow, and cleaning adds none. */
  readonly writtenBytes: () => number;
}

export class CleanerThrottle {
  readonly #options: CleanerThrottleOptions;
  /** When the bytes read and written so far are paid for, at the rate allowed. */
  #paidAtMs = 0;
  /** Since when it works without a rest. */
  #sinceMs = 0;
  #writtenBytes = 0;

  constructor(options: CleanerThrottleOptions) {
    this.#options = options;
  }

  /** Work begins, after a time without any. */
  begin(): void {
    this.#sinceMs = this.#options.environment.monotonicMs();
    this.#writtenBytes = this.#options.writtenBytes();
  }

  /** A run of work over so many bytes is done: resolves when the next may begin, or at once when the signal fires. */
  async rest(bytes: number, signal: AbortSignal): Promise<void> {
    const { environment, bytesPerSecond } = this.#options;
    const nowMs = environment.monotonicMs();
    this.#paidAtMs = Math.max(this.#paidAtMs, nowMs) + (bytes * 1000) / bytesPerSecond;
    const waitMs = Math.max(this.#paidAtMs - nowMs, this.#dueMs(nowMs));
    if (waitMs < LEAST_WAIT_MS) return;
    await pause(environment, waitMs, signal);
    this.#sinceMs = environment.monotonicMs();
  }

  /** The rest that the work so far asks for. What was written in the rest before it counts as well: work may be shorter than the time between two batches. */
  #dueMs(nowMs: number): number {
    const before = this.#writtenBytes;
    this.#writtenBytes = this.#options.writtenBytes();
    if (this.#writtenBytes > before) return Math.min(MAX_REST_MS, (nowMs - this.#sinceMs) * (1 / SHARE_WHILE_WRITTEN - 1));
    this.#sinceMs = nowMs;
    return 0;
  }
}

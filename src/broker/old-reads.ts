/**
 * Reads of old data are background work: while producers wait for this broker, a fetch stream gets a bounded share for them; otherwise they run as fast as
 * they can. The bound is in bytes, not in time, as most of what a read costs is spent elsewhere: in the kernel, on the network, and by the consumer.
 *
 * Each stream has its own share, more than producers write here, so a reader that is behind always comes nearer to the end, however many there are.
 */
import type { Environment, Timer } from '../base/environment.ts';
import type { PartitionLog } from '../storage/types.ts';

/** A reader so far behind the end of its partition reads old data. Nearer to it others read the same, and it is in memory: the tail, or the page cache. */
export const OLD_DATA_BYTES = 32 << 20;

/** Of old data a stream may read so many times the bytes that producers write here meanwhile. */
export const SHARE_OF_PRODUCED = 1.25;

/** And so much besides: what producers wait for may be a disk that hangs. */
export const FLOOR_BYTES_PER_MS = 2048;

/** What was not read may be read later, so much of it at most. */
export const MAX_ALLOWANCE_BYTES = 1 << 20;

/** What was read while no producer waited counts, too, so much of it at most: under load there are moments between two batches, many of them. */
export const MAX_DEBT_BYTES = 16 << 20;

/** How often those that wait are looked at. */
export const PACE_MS = 10;

/** What producers ask of this broker. */
export class ProduceLoad {
  #bytes = 0;
  #batches = 0;

  /** Bytes of all batches that came. */
  get bytes(): number {
    return this.#bytes;
  }

  /** A producer waits for an answer. */
  get inHand(): boolean {
    return this.#batches > 0;
  }

  began(bytes: number): void {
    this.#bytes += bytes;
    this.#batches++;
  }

  /** A batch was answered. */
  ended(): void {
    this.#batches--;
  }
}

/** How far a reader is behind the end of its log, in bytes, as if all records had the same length. */
export function bytesBehind(log: Pick<PartitionLog, 'logStartOffset' | 'nextOffset' | 'sizeBytes'>, offset: number): number {
  return (log.sizeBytes * (log.nextOffset - offset)) / Math.max(1, log.nextOffset - log.logStartOffset);
}

/** The share of one stream, and those of its readers that wait for it. */
export class OldReads<R> {
  readonly #environment: Environment;
  readonly #load: ProduceLoad;
  readonly #resume: (readers: Iterable<R>) => void;
  #waiting = new Set<R>();
  #timer: Timer | undefined;
  /** Bytes that may be read. Below 0: so many were read before their time. */
  #allowance = 0;
  #countedBytes: number;
  #countedMs: number;

  constructor(environment: Environment, load: ProduceLoad, resume: (readers: Iterable<R>) => void) {
    this.#environment = environment;
    this.#load = load;
    this.#resume = resume;
    this.#countedBytes = load.bytes;
    this.#countedMs = environment.monotonicMs();
  }

  /** Whether a read of so many bytes may begin: at once when no producer waits. If not, the reader waits here until it is to be tried again. */
  begin(reader: R, bytes: number): boolean {
    this.#earn();
    if (this.#load.inHand && this.#allowance <= 0) {
      this.#wait(reader);
      return false;
    }
    this.#allowance = Math.max(-MAX_DEBT_BYTES, this.#allowance - bytes);
    return true;
  }

  /** So many bytes of a read were not taken after all. */
  giveBack(bytes: number): void {
    this.#allowance = Math.min(MAX_ALLOWANCE_BYTES, this.#allowance + bytes);
  }

  /** The reader waits no more. */
  remove(reader: R): void {
    this.#waiting.delete(reader);
  }

  close(): void {
    this.#timer?.cancel();
    this.#waiting.clear();
  }

  #earn(): void {
    const nowMs = this.#environment.monotonicMs();
    const { bytes } = this.#load;
    const earned = (bytes - this.#countedBytes) * SHARE_OF_PRODUCED + (nowMs - this.#countedMs) * FLOOR_BYTES_PER_MS;
    this.#allowance = Math.min(MAX_ALLOWANCE_BYTES, this.#allowance + earned);
    this.#countedBytes = bytes;
    this.#countedMs = nowMs;
  }

  #wait(reader: R): void {
    this.#waiting.add(reader);
    this.#timer ??= this.#environment.after(PACE_MS, () => {
      this.#timer = undefined;
      const readers = this.#waiting;
      this.#waiting = new Set();
      this.#resume(readers);
    });
  }
}

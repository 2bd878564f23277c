/**
 * Entries for followers that lag so far behind that the core no longer has them in memory: read from segments in large runs, one read a follower at a time,
 * the next while the last is on its way. All together have a budget: bytes being read, and bytes a second, so that a broker that comes back does not push
 * out what the others are doing.
 *
 * The newest traffic first: a follower that is nearly there gets its majority back sooner than one that is far behind, and is done. But each
 * {@link OLDEST_EVERY}th read goes to whoever waited longest, so the far ones never starve.
 */
import type { Clock, Logger, Scheduler } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { formatGroupKey } from '../base/ids.ts';
import type { Entry } from './core/entry.ts';
import { entrySize } from './core/entry-codec.ts';
import type { EntriesWanted } from './core/types.ts';
import type { RaftReplica } from './replica.ts';
import type { RaftHostSettings } from './settings.ts';

/** A read that failed is reported to the core only after this pause, since the core asks again at once. */
const RETRY_MS = 500;
const OLDEST_EVERY = 4;

export interface CatchUpOptions {
  readonly scheduler: Pick<Scheduler, 'after'> & Pick<Clock, 'monotonicMs'>;
  readonly log: Logger;
  readonly settings: Pick<RaftHostSettings, 'maxCatchUpBytes' | 'catchUpBytesPerSecond'>;
}

interface Request {
  readonly replica: RaftReplica;
  readonly wanted: EntriesWanted;
}

export class CatchUp {
  readonly #options: CatchUpOptions;
  /** In the order in which they came. */
  #queue: Request[] = [];
  /** Being read. */
  #bytes = 0;
  #started = 0;
  /** When the bytes read so far are paid for, at the rate allowed. */
  #paidAtMs = 0;
  #waiting = false;

  constructor(options: CatchUpOptions) {
    this.#options = options;
  }

  /** Reads the entries and supplies them to the core, when the budget allows. */
  request(replica: RaftReplica, wanted: EntriesWanted): void {
    if (replica.reading.has(wanted.to)) return;
    replica.reading = new Set([...replica.reading, wanted.to]);
    this.#queue.push({ replica, wanted });
    this.#startReads();
  }

  #startReads(): void {
    const { scheduler, settings } = this.#options;
    while (this.#queue.length > 0 && (this.#bytes === 0 || this.#bytes < settings.maxCatchUpBytes) && !this.#waiting) {
      const wait = this.#paidAtMs - scheduler.monotonicMs();
      if (wait > 0) {
        this.#waiting = true;
        scheduler.after(wait, () => {
          this.#waiting = false;
          this.#startReads();
        });
        return;
      }
      const request = this.#next();
      this.#bytes += request.wanted.maxBytes;
      void this.#read(request);
    }
  }

  #next(): Request {
    let chosen = 0;
    if (++this.#started % OLDEST_EVERY !== 0) {
      for (let at = 1; at < this.#queue.length; at++) if (lagOf(this.#queue[at]) < lagOf(this.#queue[chosen])) chosen = at;
    }
    return this.#queue.splice(chosen, 1)[0] as Request;
  }

  async #read({ replica, wanted }: Request): Promise<void> {
    const entries = await this.#entries(replica, wanted);
    replica.reading = new Set([...replica.reading].filter((to) => to !== wanted.to));
    this.#bytes -= wanted.maxBytes;
    this.#pay(entries ?? []);
    if (entries !== undefined) replica.supply(wanted.to, entries);
    else this.#options.scheduler.after(RETRY_MS, () => replica.supply(wanted.to, []));
    this.#startReads();
  }

  #pay(entries: readonly Entry[]): void {
    const { scheduler, settings } = this.#options;
    let bytes = 0;
    for (const entry of entries) bytes += entrySize(entry);
    this.#paidAtMs = Math.max(this.#paidAtMs, scheduler.monotonicMs()) + (bytes * 1000) / settings.catchUpBytesPerSecond;
  }

  /** Undefined: they could not be read. */
  async #entries(replica: RaftReplica, wanted: EntriesWanted): Promise<readonly Entry[] | undefined> {
    if (replica.closed) return [];
    try {
      return await replica.log.readEntries(wanted.fromIndex, wanted.maxBytes);
    } catch (error) {
      const { log } = this.#options;
      log.warn('catch-up read failed', { group: formatGroupKey(replica.group), from: wanted.fromIndex, error: messageOf(error) });
      return undefined;
    }
  }
}

/** Entries that the follower is behind. */
function lagOf(request: Request | undefined): number {
  return request === undefined ? Number.POSITIVE_INFINITY : request.replica.lastIndex - request.wanted.fromIndex;
}

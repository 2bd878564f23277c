/**
 * Entries for followers that lag so far behind that the core no longer has them in memory. One read at a time for each follower, and
 * a budget of bytes over all, so that a broker that comes back does not push out what the others are doing.
 */
import type { Logger, Scheduler } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { formatGroupKey } from '../base/ids.ts';
import type { Entry } from './core/entry.ts';
import type { EntriesWanted } from './core/types.ts';
import type { RaftReplica } from './replica.ts';

/** A read that failed is reported to the core only after this pause, since the core asks again at once. */
const RETRY_MS = 500;

interface Request {
  readonly replica: RaftReplica;
  readonly wanted: EntriesWanted;
}

export class CatchUp {
  readonly #scheduler: Pick<Scheduler, 'after'>;
  readonly #log: Logger;
  readonly #maxBytes: number;
  #queue: Request[] = [];
  #bytes = 0;

  constructor(scheduler: Pick<Scheduler, 'after'>, log: Logger, maxBytes: number) {
    this.#scheduler = scheduler;
    this.#log = log;
    this.#maxBytes = maxBytes;
  }

  /** Reads the entries and supplies them to the core, when the budget allows. */
  request(replica: RaftReplica, wanted: EntriesWanted): void {
    if (replica.reading.has(wanted.to)) return;
    replica.reading.add(wanted.to);
    this.#queue.push({ replica, wanted });
    this.#startReads();
  }

  #startReads(): void {
    while (this.#queue.length > 0 && (this.#bytes === 0 || this.#bytes < this.#maxBytes)) {
      const request = this.#queue.shift();
      if (request === undefined) return;
      this.#bytes += request.wanted.maxBytes;
      void this.#read(request);
    }
  }

  async #read({ replica, wanted }: Request): Promise<void> {
    const entries = await this.#entries(replica, wanted);
    replica.reading.delete(wanted.to);
    this.#bytes -= wanted.maxBytes;
    if (entries !== undefined) replica.supply(wanted.to, entries);
    else this.#scheduler.after(RETRY_MS, () => replica.supply(wanted.to, []));
    this.#startReads();
  }

  /** Undefined: they could not be read. */
  async #entries(replica: RaftReplica, wanted: EntriesWanted): Promise<readonly Entry[] | undefined> {
    if (replica.closed) return [];
    try {
      return await replica.log.readEntries(wanted.fromIndex, wanted.maxBytes);
    } catch (error) {
      this.#log.warn('catch-up read failed', { group: formatGroupKey(replica.group), from: wanted.fromIndex, error: messageOf(error) });
      return undefined;
    }
  }
}

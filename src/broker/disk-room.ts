/**
 * Watches how much room is left where the data are (hazard B37). Below the watermark this broker takes no records and hands its leaderships to brokers that have
 * room; everything else goes on. Once the reserve is given up it takes no entries of other leaders either. When there is room again, all is as before.
 */
import type { Disk, DiskSpace, Environment, Logger } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import type { Room } from '../raft/types.ts';
import { Rounds } from './rounds.ts';

/** Between two looks at the file system. */
export const LOOK_EVERY_MS = 1_000;
/** Room must come back to so many times the watermark: else service would go to and fro at it. */
const ENOUGH_FACTOR = 1.25;

export interface DiskRoomOptions {
  readonly disk: Pick<Disk, 'freeSpace'>;
  readonly directory: string;
  readonly environment: Environment;
  readonly log: Logger;
  /** Whichever asks for more is the watermark. */
  readonly minFreeBytes: number;
  readonly minFreePercent: number;
  /** Writes the reserve unless it is there. */
  readonly prepareReserve: () => Promise<boolean>;
  readonly changed: (room: Room) => void;
}

export class DiskRoom {
  readonly #options: DiskRoomOptions;
  readonly #rounds: Rounds;
  #room: Room = 'ample';
  #space: DiskSpace | undefined;

  constructor(options: DiskRoomOptions) {
    this.#options = options;
    this.#rounds = new Rounds(options.environment, LOOK_EVERY_MS, () => this.#look());
  }

  get room(): Room {
    return this.#room;
  }

  /** Looks at once. */
  start(): void {
    this.#rounds.begin();
  }

  stop(): Promise<void> {
    return this.#rounds.stop();
  }

  /** The file system was full, and the reserve is given up. */
  reserveReleased(): void {
    this.#become('none');
  }

  /** @throws STORAGE_ERROR below the watermark. */
  checkRecords(): void {
    if (this.#room === 'ample') return;
    const { directory } = this.#options;
    throw new FlotillaError(
      'STORAGE_ERROR',
      `The disk of this broker is nearly full (${this.#freeText()} below ${directory}), so it takes no records: make room there. Try again; leaderships move to brokers with room.`,
    );
  }

  async #look(): Promise<void> {
    const { disk, directory, log, prepareReserve } = this.#options;
    try {
      this.#space = await disk.freeSpace(directory);
    } catch (error) {
      log.warn('disk room not known', { directory, error: messageOf(error) });
      return;
    }
    const { freeBytes } = this.#space;
    const watermark = this.#watermark(this.#space);
    if (this.#room === 'ample') {
      if (freeBytes < watermark) this.#become('low');
      else await prepareReserve();
    } else if (freeBytes >= watermark * ENOUGH_FACTOR) {
      // A new reserve first: without it, the next full disk would be the end.
      if ((await prepareReserve()) || this.#room === 'low') this.#become('ample');
    }
  }

  #watermark({ totalBytes }: DiskSpace): number {
    const { minFreeBytes, minFreePercent } = this.#options;
    return Math.max(minFreeBytes, (totalBytes * minFreePercent) / 100);
  }

  #become(room: Room): void {
    if (room === this.#room || this.#rounds.signal.aborted) return;
    this.#room = room;
    const { directory, log, changed } = this.#options;
    const fields = { directory, free: this.#freeText(), watermarkBytes: this.#space && Math.ceil(this.#watermark(this.#space)) };
    if (room === 'ample') log.info('disk has room again', fields);
    else log.error(room === 'low' ? 'disk nearly full: no records are taken' : 'disk full: no records and no entries are taken', fields);
    changed(room);
  }

  #freeText(): string {
    return this.#space === undefined ? 'not known how much is free' : `${(this.#space.freeBytes / 2 ** 20).toFixed(1)} MiB free`;
  }
}

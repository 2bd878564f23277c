/**
 * What was deleted or replaced, DIR/quarantine/NAME[.N].INCARNATION: gone for good a while after it came (Kafka: log.segment.delete.delay.ms), so that
 * somebody may still notice a mistake (hazard B24). What a process before left stays for as long after the start. What is set aside, NAME[.N].INCARNATION.aside, stays
 * until it is released: it may be the last copy.
 */
import type { Disk, Logger, Scheduler, Timer } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';

const ASIDE = '.aside';

export interface QuarantineOptions {
  readonly disk: Disk;
  readonly path: string;
  readonly incarnation: number;
  readonly environment: Scheduler;
  /** Undefined: for as long as this process lives. */
  readonly delayMs: number | undefined;
  readonly log: Logger;
}

export class Quarantine {
  readonly #options: QuarantineOptions;
  /** One for each, until it is due. */
  readonly #timers = new Map<string, Timer>();
  #purging: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(options: QuarantineOptions) {
    this.#options = options;
  }

  static async open(options: QuarantineOptions): Promise<Quarantine> {
    const quarantine = new Quarantine(options);
    for (const name of await options.disk.list(options.path)) quarantine.#purgeLater(name);
    return quarantine;
  }

  /** Moves a directory here. The caller makes durable that it is gone from where it was. */
  async take(directory: string, name: string): Promise<void> {
    const { disk, path } = this.#options;
    const free = await this.#freeName(name);
    await disk.rename(directory, `${path}/${free}`);
    await disk.syncDirectory(path);
    this.#purgeLater(free);
  }

  /** As {@link take}, to stay until {@link releaseAside}. */
  async setAside(directory: string, name: string): Promise<void> {
    const { disk, path } = this.#options;
    await disk.rename(directory, `${path}/${await this.#freeName(name)}${ASIDE}`);
    await disk.syncDirectory(path);
  }

  /** What was set aside under that name is as anything else here from now on. */
  async releaseAside(name: string): Promise<void> {
    const { disk, path } = this.#options;
    const aside = (await disk.list(path)).filter((found) => found.startsWith(`${name}.`) && found.endsWith(ASIDE));
    for (const found of aside) await this.take(`${path}/${found}`, name);
  }

  /** Waits for what is being removed; the rest stays for the next process. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const timer of this.#timers.values()) timer.cancel();
    this.#timers.clear();
    await this.#purging;
  }

  #purgeLater(name: string): void {
    const { environment, delayMs } = this.#options;
    if (delayMs === undefined || this.#closed || name.endsWith(ASIDE)) return;
    const purge = () => {
      this.#timers.delete(name);
      // One after the other: the disk has other things to do.
      this.#purging = this.#purging.then(() => this.#purge(name));
    };
    this.#timers.set(name, environment.after(delayMs, purge));
  }

  async #purge(name: string): Promise<void> {
    const { disk, path, log } = this.#options;
    if (this.#closed) return;
    try {
      await disk.removeTree(`${path}/${name}`);
      log.info('deleted data purged', { name });
    } catch (error) {
      log.warn('deleted data not purged', { name, error: messageOf(error), advice: 'it is tried again after the next start' });
    }
  }

  async #freeName(name: string): Promise<string> {
    const { disk, path, incarnation } = this.#options;
    for (let n = 1; ; n++) {
      const free = `${name}${n === 1 ? '' : `.${n}`}.${incarnation}`;
      if (!(await disk.exists(`${path}/${free}`)) && !(await disk.exists(`${path}/${free}${ASIDE}`))) return free;
    }
  }
}

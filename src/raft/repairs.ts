/**
 * Puts right what rotted in the segments of this broker's replicas: reads the whole segment, names what is damaged, asks the other replicas for just those
 * entries, one after the other, and has them written where they stood. One segment at a time, over all groups; what nobody can give now is asked for again,
 * ever more rarely, and never given up: it is committed (docs/adr/0008).
 */
import type { Environment, Logger, Timer } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { type BrokerId, formatGroupKey, type GroupKey } from '../base/ids.ts';
import type { LogRepair, Storage } from '../storage/types.ts';
import { othersOf, type Range, Refetch } from './refetch.ts';
import { RepairExchange } from './repair-exchange.ts';
import type { RaftReplica } from './replica.ts';
import type { PeerTransport } from './types.ts';

/** Between two tries to put a segment right; doubled each time. */
const MIN_RETRY_MS = 500;
const MAX_RETRY_MS = 60_000;
/** Damaged places that the log names, of one segment. */
const MAX_NAMED = 20;

export interface RepairsOptions {
  readonly environment: Environment;
  readonly storage: Pick<Storage, 'repairOf'>;
  readonly transport: Pick<PeerTransport, 'send'>;
  readonly log: Logger;
  readonly replica: (group: GroupKey) => RaftReplica | undefined;
  readonly isAlive: (broker: BrokerId) => boolean;
  /** No other replica has it any more, as it was: another replica is to take this one's place. */
  readonly irreparable: (replica: RaftReplica, reason: string) => void;
}

export interface RepairStatistics {
  /** Entries that were found damaged, and those that were put right, in this life of the process. */
  readonly found: number;
  readonly repaired: number;
  /** Segments that are damaged now, as far as is known. */
  readonly damaged: number;
}

/** A segment that may be damaged. */
interface Suspect {
  readonly group: GroupKey;
  readonly firstIndex: number;
  /** What is damaged, once that is known. */
  what: string | undefined;
  retryMs: number;
  /** Waits for its next try. */
  timer: Timer | undefined;
}

export class Repairs {
  readonly #options: RepairsOptions;
  readonly #exchange: RepairExchange;
  readonly #refetch: Refetch;
  readonly #suspects = new Map<string, Suspect>();
  readonly #queue: Suspect[] = [];
  #running = false;
  #stopped = false;
  #waiting: { readonly group: GroupKey; readonly resolve: (whole: boolean) => void }[] = [];
  #found = 0;
  #repaired = 0;

  constructor(options: RepairsOptions) {
    this.#options = options;
    this.#exchange = new RepairExchange(options);
    this.#refetch = new Refetch({ exchange: this.#exchange, isAlive: options.isAlive, log: options.log });
  }

  get statistics(): RepairStatistics {
    let damaged = 0;
    for (const { what } of this.#suspects.values()) if (what !== undefined) damaged++;
    return { found: this.#found, repaired: this.#repaired, damaged };
  }

  /** An entry of the segment that begins at the index was found damaged. */
  suspect(group: GroupKey, firstIndex: number): void {
    const key = `${group}/${firstIndex}`;
    if (this.#stopped || this.#suspects.has(key)) return;
    const suspect = { group, firstIndex, what: undefined, retryMs: MIN_RETRY_MS, timer: undefined };
    this.#suspects.set(key, suspect);
    this.#queue.push(suspect);
    this.#options.environment.soon(() => void this.#run());
  }

  /** What is damaged of the group's log, for a person. Undefined: nothing, as far as is known. */
  damageOf(group: GroupKey): string | undefined {
    for (const { group: of, what } of this.#suspects.values()) if (of === group && what !== undefined) return what;
    return undefined;
  }

  isSuspect(group: GroupKey): boolean {
    for (const { group: of } of this.#suspects.values()) if (of === group) return true;
    return false;
  }

  /** Resolves when nothing of the group's log is known to be damaged any more: true; false when the replica was closed before, or is to be replaced. */
  untilWhole(group: GroupKey): Promise<boolean> {
    if (this.#stopped) return Promise.resolve(false);
    if (!this.isSuspect(group)) return Promise.resolve(true);
    return new Promise((resolve) => this.#waiting.push({ group, resolve }));
  }

  /** The replica is closed, or another log took the place of its own. */
  forget(group: GroupKey, whole: boolean): void {
    for (const [key, suspect] of this.#suspects) if (suspect.group === group) this.#drop(key, suspect);
    this.#tellWaiting(group, whole);
  }

  /** @throws INVALID_REQUEST, CORRUPT_MESSAGE when the frame is malformed. */
  frame(from: BrokerId, frame: Uint8Array): void {
    this.#exchange.frame(from, frame);
  }

  stop(): void {
    this.#stopped = true;
    this.#exchange.stop();
    for (const { group } of [...this.#suspects.values()]) this.forget(group, false);
    for (const { resolve } of this.#waiting) resolve(false);
    this.#waiting = [];
  }

  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    for (let suspect = this.#queue.shift(); suspect !== undefined && !this.#stopped; suspect = this.#queue.shift()) {
      const key = `${suspect.group}/${suspect.firstIndex}`;
      if (this.#suspects.get(key) !== suspect) continue;
      const repair = this.#options.storage.repairOf(suspect.group);
      const replica = this.#options.replica(suspect.group);
      const whole = repair === undefined || replica === undefined || (await this.#putRight(suspect, repair, replica));
      if (this.#suspects.get(key) !== suspect) continue;
      if (whole) this.#isWhole(key, suspect);
      else this.#retryLater(suspect);
    }
    this.#running = false;
  }

  #isWhole(key: string, suspect: Suspect): void {
    this.#drop(key, suspect);
    const { group, firstIndex, what } = suspect;
    if (what !== undefined) this.#options.log.info('segment repaired', { group: formatGroupKey(group), firstIndex });
    if (!this.isSuspect(group)) this.#tellWaiting(group, true);
  }

  #drop(key: string, suspect: Suspect): void {
    suspect.timer?.cancel();
    this.#suspects.delete(key);
  }

  #tellWaiting(group: GroupKey, whole: boolean): void {
    const told = this.#waiting.filter((waiting) => waiting.group === group);
    this.#waiting = this.#waiting.filter((waiting) => waiting.group !== group);
    for (const { resolve } of told) resolve(whole);
  }

  #retryLater(suspect: Suspect): void {
    suspect.timer = this.#options.environment.after(suspect.retryMs, () => {
      this.#queue.push(suspect);
      void this.#run();
    });
    suspect.retryMs = Math.min(2 * suspect.retryMs, MAX_RETRY_MS);
  }

  /** True: nothing of the segment is damaged, or any more. */
  async #putRight(suspect: Suspect, repair: LogRepair, replica: RaftReplica): Promise<boolean> {
    const { group, firstIndex } = suspect;
    const { log } = this.#options;
    try {
      const damages = await repair.check(firstIndex, async () => {});
      if (damages.length === 0) return true;
      const ranges = rangesOf(damages);
      const count = ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0);
      if (suspect.what === undefined) {
        this.#found += count;
        for (const { file, position, what } of damages.slice(0, MAX_NAMED))
          log.error('entry damaged', { group: formatGroupKey(group), file, position, what, of: damages.length });
      }
      const [worst] = damages;
      suspect.what = worst && `${worst.file}, byte ${worst.position}: ${worst.what}${count === 1 ? '' : `; ${count} entries in all`}`;
      if (repair.isCleaned(firstIndex)) {
        if (othersOf(replica).length > 0) this.#giveUp(replica, `a segment that compaction made is damaged: ${suspect.what}`);
        return false;
      }
      for (const range of ranges) {
        const [first, last] = range;
        const outcome = await this.#refetch.refetch({ replica, repair, firstIndex }, range);
        if (this.#stopped) return false;
        if (outcome === 'gone') this.#giveUp(replica, `entries ${first} to ${last} are damaged here and gone elsewhere`);
        if (outcome !== 'repaired') return false;
        this.#repaired += last - first + 1;
      }
      return (await repair.check(firstIndex, async () => {})).length === 0;
    } catch (error) {
      log.warn('segment not repaired', { group: formatGroupKey(group), firstIndex, error: messageOf(error) });
      return false;
    }
  }

  #giveUp(replica: RaftReplica, reason: string): void {
    if (replica.closed) return;
    this.#options.irreparable(replica, reason);
    // Who waits for it may be in the way of the one that is to take its place.
    this.#tellWaiting(replica.group, false);
  }
}

/** What is damaged, as ranges that do not touch, in order. */
function rangesOf(damages: readonly { readonly entries?: Range }[]): Range[] {
  const sorted = damages.flatMap(({ entries }) => (entries === undefined ? [] : [entries])).sort(([a], [b]) => a - b);
  const ranges: [number, number][] = [];
  for (const [first, last] of sorted) {
    const before = ranges.at(-1);
    if (before !== undefined && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else ranges.push([first, last]);
  }
  return ranges;
}

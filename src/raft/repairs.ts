/**
 * Puts right what rotted in the segments of this broker's replicas: reads the whole segment, names what is damaged, asks the other replicas for just those
 * entries, one after the other, and has them written where they stood. One segment at a time, over all groups; what nobody can give now is asked for again,
 * ever more rarely, and never given up: it is committed (docs/adr/0008).
 */
import type { Environment, Logger, Timer } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { type BrokerId, formatGroupKey, type GroupKey, type ReplicaId } from '../base/ids.ts';
import type { LogRepair, Storage } from '../storage/types.ts';
import { membersOf } from './core/configuration.ts';
import type { Entry } from './core/entry.ts';
import { entrySize } from './core/entry-codec.ts';
import { decodeRepairMessage, type EntriesAnswer, type EntriesRequest, encodeRepairMessage, type RepairMessage } from './repair-codec.ts';
import type { RaftReplica } from './replica.ts';
import type { PeerTransport } from './types.ts';

/** Bytes of entries in one answer. */
const ANSWER_BYTES = 1 << 20;
/** Bytes of entries that are written at once. */
const WRITE_BYTES = 8 << 20;
/** A peer that does not answer for so long is not waited for. */
const ANSWER_MS = 3_000;
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
  /** Entries that were found damaged, and not yet put right. */
  open: number;
  retryMs: number;
  /** Waits for its next try. */
  timer: Timer | undefined;
}

interface Asked {
  readonly id: number;
  readonly from: ReplicaId;
  readonly resolve: (answer: EntriesAnswer | undefined) => void;
}

export class Repairs {
  readonly #options: RepairsOptions;
  readonly #suspects = new Map<string, Suspect>();
  readonly #queue: Suspect[] = [];
  #running = false;
  #stopped = false;
  #asked: Asked | undefined;
  #waiting: { readonly group: GroupKey; readonly resolve: (whole: boolean) => void }[] = [];
  #found = 0;
  #repaired = 0;

  constructor(options: RepairsOptions) {
    this.#options = options;
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
    const suspect = { group, firstIndex, what: undefined, open: 0, retryMs: MIN_RETRY_MS, timer: undefined };
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
    const message = decodeRepairMessage(frame);
    const replica = this.#options.replica(message.group);
    if (replica === undefined || replica.replicaId !== message.to || replica.brokerOf(message.from) !== from) return;
    if (message.type === 'want') void this.#serve(replica, from, message);
    else if (this.#asked?.id === message.id && this.#asked.from === message.from) this.#asked.resolve(message);
  }

  stop(): void {
    this.#stopped = true;
    this.#asked?.resolve(undefined);
    for (const { group } of [...this.#suspects.values()]) this.forget(group, false);
    for (const { resolve } of this.#waiting) resolve(false);
    this.#waiting = [];
  }

  /** Only what reads back whole here, and is committed, leaves (hazard B23). */
  async #serve(replica: RaftReplica, to: BrokerId, { group, from, id, first, last }: EntriesRequest): Promise<void> {
    let entries: readonly Entry[] = [];
    let without: EntriesAnswer['without'];
    const { log } = replica;
    if (first < log.firstReplicableIndex) without = 'gone';
    else {
      try {
        entries = (await log.readEntries(first, ANSWER_BYTES)).filter(({ index }) => index <= last);
      } catch (error) {
        this.#options.log.warn('entries for repair not readable', { group: formatGroupKey(group), first, error: messageOf(error) });
      }
      if (entries[0]?.index !== first) {
        entries = [];
        without = first < log.firstReplicableIndex ? 'gone' : 'notNow';
      }
    }
    if (!replica.closed) this.#send(to, { type: 'give', group, from: replica.replicaId, to: from, id, first, entries, without });
  }

  #send(to: BrokerId, message: RepairMessage): boolean {
    return this.#options.transport.send(to, 'bulk', encodeRepairMessage(message));
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
        if (this.#others(replica).length > 0) this.#giveUp(replica, `a segment that compaction made is damaged: ${suspect.what}`);
        return false;
      }
      for (const range of ranges) {
        if (!(await this.#refetch(repair, replica, firstIndex, range))) return false;
        this.#repaired += range[1] - range[0] + 1;
      }
      return (await repair.check(firstIndex, async () => {})).length === 0;
    } catch (error) {
      log.warn('segment not repaired', { group: formatGroupKey(group), firstIndex, error: messageOf(error) });
      return false;
    }
  }

  /** False: nobody has them now. */
  async #refetch(repair: LogRepair, replica: RaftReplica, firstIndex: number, [first, last]: Range): Promise<boolean> {
    const gone = new Set<ReplicaId>();
    const others = this.#others(replica);
    for (const { replicaId, brokerId } of others) {
      if (!this.#options.isAlive(brokerId)) continue;
      const outcome = await this.#fetch(repair, replica, firstIndex, { replicaId, brokerId }, [first, last]);
      if (this.#stopped || replica.closed) return false;
      if (outcome === 'repaired') return true;
      if (outcome === 'gone') gone.add(replicaId);
    }
    if (others.length > 0 && gone.size === others.length)
      this.#giveUp(replica, `entries ${first} to ${last} are damaged here and gone elsewhere`);
    return false;
  }

  #giveUp(replica: RaftReplica, reason: string): void {
    if (replica.closed) return;
    this.#options.irreparable(replica, reason);
    // Who waits for it may be in the way of the one that is to take its place.
    this.#tellWaiting(replica.group, false);
  }

  /** The leader first: it is sure to have what is committed. */
  #others(replica: RaftReplica): { replicaId: ReplicaId; brokerId: BrokerId }[] {
    const others = membersOf(replica.core.configuration).filter(({ replicaId }) => replicaId !== replica.replicaId);
    const { leader } = replica.core;
    return others.sort((a, b) => Number(b.replicaId === leader) - Number(a.replicaId === leader));
  }

  async #fetch(
    repair: LogRepair,
    replica: RaftReplica,
    firstIndex: number,
    peer: { readonly replicaId: ReplicaId; readonly brokerId: BrokerId },
    [first, last]: Range,
  ): Promise<'repaired' | 'gone' | 'notNow'> {
    let entries: Entry[] = [];
    let bytes = 0;
    for (let next = first; next <= last; ) {
      const answer = await this.#ask(replica, peer, next, last);
      if (answer?.entries[0] === undefined) return answer?.without ?? 'notNow';
      for (const entry of answer.entries) {
        entries.push(entry);
        bytes += entrySize(entry);
      }
      next += answer.entries.length;
      if (bytes < WRITE_BYTES && next <= last) continue;
      if (!(await this.#write(repair, replica, firstIndex, peer.brokerId, entries, last))) return 'notNow';
      entries = [];
      bytes = 0;
    }
    return 'repaired';
  }

  async #write(
    repair: LogRepair,
    replica: RaftReplica,
    firstIndex: number,
    from: BrokerId,
    entries: readonly Entry[],
    damagedTo: number,
  ): Promise<boolean> {
    const { log } = this.#options;
    const group = formatGroupKey(replica.group);
    try {
      await repair.write(firstIndex, entries, damagedTo);
    } catch (error) {
      log.warn('entries for repair not written', { group, from, error: messageOf(error) });
      return false;
    }
    log.info('entries repaired', { group, from, first: entries[0]?.index, entries: entries.length });
    return true;
  }

  #ask(
    replica: RaftReplica,
    peer: { readonly replicaId: ReplicaId; readonly brokerId: BrokerId },
    first: number,
    last: number,
  ): Promise<EntriesAnswer | undefined> {
    const { environment } = this.#options;
    const id = (environment.uint32() & 0xfffff) * 2 ** 32 + environment.uint32();
    const { group, replicaId: from } = replica;
    const { promise, resolve } = Promise.withResolvers<EntriesAnswer | undefined>();
    const timer = environment.after(ANSWER_MS, () => resolve(undefined));
    this.#asked = { id, from: peer.replicaId, resolve };
    if (!this.#send(peer.brokerId, { type: 'want', group, from, to: peer.replicaId, id, first, last })) resolve(undefined);
    return promise.finally(() => timer.cancel());
  }
}

type Range = readonly [first: number, last: number];

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

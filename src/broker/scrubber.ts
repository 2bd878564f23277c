/**
 * Reads what nobody reads, at a bounded rate, to find what rotted while there are still other copies: all segments of all replicas here, in passes, and their
 * snapshots. What it finds is put right from the other replicas (raft/repairs.ts). It stands still while the disk is slow or has no room.
 */
import type { Environment, Logger } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { formatGroupKey, type GroupKey } from '../base/ids.ts';
import { pause } from '../controller/pause.ts';
import type { RaftHost } from '../raft/types.ts';
import type { Storage } from '../storage/types.ts';
import { Rounds } from './rounds.ts';

/** How often it is looked whether the disk may be read again. */
const LOOK_AGAIN_MS = 1_000;
/** The first pass of a process begins after this share of the interval, so that one that is often restarted is scrubbed too. */
const FIRST_SHARE = 0.1;
/** Findings of a pass that are kept to be told. */
export const MAX_FINDINGS = 1_000;

export interface ScrubberOptions {
  readonly host: Pick<RaftHost, 'replicas' | 'repair' | 'untilWhole' | 'damageOf'>;
  readonly storage: Pick<Storage, 'repairOf'>;
  readonly environment: Environment;
  readonly log: Logger;
  /** flotilla.scrub.bytes.per.second */
  readonly bytesPerSecond: number;
  /** flotilla.scrub.interval.ms: from the end of one pass to the beginning of the next. 0: only when asked. */
  readonly intervalMs: number;
  /** False while the disk has better things to do. */
  readonly mayRead: () => boolean;
}

export interface ScrubFinding {
  readonly group: GroupKey;
  readonly file: string;
  readonly position: number;
  readonly what: string;
}

export interface ScrubStatus {
  /** Passes that this process began. */
  readonly pass: number;
  readonly running: boolean;
  readonly segments: number;
  readonly segmentsDone: number;
  readonly bytesDone: number;
  /** Damaged places, of the present pass or the last. */
  readonly findings: readonly (ScrubFinding & { readonly repaired: boolean })[];
}

interface Target {
  readonly group: GroupKey;
  /** Undefined: its snapshots. */
  readonly firstIndex: number | undefined;
}

export class Scrubber {
  readonly #options: ScrubberOptions;
  readonly #rounds: Rounds;
  #pass = 0;
  #running = false;
  #segments = 0;
  #segmentsDone = 0;
  #bytesDone = 0;
  #findings: ScrubFinding[] = [];

  constructor(options: ScrubberOptions) {
    this.#options = options;
    this.#rounds = new Rounds(options.environment, options.intervalMs, () => this.#scrub());
  }

  start(): void {
    this.#rounds.start(this.#options.intervalMs * FIRST_SHARE);
  }

  /** Resolves when nothing is being read any more. */
  stop(): Promise<void> {
    return this.#rounds.stop();
  }

  /** Begins a pass at once, unless one is under way. */
  scrubNow(): void {
    this.#rounds.begin();
  }

  get status(): ScrubStatus {
    const { host } = this.#options;
    const findings = this.#findings.map((finding) => ({ ...finding, repaired: host.damageOf(finding.group) === undefined }));
    return {
      pass: this.#pass,
      running: this.#running,
      segments: this.#segments,
      segmentsDone: this.#segmentsDone,
      bytesDone: this.#bytesDone,
      findings,
    };
  }

  async #scrub(): Promise<void> {
    const { log } = this.#options;
    const targets = this.#targets();
    this.#pass++;
    this.#running = true;
    this.#segments = targets.length;
    this.#segmentsDone = 0;
    this.#bytesDone = 0;
    this.#findings = [];
    for (const target of targets) {
      if (this.#rounds.signal.aborted) break;
      await this.#check(target).catch((error: unknown) => {
        if (this.#rounds.signal.aborted) return;
        log.warn('scrub.failed', { group: formatGroupKey(target.group), firstIndex: target.firstIndex, error: messageOf(error) });
      });
      this.#segmentsDone++;
    }
    this.#running = false;
    const level = this.#findings.length > 0 ? 'warn' : 'info';
    log[level]('scrub.done', { segments: this.#segmentsDone, bytes: this.#bytesDone, damaged: this.#findings.length });
  }

  #targets(): Target[] {
    const { host, storage } = this.#options;
    const targets: Target[] = [];
    for (const { group } of host.replicas) {
      for (const firstIndex of storage.repairOf(group)?.segments() ?? []) targets.push({ group, firstIndex });
      targets.push({ group, firstIndex: undefined });
    }
    return targets;
  }

  async #check({ group, firstIndex }: Target): Promise<void> {
    const { host, storage } = this.#options;
    const repair = storage.repairOf(group);
    if (repair === undefined) return;
    const paced = (bytes: number) => this.#paced(bytes);
    const damages = firstIndex === undefined ? await repair.renewSnapshots(paced) : await repair.check(firstIndex, paced);
    for (const { file, position, what } of damages.slice(0, MAX_FINDINGS - this.#findings.length)) {
      this.#findings.push({ group, file, position, what });
    }
    if (damages.length > 0 && firstIndex !== undefined) host.repair(group, firstIndex);
  }

  /** Bytes were read: waits until they are paid for, and while the disk has better things to do. */
  async #paced(bytes: number): Promise<void> {
    const { environment, bytesPerSecond, mayRead } = this.#options;
    const { signal } = this.#rounds;
    this.#bytesDone += bytes;
    await pause(environment, (bytes * 1000) / bytesPerSecond, signal);
    while (!mayRead() && !signal.aborted) await pause(environment, LOOK_AGAIN_MS, signal);
    signal.throwIfAborted();
  }
}

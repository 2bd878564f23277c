import type { BrokerId, ReplicaId } from '../../base/ids.ts';
import type { Member } from './types.ts';

/** What a leader shows of a follower. */
export interface FollowerProgress {
  readonly replicaId: ReplicaId;
  readonly brokerId: BrokerId;
  /** The last index known to be the same, and durable, on the follower. */
  readonly matchIndex: number;
  /** The next index to send. */
  readonly nextIndex: number;
  /** It answered since the last check of the quorum. */
  readonly active: boolean;
  readonly state: ProgressState;
  /** A majority of the voters has another log: it takes no part. */
  readonly damaged: boolean;
  /** Not 0: it is on probation (RaftOptions.probation), and counts for nothing. */
  readonly probation: number;
  /** Appends sent and not acknowledged. */
  readonly inflight: { readonly count: number; readonly bytes: number };
}

/**
 * probe: where the logs agree is not known (or was doubted); one append is under way at a time.
 * replicate: appends are pipelined, `nextIndex` moves when they are sent.
 * snapshot: what it needs is below the log's start; nothing but heartbeats is sent until the host says that a snapshot is there.
 */
export type ProgressState = 'probe' | 'replicate' | 'snapshot';

/** A leader's knowledge of one follower, for one term (etcd's tracker.Progress). */
export class Progress implements FollowerProgress {
  readonly replicaId: ReplicaId;
  readonly brokerId: BrokerId;
  readonly inflight: InflightWindow;
  matchIndex = 0;
  nextIndex: number;
  active = true;
  state: ProgressState = 'probe';
  /** Probe only: an append is under way, and nothing is sent until it is answered or a heartbeat is. */
  paused = false;
  damaged = false;
  probation = 0;
  /** On probation: an entry that was appended after that was heard. Once it has committed and the follower has it, the follower has all that it can have acknowledged. */
  mark = 0;
  /** It was told that the probation is over. */
  toldOver = false;
  /** Entries below the window were asked of the host. */
  reading = false;
  /** Snapshot only: the host could not bring it there; it is asked again after a pause. */
  snapshotFailed = false;
  /** The highest commit index sent along with an append. */
  commitSent = 0;
  /** An append was acknowledged since the last heartbeat response: nothing seems lost. */
  acknowledged = false;
  /** It answered a heartbeat since the leader has been idle. */
  answered = false;
  /** The newest read round that it confirmed. */
  readRound = 0;

  constructor(member: Member, nextIndex: number, maxInflightMessages: number, maxInflightBytes: number) {
    this.replicaId = member.replicaId;
    this.brokerId = member.brokerId;
    this.nextIndex = nextIndex;
    this.inflight = new InflightWindow(maxInflightMessages, maxInflightBytes);
  }

  /** The follower has everything up to `index`. False: that was known. */
  acknowledge(index: number): boolean {
    this.inflight.freeTo(index);
    this.acknowledged = true;
    const moved = index > this.matchIndex;
    if (moved) this.matchIndex = index;
    if (this.state === 'snapshot') return moved;
    if (this.state === 'probe') {
      if (index < this.matchIndex) return moved;
      this.state = 'replicate';
      this.paused = false;
      this.nextIndex = this.matchIndex + 1;
    } else if (this.nextIndex <= index) {
      this.nextIndex = index + 1;
    }
    return moved;
  }

  /**
   * The follower has not what precedes `rejectedIndex + 1`; its log may agree at `hintIndex`. False: the rejection is stale, since what was
   * sent has moved on from it (hazard B11).
   */
  reject(rejectedIndex: number, hintIndex: number): boolean {
    if (this.state === 'replicate') {
      if (rejectedIndex <= this.matchIndex) return false;
      this.probe();
      return true;
    }
    if (this.state === 'snapshot') return false;
    if (rejectedIndex !== this.nextIndex - 1) return false;
    this.nextIndex = Math.max(Math.min(rejectedIndex, hintIndex + 1), this.matchIndex + 1);
    this.paused = false;
    return true;
  }

  /** Starts over after the last index known to match, or after `index`, up to where a snapshot is said to be there. */
  probe(index = 0): void {
    this.state = 'probe';
    this.paused = false;
    this.nextIndex = Math.max(this.matchIndex, index) + 1;
    this.inflight.clear();
  }

  /** What it has acknowledged counts no more. */
  begin(probation: number, mark: number): void {
    this.probation = probation;
    this.mark = mark;
    this.toldOver = false;
    this.matchIndex = 0;
    if (this.state !== 'snapshot') this.probe();
  }

  /** The number of a probation that is over. 0: none. */
  over(commitIndex: number): number {
    return this.probation > 0 && commitIndex >= this.mark && this.matchIndex >= this.mark ? this.probation : 0;
  }

  /** A snapshot is asked of the host. */
  awaitSnapshot(): void {
    this.state = 'snapshot';
    this.snapshotFailed = false;
    this.inflight.clear();
  }

  /** Entries from nextIndex on were sent. */
  sent(lastIndex: number, bytes: number): void {
    if (this.state === 'probe') {
      this.paused = true;
      return;
    }
    this.nextIndex = lastIndex + 1;
    this.inflight.add(lastIndex, bytes);
  }

  /** An append is under way that it has to answer. */
  get awaitsAcknowledgement(): boolean {
    return this.state === 'probe' ? this.paused : this.inflight.count > 0;
  }

  get blocked(): boolean {
    return this.reading || this.state === 'snapshot' || (this.state === 'probe' ? this.paused : this.inflight.full);
  }
}

/** Append messages sent and not acknowledged, bounded by number and bytes: a ring that grows up to its bound. */
export class InflightWindow {
  readonly #maxMessages: number;
  readonly #maxBytes: number;
  #lastIndexes: number[] = new Array(4).fill(0);
  #sizes: number[] = new Array(4).fill(0);
  #head = 0;
  #count = 0;
  #bytes = 0;

  constructor(maxMessages: number, maxBytes: number) {
    this.#maxMessages = maxMessages;
    this.#maxBytes = maxBytes;
  }

  get full(): boolean {
    return this.#count >= this.#maxMessages || this.#bytes >= this.#maxBytes;
  }
  get count(): number {
    return this.#count;
  }
  get bytes(): number {
    return this.#bytes;
  }

  add(lastIndex: number, bytes: number): void {
    if (this.#count === this.#lastIndexes.length) this.#grow();
    const slot = (this.#head + this.#count) & (this.#lastIndexes.length - 1);
    this.#lastIndexes[slot] = lastIndex;
    this.#sizes[slot] = bytes;
    this.#count++;
    this.#bytes += bytes;
  }

  /** Everything up to `index` arrived. */
  freeTo(index: number): void {
    while (this.#count > 0 && (this.#lastIndexes[this.#head] as number) <= index) {
      this.#bytes -= this.#sizes[this.#head] as number;
      this.#head = (this.#head + 1) & (this.#lastIndexes.length - 1);
      this.#count--;
    }
  }

  clear(): void {
    this.#count = 0;
    this.#bytes = 0;
  }

  #grow(): void {
    const { length } = this.#lastIndexes;
    const turn = (ring: number[]): number[] => [...ring.slice(this.#head), ...ring.slice(0, this.#head), ...new Array(length).fill(0)];
    this.#lastIndexes = turn(this.#lastIndexes);
    this.#sizes = turn(this.#sizes);
    this.#head = 0;
  }
}

/**
 * The loop that runs the groups. Inputs (messages, proposals, ticks, finished flushes) mark replicas dirty; a turn takes the Ready of every
 * dirty replica and makes of them one frame a peer and one write to the log for all groups, so that the cost of a frame and of an fdatasync
 * is shared by all that happened since the last turn.
 *
 * When the loop is idle, an input gets its turn at the end of the present task: one record alone waits for nothing. While a flush
 * is in flight, or a turn already ran in this iteration of the event loop, inputs wait for the I/O that is already there:
 * what arrives together then leaves together. A finished flush runs a turn at once, which sends what waited for it.
 *
 * The order that safety needs (hazards B01, B07-B09): a group's writes go to the log in the order of its Readys, their completions come back
 * in that order, and what a Ready holds back until it is durable leaves only then.
 */
import type { Scheduler } from '../base/environment.ts';
import type { BrokerId, GroupKey, ReplicaId } from '../base/ids.ts';
import type { WalWrite, WriteAheadLog } from '../storage/types.ts';
import type { CatchUp } from './catch-up.ts';
import type { Message, PersistUnit, Ready } from './core/types.ts';
import type { Outbox } from './outbox.ts';
import type { RaftReplica } from './replica.ts';

/** One write to the log: the units of one turn, and the messages that wait for them. */
interface Flush {
  readonly units: { readonly replica: RaftReplica; readonly token: number }[];
  readonly writes: WalWrite[];
  readonly held: { readonly to: BrokerId; readonly group: GroupKey; readonly message: Message }[];
}

export interface TurnLoopOptions {
  readonly scheduler: Scheduler;
  readonly wal: WriteAheadLog;
  readonly outbox: Outbox;
  readonly catchUp: CatchUp;
  /** A follower of the replica's needs a snapshot. */
  readonly snapshotWanted: (replica: RaftReplica, to: ReplicaId) => void;
  /** Storage failed, or an invariant is broken: the process must end. Called once. */
  readonly fatal: (error: unknown) => void;
}

export class TurnLoop {
  readonly #options: TurnLoopOptions;
  #dirty: RaftReplica[] = [];
  #armed = false;
  /** A turn ran in this iteration of the event loop. */
  #busy = false;
  #flushing = 0;
  /** Each replica's newest flush in flight: what has nothing to persist itself must still wait for it. */
  readonly #lastFlush = new Map<RaftReplica, Flush>();
  /** Settles, and never rejects, with the newest flush; flushes end in their order. */
  #lastWrite: Promise<void> = Promise.resolve();
  #failed = false;

  constructor(options: TurnLoopOptions) {
    this.#options = options;
  }

  /** Gives a replica a turn. */
  schedule(replica: RaftReplica): void {
    if (replica.scheduled) return;
    replica.scheduled = true;
    this.#dirty.push(replica);
    if (this.#armed) return;
    this.#armed = true;
    const turn = () => {
      this.#armed = false;
      this.run(() => {});
    };
    if (this.#busy || this.#flushing > 0) this.#options.scheduler.nextTurn(turn);
    else this.#options.scheduler.soon(turn);
  }

  /** Does `inputs` and runs a turn for what they made dirty. Whatever is thrown in it ends the process. */
  run(inputs: () => void): void {
    this.guard(() => {
      inputs();
      this.#turn();
    });
  }

  /** Does `inputs`; whatever is thrown in it ends the process, for the state of a group is then unknown. */
  guard(inputs: () => void): void {
    if (this.#failed) return;
    try {
      inputs();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Nothing of the replica is to be done or in flight. */
  isIdle(replica: RaftReplica): boolean {
    return !replica.scheduled && !replica.core.hasReady() && !this.#lastFlush.has(replica);
  }

  /** Resolves when all that is in flight now is durable. */
  drained(): Promise<void> {
    return this.#lastWrite;
  }

  #turn(): void {
    this.#markBusy();
    const replicas = this.#dirty;
    this.#dirty = [];
    const flush: Flush = { units: [], writes: [], held: [] };
    const readys = replicas.map((replica) => this.#take(replica, flush));
    this.#options.outbox.flush();
    if (flush.writes.length > 0) this.#write(flush);
    replicas.forEach((replica, at) => {
      if (!replica.closed) replica.deliver(readys[at]);
    });
  }

  #take(replica: RaftReplica, flush: Flush): Ready | undefined {
    replica.scheduled = false;
    if (replica.closed || !replica.core.hasReady()) return undefined;
    const ready = replica.core.ready();
    for (const message of ready.messages) this.#send(replica, message);
    if (ready.persist !== undefined) this.#queue(replica, ready.persist, flush);
    const waitsFor = this.#lastFlush.get(replica);
    for (const message of ready.afterPersist) {
      const to = replica.brokerOf(message.to);
      if (to === undefined) continue;
      if (waitsFor === undefined) this.#options.outbox.add(to, replica.group, message);
      else waitsFor.held.push({ to, group: replica.group, message });
    }
    for (const wanted of ready.reads) this.#options.catchUp.request(replica, wanted);
    for (const { to } of ready.snapshots) this.#options.snapshotWanted(replica, to);
    return ready;
  }

  #queue(replica: RaftReplica, unit: PersistUnit, flush: Flush): void {
    const { token, hardState, truncateTo, entries } = unit;
    const isMark = hardState === undefined && truncateTo === undefined && entries.length === 0;
    const inFlight = this.#lastFlush.get(replica);
    if (isMark && inFlight !== undefined) {
      // Nothing to write: it only marks where a response may leave, which is when all before it is durable.
      inFlight.units.push({ replica, token });
      return;
    }
    flush.units.push({ replica, token });
    flush.writes.push({ group: replica.group, hardState, truncateTo, entries });
    this.#lastFlush.set(replica, flush);
  }

  #send(replica: RaftReplica, message: Message): void {
    const to = replica.brokerOf(message.to);
    if (to !== undefined) this.#options.outbox.add(to, replica.group, message);
  }

  #write(flush: Flush): void {
    this.#flushing++;
    this.#lastWrite = this.#options.wal.append(flush.writes).then(
      () => this.run(() => this.#durable(flush)),
      (error: unknown) => this.#fail(error),
    );
  }

  #durable(flush: Flush): void {
    this.#flushing--;
    for (const { replica, token } of flush.units) {
      if (this.#lastFlush.get(replica) === flush) this.#lastFlush.delete(replica);
      if (!replica.closed) replica.persisted(token);
    }
    for (const { to, group, message } of flush.held) this.#options.outbox.add(to, group, message);
  }

  #markBusy(): void {
    if (this.#busy) return;
    this.#busy = true;
    this.#options.scheduler.nextTurn(() => {
      this.#busy = false;
    });
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#options.fatal(error);
  }
}

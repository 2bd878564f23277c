/**
 * Snapshots on their way out: offered to followers, which pull them chunk by chunk. So many at a time, with so many bytes a second over all, that
 * appends and producers go on. A follower that does not pull for a while is given up; the core asks again while it still needs one.
 */
import type { Environment, Logger } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { type BrokerId, formatGroupKey, type ReplicaId } from '../base/ids.ts';
import type { LogSnapshot } from '../storage/types.ts';
import type { RaftReplica } from './replica.ts';
import type { RaftHostSettings } from './settings.ts';
import type { SnapshotDone, SnapshotMessage, SnapshotPull } from './snapshot-codec.ts';

export interface SnapshotSenderOptions {
  readonly environment: Pick<Environment, 'monotonicMs' | 'after' | 'uint32'>;
  readonly settings: RaftHostSettings;
  readonly log: Logger;
  readonly send: (to: BrokerId, message: SnapshotMessage) => void;
  /** A follower could not use what it got: it may be damaged here. */
  readonly doubted: (replica: RaftReplica) => void;
}

/** One follower's snapshot. */
interface Transfer {
  readonly replica: RaftReplica;
  readonly to: ReplicaId;
  readonly id: number;
  /** Undefined: waiting for its turn, or being opened. */
  snapshot: LogSnapshot | undefined;
  started: boolean;
  /** Milliseconds since the follower last pulled, and since it was last offered. */
  idleMs: number;
  sinceOfferMs: number;
}

export class SnapshotSender {
  readonly #options: SnapshotSenderOptions;
  /** In the order in which they were asked for. */
  readonly #transfers = new Map<string, Transfer>();
  /** When the next chunk may leave. */
  #freeAtMs = 0;

  constructor(options: SnapshotSenderOptions) {
    this.#options = options;
  }

  /** A follower needs a snapshot. One that is on its way already goes on, whatever became of the leader's term. */
  wanted(replica: RaftReplica, to: ReplicaId): void {
    const key = keyOf(replica, to);
    if (this.#transfers.has(key)) return;
    const { environment } = this.#options;
    const id = (environment.uint32() & 0xfffff) * 2 ** 32 + environment.uint32();
    this.#transfers.set(key, { replica, to, id, snapshot: undefined, started: false, idleMs: 0, sinceOfferMs: 0 });
    this.#startNext();
  }

  received(from: BrokerId, message: SnapshotPull | SnapshotDone): void {
    const transfer = this.#find(message);
    if (transfer?.snapshot === undefined || transfer.replica.brokerOf(transfer.to) !== from) {
      const { group, to, id } = message;
      this.#options.send(from, { type: 'gone', group, from: to, to: message.from, id });
    } else if (message.type === 'done') {
      if (message.failed) this.#options.doubted(transfer.replica);
      this.#end(transfer, message.failed ? undefined : transfer.snapshot.lastIndex);
    } else {
      transfer.idleMs = 0;
      this.#serve(transfer, transfer.snapshot, message);
    }
  }

  advance(ms: number): void {
    const { snapshotTimeoutMs, snapshotRetryMs } = this.#options.settings;
    for (const transfer of [...this.#transfers.values()]) {
      if (transfer.replica.closed) {
        this.#end(transfer, undefined);
        continue;
      }
      if (transfer.snapshot === undefined) continue;
      transfer.idleMs += ms;
      transfer.sinceOfferMs += ms;
      if (transfer.idleMs >= snapshotTimeoutMs) this.#end(transfer, undefined);
      else if (transfer.idleMs >= snapshotRetryMs && transfer.sinceOfferMs >= snapshotRetryMs) this.#offer(transfer, transfer.snapshot);
    }
  }

  stop(): void {
    for (const { snapshot } of this.#transfers.values()) snapshot?.release();
    this.#transfers.clear();
  }

  #find({ group, from, id }: SnapshotMessage): Transfer | undefined {
    const transfer = this.#transfers.get(`${group}/${from}`);
    return transfer?.id === id ? transfer : undefined;
  }

  #startNext(): void {
    let running = 0;
    for (const transfer of this.#transfers.values()) {
      if (running >= this.#options.settings.maxSnapshotTransfers) return;
      running++;
      if (transfer.started) continue;
      transfer.started = true;
      void this.#start(transfer);
    }
  }

  async #start(transfer: Transfer): Promise<void> {
    const { replica, to } = transfer;
    let snapshot: LogSnapshot | undefined;
    try {
      snapshot = await replica.log.openSnapshot();
    } catch (error) {
      this.#options.log.warn('snapshot not opened', { group: formatGroupKey(replica.group), to, error: messageOf(error) });
    }
    if (snapshot === undefined || this.#transfers.get(keyOf(replica, to)) !== transfer) {
      snapshot?.release();
      this.#end(transfer, undefined);
      return;
    }
    transfer.snapshot = snapshot;
    this.#options.log.info('snapshot offered', { group: formatGroupKey(replica.group), to, index: snapshot.lastIndex });
    this.#offer(transfer, snapshot);
  }

  #offer(transfer: Transfer, { lastIndex, lastTerm, files }: LogSnapshot): void {
    transfer.sinceOfferMs = 0;
    this.#send(transfer, { type: 'offer', ...envelopeOf(transfer), lastIndex, lastTerm, files });
  }

  #serve(transfer: Transfer, snapshot: LogSnapshot, pull: SnapshotPull): void {
    const { environment, settings } = this.#options;
    const size = snapshot.files[pull.file]?.length ?? 0;
    if (pull.length === 0 || pull.length > settings.snapshotChunkBytes || pull.position + pull.length > size) return;
    const now = environment.monotonicMs();
    const at = Math.max(now, this.#freeAtMs);
    this.#freeAtMs = at + (pull.length * 1000) / settings.snapshotBytesPerSecond;
    if (at <= now) void this.#sendChunk(transfer, snapshot, pull);
    else environment.after(at - now, () => void this.#sendChunk(transfer, snapshot, pull));
  }

  async #sendChunk(transfer: Transfer, snapshot: LogSnapshot, { file, position, length, checksum: has }: SnapshotPull): Promise<void> {
    const { replica, to } = transfer;
    try {
      const { bytes, checksum } = await snapshot.read(file, position, length);
      const envelope = envelopeOf(transfer);
      this.#send(transfer, { type: 'chunk', ...envelope, file, position, length, checksum, bytes: has === checksum ? undefined : bytes });
    } catch (error) {
      if (this.#transfers.get(keyOf(replica, to)) !== transfer) return;
      this.#options.log.warn('snapshot not readable', { group: formatGroupKey(replica.group), to, error: messageOf(error) });
      this.#end(transfer, undefined);
    }
  }

  #send(transfer: Transfer, message: SnapshotMessage): void {
    const broker = transfer.replica.brokerOf(transfer.to);
    if (broker !== undefined) this.#options.send(broker, message);
  }

  #end(transfer: Transfer, index: number | undefined): void {
    const { replica, to, snapshot } = transfer;
    const key = keyOf(replica, to);
    snapshot?.release();
    if (this.#transfers.get(key) === transfer) this.#transfers.delete(key);
    replica.snapshotDone(to, index);
    this.#startNext();
  }
}

function keyOf(replica: RaftReplica, to: ReplicaId): string {
  return `${replica.group}/${to}`;
}

function envelopeOf({ replica, to, id }: Transfer) {
  return { group: replica.group, from: replica.replicaId, to, id };
}

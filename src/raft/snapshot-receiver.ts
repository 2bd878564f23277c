/**
 * Snapshots on their way in: pulled chunk by chunk from whoever offers one, staged, verified, and put in the place of a log that lacks its last entry. What
 * was staged before a break, a restart or another leader is told by its checksum and does not come again.
 */
import type { Environment, Logger } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { type BrokerId, formatGroupKey, type GroupKey } from '../base/ids.ts';
import type { Staging, Storage } from '../storage/types.ts';
import type { RaftReplica } from './replica.ts';
import type { RaftHostSettings } from './settings.ts';
import type { ChunkName, SnapshotChunk, SnapshotGone, SnapshotMessage, SnapshotOffer } from './snapshot-codec.ts';

export interface SnapshotReceiverOptions {
  readonly storage: Pick<Storage, 'stageSnapshot' | 'discardStaged'>;
  readonly settings: RaftHostSettings;
  readonly environment: Pick<Environment, 'monotonicMs'>;
  readonly log: Logger;
  readonly host: SnapshotReceiverHost;
}

export interface SnapshotReceiverHost {
  send(to: BrokerId, message: SnapshotMessage): void;
  /** Puts the verified snapshot in the place of the replica's log. False: not now. Rejects when storage failed for good. */
  install(replica: RaftReplica, snapshot: { readonly lastIndex: number; readonly lastTerm: number }): Promise<boolean>;
}

interface Asked {
  readonly chunk: ChunkName;
  /** Of what is staged of it already. */
  checksum: number | undefined;
  askedMs: number;
  writing: boolean;
}

/** One snapshot that is coming. */
interface Arrival {
  readonly replica: RaftReplica;
  readonly from: BrokerId;
  readonly offer: SnapshotOffer;
  staging: Staging | undefined;
  /** The next chunk to ask for. */
  file: number;
  position: number;
  readonly asked: Map<string, Asked>;
  pumping: boolean;
  /** All has come: it is being verified and installed. */
  finishing: boolean;
  ended: boolean;
  idleMs: number;
}

export class SnapshotReceiver {
  readonly #options: SnapshotReceiverOptions;
  readonly #arrivals = new Map<GroupKey, Arrival>();

  constructor(options: SnapshotReceiverOptions) {
    this.#options = options;
  }

  received(replica: RaftReplica, from: BrokerId, message: SnapshotOffer | SnapshotChunk | SnapshotGone): void {
    if (message.to !== replica.replicaId) return;
    if (message.type === 'offer') {
      this.#offered(replica, from, message);
      return;
    }
    const arrival = this.#arrivals.get(replica.group);
    if (arrival?.offer.id !== message.id || arrival.from !== from || arrival.finishing) return;
    arrival.idleMs = 0;
    if (message.type === 'gone') void this.#end(arrival);
    else void this.#take(arrival, message);
  }

  advance(ms: number): void {
    const { settings, environment } = this.#options;
    const now = environment.monotonicMs();
    for (const arrival of [...this.#arrivals.values()]) {
      if (arrival.finishing) continue;
      arrival.idleMs += ms;
      if (arrival.replica.closed || arrival.idleMs >= settings.snapshotTimeoutMs) void this.#end(arrival);
      else
        for (const asked of arrival.asked.values())
          if (now - asked.askedMs >= settings.snapshotRetryMs && !asked.writing) this.#ask(arrival, asked);
    }
  }

  stop(): void {
    for (const arrival of [...this.#arrivals.values()]) void this.#end(arrival);
  }

  #offered(replica: RaftReplica, from: BrokerId, offer: SnapshotOffer): void {
    const { settings, host } = this.#options;
    const present = this.#arrivals.get(replica.group);
    // A retried offer; or another one, while this one still comes.
    if (present !== undefined && (present.finishing || present.offer.id === offer.id || present.idleMs < 2 * settings.snapshotRetryMs))
      return;
    if (replica.hasCommitted(offer.lastIndex, offer.lastTerm)) {
      host.send(from, { type: 'done', ...answer(offer), failed: false });
      return;
    }
    if (!replica.mayInstall(offer.lastTerm) || this.#arrivals.size >= settings.maxSnapshotTransfers) return;
    if (present !== undefined) void this.#end(present);
    const arrival: Arrival = {
      replica,
      from,
      offer,
      staging: undefined,
      file: 0,
      position: 0,
      asked: new Map(),
      pumping: false,
      finishing: false,
      ended: false,
      idleMs: 0,
    };
    this.#arrivals.set(replica.group, arrival);
    void this.#begin(arrival, present);
  }

  async #begin(arrival: Arrival, before: Arrival | undefined): Promise<void> {
    const { group } = arrival.replica;
    try {
      await before?.staging?.close();
      arrival.staging = await this.#options.storage.stageSnapshot(group, arrival.offer.files);
      this.#options.log.info('snapshot begun', { group: formatGroupKey(group), from: arrival.from, index: arrival.offer.lastIndex });
      await this.#pump(arrival);
    } catch (error) {
      await this.#failed(arrival, error);
    }
  }

  /** Keeps a window of chunks asked for. */
  async #pump(arrival: Arrival): Promise<void> {
    const { staging } = arrival;
    if (arrival.pumping || staging === undefined) return;
    arrival.pumping = true;
    try {
      while (!arrival.ended && arrival.asked.size < this.#options.settings.snapshotWindowChunks) {
        const chunk = this.#nextChunk(arrival);
        if (chunk === undefined) break;
        const asked: Asked = { chunk, checksum: undefined, askedMs: 0, writing: true };
        arrival.asked.set(nameOf(chunk), asked);
        asked.checksum = await staging.storedChecksum(chunk.file, chunk.position, chunk.length);
        if (arrival.ended) return;
        asked.writing = false;
        this.#ask(arrival, asked);
      }
    } finally {
      arrival.pumping = false;
    }
    if (!arrival.ended && !arrival.finishing && arrival.asked.size === 0) await this.#finish(arrival, staging);
  }

  #nextChunk(arrival: Arrival): ChunkName | undefined {
    const { file, position } = arrival;
    const source = arrival.offer.files[file];
    if (source === undefined) return undefined;
    const length = Math.min(this.#options.settings.snapshotChunkBytes, source.length - position);
    arrival.position += length;
    if (arrival.position === source.length) {
      arrival.file++;
      arrival.position = 0;
    }
    return { file, position, length };
  }

  #ask(arrival: Arrival, asked: Asked): void {
    asked.askedMs = this.#options.environment.monotonicMs();
    this.#options.host.send(arrival.from, { type: 'pull', ...answer(arrival.offer), ...asked.chunk, checksum: asked.checksum });
  }

  async #take(arrival: Arrival, { file, position, length, checksum, bytes }: SnapshotChunk): Promise<void> {
    const { staging } = arrival;
    const asked = arrival.asked.get(nameOf({ file, position, length }));
    if (staging === undefined || asked === undefined || asked.writing) return;
    if (bytes === undefined && asked.checksum !== checksum) return;
    asked.writing = true;
    try {
      if (bytes !== undefined && !(await staging.write(file, position, bytes, checksum))) {
        // Damaged on the way: it is asked for again.
        asked.writing = false;
        return;
      }
      if (arrival.ended) return;
      arrival.asked.delete(nameOf(asked.chunk));
      await this.#pump(arrival);
    } catch (error) {
      await this.#failed(arrival, error);
    }
  }

  async #finish(arrival: Arrival, staging: Staging): Promise<void> {
    arrival.finishing = true;
    const { replica, from, offer } = arrival;
    const { host, log, storage } = this.#options;
    const group = formatGroupKey(replica.group);
    let snapshot: { readonly lastIndex: number; readonly lastTerm: number };
    try {
      snapshot = await staging.verify();
    } catch (error) {
      // What is there can't be told from what is sound, so all of it goes.
      await storage.discardStaged(replica.group);
      throw error;
    }
    const installed = await host.install(replica, snapshot);
    await this.#end(arrival);
    if (installed) log.info('snapshot installed', { group, from, index: snapshot.lastIndex });
    if (installed) host.send(from, { type: 'done', ...answer(offer), failed: false });
  }

  async #failed(arrival: Arrival, error: unknown): Promise<void> {
    if (arrival.ended) return;
    const { host, log } = this.#options;
    log.warn('snapshot failed', { group: formatGroupKey(arrival.replica.group), from: arrival.from, error: messageOf(error) });
    host.send(arrival.from, { type: 'done', ...answer(arrival.offer), failed: true });
    await this.#end(arrival);
  }

  /** What was staged stays. */
  async #end(arrival: Arrival): Promise<void> {
    arrival.ended = true;
    if (this.#arrivals.get(arrival.replica.group) === arrival) this.#arrivals.delete(arrival.replica.group);
    await arrival.staging
      ?.close()
      .catch((error: unknown) => this.#options.log.warn('staged snapshot not closed', { error: messageOf(error) }));
  }
}

function nameOf({ file, position }: ChunkName): string {
  return `${file}/${position}`;
}

function answer({ group, from, to, id }: SnapshotOffer) {
  return { group, from: to, to: from, id };
}

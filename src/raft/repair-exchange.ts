/** The entries that replicas ask each other for, to put right what rotted: one request at a time, and an answer to whoever asks. */
import type { Environment, Logger } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { type BrokerId, formatGroupKey, type GroupKey, type ReplicaId } from '../base/ids.ts';
import type { Entry } from './core/entry.ts';
import type { Member } from './core/types.ts';
import { decodeRepairMessage, type EntriesAnswer, type EntriesRequest, encodeRepairMessage, type RepairMessage } from './repair-codec.ts';
import type { RaftReplica } from './replica.ts';
import type { PeerTransport } from './types.ts';

/** Bytes of entries in one answer. */
const ANSWER_BYTES = 1 << 20;
/** A peer that does not answer for so long is not waited for. */
const ANSWER_MS = 3_000;

export interface RepairExchangeOptions {
  readonly environment: Pick<Environment, 'uint32' | 'after'>;
  readonly transport: Pick<PeerTransport, 'send'>;
  readonly log: Logger;
  readonly replica: (group: GroupKey) => RaftReplica | undefined;
}

interface Asked {
  readonly id: number;
  readonly from: ReplicaId;
  readonly resolve: (answer: EntriesAnswer | undefined) => void;
}

export class RepairExchange {
  readonly #options: RepairExchangeOptions;
  #asked: Asked | undefined;
  #stopped = false;

  constructor(options: RepairExchangeOptions) {
    this.#options = options;
  }

  /** @throws INVALID_REQUEST, CORRUPT_MESSAGE when the frame is malformed. */
  frame(from: BrokerId, frame: Uint8Array): void {
    const message = decodeRepairMessage(frame);
    const replica = this.#options.replica(message.group);
    if (replica === undefined || replica.replicaId !== message.to || replica.brokerOf(message.from) !== from) return;
    if (message.type === 'want') void this.#serve(replica, from, message);
    else if (this.#asked?.id === message.id && this.#asked.from === message.from) this.#asked.resolve(message);
  }

  /** As many of the entries first..last, from the first on, as the peer gives at once. Undefined: no answer. */
  ask(replica: RaftReplica, peer: Pick<Member, 'replicaId' | 'brokerId'>, first: number, last: number): Promise<EntriesAnswer | undefined> {
    if (this.#stopped) return Promise.resolve(undefined);
    const { environment } = this.#options;
    const id = (environment.uint32() & 0xfffff) * 2 ** 32 + environment.uint32();
    const { group, replicaId: from } = replica;
    const { promise, resolve } = Promise.withResolvers<EntriesAnswer | undefined>();
    const timer = environment.after(ANSWER_MS, () => resolve(undefined));
    this.#asked = { id, from: peer.replicaId, resolve };
    if (!this.#send(peer.brokerId, { type: 'want', group, from, to: peer.replicaId, id, first, last })) resolve(undefined);
    return promise.finally(() => timer.cancel());
  }

  /** Nobody is asked any more, or waited for. */
  stop(): void {
    this.#stopped = true;
    this.#asked?.resolve(undefined);
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
}

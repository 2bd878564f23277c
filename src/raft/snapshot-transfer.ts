/** Snapshots between brokers, over the bulk lane: both ends of all that are on their way. */
import type { Environment, Logger } from '../base/environment.ts';
import type { BrokerId, GroupKey, ReplicaId } from '../base/ids.ts';
import type { Storage } from '../storage/types.ts';
import type { RaftReplica } from './replica.ts';
import type { RaftHostSettings } from './settings.ts';
import { decodeSnapshotMessage, encodeSnapshotMessage, type SnapshotMessage } from './snapshot-codec.ts';
import { SnapshotReceiver, type SnapshotReceiverHost } from './snapshot-receiver.ts';
import { SnapshotSender } from './snapshot-sender.ts';
import type { PeerTransport } from './types.ts';

export interface SnapshotTransferOptions {
  readonly environment: Environment;
  readonly storage: Storage;
  readonly transport: PeerTransport;
  readonly settings: RaftHostSettings;
  readonly log: Logger;
  readonly replica: (group: GroupKey) => RaftReplica | undefined;
  readonly install: SnapshotReceiverHost['install'];
  /** What this replica sent of its log could not be used. */
  readonly doubted: (replica: RaftReplica) => void;
}

export class SnapshotTransfer {
  readonly #options: SnapshotTransferOptions;
  readonly #sender: SnapshotSender;
  readonly #receiver: SnapshotReceiver;

  constructor(options: SnapshotTransferOptions) {
    const { environment, storage, transport, settings, log, install, doubted } = options;
    this.#options = options;
    const send = (to: BrokerId, message: SnapshotMessage): void => void transport.send(to, 'bulk', encodeSnapshotMessage(message));
    this.#sender = new SnapshotSender({ environment, settings, log, send, doubted });
    this.#receiver = new SnapshotReceiver({ storage, settings, environment, log, host: { send, install } });
  }

  /** A follower needs a snapshot. The replica's core hears what became of it. */
  wanted(replica: RaftReplica, to: ReplicaId): void {
    this.#sender.wanted(replica, to);
  }

  /** @throws INVALID_REQUEST when the frame is malformed. */
  frame(from: BrokerId, frame: Uint8Array): void {
    const message = decodeSnapshotMessage(frame);
    if (message.type === 'pull' || message.type === 'done') {
      this.#sender.received(from, message);
      return;
    }
    const replica = this.#options.replica(message.group);
    if (replica !== undefined && replica.brokerOf(message.from) === from) this.#receiver.received(replica, from, message);
  }

  /** Lets time pass: offers and pulls again what was lost, and gives up what takes too long. */
  advance(ms: number): void {
    this.#sender.advance(ms);
    this.#receiver.advance(ms);
  }

  stop(): void {
    this.#sender.stop();
    this.#receiver.stop();
  }
}

import { concat } from '../../../src/base/bytes.ts';
import { type Environment, randomBelow } from '../../../src/base/environment.ts';
import type { BrokerId } from '../../../src/base/ids.ts';
import type { Lane, Peer, PeerReceiver, PeerTransport } from '../../../src/raft/types.ts';

/** Frames in memory, in order, with a delay; brokers can be cut off from each other. */
export class FakeNetwork {
  readonly receivers = new Map<BrokerId, PeerReceiver>();
  readonly cut = new Set<string>();
  /** Of 1000 frames, so many are lost. */
  lostPerMille = 0;
  /** Each frame takes up to this long; those of a (peer, lane) keep their order. */
  maxDelayMs = 0.1;
  readonly #arrival = new Map<string, number>();
  /** True: this frame is lost. */
  lose: (from: BrokerId, to: BrokerId, lane: Lane, frame: Uint8Array) => boolean = () => false;
  /** Called for each frame that leaves: for assertions on what was sent when. */
  observe: (from: BrokerId, to: BrokerId, lane: Lane, frame: Uint8Array) => void = () => {};
  readonly #environment: Environment;

  constructor(environment: Environment) {
    this.#environment = environment;
  }

  transport(self: BrokerId): PeerTransport {
    let mine: PeerReceiver;
    return {
      start: (receiver) => {
        mine = receiver;
        this.receivers.set(self, receiver);
      },
      setPeers: (peers: readonly Peer[]) => {
        for (const { brokerId } of peers) for (const lane of ['raft', 'heartbeat', 'bulk'] as const) mine.connected(brokerId, lane);
      },
      send: (to, lane, parts) => {
        const frame = concat(parts);
        if (this.receivers.get(self) !== mine || this.cut.has(`${self}>${to}`)) return false;
        this.observe(self, to, lane, frame);
        if (this.lose(self, to, lane, frame)) return true;
        if (randomBelow(this.#environment, 1000) < this.lostPerMille) return true;
        this.#environment.after(this.#delay(`${self}>${to} ${lane}`), () => {
          if (!this.cut.has(`${self}>${to}`)) this.receivers.get(to)?.frame(self, lane, frame);
        });
        return true;
      },
      close: async () => {
        if (this.receivers.get(self) === mine) this.down(self);
      },
    };
  }

  #delay(stream: string): number {
    const now = this.#environment.monotonicMs();
    const drawn = this.maxDelayMs <= 0.1 ? this.maxDelayMs : 0.1 + randomBelow(this.#environment, this.maxDelayMs * 10) / 10;
    const at = Math.max(now + drawn, this.#arrival.get(stream) ?? 0);
    this.#arrival.set(stream, at);
    return at - now;
  }

  /** The process is gone: the others' connections break. */
  down(broker: BrokerId): void {
    this.receivers.delete(broker);
    for (const receiver of this.receivers.values()) {
      receiver.disconnected(broker, 'raft');
      receiver.disconnected(broker, 'heartbeat');
      receiver.disconnected(broker, 'bulk');
    }
  }

  /** Frames vanish both ways; no connection breaks. */
  isolate(broker: BrokerId, others: Iterable<BrokerId>): void {
    for (const other of others) {
      this.cut.add(`${broker}>${other}`);
      this.cut.add(`${other}>${broker}`);
    }
  }

  heal(): void {
    this.cut.clear();
  }
}

/** A turn's messages to peers, so that what one turn says to one broker leaves in one frame. */
import type { BrokerId, GroupKey } from '../base/ids.ts';
import { encodeFrames, type GroupMessage } from './codec.ts';
import type { Message } from './core/types.ts';
import type { Heartbeats } from './heartbeats.ts';
import type { PeerTransport } from './types.ts';

export class Outbox {
  readonly #transport: PeerTransport;
  readonly #heartbeats: Heartbeats;
  readonly #byPeer = new Map<BrokerId, GroupMessage[]>();

  constructor(transport: PeerTransport, heartbeats: Heartbeats) {
    this.#transport = transport;
    this.#heartbeats = heartbeats;
  }

  /**
   * Heartbeats wait for the next frame of the heartbeat lane, but those of a ReadIndex round stay on the raft lane: the
   * follower must answer after all that was sent to it before (hazard B19), and the reader is waiting.
   */
  add(to: BrokerId, group: GroupKey, message: Message): void {
    if ((message.type === 'heartbeat' || message.type === 'heartbeatResponse') && message.readContext === 0) {
      this.#heartbeats.queue(to, group, message);
      return;
    }
    const messages = this.#byPeer.get(to);
    if (messages === undefined) this.#byPeer.set(to, [{ group, message }]);
    else messages.push({ group, message });
  }

  /** Hands all to the transport. A frame that it does not take is lost, as on any network: Raft sends again. */
  flush(): void {
    for (const [broker, messages] of this.#byPeer) {
      if (messages.length === 0) continue;
      for (const frame of encodeFrames(messages)) this.#transport.send(broker, 'raft', frame);
      this.#byPeer.set(broker, []);
    }
  }
}

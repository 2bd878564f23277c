/**
 * Heartbeats between brokers: one frame a peer and interval, on a lane of its own, with the heartbeats of all groups that the two
 * share. It is the cluster's one signal of liveness (hazard B17), so it goes out as long as the loop runs, whatever else waits.
 *
 * Time here is the time that this process was running: a pause of our own (SIGSTOP, a suspended machine) must not make every peer look dead.
 */
import type { BrokerId, GroupKey } from '../base/ids.ts';
import type { GroupMessage } from './codec.ts';
import type { HeartbeatRequest, HeartbeatResponse } from './core/types.ts';
import { encodeHeartbeat, type NodeHeartbeat } from './heartbeat-codec.ts';
import type { Digest } from './quiescence.ts';
import type { Lane, Peer, PeerTransport } from './types.ts';

export interface HeartbeatOptions {
  readonly transport: PeerTransport;
  readonly incarnation: number;
  readonly timeoutMs: number;
  /** The peer's process is gone, was replaced, or is out of reach: nothing that it led is led any more. */
  readonly peerDown: (broker: BrokerId) => void;
  /** A lane to the peer has opened, or, `returned`, its heartbeats come (again). */
  readonly peerUp: (broker: BrokerId, returned: boolean) => void;
  /** The groups that this broker leads and holds at rest with the peer. */
  readonly quiescedWith: (broker: BrokerId) => Digest;
}

interface PeerState {
  /** Running time of its last heartbeat. */
  heardAt: number;
  alive: boolean;
  diskFresh: boolean;
  loopFresh: boolean;
  hasRoom: boolean;
  /** The next heartbeat asks it to wake the groups that it leads at rest with this broker. */
  wake: boolean;
  /** Undefined: never heard. */
  incarnation: number | undefined;
  lastSeq: number;
  nextSeq: number;
  readonly lanes: Set<Lane>;
  /** What the next heartbeat carries: the newest of each group, so bounded by the number of groups. */
  readonly requests: Map<GroupKey, GroupMessage>;
  readonly responses: Map<GroupKey, GroupMessage>;
}

export class Heartbeats {
  readonly #options: HeartbeatOptions;
  readonly #peers = new Map<BrokerId, PeerState>();
  #runningMs = 0;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
  }

  setPeers(peers: readonly Peer[]): void {
    const wanted = new Set(peers.map((peer) => peer.brokerId));
    for (const broker of this.#peers.keys()) if (!wanted.has(broker)) this.#peers.delete(broker);
    for (const broker of wanted) if (!this.#peers.has(broker)) this.#peers.set(broker, newPeer());
  }

  /** True while the peer's heartbeats arrive. */
  isAlive(broker: BrokerId): boolean {
    return this.#peers.get(broker)?.alive ?? false;
  }

  /** True when the peer is alive and said in its last heartbeat that its disk keeps up. */
  isDiskFresh(broker: BrokerId): boolean {
    const peer = this.#peers.get(broker);
    return peer?.alive === true && peer.diskFresh;
  }

  /** True when the peer is alive and said in its last heartbeat that its disk and its event loop keep up, and that there is room for records. */
  mayLead(broker: BrokerId): boolean {
    const peer = this.#peers.get(broker);
    return peer?.alive === true && peer.diskFresh && peer.loopFresh && peer.hasRoom;
  }

  /** True when a peer is alive and its disk does not keep up. */
  get someDiskStalls(): boolean {
    for (const { alive, diskFresh } of this.#peers.values()) if (alive && !diskFresh) return true;
    return false;
  }

  /** Puts a group's heartbeat or response into the next frame to its broker, in place of an older one of that group. */
  queue(to: BrokerId, group: GroupKey, message: HeartbeatRequest | HeartbeatResponse): void {
    const peer = this.#peers.get(to);
    if (peer === undefined) return;
    (message.type === 'heartbeat' ? peer.requests : peer.responses).set(group, { group, message });
  }

  /** Has the next heartbeat ask the peer to wake the groups that it leads at rest with this broker. */
  askToWake(broker: BrokerId): void {
    const peer = this.#peers.get(broker);
    if (peer !== undefined) peer.wake = true;
  }

  /** Sends a heartbeat to every peer, with how this broker's disk and event loop are. */
  beat(own: Pick<NodeHeartbeat, 'diskFresh' | 'loopFresh' | 'hasRoom'>): void {
    const { incarnation, quiescedWith } = this.#options;
    for (const [broker, peer] of this.#peers) {
      const messages = [...peer.requests.values(), ...peer.responses.values()];
      peer.requests.clear();
      peer.responses.clear();
      const { wake } = peer;
      peer.wake = false;
      const frame = encodeHeartbeat({ incarnation, seq: peer.nextSeq++, ...own, wake, quiesced: quiescedWith(broker), messages });
      this.#options.transport.send(broker, 'heartbeat', [frame]);
    }
  }

  /** Lets `ms` of running time pass and declares down who was not heard for too long. */
  advance(ms: number): void {
    this.#runningMs += ms;
    for (const [broker, peer] of this.#peers) {
      if (peer.alive && this.#runningMs - peer.heardAt > this.#options.timeoutMs) this.#down(broker, peer);
    }
  }

  /** Takes a peer's heartbeat; false when it is an old one, or of a broker that is no peer. Its messages are the caller's to step. */
  received(from: BrokerId, heartbeat: NodeHeartbeat): boolean {
    const peer = this.#peers.get(from);
    if (peer === undefined) return false;
    if (peer.incarnation !== heartbeat.incarnation) {
      const known = peer.incarnation !== undefined;
      peer.incarnation = heartbeat.incarnation;
      peer.lastSeq = 0;
      if (known) this.#down(from, peer);
    }
    if (heartbeat.seq <= peer.lastSeq) return false;
    peer.lastSeq = heartbeat.seq;
    peer.heardAt = this.#runningMs;
    peer.diskFresh = heartbeat.diskFresh;
    peer.loopFresh = heartbeat.loopFresh;
    peer.hasRoom = heartbeat.hasRoom;
    if (!peer.alive) {
      peer.alive = true;
      this.#options.peerUp(from, true);
    }
    return true;
  }

  connected(broker: BrokerId, lane: Lane): void {
    const peer = this.#peers.get(broker);
    if (peer === undefined) return;
    peer.lanes.add(lane);
    this.#options.peerUp(broker, false);
  }

  /** A peer without either lane is down: its process has gone, or the way to it has. */
  disconnected(broker: BrokerId, lane: Lane): void {
    const peer = this.#peers.get(broker);
    if (peer === undefined) return;
    peer.lanes.delete(lane);
    if (peer.lanes.size === 0) this.#down(broker, peer);
  }

  #down(broker: BrokerId, peer: PeerState): void {
    peer.alive = false;
    peer.requests.clear();
    peer.responses.clear();
    this.#options.peerDown(broker);
  }
}

function newPeer(): PeerState {
  return {
    heardAt: 0,
    alive: false,
    diskFresh: false,
    loopFresh: false,
    hasRoom: false,
    wake: false,
    incarnation: undefined,
    lastSeq: 0,
    nextSeq: 1,
    lanes: new Set(),
    requests: new Map(),
    responses: new Map(),
  };
}

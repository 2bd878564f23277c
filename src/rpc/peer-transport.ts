import { create, type MessageShape } from '@bufbuild/protobuf';
import { must } from '../base/assert.ts';
import type { Environment, Logger } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import type { BrokerId } from '../base/ids.ts';
import { PeerFrameSchema, Raft } from '../gen/flotilla/v1/raft_pb.ts';
import type { Lane, Peer, PeerIdentity, PeerReceiver, PeerTransport } from '../raft/types.ts';
import { checkCaller, encodeAccept, peerHeaders } from './peer-identity.ts';
import { PeerLane } from './peer-lane.ts';
import { type CallContext, type Connect, type RpcStream, type StreamHandler, type StreamReceiver, streamHandler } from './types.ts';

type Frame = MessageShape<typeof PeerFrameSchema>;

export interface RpcPeerTransportOptions {
  readonly identity: PeerIdentity;
  /** Called once for each lane of each peer; channels must not share a connection, so that heartbeats don't wait behind appends. */
  readonly connect: Connect;
  readonly environment: Environment;
  readonly log: Logger;
}

/** Refusals remembered so that each is logged once; beyond, they are forgotten and logged again. */
const MAX_LOGGED_REFUSALS = 256;

const LANES: readonly Lane[] = ['raft', 'heartbeat', 'bulk'];

interface Lanes extends Readonly<Record<Lane, PeerLane>> {
  readonly peer: Peer;
}

interface Incoming {
  readonly responder: RpcStream<Frame>;
}

/**
 * Frames between brokers over streams: each side opens its own stream to the other, for each lane. `connected` and `disconnected` tell of
 * our own stream, once the peer has accepted it; when the peer's stream to us breaks, ours is taken for broken too, so that a killed peer is
 * noticed as fast as the system tells of any of its connections. The parts of a frame must not change once it was sent.
 */
export class RpcPeerTransport implements PeerTransport {
  private readonly options: RpcPeerTransportOptions;
  private readonly peers = new Map<BrokerId, Lanes>();
  private readonly incoming: Readonly<Record<Lane, Map<BrokerId, Incoming>>> = {
    raft: new Map(),
    heartbeat: new Map(),
    bulk: new Map(),
  };
  private readonly loggedRefusals = new Set<string>();
  private receiver: PeerReceiver | undefined;
  private isClosed = false;

  constructor(options: RpcPeerTransportOptions) {
    this.options = options;
  }

  /** What the broker serves for its peers. */
  handlers(): [string, StreamHandler][] {
    return [
      streamHandler(Raft.method.exchange, (responder, context) => this.accept('raft', responder, context)),
      streamHandler(Raft.method.heartbeats, (responder, context) => this.accept('heartbeat', responder, context)),
      streamHandler(Raft.method.bulk, (responder, context) => this.accept('bulk', responder, context)),
    ];
  }

  start(receiver: PeerReceiver): void {
    this.receiver = receiver;
  }

  setPeers(peers: readonly Peer[]): void {
    if (this.isClosed) return;
    const wanted = new Map(peers.map((peer) => [peer.brokerId, peer]));
    wanted.delete(this.options.identity.brokerId);
    for (const [brokerId, lanes] of this.peers) {
      const peer = wanted.get(brokerId);
      if (peer !== undefined && peer.address === lanes.peer.address && peer.directoryId === lanes.peer.directoryId) wanted.delete(brokerId);
      else {
        this.peers.delete(brokerId);
        for (const lane of LANES) lanes[lane].close();
      }
    }
    for (const [brokerId, peer] of wanted) {
      const lanes = { peer, raft: this.lane(peer, 'raft'), heartbeat: this.lane(peer, 'heartbeat'), bulk: this.lane(peer, 'bulk') };
      this.peers.set(brokerId, lanes);
      for (const lane of LANES) lanes[lane].open();
    }
  }

  send(to: BrokerId, lane: Lane, frame: readonly Uint8Array[]): boolean {
    return this.peers.get(to)?.[lane].send(frame) ?? false;
  }

  async close(): Promise<void> {
    if (this.isClosed) return;
    this.setPeers([]);
    this.isClosed = true;
    for (const streams of Object.values(this.incoming)) {
      for (const { responder } of streams.values()) responder.end();
      streams.clear();
    }
  }

  private get started(): PeerReceiver {
    return must(this.receiver, 'the transport was started');
  }

  private lane(peer: Peer, lane: Lane): PeerLane {
    const { identity, connect, environment, log } = this.options;
    return new PeerLane({
      peer,
      lane,
      channel: connect(peer.address),
      headers: peerHeaders(identity, peer),
      environment,
      log,
      changed: (connected) => {
        if (connected) this.started.connected(peer.brokerId, lane);
        else this.started.disconnected(peer.brokerId, lane);
      },
    });
  }

  private accept(lane: Lane, responder: RpcStream<Frame>, context: CallContext): StreamReceiver<Frame> {
    const caller = this.check(context);
    const { brokerId } = caller;
    const streams = this.incoming[lane];
    const incoming: Incoming = { responder };
    // The peer opened another before the end of its last one came through.
    streams.get(brokerId)?.responder.end();
    streams.set(brokerId, incoming);
    responder.send(create(PeerFrameSchema, { payload: encodeAccept(this.options.identity.incarnation) }));
    const outgoing = this.peers.get(brokerId)?.[lane];
    if (outgoing?.isConnected && outgoing.peerIncarnation !== caller.incarnation) {
      outgoing.drop(new FlotillaError('NETWORK_EXCEPTION', `Broker ${brokerId} was restarted.`));
    }
    outgoing?.hurry();
    return {
      message: (frame) => {
        if (streams.get(brokerId) === incoming) this.started.frame(brokerId, lane, frame.payload);
      },
      closed: (error) => {
        responder.end();
        if (streams.get(brokerId) !== incoming) return;
        streams.delete(brokerId);
        // Ended cleanly, the peer started over on its side: that says nothing of our stream.
        if (error !== undefined) this.peers.get(brokerId)?.[lane].drop(error);
      },
      drained() {},
    };
  }

  private check(context: CallContext): PeerIdentity {
    if (this.isClosed || this.receiver === undefined)
      throw new FlotillaError('BROKER_NOT_AVAILABLE', 'This broker is starting or stopping.');
    try {
      return checkCaller(context.headers, this.options.identity, (broker) => this.peers.get(broker)?.peer);
    } catch (error) {
      this.logRefusal(context, error);
      throw error;
    }
  }

  private logRefusal(context: CallContext, error: unknown): void {
    const refusal = `${context.headers['flotilla-broker-id']} ${messageOf(error)}`;
    if (this.loggedRefusals.has(refusal)) return;
    if (this.loggedRefusals.size >= MAX_LOGGED_REFUSALS) this.loggedRefusals.clear();
    this.loggedRefusals.add(refusal);
    this.options.log.warn('peer-not-accepted', { peer: context.peer, error: messageOf(error) });
  }
}

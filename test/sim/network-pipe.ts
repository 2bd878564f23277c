import type { Link, Served, SimNetwork } from './network.ts';
import type { VirtualEnvironment } from './virtual-environment.ts';

/** Bytes that a stream takes before `send` asks to wait. */
const STREAM_BUFFER_BYTES = 4 << 20;
/** Until gRPC's keepalive gives a silent connection up: see src/rpc/grpc-channel.ts. */
const KEEPALIVE_MS = 8_000;

export type Direction = 'up' | 'down';

interface Parcel {
  readonly bytes: number;
  readonly deliver: () => void;
}

/** One way of a connection: what was sent and has not arrived. */
class Lane {
  readonly link: Link;
  readonly receiver: VirtualEnvironment;
  queue: Parcel[] = [];
  moving = false;
  buffered = 0;
  onDrain: () => void = () => {};

  constructor(link: Link, receiver: VirtualEnvironment) {
    this.link = link;
    this.receiver = receiver;
  }
}

/** One connection carrying one call: in order, or broken. */
export class Pipe {
  readonly network: SimNetwork;
  readonly clientHost: string;
  readonly clientEnvironment: VirtualEnvironment;
  readonly served: Served;
  readonly abort = new AbortController();
  readonly lanes: Readonly<Record<Direction, Lane>>;
  onBreak: (reason: string) => void = () => {};
  /** Something waits for a direction that is blocked. */
  stalled = false;
  #open = true;
  #silenced = false;
  #watched = false;

  constructor(network: SimNetwork, clientHost: string, clientEnvironment: VirtualEnvironment, served: Served) {
    this.network = network;
    this.clientHost = clientHost;
    this.clientEnvironment = clientEnvironment;
    this.served = served;
    this.lanes = {
      up: new Lane(network.link(clientHost, served.host), served.environment),
      down: new Lane(network.link(served.host, clientHost), clientEnvironment),
    };
  }

  get serverHost(): string {
    return this.served.host;
  }

  get serverEnvironment(): VirtualEnvironment {
    return this.served.environment;
  }

  get open(): boolean {
    return this.#open;
  }

  /** Half-open: both ends take it for whole, and nothing arrives any more. */
  silence(): void {
    this.#silenced = true;
    this.#watch();
  }

  /** An end learns that the connection broke: soon, or, where nothing gets through, by its keepalive. */
  tell(direction: Direction, task: () => void): void {
    const { link, receiver } = this.lanes[direction];
    const { time } = this.network;
    time.schedule(this.#silenced || link.isBlocked ? KEEPALIVE_MS : link.delayMs(time.nowMs, 0), task, receiver);
  }

  /** Whether the connection is one between the two hosts. */
  joins(a: string, b: string): boolean {
    return (this.clientHost === a && this.serverHost === b) || (this.clientHost === b && this.serverHost === a);
  }

  /** False: more than `STREAM_BUFFER_BYTES` wait; `onDrain` follows. */
  push(direction: Direction, bytes: number, deliver: () => void): boolean {
    if (!this.#open) return false;
    const lane = this.lanes[direction];
    this.network.messages++;
    lane.buffered += bytes;
    lane.queue.push({ bytes, deliver });
    this.#move(lane);
    return lane.buffered < STREAM_BUFFER_BYTES;
  }

  resume(): void {
    this.stalled = false;
    this.#move(this.lanes.up);
    this.#move(this.lanes.down);
  }

  #move(lane: Lane): void {
    if (lane.moving || !this.#open || lane.queue.length === 0 || this.#silenced) return;
    if (lane.link.isBlocked) {
      lane.link.swallowed();
      this.stalled = true;
      this.#watch();
      return;
    }
    lane.moving = true;
    // All that waits travels together, as a socket's buffer does.
    const parcels = lane.queue;
    lane.queue = [];
    let bytes = 0;
    for (const parcel of parcels) bytes += parcel.bytes;
    const { time } = this.network;
    time.schedule(
      lane.link.delayMs(time.nowMs, bytes),
      () => {
        lane.moving = false;
        // What was under way when the connection fell silent is lost with it.
        if (this.#silenced) return;
        for (const parcel of parcels) {
          if (!this.#open || lane.receiver.killed) return;
          const full = lane.buffered >= STREAM_BUFFER_BYTES;
          lane.buffered -= parcel.bytes;
          parcel.deliver();
          if (full && lane.buffered < STREAM_BUFFER_BYTES) lane.onDrain();
        }
        this.#move(lane);
      },
      lane.receiver,
    );
  }

  #watch(): void {
    if (this.#watched) return;
    this.#watched = true;
    this.network.time.schedule(KEEPALIVE_MS, () => {
      this.#watched = false;
      const { up, down } = this.lanes;
      if (this.#silenced || up.link.isBlocked || down.link.isBlocked) this.break('no answer to the keepalive');
    });
  }

  break(reason: string): void {
    if (!this.#open) return;
    this.close();
    this.onBreak(reason);
  }

  close(): void {
    this.#open = false;
    this.network.closed(this);
  }
}

import { FlotillaError } from '../../src/base/errors.ts';
import type { Connect, RpcService } from '../../src/rpc/types.ts';
import { SimChannel } from './network-call.ts';
import { Pipe } from './network-pipe.ts';
import type { SeededRandom } from './random.ts';
import type { VirtualEnvironment, VirtualTime } from './virtual-environment.ts';

export interface Served {
  readonly host: string;
  readonly listener: string;
  readonly environment: VirtualEnvironment;
  readonly service: RpcService;
}

/** What a fault does to a direction. */
export interface LinkFault {
  readonly blocked?: boolean;
  readonly extraMs?: () => number;
  /** Bytes that pass in a millisecond, over all connections. */
  readonly bytesPerMs?: number;
  /** Called for each delivery that it holds up. */
  readonly bite?: () => void;
}

/** How the network is at its best. What TCP makes of a lost packet is a delay, so that is what loss is here. */
export interface NetworkShape {
  readonly minDelayMs: number;
  readonly maxDelayMs: number;
  /** The part of deliveries that lose a packet and wait for its retransmission. */
  readonly loss: number;
}

/** TCP sends a lost packet again after so long, and doubles that each time. */
const RETRANSMISSION_MS = 200;
/** What a narrow link holds up, at most: what is under way when the link is healed is not late for long. */
const MAX_BACKLOG_MS = 1_000;

/** One direction between two hosts. */
export class Link {
  readonly #network: SimNetwork;
  readonly #from: string;
  readonly #to: string;
  readonly #faults = new Set<LinkFault>();
  #freeAtMs = 0;

  constructor(network: SimNetwork, from: string, to: string) {
    this.#network = network;
    this.#from = from;
    this.#to = to;
  }

  get isBlocked(): boolean {
    const { isolated } = this.#network;
    if (isolated.size > 0 && (isolated.has(this.#from) || isolated.has(this.#to))) return true;
    if (this.#faults.size > 0) for (const { blocked } of this.#faults) if (blocked === true) return true;
    return false;
  }

  impose(fault: LinkFault): void {
    this.#faults.add(fault);
  }

  lift(fault: LinkFault): void {
    this.#faults.delete(fault);
  }

  liftAll(): void {
    this.#faults.clear();
    this.#freeAtMs = 0;
  }

  swallowed(): void {
    for (const { blocked, bite } of this.#faults) if (blocked === true) bite?.();
  }

  /** How long so many bytes take from now on. */
  delayMs(nowMs: number, bytes: number): number {
    const { random, shape } = this.#network;
    let delay = random.between(shape.minDelayMs, shape.maxDelayMs);
    for (let again = RETRANSMISSION_MS; shape.loss > 0 && random.chance(shape.loss); again *= 2) delay += again;
    for (const { extraMs, bytesPerMs, bite } of this.#faults) {
      if (extraMs !== undefined) delay += extraMs();
      if (bytesPerMs !== undefined) {
        this.#freeAtMs = Math.min(Math.max(this.#freeAtMs, nowMs) + bytes / bytesPerMs, nowMs + MAX_BACKLOG_MS);
        delay += this.#freeAtMs - nowMs;
      }
      bite?.();
    }
    return delay;
  }
}

/**
 * A network in memory with TCP's manners: what one connection carries arrives in order, or the connection breaks. A blocked
 * direction swallows silently (a half-open connection): what was sent waits, and arrives when the direction is opened again, unless the
 * connection was broken meanwhile. Messages are encoded and decoded, so no object is shared between two processes.
 */
export class SimNetwork {
  readonly time: VirtualTime;
  readonly random: SeededRandom;
  shape: NetworkShape = { minDelayMs: 0.05, maxDelayMs: 0.5, loss: 0 };
  messages = 0;
  /** Hosts that nothing reaches and that reach nothing, whoever may come yet. */
  readonly isolated = new Set<string>();
  /** Told of each message as it arrives, for a trace. */
  onMessage: ((from: string, to: string, method: string, message: object) => void) | undefined;
  #served = new Map<string, Served>();
  readonly #links = new Map<string, Map<string, Link>>();
  #pipes = new Set<Pipe>();

  constructor(time: VirtualTime, random: SeededRandom) {
    this.time = time;
    this.random = random;
  }

  /** Listens like serveGrpc does. */
  serve(
    host: string,
    environment: VirtualEnvironment,
    options: { listeners: readonly { name: string; host: string; port: number }[]; service: RpcService },
  ): { addresses: ReadonlyMap<string, string>; close(deadlineMs: number): Promise<void> } {
    const addresses = new Map<string, string>();
    for (const listener of options.listeners) {
      const address = `${listener.host}:${listener.port}`;
      if (this.#served.has(address)) throw new FlotillaError('LISTENER', `${address} is in use`);
      this.#served.set(address, { host, listener: listener.name, environment, service: options.service });
      addresses.set(listener.name, address);
    }
    return {
      addresses,
      close: async () => {
        for (const address of addresses.values()) if (this.#served.get(address)?.environment === environment) this.#served.delete(address);
        for (const pipe of [...this.#pipes]) if (pipe.serverEnvironment === environment) pipe.break('the server closed');
      },
    };
  }

  /** A process died: its sockets are reset. */
  kill(environment: VirtualEnvironment): void {
    for (const [address, served] of this.#served) if (served.environment === environment) this.#served.delete(address);
    for (const pipe of [...this.#pipes]) {
      if (pipe.clientEnvironment === environment || pipe.serverEnvironment === environment) pipe.break('connection reset');
    }
  }

  link(from: string, to: string): Link {
    let links = this.#links.get(from);
    if (links === undefined) {
      links = new Map();
      this.#links.set(from, links);
    }
    let link = links.get(to);
    if (link === undefined) {
      link = new Link(this, from, to);
      links.set(to, link);
    }
    return link;
  }

  /** Imposes a fault on directions, until the function that this returns is called. */
  impose(directions: readonly (readonly [from: string, to: string])[], fault: LinkFault): () => void {
    for (const [from, to] of directions) this.link(from, to).impose(fault);
    return () => {
      for (const [from, to] of directions) this.link(from, to).lift(fault);
      this.#resume();
    };
  }

  isolate(host: string): () => void {
    this.isolated.add(host);
    return () => {
      this.isolated.delete(host);
      this.#resume();
    };
  }

  block(from: string, to: string): void {
    this.link(from, to).impose({ blocked: true });
  }

  slow(from: string, to: string, extraMs: number): void {
    this.link(from, to).impose({ extraMs: () => extraMs });
  }

  /** Opens all directions; connections that had waiting data deliver it, or break by chance. */
  heal(): void {
    this.isolated.clear();
    for (const links of this.#links.values()) for (const link of links.values()) link.liftAll();
    this.#resume();
  }

  /** Breaks the connections between two hosts; says how many there were. */
  reset(a: string, b: string): number {
    const broken = [...this.#pipes].filter((pipe) => pipe.joins(a, b));
    for (const pipe of broken) pipe.break('connection reset');
    return broken.length;
  }

  /** The connections between two hosts go silent for ever; new ones work. Says how many there were. */
  silence(a: string, b: string): number {
    const silenced = [...this.#pipes].filter((pipe) => pipe.joins(a, b));
    for (const pipe of silenced) pipe.silence();
    return silenced.length;
  }

  /** Bytes on their way from one host to another, over all connections. */
  bufferedBytes(from: string, to: string): number {
    let bytes = 0;
    for (const { clientHost, serverHost, lanes } of this.#pipes) {
      if (clientHost === from && serverHost === to) bytes += lanes.up.buffered;
      else if (serverHost === from && clientHost === to) bytes += lanes.down.buffered;
    }
    return bytes;
  }

  delayMs(from: string, to: string): number {
    return this.link(from, to).delayMs(this.time.nowMs, 0);
  }

  /** The RPC client of a process. */
  connectFrom(host: string, environment: VirtualEnvironment): Connect {
    return (address) => new SimChannel(this, host, environment, address);
  }

  open(clientHost: string, clientEnvironment: VirtualEnvironment, address: string): Pipe | undefined {
    const served = this.#served.get(address);
    if (served === undefined) return undefined;
    const pipe = new Pipe(this, clientHost, clientEnvironment, served);
    this.#pipes.add(pipe);
    return pipe;
  }

  closed(pipe: Pipe): void {
    this.#pipes.delete(pipe);
  }

  #resume(): void {
    for (const pipe of [...this.#pipes]) {
      const blocked = pipe.lanes.up.link.isBlocked || pipe.lanes.down.link.isBlocked;
      if (pipe.stalled && !blocked && this.random.chance(0.5)) pipe.break('connection reset after the partition');
      else pipe.resume();
    }
  }
}

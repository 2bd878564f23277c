import { create, type DescMethod, fromBinary, type Message, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { FlotillaError } from '../../src/base/errors.ts';
import {
  type CallContext,
  type CallOptions,
  type Connect,
  methodKey,
  type RpcChannel,
  type RpcService,
  type RpcStream,
  type StreamOptions,
  type StreamReceiver,
} from '../../src/rpc/types.ts';
import type { SeededRandom } from './random.ts';
import type { VirtualEnvironment, VirtualTime } from './virtual-environment.ts';

/** Bytes that a stream takes before `send` asks to wait. */
const STREAM_BUFFER_BYTES = 4 << 20;

interface Served {
  readonly host: string;
  readonly listener: string;
  readonly environment: VirtualEnvironment;
  readonly service: RpcService;
}

/**
 * A network in memory with TCP's manners: what one connection carries arrives in order, or the connection breaks. A blocked
 * direction swallows silently (a half-open connection): what was sent waits, and arrives when the direction is opened again, unless the
 * connection was broken meanwhile. Messages are encoded and decoded, so no object is shared between two processes.
 */
export class SimNetwork {
  readonly time: VirtualTime;
  readonly random: SeededRandom;
  minDelayMs = 0.05;
  maxDelayMs = 0.5;
  messages = 0;
  #served = new Map<string, Served>();
  #blocked = new Set<string>();
  #slow = new Map<string, number>();
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

  block(from: string, to: string): void {
    this.#blocked.add(`${from}>${to}`);
  }

  slow(from: string, to: string, extraMs: number): void {
    this.#slow.set(`${from}>${to}`, extraMs);
  }

  /** Opens all directions; connections that had waiting data deliver it, or break by chance. */
  heal(): void {
    this.#blocked.clear();
    this.#slow.clear();
    for (const pipe of [...this.#pipes]) {
      if (pipe.stalled && this.random.chance(0.5)) pipe.break('connection reset after the partition');
      else pipe.resume();
    }
  }

  /** Breaks the connections between two hosts. */
  reset(a: string, b: string): void {
    for (const pipe of [...this.#pipes]) {
      if ((pipe.clientHost === a && pipe.serverHost === b) || (pipe.clientHost === b && pipe.serverHost === a))
        pipe.break('connection reset');
    }
  }

  /** Bytes on their way from one host to another, over all connections. */
  bufferedBytes(from: string, to: string): number {
    let bytes = 0;
    for (const { clientHost, serverHost, buffered } of this.#pipes) {
      if (clientHost === from && serverHost === to) bytes += buffered.up;
      else if (serverHost === from && clientHost === to) bytes += buffered.down;
    }
    return bytes;
  }

  isBlocked(from: string, to: string): boolean {
    return this.#blocked.has(`${from}>${to}`);
  }

  delay(from: string, to: string): number {
    return this.random.between(this.minDelayMs, this.maxDelayMs) + (this.#slow.get(`${from}>${to}`) ?? 0);
  }

  /** The RPC client of a process. */
  connectFrom(host: string, environment: VirtualEnvironment): Connect {
    return (address) => new SimChannel(this, host, environment, address);
  }

  open(clientHost: string, clientEnvironment: VirtualEnvironment, address: string): Pipe | undefined {
    const served = this.#served.get(address);
    if (served === undefined) return undefined;
    const pipe = new Pipe(this, clientHost, clientEnvironment, served.host, served.environment, served);
    this.#pipes.add(pipe);
    return pipe;
  }

  closed(pipe: Pipe): void {
    this.#pipes.delete(pipe);
  }
}

type Direction = 'up' | 'down';

interface Parcel {
  readonly bytes: number;
  readonly deliver: () => void;
}

/** One connection carrying one call. */
class Pipe {
  readonly network: SimNetwork;
  readonly clientHost: string;
  readonly clientEnvironment: VirtualEnvironment;
  readonly serverHost: string;
  readonly serverEnvironment: VirtualEnvironment;
  readonly served: Served;
  readonly abort = new AbortController();
  onBreak: (reason: string) => void = () => {};
  #open = true;
  #queues = { up: [] as Parcel[], down: [] as Parcel[] };
  #moving = { up: false, down: false };
  buffered = { up: 0, down: 0 };
  stalled = false;
  onDrain: { up: () => void; down: () => void } = { up: () => {}, down: () => {} };

  constructor(
    network: SimNetwork,
    clientHost: string,
    clientEnvironment: VirtualEnvironment,
    serverHost: string,
    serverEnvironment: VirtualEnvironment,
    served: Served,
  ) {
    this.network = network;
    this.clientHost = clientHost;
    this.clientEnvironment = clientEnvironment;
    this.serverHost = serverHost;
    this.serverEnvironment = serverEnvironment;
    this.served = served;
  }

  get open(): boolean {
    return this.#open;
  }

  push(direction: Direction, bytes: number, deliver: () => void): boolean {
    if (!this.#open) return false;
    this.network.messages++;
    this.buffered[direction] += bytes;
    this.#queues[direction].push({ bytes, deliver });
    this.#move(direction);
    return this.buffered[direction] < STREAM_BUFFER_BYTES;
  }

  resume(): void {
    this.stalled = false;
    this.#move('up');
    this.#move('down');
  }

  #move(direction: Direction): void {
    if (this.#moving[direction] || !this.#open || this.#queues[direction].length === 0) return;
    const [from, to] = direction === 'up' ? [this.clientHost, this.serverHost] : [this.serverHost, this.clientHost];
    if (this.network.isBlocked(from, to)) {
      this.stalled = true;
      return;
    }
    this.#moving[direction] = true;
    const receiver = direction === 'up' ? this.serverEnvironment : this.clientEnvironment;
    // All that waits travels together, as a socket's buffer does.
    const parcels = this.#queues[direction].splice(0);
    this.network.time.schedule(
      this.network.delay(from, to),
      () => {
        this.#moving[direction] = false;
        for (const parcel of parcels) {
          if (!this.#open || receiver.killed) return;
          const full = this.buffered[direction] >= STREAM_BUFFER_BYTES;
          this.buffered[direction] -= parcel.bytes;
          parcel.deliver();
          if (full && this.buffered[direction] < STREAM_BUFFER_BYTES) this.onDrain[direction]();
        }
        this.#move(direction);
      },
      receiver,
    );
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

class SimChannel implements RpcChannel {
  readonly address: string;
  readonly #network: SimNetwork;
  readonly #host: string;
  readonly #environment: VirtualEnvironment;
  #pipes = new Set<{ cancel(error: FlotillaError): void }>();
  #closed = false;

  constructor(network: SimNetwork, host: string, environment: VirtualEnvironment, address: string) {
    this.#network = network;
    this.#host = host;
    this.#environment = environment;
    this.address = address;
  }

  unary<M extends DescMethod>(method: M, request: MessageShape<M['input']>, options: CallOptions): Promise<MessageShape<M['output']>> {
    return new Promise((resolve, reject) => {
      if (options.signal?.aborted) return reject(new FlotillaError('ABORTED', `${method.name} was aborted`));
      let stream: RpcStream<MessageShape<M['input']>> | undefined;
      let answer: MessageShape<M['output']> | undefined;
      const finish = (outcome: () => void) => {
        timer.cancel();
        options.signal?.removeEventListener('abort', onAbort);
        outcome();
      };
      const timer = this.#environment.after(options.timeoutMs, () =>
        finish(() => {
          reject(new FlotillaError('REQUEST_TIMED_OUT', `${method.name} to ${this.address} took longer than ${options.timeoutMs} ms`));
          stream?.cancel();
        }),
      );
      const onAbort = () =>
        finish(() => {
          reject(new FlotillaError('ABORTED', `${method.name} was aborted`));
          stream?.cancel();
        });
      options.signal?.addEventListener('abort', onAbort);
      stream = this.#call(
        method,
        {
          message: (message: MessageShape<M['output']>) => {
            answer = message;
          },
          closed: (error) =>
            finish(() => {
              if (error !== undefined) reject(error);
              else if (answer === undefined)
                reject(new FlotillaError('NETWORK_EXCEPTION', `${method.name}: no answer from ${this.address}`));
              else resolve(answer);
            }),
          drained: () => {},
        },
        options.headers ?? {},
      );
      stream.send(request);
      stream.end();
    });
  }

  stream<M extends DescMethod>(
    method: M,
    receiver: StreamReceiver<MessageShape<M['output']>>,
    options: StreamOptions,
  ): RpcStream<MessageShape<M['input']>> {
    return this.#call(method, receiver, options.headers ?? {});
  }

  close(): void {
    this.#closed = true;
    for (const pipe of [...this.#pipes]) pipe.cancel(new FlotillaError('CLOSED', `the channel to ${this.address} was closed`));
  }

  #call<M extends DescMethod>(
    method: M,
    receiver: StreamReceiver<MessageShape<M['output']>>,
    headers: Readonly<Record<string, string>>,
  ): RpcStream<MessageShape<M['input']>> {
    let ended = false;
    const closeClient = (error: Error | undefined) => {
      if (ended) return;
      ended = true;
      this.#pipes.delete(handle);
      if (!this.#environment.killed) receiver.closed(error);
    };
    const pipe = this.#closed ? undefined : this.#network.open(this.#host, this.#environment, this.address);
    const handle = {
      cancel: (error: FlotillaError) => {
        pipe?.break(error.message);
        closeClient(error);
      },
    };
    if (pipe === undefined) {
      const delay = this.#network.delay(this.#host, this.address);
      this.#environment.after(delay, () => closeClient(new FlotillaError('NETWORK_EXCEPTION', `${this.address} refused the connection`)));
      return { send: () => false, end: () => {}, cancel: () => closeClient(new FlotillaError('ABORTED', 'cancelled')) };
    }
    this.#pipes.add(handle);
    const server = new ServerSide(pipe, method, headers, this.#host, {
      message: (bytes) => {
        if (!ended) receiver.message(fromBinary(method.output, bytes) as MessageShape<M['output']>);
      },
      closed: closeClient,
    });
    pipe.onDrain.up = () => {
      if (!ended) receiver.drained();
    };
    pipe.onBreak = (reason) => {
      const error = new FlotillaError('NETWORK_EXCEPTION', `the connection to ${this.address} broke: ${reason}`);
      this.#network.time.schedule(this.#network.delay(pipe.serverHost, pipe.clientHost), () => closeClient(error), this.#environment);
      this.#network.time.schedule(
        this.#network.delay(pipe.clientHost, pipe.serverHost),
        () => server.broken(error),
        pipe.serverEnvironment,
      );
    };
    return {
      send: (message) => {
        if (ended) return false;
        const bytes = toBinary(method.input, message as Message);
        return pipe.push('up', bytes.length, () => server.message(bytes));
      },
      end: () => {
        if (!ended) pipe.push('up', 0, () => server.end());
      },
      cancel: () => handle.cancel(new FlotillaError('ABORTED', 'the stream was cancelled')),
    };
  }
}

/** The far end of a call: runs the service's handler as the gRPC server does. */
class ServerSide {
  readonly #pipe: Pipe;
  readonly #method: DescMethod;
  readonly #client: { message(bytes: Uint8Array): void; closed(error: Error | undefined): void };
  readonly #context: CallContext;
  #receiver: StreamReceiver<never> | undefined;
  #request: Message | undefined;
  #closed = false;

  constructor(
    pipe: Pipe,
    method: DescMethod,
    headers: Readonly<Record<string, string>>,
    peer: string,
    client: { message(bytes: Uint8Array): void; closed(error: Error | undefined): void },
  ) {
    this.#pipe = pipe;
    this.#method = method;
    this.#client = client;
    this.#context = { listener: pipe.served.listener, headers, peer, signal: pipe.abort.signal };
    const stream = pipe.served.service.streams.get(methodKey(method));
    // The handler starts when the call's headers arrive.
    if (stream !== undefined) pipe.push('up', 0, () => this.#open(stream.open));
    else if (!pipe.served.service.unary.has(methodKey(method))) {
      pipe.push('up', 0, () => this.#finish(new FlotillaError('UNSUPPORTED_VERSION', `${methodKey(method)} is not served here`)));
    }
  }

  #open(open: (responder: RpcStream<never>, context: CallContext) => StreamReceiver<never>): void {
    const pipe = this.#pipe;
    const responder: RpcStream<never> = {
      send: (message, sent) => {
        const bytes = toBinary(this.#method.output, message as Message);
        sent?.();
        return pipe.push('down', bytes.length, () => this.#client.message(bytes));
      },
      end: () => this.#finish(undefined),
      cancel: () => this.#finish(new FlotillaError('NETWORK_EXCEPTION', 'the server cancelled the stream')),
    };
    try {
      this.#receiver = open(responder, this.#context);
    } catch (error) {
      this.#closed = true;
      this.#finish(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    pipe.onDrain.down = () => this.#receiver?.drained();
  }

  message(bytes: Uint8Array): void {
    const message = fromBinary(this.#method.input, bytes);
    if (this.#receiver !== undefined) this.#receiver.message(message as never);
    else this.#request = message;
  }

  end(): void {
    if (this.#receiver !== undefined) {
      if (!this.#closed) {
        this.#closed = true;
        this.#receiver.closed(undefined);
      }
      // A client that ended its side of a server stream still reads.
      return;
    }
    const handler = this.#pipe.served.service.unary.get(methodKey(this.#method));
    if (handler === undefined) return;
    handler.handle((this.#request ?? create(this.#method.input)) as never, this.#context).then(
      (response) => {
        const bytes = toBinary(this.#method.output, response as Message);
        this.#pipe.push('down', bytes.length, () => this.#client.message(bytes));
        this.#finish(undefined);
      },
      (error: unknown) => this.#finish(error instanceof Error ? error : new Error(String(error))),
    );
  }

  #finish(error: Error | undefined): void {
    if (error !== undefined && !(error instanceof FlotillaError)) throw error;
    this.#pipe.push('down', 0, () => {
      this.#pipe.close();
      this.#client.closed(error);
      this.broken(undefined);
    });
  }

  broken(error: Error | undefined): void {
    this.#pipe.abort.abort();
    if (this.#closed) return;
    this.#closed = true;
    this.#receiver?.closed(error);
  }
}

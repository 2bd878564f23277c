/** A call over the simulated network: the caller's end, as gRPC's client has it, and the far end, which runs the service's handler as gRPC's server does. */
import { create, type DescMethod, fromBinary, type Message, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { FlotillaError } from '../../src/base/errors.ts';
import {
  type CallContext,
  type CallOptions,
  methodKey,
  type RpcChannel,
  type RpcStream,
  type StreamOptions,
  type StreamReceiver,
} from '../../src/rpc/types.ts';
import type { SimNetwork } from './network.ts';
import type { Pipe } from './network-pipe.ts';
import type { VirtualEnvironment } from './virtual-environment.ts';

export class SimChannel implements RpcChannel {
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
      const delay = this.#network.delayMs(this.#host, this.address);
      this.#environment.after(delay, () => closeClient(new FlotillaError('NETWORK_EXCEPTION', `${this.address} refused the connection`)));
      return { send: () => false, end: () => {}, cancel: () => closeClient(new FlotillaError('ABORTED', 'cancelled')) };
    }
    this.#pipes.add(handle);
    const server = new ServerSide(pipe, method, headers, this.#host, {
      message: (bytes) => {
        if (ended) return;
        const message = fromBinary(method.output, bytes);
        this.#network.onMessage?.(pipe.serverHost, this.#host, method.name, message);
        receiver.message(message as MessageShape<M['output']>);
      },
      closed: closeClient,
    });
    pipe.lanes.up.onDrain = () => {
      if (!ended) receiver.drained();
    };
    pipe.onBreak = (reason) => {
      const error = new FlotillaError('NETWORK_EXCEPTION', `the connection to ${this.address} broke: ${reason}`);
      pipe.tell('down', () => closeClient(error));
      pipe.tell('up', () => server.broken(error));
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
    pipe.lanes.down.onDrain = () => this.#receiver?.drained();
  }

  message(bytes: Uint8Array): void {
    const message = fromBinary(this.#method.input, bytes);
    const pipe = this.#pipe;
    pipe.network.onMessage?.(pipe.clientHost, pipe.serverHost, this.#method.name, message);
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

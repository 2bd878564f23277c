import type { DescMethod, Message, MessageShape } from '@bufbuild/protobuf';
import { Client, type ClientDuplexStream, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { FlotillaError } from '../base/errors.ts';
import { codecFor, FLOW_CONTROL_WINDOW_BYTES, MAX_MESSAGE_BYTES } from './grpc-codec.ts';
import { crashOnInvariant, fromServiceError } from './grpc-errors.ts';
import type { CallOptions, Connect, RpcChannel, RpcStream, StreamOptions, StreamReceiver } from './types.ts';

export interface GrpcConnectOptions {
  /**
   * A connection of its own for each channel to the same address, instead of one shared by all in the process: for lanes
   * that must not stand behind each other. Default: false.
   */
  readonly ownConnection?: boolean | undefined;
}

/** A connection that went silent costs what waits on it, and where it is a lane between brokers perhaps a leader, this long at most (hazard B18). */
const KEEPALIVE_MS = 4_000;
const KEEPALIVE_TIMEOUT_MS = 4_000;
/** A broker that restarts is back within a second; it is found again as fast. */
const MIN_RECONNECT_MS = 50;
const MAX_RECONNECT_MS = 1_000;

const endedStream: RpcStream<never> = { send: () => true, end() {}, cancel() {} };

/** Opens gRPC channels, without TLS. Addresses are `host:port`. */
export function grpcConnect(options: GrpcConnectOptions = {}): Connect {
  return (address) => new GrpcChannel(address, options);
}

class GrpcChannel implements RpcChannel {
  readonly address: string;
  private readonly client: Client;
  private readonly openCalls = new Set<{ cancel(): void }>();
  private isClosed = false;

  constructor(address: string, options: GrpcConnectOptions) {
    this.address = address;
    this.client = new Client(address, credentials.createInsecure(), {
      'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW_BYTES,
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
      'grpc.initial_reconnect_backoff_ms': MIN_RECONNECT_MS,
      'grpc.max_reconnect_backoff_ms': MAX_RECONNECT_MS,
      // Retries are the callers' affair: they know what is idempotent. gRPC's would keep every message until it is answered.
      'grpc.enable_retries': 0,
      'grpc.enable_http_proxy': 0,
      'grpc.service_config_disable_resolution': 1,
      'grpc.enable_channelz': 0,
      'grpc.use_local_subchannel_pool': options.ownConnection ? 1 : 0,
    });
  }

  unary<M extends DescMethod>(method: M, request: MessageShape<M['input']>, options: CallOptions): Promise<MessageShape<M['output']>> {
    const { signal } = options;
    if (this.isClosed) return Promise.reject(closedChannel(this.address));
    if (signal?.aborted) return Promise.reject(aborted(method));
    const input = codecFor(method.input);
    const output = codecFor(method.output);
    return new Promise((resolve, reject) => {
      const cancel = (): void => call.cancel();
      const call = this.client.makeUnaryRequest<Message, Message>(
        pathOf(method),
        input.serialize,
        output.deserialize,
        request,
        metadataOf(options.headers),
        { deadline: Date.now() + options.timeoutMs },
        (error, response) => {
          signal?.removeEventListener('abort', cancel);
          this.openCalls.delete(call);
          if (error === null) resolve(response as MessageShape<M['output']>);
          else reject(signal?.aborted && error.code === status.CANCELLED ? aborted(method) : fromServiceError(error, this.address));
        },
      );
      this.openCalls.add(call);
      signal?.addEventListener('abort', cancel, { once: true });
    });
  }

  /** Every kind of stream is bidirectional on the wire. */
  stream<M extends DescMethod>(
    method: M,
    receiver: StreamReceiver<MessageShape<M['output']>>,
    options: StreamOptions,
  ): RpcStream<MessageShape<M['input']>> {
    if (this.isClosed) {
      queueMicrotask(() => receiver.closed(closedChannel(this.address)));
      return endedStream;
    }
    const call = this.client.makeBidiStreamRequest<Message, Message>(
      pathOf(method),
      codecFor(method.input).serialize,
      codecFor(method.output).deserialize,
      metadataOf(options.headers),
      {},
    );
    this.openCalls.add(call);
    return new ClientStream(call, receiver as StreamReceiver<Message>, this.address, () => this.openCalls.delete(call));
  }

  /** Calls and streams that are open end with an error. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    for (const call of this.openCalls) call.cancel();
    this.client.close();
  }
}

class ClientStream implements RpcStream<Message> {
  private readonly call: ClientDuplexStream<Message, Message>;
  private readonly receiver: StreamReceiver<Message>;
  private readonly released: () => void;
  private isClosed = false;
  private isEnded = false;

  constructor(call: ClientDuplexStream<Message, Message>, receiver: StreamReceiver<Message>, address: string, released: () => void) {
    this.call = call;
    this.receiver = receiver;
    this.released = released;
    call.on('data', (message: Message) => this.deliver(message));
    call.on('drain', () => {
      if (!this.isClosed) receiver.drained();
    });
    call.on('end', () => {
      this.end();
      this.close(undefined);
    });
    // Comes before `end`.
    call.on('error', (error: ServiceError) => this.close(fromServiceError(error, address)));
  }

  send(message: Message, sent?: () => void): boolean {
    if (!this.isClosed && !this.isEnded) return this.call.write(message, sent);
    sent?.();
    return true;
  }

  end(): void {
    if (this.isClosed || this.isEnded) return;
    this.isEnded = true;
    this.call.end();
  }

  cancel(): void {
    if (!this.isClosed) this.call.cancel();
  }

  private deliver(message: Message): void {
    if (this.isClosed) return;
    try {
      this.receiver.message(message);
    } catch (error) {
      if (crashOnInvariant(error)) return;
      this.call.cancel();
      this.close(error instanceof Error ? error : new Error(String(error)));
    }
  }

  private close(error: Error | undefined): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.released();
    this.receiver.closed(error);
  }
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function metadataOf(headers: Readonly<Record<string, string>> | undefined): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers ?? {})) metadata.set(name, value);
  return metadata;
}

function aborted(method: DescMethod): FlotillaError {
  return new FlotillaError('ABORTED', `${method.name} was aborted by its caller's signal.`);
}

function closedChannel(address: string): FlotillaError {
  return new FlotillaError('CLOSED', `The channel to ${address} was closed.`);
}

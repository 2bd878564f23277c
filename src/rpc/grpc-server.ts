import type { Http2Server, ServerHttp2Session } from 'node:http2';
import { type AddressInfo, createServer, type Server as NetServer, type Socket } from 'node:net';
import type { Message } from '@bufbuild/protobuf';
import { type handleBidiStreamingCall, type handleUnaryCall, Server, ServerCredentials } from '@grpc/grpc-js';
import type { Logger } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { codecFor, FLOW_CONTROL_WINDOW_BYTES, MAX_MESSAGE_BYTES } from './grpc-codec.ts';
import { crashOnInvariant, toServiceError } from './grpc-errors.ts';
import { ServerStream } from './grpc-server-stream.ts';
import type { CallContext, RpcService, StreamHandler, UnaryHandler } from './types.ts';

export interface GrpcListener {
  /** What {@link CallContext.listener} says of calls that came in here. */
  readonly name: string;
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
}

export interface GrpcServerOptions {
  readonly listeners: readonly GrpcListener[];
  readonly service: RpcService;
  readonly log: Logger;
  /** How many files and sockets the process may have open: a quarter is for connections. Default: no limit but 10,000 connections a listener. */
  readonly openFileLimit?: number | undefined;
}

export interface GrpcServer {
  /** `host:port` in effect, by listener name. */
  readonly addresses: ReadonlyMap<string, string>;
  /** Takes no more connections, ends all streams, lets calls finish until the deadline, then cuts what is left: idle connections soon. */
  close(deadlineMs: number): Promise<void>;
}

/** Also ends connections whose other side is gone without a word, or never spoke HTTP/2. */
const KEEPALIVE_MS = 4_000;
const KEEPALIVE_TIMEOUT_MS = 4_000;
const MAX_CONCURRENT_STREAMS = 1_000;
const MAX_CONNECTIONS = 10_000;
/** For connections without a call to end by themselves: a peer that does not read would never. */
const LINGER_MS = 250;
/** Of what the process may have open. The rest is for segments, the write-ahead log and the state: a broker that can't open those must end. */
const CONNECTIONS_SHARE = 0.25;

/**
 * Serves `service` over gRPC without TLS on every listener.
 * @throws FlotillaError LISTENER when a port can't be had; nothing listens then.
 */
export async function serveGrpc({
  listeners,
  service,
  log,
  openFileLimit = Number.POSITIVE_INFINITY,
}: GrpcServerOptions): Promise<GrpcServer> {
  const maxConnections = Math.min(MAX_CONNECTIONS, Math.floor((openFileLimit * CONNECTIONS_SHARE) / listeners.length));
  const open: ListenerServer[] = [];
  const addresses = new Map<string, string>();
  try {
    for (const listener of listeners) {
      const server = new ListenerServer(listener, service, log, maxConnections);
      open.push(server);
      addresses.set(listener.name, await server.listen());
    }
  } catch (error) {
    await Promise.all(open.map((server) => server.close(0)));
    throw error;
  }
  return {
    addresses,
    close: async (deadlineMs) => {
      await Promise.all(open.map((server) => server.close(deadlineMs)));
    },
  };
}

/**
 * One port. It listens by itself and hands its connections to gRPC, so that errors of listening are the system's own, and every socket is
 * known when the time comes to cut it.
 */
class ListenerServer {
  private readonly listener: GrpcListener;
  private readonly log: Logger;
  private readonly grpc: Server;
  private readonly net: NetServer;
  private readonly sockets = new Set<Socket>();
  private readonly streams = new Set<ServerStream>();
  private calls = 0;
  private onQuiet: (() => void) | undefined;

  constructor(listener: GrpcListener, service: RpcService, log: Logger, maxConnections: number) {
    this.listener = listener;
    this.log = log;
    this.grpc = new Server({
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
      'grpc.max_concurrent_streams': MAX_CONCURRENT_STREAMS,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
      'grpc.enable_channelz': 0,
    });
    for (const [key, handler] of service.unary) this.registerUnary(key, handler);
    for (const [key, handler] of service.streams) this.registerStream(key, handler);
    const injector = this.grpc.createConnectionInjector(ServerCredentials.createInsecure());
    this.tuneSessions();
    this.net = createServer({ noDelay: true }, (socket) => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
      socket.on('error', (error) => log.debug('connection-error', { listener: listener.name, error: error.message }));
      injector.injectConnection(socket);
    });
    this.net.maxConnections = maxConnections;
  }

  /** Resolves with `host:port`. */
  listen(): Promise<string> {
    const { name, host, port } = this.listener;
    return new Promise((resolve, reject) => {
      const failed = (error: NodeJS.ErrnoException): void => reject(listenError(this.listener, error));
      this.net.once('error', failed);
      // As in addresses, IPv6 comes in brackets, which the system does not know.
      this.net.listen({ host: host.replace(/^\[(.*)\]$/, '$1'), port }, () => {
        this.net.off('error', failed);
        this.net.on('error', (error) => this.log.warn('listener-error', { listener: name, error: error.message }));
        const bound = (this.net.address() as AddressInfo).port;
        resolve(host.includes(':') && !host.startsWith('[') ? `[${host}]:${bound}` : `${host}:${bound}`);
      });
    });
  }

  async close(deadlineMs: number): Promise<void> {
    const over = Promise.withResolvers<void>();
    let timer = setTimeout(over.resolve, deadlineMs);
    const linger = (): void => {
      clearTimeout(timer);
      timer = setTimeout(over.resolve, Math.min(deadlineMs, LINGER_MS));
    };
    const closed = new Promise<void>((resolve) => this.net.close(() => resolve()));
    for (const stream of this.streams) stream.end();
    // Each connection ends after its last call; gRPC's own callback comes before that.
    this.grpc.tryShutdown(() => {});
    this.onQuiet = linger;
    this.toldIfQuiet();
    await Promise.race([closed, over.promise]);
    clearTimeout(timer);
    this.grpc.forceShutdown();
    for (const socket of this.sockets) socket.destroy();
    await closed;
  }

  private toldIfQuiet(): void {
    if (this.calls > 0 || this.streams.size > 0) return;
    this.onQuiet?.();
    this.onQuiet = undefined;
  }

  private registerUnary(key: string, { method, handle }: UnaryHandler): void {
    const input = codecFor(method.input);
    const output = codecFor(method.output);
    const call: handleUnaryCall<Message, Message> = (incoming, respond) => {
      const abort = new AbortController();
      incoming.on('cancelled', () => abort.abort());
      const headers = incoming.metadata.getMap() as Record<string, string>;
      const context: CallContext = { listener: this.listener.name, headers, peer: incoming.getPeer(), signal: abort.signal };
      this.calls++;
      this.answer(handle as UnaryCall, incoming.request, context)
        .then(
          (response) => respond(null, response),
          (error) => {
            if (!crashOnInvariant(error)) respond(this.failed(key, error));
          },
        )
        .finally(() => {
          this.calls--;
          this.toldIfQuiet();
        });
    };
    this.grpc.register(`/${key}`, call, output.serialize, input.deserialize, 'unary');
  }

  /** A handler that throws at once rejects all the same. */
  private async answer(handle: UnaryCall, request: Message, context: CallContext): Promise<Message> {
    return handle(request, context);
  }

  /** Every kind of stream is bidirectional on the wire. */
  private registerStream(key: string, handler: StreamHandler): void {
    const { method } = handler;
    const call: handleBidiStreamingCall<Message, Message> = (duplex) => {
      const stream = new ServerStream(duplex, {
        listener: this.listener.name,
        reportsHalfClose: method.methodKind !== 'server_streaming',
        failed: (error) => this.failed(key, error),
        released: () => {
          this.streams.delete(stream);
          this.toldIfQuiet();
        },
      });
      this.streams.add(stream);
      stream.open(handler);
    };
    this.grpc.register(`/${key}`, call, codecFor(method.output).serialize, codecFor(method.input).deserialize, 'bidi');
  }

  private failed(key: string, error: unknown): ReturnType<typeof toServiceError> {
    if (error instanceof FlotillaError) this.log.debug('call-refused', { method: key, code: error.code, error: error.message });
    else this.log.error('call-failed', { method: key, error: messageOf(error), stack: error instanceof Error ? error.stack : undefined });
    return toServiceError(error);
  }

  /**
   * gRPC's server, unlike its client, has no option for HTTP/2's windows, and tells nobody of sessions that fail. Its HTTP/2 server is not
   * public; without it, all works, but uploads are slower.
   */
  private tuneSessions(): void {
    const { http2Servers } = this.grpc as unknown as { readonly http2Servers?: ReadonlyMap<Http2Server, unknown> };
    for (const server of http2Servers?.keys() ?? []) {
      server.on('session', (session: ServerHttp2Session) => {
        session.settings({ initialWindowSize: FLOW_CONTROL_WINDOW_BYTES, maxConcurrentStreams: MAX_CONCURRENT_STREAMS });
        session.setLocalWindowSize(FLOW_CONTROL_WINDOW_BYTES);
      });
      server.on('sessionError', (error) => this.log.debug('session-error', { listener: this.listener.name, error: messageOf(error) }));
    }
  }
}

type UnaryCall = (request: Message, context: CallContext) => Promise<Message>;

function listenError({ name, host, port }: GrpcListener, error: NodeJS.ErrnoException): FlotillaError {
  const remedy =
    error.code === 'EADDRINUSE'
      ? `Port ${port} on ${host} is in use. Stop the program that holds it, or give listener "${name}" another port.`
      : error.code === 'EACCES'
        ? `Port ${port} on ${host} needs more rights. Give listener "${name}" a port above 1023.`
        : error.code === 'EADDRNOTAVAIL' || error.code === 'ENOTFOUND'
          ? `${host} is no address of this machine. Give listener "${name}" one that is, or 0.0.0.0 for all.`
          : `Listener "${name}" can't use port ${port} on ${host}: ${error.message}`;
  return new FlotillaError('LISTENER', remedy, { cause: error });
}

/**
 * RPC as the broker and the SDK see it: gRPC in production (grpc-server.ts, grpc-channel.ts), memory in simulation.
 * Messages are protobuf-es messages; methods are the generated descriptors (`Data.method.produce`, …).
 */
import type { DescMethod, MessageShape } from '@bufbuild/protobuf';

type Input<M extends DescMethod> = MessageShape<M['input']>;
type Output<M extends DescMethod> = MessageShape<M['output']>;

/** A client's connection to one address. Connects lazily and reconnects by itself. */
export interface RpcChannel {
  readonly address: string;
  /** One call; rejects with a FlotillaError: NETWORK_EXCEPTION, REQUEST_TIMED_OUT (deadline), ABORTED (signal). */
  unary<M extends DescMethod>(method: M, request: Input<M>, options: CallOptions): Promise<Output<M>>;
  /** Opens a stream; `receiver` is called until `closed`, which is called exactly once. */
  stream<M extends DescMethod>(method: M, receiver: StreamReceiver<Output<M>>, options: StreamOptions): RpcStream<Input<M>>;
  close(): void;
}

export interface CallOptions {
  /** Milliseconds until REQUEST_TIMED_OUT. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

export interface StreamOptions {
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

export interface StreamReceiver<O> {
  message(message: O): void;
  /** The stream ended: undefined when the other side ended it cleanly. Nothing follows. */
  closed(error: Error | undefined): void;
  /** The stream can take more after `send` returned false. */
  drained(): void;
}

export interface RpcStream<I> {
  /**
   * Queues a message; false asks to wait for `drained`. Never throws; after the end it does nothing. `sent` is called at most once, when nothing
   * looks at the message's bytes any more; a stream that breaks, or keeps its messages as they are, need not call it.
   */
  send(message: I, sent?: () => void): boolean;
  /** No more messages from this side. */
  end(): void;
  /** Tears the stream down; `closed` follows. */
  cancel(): void;
}

/** Opens channels; injected into the SDK and into what brokers ask of each other. */
export type Connect = (address: string) => RpcChannel;

/** What a broker serves: handlers by method, the same for every transport. */
export interface RpcService {
  readonly unary: ReadonlyMap<string, UnaryHandler>;
  readonly streams: ReadonlyMap<string, StreamHandler>;
}

/** Keys of {@link RpcService}: `flotilla.v1.Data/Produce`. */
export function methodKey(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

export interface UnaryHandler {
  readonly method: DescMethod;
  readonly handle: (request: never, context: CallContext) => Promise<unknown>;
}

export interface StreamHandler {
  readonly method: DescMethod;
  readonly open: (responder: RpcStream<never>, context: CallContext) => StreamReceiver<never>;
}

/** Who calls, over which listener. */
export interface CallContext {
  /** The listener's name; answers carry the addresses of brokers on this listener. */
  readonly listener: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly peer: string;
  /** Aborts when the caller is gone or its deadline has passed. */
  readonly signal: AbortSignal;
}

export function unaryHandler<M extends DescMethod>(
  method: M,
  handle: (request: Input<M>, context: CallContext) => Promise<Output<M>>,
): [string, UnaryHandler] {
  return [methodKey(method), { method, handle: handle as unknown as UnaryHandler['handle'] }];
}

export function streamHandler<M extends DescMethod>(
  method: M,
  open: (responder: RpcStream<Output<M>>, context: CallContext) => StreamReceiver<Input<M>>,
): [string, StreamHandler] {
  return [methodKey(method), { method, open: open as unknown as StreamHandler['open'] }];
}

import type { Message } from '@bufbuild/protobuf';
import type { ServerDuplexStream, ServiceError } from '@grpc/grpc-js';
import { FlotillaError } from '../base/errors.ts';
import { crashOnInvariant } from './grpc-errors.ts';
import type { CallContext, RpcStream, StreamHandler, StreamReceiver } from './types.ts';

export interface ServerStreamOptions {
  readonly listener: string;
  /** False for server streaming, where the caller's half-close says nothing. */
  readonly reportsHalfClose: boolean;
  /** Turns what a handler threw into the status to end with. */
  readonly failed: (error: unknown) => ServiceError;
  /** Called once, when the stream is over both ways. */
  readonly released: () => unknown;
}

/**
 * A stream as its handler sees it. The handler's `closed(undefined)` means that the caller will send nothing more; the handler then
 * ends its own side when it has answered all. The signal aborts when the stream is over.
 */
export class ServerStream implements RpcStream<Message> {
  private readonly duplex: ServerDuplexStream<Message, Message>;
  private readonly options: ServerStreamOptions;
  private readonly abort = new AbortController();
  private receiver: StreamReceiver<Message> | undefined;
  private isEnded = false;
  private isReleased = false;

  constructor(duplex: ServerDuplexStream<Message, Message>, options: ServerStreamOptions) {
    this.duplex = duplex;
    this.options = options;
  }

  open(handler: StreamHandler): void {
    const { duplex } = this;
    const context: CallContext = {
      listener: this.options.listener,
      headers: duplex.metadata.getMap() as Record<string, string>,
      peer: duplex.getPeer(),
      signal: this.abort.signal,
    };
    // gRPC says `cancelled` whenever the stream is closed without our status, and destroys it then: `close` always comes.
    duplex.on('cancelled', () => this.over(new FlotillaError('NETWORK_EXCEPTION', `${context.peer} is gone or has cancelled the stream.`)));
    duplex.on('close', () => this.over(undefined));
    duplex.on('error', () => this.over(undefined));
    // A stream that broke looks half-closed at first; by the next turn gRPC has said what it was.
    this.guard(() => {
      this.receiver = handler.open(this as RpcStream<never>, context) as StreamReceiver<Message>;
      const receiver = this.receiver;
      duplex.on('data', (message: Message) => this.guard(() => this.receiver?.message(message)));
      duplex.on('drain', () => this.guard(() => this.receiver?.drained()));
      if (this.options.reportsHalfClose) duplex.on('end', () => setImmediate(() => this.tell(receiver, undefined)));
    });
  }

  send(message: Message, sent?: () => void): boolean {
    if (!this.isEnded && !this.isReleased) return this.duplex.write(message, sent);
    sent?.();
    return true;
  }

  end(): void {
    if (this.isEnded || this.isReleased) return;
    this.isEnded = true;
    // gRPC destroys the stream only once the caller has ended its side as well.
    this.duplex.once('finish', () => this.over(undefined));
    this.duplex.end();
  }

  cancel(): void {
    this.fail(new FlotillaError('ABORTED', 'The broker cancelled the stream.'));
  }

  private guard(task: () => void): void {
    try {
      task();
    } catch (error) {
      if (!crashOnInvariant(error)) this.fail(error);
    }
  }

  private fail(error: unknown): void {
    if (this.isEnded || this.isReleased) return;
    this.isEnded = true;
    this.duplex.emit('error', this.options.failed(error));
    this.over(error instanceof Error ? error : new Error(String(error)));
  }

  private tell(receiver: StreamReceiver<Message>, error: Error | undefined): void {
    if (this.receiver === undefined) return;
    this.receiver = undefined;
    try {
      receiver.closed(error);
    } catch (thrown) {
      if (!crashOnInvariant(thrown)) this.options.failed(thrown);
    }
  }

  private over(error: Error | undefined): void {
    if (this.isReleased) return;
    this.isReleased = true;
    if (this.receiver !== undefined) this.tell(this.receiver, error);
    this.abort.abort();
    this.options.released();
  }
}

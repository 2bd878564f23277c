/** Channels and services in one process: messages arrive in order, one microtask later. */
import type { DescMethod, MessageShape } from '@bufbuild/protobuf';
import { FlotillaError } from '../../src/base/errors.ts';
import {
  type CallContext,
  type CallOptions,
  methodKey,
  type RpcChannel,
  type RpcService,
  type RpcStream,
  type StreamReceiver,
} from '../../src/rpc/types.ts';

export class MemoryNetwork {
  readonly services = new Map<string, RpcService>();
  /** Streams that a test may break. */
  readonly streams: { readonly address: string; readonly break: () => void; full: boolean; readonly drain: () => void }[] = [];
  calls: string[] = [];

  readonly connect = (address: string): RpcChannel => {
    const cancels = new Set<() => void>();
    return {
      address,
      unary: (method, request, options) => this.#unary(address, method, request, options),
      stream: (method, receiver) => {
        const stream = this.#stream(address, method, receiver);
        cancels.add(() => stream.cancel());
        return stream;
      },
      close: () => {
        for (const cancel of cancels) cancel();
      },
    };
  };

  async #unary<M extends DescMethod>(
    address: string,
    method: M,
    request: MessageShape<M['input']>,
    { signal }: CallOptions,
  ): Promise<MessageShape<M['output']>> {
    this.calls.push(`${address} ${method.name}`);
    const handler = this.services.get(address)?.unary.get(methodKey(method));
    if (handler === undefined) throw new FlotillaError('NETWORK_EXCEPTION', `nobody at ${address}`);
    return (await handler.handle(request as never, context(signal))) as MessageShape<M['output']>;
  }

  #stream<M extends DescMethod>(
    address: string,
    method: M,
    receiver: StreamReceiver<MessageShape<M['output']>>,
  ): RpcStream<MessageShape<M['input']>> {
    const handler = this.services.get(address)?.streams.get(methodKey(method));
    let open = true;
    let server: StreamReceiver<never> | undefined;
    const close = (error: Error | undefined): void => {
      if (!open) return;
      open = false;
      queueMicrotask(() => {
        receiver.closed(error);
        server?.closed(error);
      });
    };
    const state = {
      address,
      full: false,
      break: () => close(new FlotillaError('NETWORK_EXCEPTION', 'broken')),
      drain: () => {
        state.full = false;
        server?.drained();
      },
    };
    if (handler === undefined) {
      close(new FlotillaError('NETWORK_EXCEPTION', `nobody at ${address}`));
    } else {
      this.streams.push(state);
      const responder: RpcStream<never> = {
        send: (message) => {
          queueMicrotask(() => open && receiver.message(message));
          return !state.full;
        },
        end: () => close(undefined),
        cancel: () => close(undefined),
      };
      server = handler.open(responder, context());
    }
    return {
      send: (message) => {
        queueMicrotask(() => open && server?.message(message as never));
        return true;
      },
      end: () => {},
      cancel: () => close(undefined),
    };
  }
}

function context(signal = new AbortController().signal): CallContext {
  return { listener: 'peer', headers: {}, peer: 'test', signal };
}

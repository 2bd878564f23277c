/**
 * The service that a broker serves from its first moment on, while what answers is still being put together: a method that nothing
 * answers yet is BROKER_NOT_AVAILABLE, which clients retry.
 */
import type { DescMethod, DescService } from '@bufbuild/protobuf';
import { FlotillaError } from '../base/errors.ts';
import { Admin } from '../gen/flotilla/v1/admin_pb.ts';
import { Controller } from '../gen/flotilla/v1/controller_pb.ts';
import { Data } from '../gen/flotilla/v1/data_pb.ts';
import { Raft } from '../gen/flotilla/v1/raft_pb.ts';
import { methodKey, type RpcService, type StreamHandler, type UnaryHandler } from '../rpc/types.ts';

const services: readonly DescService[] = [Data, Admin, Controller, Raft];

export class Switchboard implements RpcService {
  readonly unary = new Map<string, UnaryHandler>();
  readonly streams = new Map<string, StreamHandler>();
  readonly #unary = new Map<string, UnaryHandler>();
  readonly #streams = new Map<string, StreamHandler>();

  constructor() {
    for (const { methods } of services) {
      for (const method of methods) {
        const key = methodKey(method);
        if (method.methodKind === 'unary') this.unary.set(key, this.#unaryFor(method, key));
        else this.streams.set(key, this.#streamFor(method, key));
      }
    }
  }

  addUnary(...handlers: readonly (readonly [string, UnaryHandler])[]): void {
    for (const [key, handler] of handlers) this.#unary.set(key, handler);
  }

  addStreams(...handlers: readonly (readonly [string, StreamHandler])[]): void {
    for (const [key, handler] of handlers) this.#streams.set(key, handler);
  }

  /** Nothing answers any more. */
  clear(): void {
    this.#unary.clear();
    this.#streams.clear();
  }

  #unaryFor(method: DescMethod, key: string): UnaryHandler {
    return {
      method,
      handle: async (request, context) => {
        const handler = this.#unary.get(key);
        if (handler === undefined) throw notAvailable(method);
        return handler.handle(request, context);
      },
    };
  }

  #streamFor(method: DescMethod, key: string): StreamHandler {
    return {
      method,
      open: (responder, context) => {
        const handler = this.#streams.get(key);
        if (handler === undefined) throw notAvailable(method);
        return handler.open(responder, context);
      },
    };
  }
}

function notAvailable(method: DescMethod): FlotillaError {
  return new FlotillaError(
    'BROKER_NOT_AVAILABLE',
    `This broker is starting, stopping, or has no part in ${method.parent.name}. Try again, or another broker.`,
  );
}

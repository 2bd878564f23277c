import { create, type MessageShape } from '@bufbuild/protobuf';
import { silentLogger } from '../../src/base/environment.ts';
import { Data, FetchRequestSchema, type FetchResponse } from '../../src/gen/flotilla/v1/data_pb.ts';
import { grpcConnect } from '../../src/rpc/grpc-channel.ts';
import { type GrpcServer, serveGrpc } from '../../src/rpc/grpc-server.ts';
import type { RpcChannel, RpcService, StreamHandler, StreamReceiver, UnaryHandler } from '../../src/rpc/types.ts';

export function serviceOf(unary: [string, UnaryHandler][], streams: [string, StreamHandler][] = []): RpcService {
  return { unary: new Map(unary), streams: new Map(streams) };
}

export interface Loopback {
  readonly server: GrpcServer;
  readonly channel: RpcChannel;
  readonly address: string;
  readonly port: number;
}

const opened: Loopback[] = [];

/** A server on a free port and a channel to it; {@link closeLoopbacks} closes both. */
export async function loopback(service: RpcService): Promise<Loopback> {
  const server = await serveGrpc({ listeners: [{ name: 'client', host: '127.0.0.1', port: 0 }], service, log: silentLogger });
  const address = server.addresses.get('client') as string;
  const opening = { server, address, port: Number(address.split(':')[1]), channel: grpcConnect({ ownConnection: true })(address) };
  opened.push(opening);
  return opening;
}

export async function closeLoopbacks(): Promise<void> {
  for (const { server, channel } of opened.splice(0)) {
    channel.close();
    await server.close(1000);
  }
}

/** Collects what a stream delivers; `until` resolves when the condition holds. */
export class Collector<M> implements StreamReceiver<M> {
  readonly messages: M[] = [];
  closes: (Error | undefined)[] = [];
  drains = 0;
  private waiting: (() => void)[] = [];

  message(message: M): void {
    this.messages.push(message);
    this.wake();
  }

  closed(error: Error | undefined): void {
    this.closes.push(error);
    this.wake();
  }

  drained(): void {
    this.drains++;
    this.wake();
  }

  async until(condition: (collector: this) => boolean): Promise<void> {
    while (!condition(this)) await new Promise<void>((resolve) => this.waiting.push(resolve));
  }

  private wake(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}

export const fetchRequest = (credit: number): MessageShape<typeof FetchRequestSchema> =>
  create(FetchRequestSchema, { creditBytes: BigInt(credit) });

export { Data, type FetchResponse };

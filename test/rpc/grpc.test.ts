import { connect as connectSocket, createServer, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { create } from '@bufbuild/protobuf';
import { afterEach, describe, expect, test } from 'vitest';
import { silentLogger } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import { Controller, FollowMetadataRequestSchema, FollowMetadataResponseSchema } from '../../src/gen/flotilla/v1/controller_pb.ts';
import {
  Data,
  type FetchResponse,
  FetchResponseSchema,
  ListOffsetsRequestSchema,
  ListOffsetsResponseSchema,
  ProduceRequestSchema,
  type ProduceResponse,
  ProduceResponseSchema,
} from '../../src/gen/flotilla/v1/data_pb.ts';
import { type PeerFrame, PeerFrameSchema, Raft } from '../../src/gen/flotilla/v1/raft_pb.ts';
import { grpcConnect } from '../../src/rpc/grpc-channel.ts';
import { MAX_MESSAGE_BYTES } from '../../src/rpc/grpc-codec.ts';
import { serveGrpc } from '../../src/rpc/grpc-server.ts';
import { type CallContext, type RpcStream, streamHandler, unaryHandler } from '../../src/rpc/types.ts';
import { Collector, closeLoopbacks, fetchRequest, loopback, serviceOf } from './loopback.ts';

afterEach(closeLoopbacks);

const request = create(ListOffsetsRequestSchema, { timeoutMs: 7 });
const options = { timeoutMs: 10_000 };

/** Echoes the payload of each frame. */
const echo = streamHandler(Raft.method.exchange, (responder) => ({
  message: (frame) => responder.send(frame),
  closed: () => responder.end(),
  drained() {},
}));

const answer = unaryHandler(Data.method.listOffsets, async () => create(ListOffsetsResponseSchema, { results: [{ offset: 42n }] }));

function frameOf(size: number, fill = 7): PeerFrame {
  return create(PeerFrameSchema, { payload: new Uint8Array(size).fill(fill) });
}

async function errorOf(promise: Promise<unknown>): Promise<FlotillaError> {
  const error = await promise.then(
    () => undefined,
    (thrown) => thrown,
  );
  expect(error).toBeInstanceOf(FlotillaError);
  return error;
}

describe('unary calls', () => {
  test('carry request, response, headers and the listener', async () => {
    let context: CallContext | undefined;
    const { channel } = await loopback(
      serviceOf([
        unaryHandler(Data.method.listOffsets, async (got, of) => {
          context = of;
          return create(ListOffsetsResponseSchema, { results: [{ offset: BigInt(got.timeoutMs) }] });
        }),
      ]),
    );
    const response = await channel.unary(Data.method.listOffsets, request, { ...options, headers: { 'client-id': 'me' } });
    expect(response.results[0]?.offset).toBe(7n);
    expect(context?.listener).toBe('client');
    expect(context?.headers['client-id']).toBe('me');
    expect(context?.peer).toMatch(/^127\.0\.0\.1:/);
  });

  test('an operating error arrives as it was thrown', async () => {
    const { channel } = await loopback(
      serviceOf([
        unaryHandler(Data.method.listOffsets, () => {
          throw new FlotillaError('NOT_LEADER_OR_FOLLOWER', 'Partition "träume-3": 100 % elsewhere');
        }),
      ]),
    );
    const error = await errorOf(channel.unary(Data.method.listOffsets, request, options));
    expect(error.code).toBe('NOT_LEADER_OR_FOLLOWER');
    expect(error.message).toBe('Partition "träume-3": 100 % elsewhere');
    expect(error.retriable).toBe(true);
  });

  test('anything else that a handler throws is UNKNOWN_SERVER_ERROR', async () => {
    const { channel } = await loopback(serviceOf([unaryHandler(Data.method.listOffsets, () => Promise.reject(new TypeError('oops')))]));
    expect((await errorOf(channel.unary(Data.method.listOffsets, request, options))).code).toBe('UNKNOWN_SERVER_ERROR');
  });

  test('end at their deadline, and the handler hears of it', async () => {
    let aborted: Promise<void> | undefined;
    const { channel } = await loopback(
      serviceOf([
        unaryHandler(Data.method.listOffsets, (_request, { signal }) => {
          aborted = new Promise((resolve) => signal.addEventListener('abort', () => resolve()));
          return new Promise(() => {});
        }),
      ]),
    );
    // The first call connects, so that the second one's deadline is the handler's alone.
    expect((await errorOf(channel.unary(Data.method.listOffsets, request, { timeoutMs: 1000 }))).code).toBe('REQUEST_TIMED_OUT');
    await aborted;
  });

  test('end when their signal fires', async () => {
    const abort = new AbortController();
    let gone: Promise<void> | undefined;
    const { channel } = await loopback(
      serviceOf([
        unaryHandler(Data.method.listOffsets, (_request, { signal }) => {
          gone = new Promise((resolve) => signal.addEventListener('abort', () => resolve()));
          abort.abort();
          return new Promise(() => {});
        }),
      ]),
    );
    expect((await errorOf(channel.unary(Data.method.listOffsets, request, { ...options, signal: abort.signal }))).code).toBe('ABORTED');
    await gone;
    expect((await errorOf(channel.unary(Data.method.listOffsets, request, { ...options, signal: abort.signal }))).code).toBe('ABORTED');
  });

  test('a method that nobody serves is UNSUPPORTED_VERSION; a port where nobody is, NETWORK_EXCEPTION', async () => {
    const { channel, server } = await loopback(serviceOf([]));
    expect((await errorOf(channel.unary(Data.method.listOffsets, request, options))).code).toBe('UNSUPPORTED_VERSION');
    await server.close(1000);
    expect((await errorOf(channel.unary(Data.method.listOffsets, request, options))).code).toBe('NETWORK_EXCEPTION');
    channel.close();
    expect((await errorOf(channel.unary(Data.method.listOffsets, request, options))).code).toBe('CLOSED');
  });
});

describe('streams', () => {
  test('carry frames of all sizes both ways, in order', async () => {
    const { channel } = await loopback(serviceOf([], [echo]));
    const collector = new Collector<PeerFrame>();
    const stream = channel.stream(Raft.method.exchange, collector, {});
    const sizes = [0, 1, 127, 128, 16_383, 16_384, 2_097_152, 3];
    for (const [i, size] of sizes.entries()) stream.send(frameOf(size, i + 1));
    stream.end();
    await collector.until(({ closes }) => closes.length > 0);
    expect(collector.closes).toEqual([undefined]);
    expect(collector.messages.map(({ payload }) => payload.length)).toEqual(sizes);
    for (const [i, { payload }] of collector.messages.entries()) expect(payload.every((byte) => byte === i + 1)).toBe(true);
    expect(collector.messages[1]?.payload.constructor).toBe(Uint8Array);
  });

  test('say when to wait and when to go on', async () => {
    const { channel } = await loopback(serviceOf([], [echo]));
    const collector = new Collector<PeerFrame>();
    const stream = channel.stream(Raft.method.exchange, collector, {});
    let sent = 0;
    while (stream.send(frameOf(1024 * 1024))) sent++;
    await collector.until(({ drains }) => drains > 0);
    expect(stream.send(frameOf(1))).toBe(true);
    stream.end();
    await collector.until(({ closes }) => closes.length > 0);
    expect(collector.messages).toHaveLength(sent + 2);
  });

  test('say when the bytes of a message may be used for something else', async () => {
    const payload = new Uint8Array(1024 * 1024);
    const { channel } = await loopback(
      serviceOf(
        [],
        [
          streamHandler(Data.method.fetch, (responder) => {
            const respond = (round: number): void => {
              payload.fill(round);
              const results = [{ partitionHandle: round, recordBatches: payload }];
              responder.send(create(FetchResponseSchema, { results }), () => (round < 20 ? respond(round + 1) : responder.end()));
            };
            return { message: () => respond(1), closed() {}, drained() {} };
          }),
        ],
      ),
    );
    const collector = new Collector<FetchResponse>();
    channel.stream(Data.method.fetch, collector, {}).send(fetchRequest(1));
    await collector.until(({ closes }) => closes.length > 0);
    expect(collector.messages).toHaveLength(20);
    for (const { results } of collector.messages) {
      expect(results[0]?.recordBatches.every((byte) => byte === results[0]?.partitionHandle)).toBe(true);
    }
  });

  test('an error thrown while opening or at a message arrives as it was thrown', async () => {
    const { channel } = await loopback(
      serviceOf(
        [],
        [
          streamHandler(Data.method.fetch, () => {
            throw new FlotillaError('INCONSISTENT_CLUSTER_ID', 'another cluster');
          }),
          streamHandler(Data.method.produce, () => ({
            message() {
              throw new FlotillaError('CORRUPT_MESSAGE', 'damaged');
            },
            closed() {},
            drained() {},
          })),
        ],
      ),
    );
    const refused = new Collector<FetchResponse>();
    channel.stream(Data.method.fetch, refused, {});
    await refused.until(({ closes }) => closes.length > 0);
    expect(refused.closes).toMatchObject([{ code: 'INCONSISTENT_CLUSTER_ID', message: 'another cluster' }]);
    const failed = new Collector<ProduceResponse>();
    channel.stream(Data.method.produce, failed, {}).send(create(ProduceRequestSchema));
    await failed.until(({ closes }) => closes.length > 0);
    expect(failed.closes).toMatchObject([{ code: 'CORRUPT_MESSAGE', message: 'damaged' }]);
  });

  test('cancelled by the caller, both sides hear once that it is over', async () => {
    const onServer = new Collector<unknown>();
    let signal: AbortSignal | undefined;
    const { channel } = await loopback(
      serviceOf(
        [],
        [
          streamHandler(Data.method.fetch, (_responder, context) => {
            signal = context.signal;
            return onServer;
          }),
        ],
      ),
    );
    const collector = new Collector<FetchResponse>();
    const stream = channel.stream(Data.method.fetch, collector, {});
    stream.send(fetchRequest(1));
    await onServer.until(({ messages }) => messages.length > 0);
    stream.cancel();
    await onServer.until(({ closes }) => closes.length > 0);
    await collector.until(({ closes }) => closes.length > 0);
    expect(onServer.closes).toMatchObject([{ code: 'NETWORK_EXCEPTION' }]);
    expect(collector.closes).toHaveLength(1);
    expect(signal?.aborted).toBe(true);
    expect(stream.send(fetchRequest(2))).toBe(true);
  });

  test('a server stream is not over when its caller has sent its request', async () => {
    const onServer = new Collector<unknown>();
    let respond: RpcStream<ReturnType<typeof create<typeof FollowMetadataResponseSchema>>> | undefined;
    const { channel } = await loopback(
      serviceOf(
        [],
        [
          streamHandler(Controller.method.followMetadata, (responder) => {
            respond = responder;
            return onServer;
          }),
        ],
      ),
    );
    const collector = new Collector<unknown>();
    const stream = channel.stream(Controller.method.followMetadata, collector, {});
    stream.send(create(FollowMetadataRequestSchema));
    stream.end();
    await onServer.until(({ messages }) => messages.length > 0);
    respond?.send(create(FollowMetadataResponseSchema));
    await collector.until(({ messages }) => messages.length > 0);
    respond?.send(create(FollowMetadataResponseSchema));
    await collector.until(({ messages }) => messages.length > 1);
    expect(onServer.closes).toEqual([]);
    respond?.end();
    await collector.until(({ closes }) => closes.length > 0);
    await onServer.until(({ closes }) => closes.length > 0);
    expect([collector.closes, onServer.closes]).toEqual([[undefined], [undefined]]);
  });

  test('end when the server is gone', async () => {
    const { channel, server } = await loopback(serviceOf([], [echo]));
    const collector = new Collector<PeerFrame>();
    channel.stream(Raft.method.exchange, collector, {}).send(frameOf(3));
    await collector.until(({ messages }) => messages.length > 0);
    await server.close(0);
    await collector.until(({ closes }) => closes.length > 0);
    expect(collector.closes).toHaveLength(1);
  });

  test('end when the channel is closed, on both sides', async () => {
    const onServer = new Collector<unknown>();
    const { channel } = await loopback(serviceOf([], [streamHandler(Data.method.fetch, () => onServer)]));
    const collector = new Collector<FetchResponse>();
    channel.stream(Data.method.fetch, collector, {}).send(fetchRequest(1));
    await onServer.until(({ messages }) => messages.length > 0);
    channel.close();
    await collector.until(({ closes }) => closes.length > 0);
    await onServer.until(({ closes }) => closes.length > 0);
    const late = new Collector<FetchResponse>();
    channel.stream(Data.method.fetch, late, {});
    await late.until(({ closes }) => closes.length > 0);
    expect(late.closes).toMatchObject([{ code: 'CLOSED' }]);
  });
});

describe('what hostile or broken callers do', () => {
  const hostile: [string, (socket: Socket) => void][] = [
    ['garbage', (socket) => socket.write(Buffer.alloc(4096, 0xa5))],
    ['an HTTP GET', (socket) => socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')],
    ['a good preface, then garbage', (socket) => socket.write(`PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${'\xff'.repeat(200)}`)],
    ['a reset', (socket) => socket.write('PRI', () => socket.resetAndDestroy())],
  ];
  test.each(hostile)('%s ends that connection alone', async (_name, attack) => {
    const { port, channel } = await loopback(serviceOf([answer]));
    const socket = connectSocket(port, '127.0.0.1', () => attack(socket));
    socket.on('error', () => {});
    socket.resume();
    await new Promise((resolve) => socket.on('close', resolve));
    expect((await channel.unary(Data.method.listOffsets, request, options)).results[0]?.offset).toBe(42n);
  });

  test.each(['read', 'do not even read'])('connections that stay silent and %s keep neither calls nor the close waiting', async (how) => {
    const { port, channel, server } = await loopback(serviceOf([answer]));
    const sockets = await Promise.all(
      Array.from({ length: 20 }, () => new Promise<Socket>((resolve) => resolve(connectSocket(port, '127.0.0.1')))),
    );
    const closed = sockets.map((socket) => {
      socket.on('error', () => {});
      if (how === 'read') socket.resume();
      return new Promise((resolve) => socket.on('close', resolve));
    });
    await channel.unary(Data.method.listOffsets, request, options);
    // Far less than this deadline is waited for, or this test times out.
    await server.close(3_600_000);
    for (const socket of sockets) socket.resume();
    await Promise.all(closed);
  });

  test('a message over the limit is refused, and the server stays up', async () => {
    const { channel } = await loopback(serviceOf([answer], [echo]));
    const collector = new Collector<PeerFrame>();
    const stream = channel.stream(Raft.method.exchange, collector, {});
    stream.send(frameOf(MAX_MESSAGE_BYTES + 1));
    await collector.until(({ closes }) => closes.length > 0);
    expect(collector.closes).toMatchObject([{ code: 'MESSAGE_TOO_LARGE' }]);
    await channel.unary(Data.method.listOffsets, request, options);
  });

  test('a message that is no protobuf ends its stream alone', async () => {
    const { channel } = await loopback(serviceOf([answer], [streamHandler(Data.method.produce, () => new Collector<unknown>())]));
    const collector = new Collector<unknown>();
    // A frame's payload read as a ProduceRequest: its batch is cut off.
    const disguised = {
      ...Raft.method.exchange,
      name: 'Produce',
      parent: Data,
      output: ProduceResponseSchema,
    } as unknown as typeof Raft.method.exchange;
    channel.stream(disguised, collector, {}).send(frameOf(100, 0xff));
    await collector.until(({ closes }) => closes.length > 0);
    expect(collector.closes).toMatchObject([{ name: 'FlotillaError' }]);
    await channel.unary(Data.method.listOffsets, request, options);
  });
});

describe('listeners', () => {
  test('a port in use is named, with what to do', async () => {
    const holder = createServer();
    const port = await new Promise<number>((resolve) =>
      holder.listen(0, '127.0.0.1', () => resolve((holder.address() as { port: number }).port)),
    );
    const listeners = [
      { name: 'client', host: '127.0.0.1', port: 0 },
      { name: 'peer', host: '127.0.0.1', port },
    ];
    const error = await errorOf(serveGrpc({ listeners, service: serviceOf([]), log: silentLogger }));
    expect(error.code).toBe('LISTENER');
    expect(error.message).toContain(String(port));
    expect(error.message).toContain('in use');
    holder.close();
  });

  test.runIf(Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === '::1')))(
    'may be an IPv6 address, in brackets as everywhere',
    async () => {
      const server = await serveGrpc({ listeners: [{ name: 'v6', host: '[::1]', port: 0 }], service: serviceOf([]), log: silentLogger });
      expect(server.addresses.get('v6')).toMatch(/^\[::1\]:\d+$/);
      await server.close(0);
    },
  );

  test('each says which one a call came in on', async () => {
    const listeners = ['client', 'peer'].map((name) => ({ name, host: '127.0.0.1', port: 0 }));
    const seen: string[] = [];
    const service = serviceOf([
      unaryHandler(Data.method.listOffsets, async (_request, { listener }) => {
        seen.push(listener);
        return create(ListOffsetsResponseSchema);
      }),
    ]);
    const server = await serveGrpc({ listeners, service, log: silentLogger });
    for (const { name } of listeners) {
      const channel = grpcConnect()(server.addresses.get(name) as string);
      await channel.unary(Data.method.listOffsets, request, options);
      channel.close();
    }
    await server.close(1000);
    expect(seen).toEqual(['client', 'peer']);
  });

  test('close lets calls in flight finish', async () => {
    let finish: (() => void) | undefined;
    const started = Promise.withResolvers<void>();
    const { channel, server } = await loopback(
      serviceOf([
        unaryHandler(Data.method.listOffsets, () => {
          started.resolve();
          return new Promise((resolve) => {
            finish = () => resolve(create(ListOffsetsResponseSchema));
          });
        }),
      ]),
    );
    const call = channel.unary(Data.method.listOffsets, request, options);
    await started.promise;
    const closed = server.close(10_000);
    finish?.();
    await call;
    channel.close();
    await closed;
  });
});

test('fetch responses carry batches as plain views', async () => {
  const batches = new Uint8Array(100_000).fill(9);
  const { channel } = await loopback(
    serviceOf(
      [],
      [
        streamHandler(Data.method.fetch, (responder) => ({
          message() {
            responder.send(create(FetchResponseSchema, { results: [{ recordBatches: batches, nextOffset: 5n }] }));
          },
          closed: () => responder.end(),
          drained() {},
        })),
      ],
    ),
  );
  const collector = new Collector<FetchResponse>();
  const stream = channel.stream(Data.method.fetch, collector, {});
  stream.send(fetchRequest(1));
  stream.end();
  await collector.until(({ closes }) => closes.length > 0);
  const got = collector.messages[0]?.results[0]?.recordBatches as Uint8Array;
  expect(got.constructor).toBe(Uint8Array);
  expect(got).toEqual(batches);
  expect(create(ProduceResponseSchema).results).toEqual([]);
});

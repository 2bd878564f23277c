import { connect as connectSocket, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { type Environment, type Logger, silentLogger } from '../../src/base/environment.ts';
import type { BrokerId, ClusterId, DirectoryId } from '../../src/base/ids.ts';
import type { Lane, Peer, PeerIdentity, PeerReceiver } from '../../src/raft/types.ts';
import { grpcConnect } from '../../src/rpc/grpc-channel.ts';
import { type GrpcServer, serveGrpc } from '../../src/rpc/grpc-server.ts';
import { MAX_BUFFERED_BYTES } from '../../src/rpc/peer-lane.ts';
import { RpcPeerTransport } from '../../src/rpc/peer-transport.ts';
import { serviceOf } from './loopback.ts';

const environment: Environment = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  after(ms, task) {
    const timer = setTimeout(task, ms);
    return { cancel: () => clearTimeout(timer) };
  },
  soon: queueMicrotask,
  nextTurn: (task) => void setImmediate(task),
  uint32: () => 0x7fffffff,
};

const A = 1 as BrokerId;
const B = 2 as BrokerId;
const CLUSTER = 'c'.repeat(32) as ClusterId;
const directoryOf = (id: BrokerId): DirectoryId => String(id).repeat(32) as DirectoryId;

/** What a transport told its host, in words; `until` resolves once it has said so `times` times. */
class Host implements PeerReceiver {
  readonly events: string[] = [];
  readonly frames: Uint8Array[] = [];
  private waiting: (() => void)[] = [];

  frame(from: BrokerId, lane: Lane, frame: Uint8Array): void {
    this.frames.push(frame);
    this.say(`frame ${from} ${lane}`);
  }

  connected(broker: BrokerId, lane: Lane): void {
    this.say(`connected ${broker} ${lane}`);
  }

  disconnected(broker: BrokerId, lane: Lane): void {
    this.say(`disconnected ${broker} ${lane}`);
  }

  async until(event: string, times = 1): Promise<void> {
    while (this.events.filter((said) => said === event).length < times) {
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
  }

  say(event: string): void {
    this.events.push(event);
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}

class Broker {
  readonly host = new Host();
  readonly identity: PeerIdentity;
  readonly transport: RpcPeerTransport;
  server: GrpcServer | undefined;

  constructor(brokerId: BrokerId, identity: Partial<PeerIdentity> = {}) {
    this.identity = { clusterId: CLUSTER, brokerId, directoryId: directoryOf(brokerId), incarnation: 2 ** 40 + brokerId, ...identity };
    const log: Logger = { ...silentLogger, warn: (event, fields) => this.host.say(`${event} ${String(fields?.['code'] ?? '')}`.trim()) };
    this.transport = new RpcPeerTransport({ identity: this.identity, connect: grpcConnect({ ownConnection: true }), environment, log });
    this.transport.start(this.host);
    brokers.push(this);
  }

  async listen(port = 0): Promise<string> {
    const service = serviceOf([], this.transport.handlers());
    this.server = await serveGrpc({ listeners: [{ name: 'peer', host: '127.0.0.1', port }], service, log: silentLogger });
    return this.server.addresses.get('peer') as string;
  }

  async stop(): Promise<void> {
    await this.transport.close();
    await this.server?.close(0);
  }
}

const brokers: Broker[] = [];
const proxies: ResettableProxy[] = [];

afterEach(async () => {
  await Promise.all(brokers.splice(0).map((broker) => broker.stop()));
  for (const proxy of proxies.splice(0)) proxy.close();
});

function peerOf(broker: Broker, address: string, directoryId: DirectoryId | undefined = broker.identity.directoryId): Peer {
  return { brokerId: broker.identity.brokerId, address, directoryId };
}

async function pair(): Promise<[Broker, Broker]> {
  const [a, b] = [new Broker(A), new Broker(B)];
  const [atA, atB] = [await a.listen(), await b.listen()];
  a.transport.setPeers([peerOf(a, atA), peerOf(b, atB)]);
  b.transport.setPeers([peerOf(a, atA), peerOf(b, atB)]);
  await Promise.all([a.host.until('connected 2 raft'), a.host.until('connected 2 heartbeat')]);
  await Promise.all([b.host.until('connected 1 raft'), b.host.until('connected 1 heartbeat')]);
  return [a, b];
}

/** A TCP proxy whose connections can be reset, as those of a killed process are. */
class ResettableProxy {
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();

  constructor(target: string) {
    this.server = createServer((from) => {
      const to = connectSocket(Number(target.split(':')[1]), '127.0.0.1');
      for (const socket of [from, to]) {
        this.sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => this.sockets.delete(socket));
      }
      from.pipe(to).pipe(from);
    });
    proxies.push(this);
  }

  listen(): Promise<string> {
    return new Promise((resolve) =>
      this.server.listen(0, '127.0.0.1', () => resolve(`127.0.0.1:${(this.server.address() as { port: number }).port}`)),
    );
  }

  reset(): void {
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  close(): void {
    this.server.close();
    this.reset();
  }
}

describe('frames', () => {
  test('arrive in order, on their lane, from whom they are', async () => {
    const [a, b] = await pair();
    for (let i = 0; i < 50; i++) expect(a.transport.send(B, 'raft', [new Uint8Array(i).fill(i)])).toBe(true);
    expect(b.transport.send(A, 'heartbeat', [Uint8Array.of(9)])).toBe(true);
    await b.host.until('frame 1 raft', 50);
    await a.host.until('frame 2 heartbeat');
    expect(b.host.frames.map(({ length }) => length)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(a.host.frames).toEqual([Uint8Array.of(9)]);
  });

  test('to nobody, or over the bound, are not taken', async () => {
    const [a, b] = await pair();
    expect(a.transport.send(3 as BrokerId, 'raft', [Uint8Array.of(1)])).toBe(false);
    const frame = new Uint8Array(1024 * 1024);
    let taken = 0;
    while (a.transport.send(B, 'raft', [frame])) taken++;
    expect(taken).toBeGreaterThanOrEqual(MAX_BUFFERED_BYTES.raft / frame.length);
    expect(taken).toBeLessThan(MAX_BUFFERED_BYTES.raft / frame.length + 64);
    expect(a.transport.send(B, 'heartbeat', [Uint8Array.of(1)])).toBe(true);
    await b.host.until('frame 1 heartbeat');
    await b.host.until('frame 1 raft', taken);
    expect(a.transport.send(B, 'raft', [Uint8Array.of(1)])).toBe(true);
  });
});

describe('a peer that is lost', () => {
  test('is reported, and found again when it is back', async () => {
    const [a, b] = await pair();
    const port = Number(b.server?.addresses.get('peer')?.split(':')[1]);
    await b.stop();
    await Promise.all([a.host.until('disconnected 2 raft'), a.host.until('disconnected 2 heartbeat')]);
    expect(a.transport.send(B, 'raft', [Uint8Array.of(1)])).toBe(false);
    const again = new Broker(B, { incarnation: 99 });
    again.transport.setPeers([]);
    await again.listen(port);
    await a.host.until('connected 2 raft', 2);
    expect(a.transport.send(B, 'raft', [Uint8Array.of(1)])).toBe(true);
    await again.host.until('frame 1 raft');
  });

  test('is noticed by its own streams too, and both come back without end', async () => {
    const [a, b] = [new Broker(A), new Broker(B)];
    const [atA, atB] = [await a.listen(), await b.listen()];
    const proxy = new ResettableProxy(atA);
    // Only what b opens goes through the proxy.
    b.transport.setPeers([peerOf(a, await proxy.listen())]);
    a.transport.setPeers([peerOf(b, atB)]);
    await Promise.all([a.host.until('connected 2 raft'), b.host.until('connected 1 raft')]);
    await Promise.all([a.host.until('connected 2 heartbeat'), b.host.until('connected 1 heartbeat')]);
    proxy.reset();
    await Promise.all([a.host.until('disconnected 2 raft'), b.host.until('disconnected 1 raft')]);
    await Promise.all([a.host.until('connected 2 raft', 2), b.host.until('connected 1 raft', 2)]);
    expect(a.transport.send(B, 'raft', [Uint8Array.of(1)])).toBe(true);
    await b.host.until('frame 1 raft');
    expect(a.host.events.filter((event) => event === 'disconnected 2 raft')).toHaveLength(1);
    expect(b.host.events.filter((event) => event === 'disconnected 1 raft')).toHaveLength(1);
  });

  test('is reported when it is no peer any more', async () => {
    const [a] = await pair();
    a.transport.setPeers([]);
    await Promise.all([a.host.until('disconnected 2 raft'), a.host.until('disconnected 2 heartbeat')]);
    expect(a.transport.send(B, 'raft', [Uint8Array.of(1)])).toBe(false);
  });
});

describe('a wrong identity is refused', () => {
  const wrongs: [string, Partial<PeerIdentity>, string][] = [
    ['another cluster', { clusterId: 'd'.repeat(32) as ClusterId }, 'INCONSISTENT_CLUSTER_ID'],
    ['another broker at that address', { brokerId: 7 as BrokerId }, 'INVALID_REQUEST'],
    ['another directory: its disk was replaced', { directoryId: 'e'.repeat(32) as DirectoryId }, 'DATA_DIRECTORY'],
  ];
  test.each(wrongs)('%s', async (_name, identity, code) => {
    const [a, b] = [new Broker(A), new Broker(B, identity)];
    a.transport.setPeers([{ brokerId: B, address: await b.listen(), directoryId: directoryOf(B) }]);
    await a.host.until(`peer-refused ${code}`, 2);
    await b.host.until('peer-not-accepted');
    expect(a.transport.send(B, 'raft', [Uint8Array.of(1)])).toBe(false);
    expect(a.host.events.filter((event) => event.startsWith('connected'))).toEqual([]);
  });

  test('a caller whose directory is not the registered one', async () => {
    const [a, b] = [new Broker(A, { directoryId: 'f'.repeat(32) as DirectoryId }), new Broker(B)];
    const [atA, atB] = [await a.listen(), await b.listen()];
    b.transport.setPeers([{ brokerId: A, address: atA, directoryId: directoryOf(A) }]);
    a.transport.setPeers([peerOf(b, atB)]);
    await a.host.until('peer-refused DATA_DIRECTORY', 2);
  });

  test('a directory that is not known yet is no reason', async () => {
    const [a, b] = [new Broker(A), new Broker(B)];
    a.transport.setPeers(
      [peerOf(b, await b.listen(), undefined)].map(({ brokerId, address }) => ({ brokerId, address, directoryId: undefined })),
    );
    await a.host.until('connected 2 raft');
  });
});

test('close is done at once, with the peer gone or there', async () => {
  const [a, b] = await pair();
  await a.transport.close();
  await b.host.until('disconnected 1 raft');
  expect(a.transport.send(B, 'raft', [Uint8Array.of(1)])).toBe(false);
});

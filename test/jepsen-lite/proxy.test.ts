import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { CLIENTS, TcpProxy } from './proxy.ts';

const BROKER = 1;
const BYSTANDER = 2;
let echo: Server;
let proxy: TcpProxy;
let address: number;
let bystander: number;
const clients: Socket[] = [];

/** Nodes CLIENTS and BYSTANDER each have a port of their own to the same broker, which echoes. */
beforeEach(async () => {
  echo = createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(0, '127.0.0.1');
  await once(echo, 'listening');
  proxy = new TcpProxy();
  const target = (echo.address() as AddressInfo).port;
  address = await proxy.listen(0, BROKER, target, () => CLIENTS);
  bystander = await proxy.listen(0, BROKER, target, () => BYSTANDER);
});

afterEach(() => {
  for (const client of clients.splice(0)) client.destroy();
  proxy.close();
  echo.close();
});

class Peer {
  heard = '';
  closed: Promise<string>;
  readonly #socket: Socket;

  constructor(port: number) {
    this.#socket = connect(port, '127.0.0.1');
    clients.push(this.#socket);
    let failure = 'closed';
    this.closed = new Promise((resolve) => this.#socket.once('close', () => resolve(failure)));
    this.#socket.on('error', (error: NodeJS.ErrnoException) => {
      failure = error.code ?? failure;
    });
    this.#socket.on('data', (chunk: Buffer) => {
      this.heard += chunk.toString();
    });
  }

  say(text: string): void {
    this.#socket.write(text);
  }

  end(): void {
    this.#socket.end();
  }

  async hears(text: string): Promise<void> {
    while (this.heard !== text) await Promise.race([once(this.#socket, 'data'), this.closed.then((why) => Promise.reject(new Error(why)))]);
  }
}

/** Longer than anything that was written before takes to come through. */
async function roundTrips(): Promise<void> {
  const other = new Peer(bystander);
  for (let i = 1; i <= 20; i++) {
    other.say('.');
    await other.hears('.'.repeat(i));
  }
}

test('what flows comes back, and an end is passed on', async () => {
  const client = new Peer(address);
  client.say('hello');
  await client.hears('hello');
  client.end();
  expect(await client.closed).toBe('closed');
});

test.each([
  ['there', CLIENTS, BROKER],
  ['back', BROKER, CLIENTS],
])('a link that holds, on the way %s, delivers late and all', async (_, from, to) => {
  const client = new Peer(address);
  client.say('a');
  await client.hears('a');
  proxy.set(from, to, 'hold');
  client.say('b');
  await roundTrips();
  expect(client.heard).toBe('a');
  proxy.heal();
  await client.hears('ab');
});

test.each([
  ['there', CLIENTS, BROKER],
  ['back', BROKER, CLIENTS],
])('a link that swallows, on the way %s, tells nobody until it is whole: then the connection is reset', async (_, from, to) => {
  const client = new Peer(address);
  client.say('a');
  await client.hears('a');
  proxy.set(from, to, 'swallow');
  client.say('b');
  await roundTrips();
  expect(client.heard).toBe('a');
  expect(await Promise.race([client.closed, Promise.resolve('open')])).toBe('open');
  proxy.heal();
  expect(await client.closed).toBe('ECONNRESET');
});

test('a connection that is opened over a broken link hears nothing, and lives when the link is whole', async () => {
  proxy.set(CLIENTS, BROKER, 'hold');
  const client = new Peer(address);
  client.say('a');
  await roundTrips();
  expect(client.heard).toBe('');
  proxy.heal();
  await client.hears('a');
});

test('a cut resets what is open and what is new', async () => {
  const client = new Peer(address);
  client.say('a');
  await client.hears('a');
  proxy.set(BROKER, CLIENTS, 'cut');
  expect(await client.closed).toBe('ECONNRESET');
  expect(await new Peer(address).closed).toBe('ECONNRESET');
  proxy.heal();
  const again = new Peer(address);
  again.say('b');
  await again.hears('b');
});

test('a slow link keeps the order', async () => {
  proxy.set(CLIENTS, BROKER, 'flow', 20);
  const client = new Peer(address);
  client.say('a');
  await roundTrips();
  proxy.set(CLIENTS, BROKER, 'flow', 1);
  client.say('b');
  await client.hears('ab');
});

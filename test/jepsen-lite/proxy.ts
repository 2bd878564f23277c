/**
 * The network between real processes: every connection goes through here, and each direction between two nodes is a link that can be broken.
 * Brokers are nodes 1, 2, …; {@link CLIENTS} is whoever speaks to them from outside.
 *
 * Bytes of a TCP connection can't be lost one by one, so a broken link does what TCP shows of a broken network:
 * - `hold`: packets are lost. Nothing arrives, nobody is told, the sender's buffers fill; when the link is whole again what was sent arrives, late.
 * - `swallow`: a box on the way has forgotten the connection. All is taken and thrown away, nobody is told; when the link is whole again the
 *   connection is reset, as the box then does.
 * - `cut`: a cable is pulled out of a neighbour who says so: reset at once, and so is each new connection.
 * New connections over a link that holds or swallows are opened and hear nothing.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

export const CLIENTS = 0;
export type LinkMode = 'flow' | 'hold' | 'swallow' | 'cut';

interface Link {
  mode: LinkMode;
  delayMs: number;
}

const HOST = '127.0.0.1';

export class TcpProxy {
  readonly #links = new Map<string, Link>();
  readonly #connections = new Set<Connection>();
  readonly #servers: Server[] = [];

  /** Takes connections to broker `to` on `port` and carries them to `target`. `from` names the node at the other end; undefined: refused. Port 0: any. Resolves with the port. */
  async listen(port: number, to: number, target: number, from: (socket: Socket) => number | undefined): Promise<number> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      const node = from(socket);
      const there = this.#link(node ?? CLIENTS, to);
      const back = this.#link(to, node ?? CLIENTS);
      if (node === undefined || there.mode === 'cut' || back.mode === 'cut') abort(socket);
      else this.#connections.add(new Connection(socket, target, there, back, (ended) => this.#connections.delete(ended)));
    });
    this.#servers.push(server);
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, HOST, resolve));
    return (server.address() as AddressInfo).port;
  }

  /** Sets one direction between two nodes. */
  set(from: number, to: number, mode: LinkMode, delayMs = 0): void {
    const link = this.#link(from, to);
    link.mode = mode;
    link.delayMs = delayMs;
    for (const connection of [...this.#connections]) connection.adapt();
  }

  /** All links are whole, at once. */
  heal(): void {
    for (const link of this.#links.values()) {
      link.mode = 'flow';
      link.delayMs = 0;
    }
    for (const connection of [...this.#connections]) connection.adapt();
  }

  close(): void {
    for (const server of this.#servers) server.close();
    for (const connection of [...this.#connections]) connection.reset();
  }

  #link(from: number, to: number): Link {
    const name = `${from}>${to}`;
    let link = this.#links.get(name);
    if (link === undefined) {
      link = { mode: 'flow', delayMs: 0 };
      this.#links.set(name, link);
    }
    return link;
  }
}

/** One connection to a broker, in its two halves. */
class Connection {
  readonly #near: Socket;
  readonly #port: number;
  readonly #there: Link;
  readonly #back: Link;
  readonly #ended: (connection: Connection) => void;
  /** Undefined: opened while a link was broken, so the broker knows nothing of it yet. */
  #pumps: readonly [Pump, Pump] | undefined;
  #over = false;

  constructor(near: Socket, port: number, there: Link, back: Link, ended: (connection: Connection) => void) {
    this.#near = near;
    this.#port = port;
    this.#there = there;
    this.#back = back;
    this.#ended = ended;
    near.pause();
    near.on('error', () => {}); // `close` follows.
    this.adapt();
  }

  /** Does what the links now say. */
  adapt(): void {
    const modes = [this.#there.mode, this.#back.mode];
    if (modes.includes('cut') || this.#pumps?.some((pump) => pump.spoiled)) this.reset();
    else if (this.#pumps !== undefined) for (const pump of this.#pumps) pump.adapt();
    else if (modes.every((mode) => mode === 'flow')) this.#open();
  }

  reset(): void {
    if (this.#over) return;
    this.#over = true;
    this.#ended(this);
    if (this.#pumps === undefined) abort(this.#near);
    else for (const { source } of this.#pumps) abort(source);
  }

  #open(): void {
    const far = connect({ port: this.#port, host: HOST, noDelay: true, allowHalfOpen: true });
    far.on('error', () => {});
    const closed = (pump: Pump) => {
      // Nobody is told over a broken link; adapt() tells them when it is whole.
      if (pump.flows || (this.#near.destroyed && far.destroyed)) this.reset();
    };
    this.#pumps = [new Pump(this.#near, far, this.#there, closed), new Pump(far, this.#near, this.#back, closed)];
  }
}

/** Node's reset of a socket that is being shut down does nothing, and its process then never ends. */
function abort(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

/** One direction of a connection. */
class Pump {
  readonly source: Socket;
  readonly #sink: Socket;
  readonly #link: Link;
  #swallowed = false;
  #deliverAt = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(source: Socket, sink: Socket, link: Link, closed: (pump: Pump) => void) {
    this.source = source;
    this.#sink = sink;
    this.#link = link;
    source.on('data', (chunk: Buffer) => this.#later(() => this.#write(chunk)));
    source.on('end', () => this.#later(() => this.#end()));
    source.on('close', () => closed(this));
    sink.on('drain', () => this.adapt());
    this.adapt();
  }

  get flows(): boolean {
    return this.#link.mode === 'flow';
  }

  /** Bytes are missing, or one end is gone without the other knowing, though the link is whole again: only a reset is true now. */
  get spoiled(): boolean {
    return this.flows && (this.#swallowed || (this.source.destroyed && !this.#sink.destroyed));
  }

  adapt(): void {
    if (this.#link.mode === 'hold' || this.#sink.writableNeedDrain) this.source.pause();
    else this.source.resume();
  }

  #later(deliver: () => void): void {
    const now = performance.now();
    if (this.#link.delayMs === 0 && this.#waiting.length === 0) {
      deliver();
      return;
    }
    this.#deliverAt = Math.max(this.#deliverAt, now + this.#link.delayMs);
    this.#waiting.push(deliver);
    // One for each that waits, whichever fires first: so their order stays.
    setTimeout(() => this.#waiting.shift()?.(), this.#deliverAt - now);
  }

  #write(chunk: Buffer): void {
    if (this.#link.mode === 'swallow') this.#swallowed = true;
    else if (!this.#sink.destroyed && !this.#sink.write(chunk)) this.source.pause();
  }

  #end(): void {
    if (this.#link.mode === 'swallow') this.#swallowed = true;
    else if (!this.#sink.destroyed) this.#sink.end();
  }
}

/** Which of the processes opened the other end of a connection, by what the kernel says. Linux. */
export function openedBy(socket: Socket, pids: ReadonlyMap<number, number>): number | undefined {
  const hex = (port: number | undefined) => (port ?? 0).toString(16).toUpperCase().padStart(4, '0');
  const [local, remote] = [hex(socket.remotePort), hex(socket.localPort)];
  const line = readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .map((text) => text.trim().split(/\s+/))
    .find((fields) => fields[1]?.endsWith(`:${local}`) && fields[2]?.endsWith(`:${remote}`));
  const wanted = `socket:[${line?.[9]}]`;
  for (const [node, pid] of pids) if (descriptors(pid).includes(wanted)) return node;
  return undefined;
}

function descriptors(pid: number): readonly string[] {
  const directory = `/proc/${pid}/fd`;
  try {
    return readdirSync(directory).map((name) => {
      try {
        return readlinkSync(`${directory}/${name}`);
      } catch {
        return ''; // Closed meanwhile.
      }
    });
  } catch {
    return []; // The process has ended.
  }
}

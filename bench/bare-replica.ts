/** One replica of the bare pipeline (bare-pipeline.ts): a process with a port and a preallocated file. */
import { once } from 'node:events';
import { fdatasync, fsyncSync, openSync, writeSync, writev } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { promisify } from 'node:util';

/** The first byte of a connection: from the client, or from the leader of what follows. */
export const CLIENT_GREETING = 1;
const LEADER_GREETING = 2;
/** A frame is u32 payload length, u32 sequence, payload; an acknowledgement is the u32 sequence up to which all is synced. */
const HEADER_BYTES = 8;
const ACK_BYTES = 4;
/** As much as a broker's write-ahead log, written over in the same way. */
const FILE_BYTES = 256 << 20;
const ZERO_BYTES = 8 << 20;
/** Linux's IOV_MAX. */
const MAX_BUFFERS = 1024;

export function frameHeader(length: number, sequence: number): Uint8Array {
  const header = new Uint8Array(HEADER_BYTES);
  const view = new DataView(header.buffer);
  view.setUint32(0, length);
  view.setUint32(4, sequence);
  return header;
}

/** Calls `acknowledged` with the newest sequence of what came. */
export function onAcknowledgements(socket: Socket, acknowledged: (sequence: number) => void): void {
  let rest: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const whole = bytes.length - (bytes.length % ACK_BYTES);
    rest = bytes.subarray(whole);
    if (whole > 0) acknowledged(bytes.readUInt32BE(whole - ACK_BYTES));
  });
}

function acknowledge(socket: Socket, sequence: number): void {
  const bytes = Buffer.alloc(ACK_BYTES);
  bytes.writeUInt32BE(sequence);
  socket.write(bytes);
}

interface Frame {
  readonly sequence: number;
  readonly length: number;
  /** The payload as it came, in pieces. */
  readonly chunks: readonly Uint8Array[];
}

/** Cuts what comes over a socket into frames without a copy. */
class FrameReader {
  readonly #whole: (frame: Frame) => void;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  #chunks: Uint8Array[] = [];
  #missing = 0;

  constructor(whole: (frame: Frame) => void) {
    this.#whole = whole;
  }

  read(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#headerBytes < HEADER_BYTES) {
        const taken = bytes.copy(this.#header, this.#headerBytes, at);
        this.#headerBytes += taken;
        at += taken;
        if (this.#headerBytes === HEADER_BYTES) this.#missing = this.#header.readUInt32BE(0);
        continue;
      }
      const chunk = bytes.subarray(at, at + this.#missing);
      this.#chunks.push(chunk);
      this.#missing -= chunk.length;
      at += chunk.length;
      if (this.#missing === 0) this.#end();
    }
  }

  #end(): void {
    const frame = { sequence: this.#header.readUInt32BE(4), length: this.#header.readUInt32BE(0), chunks: this.#chunks };
    this.#headerBytes = 0;
    this.#chunks = [];
    this.#whole(frame);
  }
}

/** Group commit: one write and one fdatasync in flight, and all that comes meanwhile shares the next. */
class Log {
  readonly #file: number;
  #position = 0;
  #waiting: { readonly frame: Frame; readonly synced: () => void }[] = [];
  #running = false;

  constructor(path: string) {
    this.#file = openSync(path, 'w+');
    const zeros = new Uint8Array(ZERO_BYTES);
    for (let at = 0; at < FILE_BYTES; at += ZERO_BYTES) writeSync(this.#file, zeros, 0, ZERO_BYTES, at);
    fsyncSync(this.#file);
  }

  append(frame: Frame, synced: () => void): void {
    this.#waiting.push({ frame, synced });
    if (this.#running) return;
    this.#running = true;
    this.#run().catch((error: unknown) => {
      console.error(error);
      process.exit(1);
    });
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      const group = this.#waiting;
      this.#waiting = [];
      const chunks = group.flatMap(({ frame }) => [frameHeader(frame.length, frame.sequence), ...frame.chunks]);
      for (let from = 0; from < chunks.length; from += MAX_BUFFERS) await this.#write(chunks.slice(from, from + MAX_BUFFERS));
      await promisify(fdatasync)(this.#file);
      for (const { synced } of group) synced();
    }
    this.#running = false;
  }

  #write(chunks: readonly Uint8Array[]): Promise<void> {
    const bytes = chunks.reduce((total, { length }) => total + length, 0);
    if (this.#position + bytes > FILE_BYTES) this.#position = 0;
    const at = this.#position;
    this.#position += bytes;
    return new Promise((resolve, reject) => {
      writev(this.#file, chunks, at, (error, written) => {
        if (error === null && written === bytes) resolve();
        else reject(error ?? new Error(`${written} of ${bytes} bytes written`));
      });
    });
  }
}

/** Leads what its client sends; follows in what the other two send. */
class Replica {
  readonly #log: Log;
  #followers: Socket[] = [];

  constructor(log: Log) {
    this.#log = log;
  }

  async follow(ports: readonly number[]): Promise<void> {
    this.#followers = ports.map((port) => connect({ port, host: '127.0.0.1', noDelay: true }));
    await Promise.all(this.#followers.map((socket) => once(socket, 'connect')));
    for (const socket of this.#followers) socket.write(Uint8Array.of(LEADER_GREETING));
  }

  accept(socket: Socket): void {
    socket.once('data', (first) => {
      const take = first[0] === CLIENT_GREETING ? this.#lead(socket) : this.#obey(socket);
      const reader = new FrameReader(take);
      reader.read(first.subarray(1));
      socket.on('data', (chunk) => reader.read(chunk));
    });
    socket.on('error', () => socket.destroy());
  }

  #lead(client: Socket): (frame: Frame) => void {
    // Up to where each copy is synced: this one, then the followers'. The second of three is what a majority has.
    const synced = [0, 0, 0];
    let told = 0;
    const reached = (copy: number, sequence: number): void => {
      synced[copy] = sequence;
      const committed = synced.toSorted((a, b) => b - a)[1] ?? 0;
      if (committed > told) acknowledge(client, committed);
      told = committed;
    };
    for (const [i, follower] of this.#followers.entries()) onAcknowledgements(follower, (sequence) => reached(i + 1, sequence));
    return (frame) => {
      for (const follower of this.#followers) {
        follower.cork();
        follower.write(frameHeader(frame.length, frame.sequence));
        for (const chunk of frame.chunks) follower.write(chunk);
        follower.uncork();
      }
      this.#log.append(frame, () => reached(0, frame.sequence));
    };
  }

  #obey(leader: Socket): (frame: Frame) => void {
    return (frame) => this.#log.append(frame, () => acknowledge(leader, frame.sequence));
  }
}

async function main(path: string): Promise<void> {
  const replica = new Replica(new Log(path));
  const server = createServer({ noDelay: true }, (socket) => replica.accept(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  process.on('disconnect', () => process.exit());
  process.send?.((server.address() as AddressInfo).port);
  const [ports] = await once(process, 'message');
  await replica.follow(ports as number[]);
  process.send?.(0);
}

if (import.meta.main) await main(process.argv[2] as string);

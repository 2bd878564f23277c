/**
 * What this machine gives when nothing but the bytes moves: a client sends frames of the SDK's default batch size to three replicas, each of
 * which leads a third of them: it passes a frame to the other two, writes it to a preallocated file with one fdatasync for all that waits,
 * and acknowledges once a majority has synced it. The same bytes, hops and syncs as a produce, four processes, plain sockets, no broker logic;
 * written once, while Flotilla writes its log and then segments. Flotilla's produce is told as a share of it.
 *
 * By itself: `node bench/bare-pipeline.ts [SECONDS]`.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CLIENT_GREETING, frameHeader, onAcknowledgements } from './bare-replica.ts';
import type { Throughput } from './measures.ts';

const REPLICAS = 3;
/** The SDK's defaults: bytes of a batch, and batches in flight for each partition. */
const FRAME_BYTES = 960 << 10;
const FRAMES_IN_FLIGHT = 5;
const RECORD_BYTES = 1024;

/** Sends for so long, and waits for the last acknowledgement. */
export async function measureBarePipeline(seconds: number): Promise<Throughput> {
  const directory = mkdtempSync(join(tmpdir(), 'flotilla-bare-'));
  const replicas: ChildProcess[] = [];
  try {
    for (let i = 0; i < REPLICAS; i++)
      replicas.push(fork(fileURLToPath(import.meta.resolve('./bare-replica.ts')), [join(directory, `log-${i}`)]));
    const ports = await Promise.all(replicas.map((replica) => answer(replica)));
    const ready = Promise.all(replicas.map((replica) => answer(replica)));
    for (const [i, replica] of replicas.entries()) replica.send(ports.filter((_, other) => other !== i));
    await ready;
    const started = performance.now();
    const frames = await Promise.all(ports.map((port) => sendFrames(port, started + seconds * 1000)));
    const elapsed = (performance.now() - started) / 1000;
    const bytes = frames.reduce((total, count) => total + count, 0) * FRAME_BYTES;
    return { records: bytes / RECORD_BYTES, seconds: elapsed, megabytesPerSecond: bytes / 1e6 / elapsed };
  } finally {
    for (const replica of replicas) replica.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Keeps {@link FRAMES_IN_FLIGHT} frames with one replica; resolves with how many it acknowledged. */
async function sendFrames(port: number, untilMs: number): Promise<number> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  await once(socket, 'connect');
  socket.write(Uint8Array.of(CLIENT_GREETING));
  const payload = new Uint8Array(FRAME_BYTES).map((_, i) => (i * 131) & 0xff);
  const done = Promise.withResolvers<number>();
  let sent = 0;
  const sendMore = (acknowledged: number): void => {
    while (performance.now() < untilMs && sent - acknowledged < FRAMES_IN_FLIGHT) sendFrame(socket, ++sent, payload);
    if (acknowledged === sent) done.resolve(sent);
  };
  onAcknowledgements(socket, sendMore);
  socket.on('error', done.reject);
  socket.on('close', () => done.reject(new Error('a replica of the bare pipeline ended')));
  sendMore(0);
  const frames = await done.promise;
  socket.destroy();
  return frames;
}

function sendFrame(socket: Socket, sequence: number, payload: Uint8Array): void {
  socket.cork();
  socket.write(frameHeader(payload.length, sequence));
  socket.write(payload);
  socket.uncork();
}

/** The replica's next message: first its port, then that it is connected to the others. */
async function answer(replica: ChildProcess): Promise<number> {
  const ended = once(replica, 'exit').then(() => {
    throw new Error('a replica of the bare pipeline ended before it was ready');
  });
  ended.catch(() => {});
  const [message] = await Promise.race([once(replica, 'message'), ended]);
  return message as number;
}

if (import.meta.main) {
  const { megabytesPerSecond } = await measureBarePipeline(Number(process.argv[2] ?? 10));
  console.log(`bare pipeline: ${megabytesPerSecond.toFixed(1)} MB/s`);
}

import type { MessageShape } from '@bufbuild/protobuf';
import { lengthOf } from '../base/bytes.ts';
import { type Environment, type Logger, randomBelow, type Timer } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { type PeerFrameSchema, Raft } from '../gen/flotilla/v1/raft_pb.ts';
import type { Lane, Peer } from '../raft/types.ts';
import { partedFrame } from './parted-frame.ts';
import { decodeAccept } from './peer-identity.ts';
import type { RpcChannel, RpcStream } from './types.ts';

/** Bytes that wait for the connection to take more; beyond, frames are lost and Raft sends again. */
export const MAX_BUFFERED_BYTES: Readonly<Record<Lane, number>> = {
  raft: 64 * 1024 * 1024,
  heartbeat: 1024 * 1024,
  bulk: 32 * 1024 * 1024,
};

const METHODS = { raft: Raft.method.exchange, heartbeat: Raft.method.heartbeats, bulk: Raft.method.bulk } as const;

const MIN_BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 1_000;
/** A stream that is neither accepted nor refused for so long is given up. */
const ACCEPT_TIMEOUT_MS = 5_000;
/** What a stream that was ended gets to end cleanly. */
const END_TIMEOUT_MS = 1_000;

type Frame = MessageShape<typeof PeerFrameSchema>;

export interface PeerLaneOptions {
  readonly peer: Peer;
  readonly lane: Lane;
  readonly channel: RpcChannel;
  readonly headers: Readonly<Record<string, string>>;
  readonly environment: Environment;
  readonly log: Logger;
  /** Called at each change, and never twice with the same. */
  readonly changed: (connected: boolean) => void;
}

/** Our stream to one peer on one lane: opened again with backoff for as long as the lane is. */
export class PeerLane {
  private readonly options: PeerLaneOptions;
  /** Undefined: waiting to open again. */
  private stream: RpcStream<Frame> | undefined;
  /** Tells callbacks of an earlier stream from this one's. */
  private attempt = 0;
  private incarnation: number | undefined;
  private isBlocked = false;
  private isClosed = false;
  private queue: { readonly parts: readonly Uint8Array[]; readonly length: number }[] = [];
  private queuedBytes = 0;
  private backoffMs = MIN_BACKOFF_MS;
  private timer: Timer | undefined;
  /** The code that was logged last, so that what repeats every second is logged once. */
  private logged: string | undefined;

  constructor(options: PeerLaneOptions) {
    this.options = options;
  }

  get isConnected(): boolean {
    return this.incarnation !== undefined;
  }

  /** The incarnation of the process at the other end, once it accepted. */
  get peerIncarnation(): number | undefined {
    return this.incarnation;
  }

  open(): void {
    if (this.isClosed || this.stream !== undefined) return;
    this.timer?.cancel();
    const { channel, lane, headers, environment } = this.options;
    const attempt = ++this.attempt;
    const stream = channel.stream(
      METHODS[lane],
      {
        message: (frame) => {
          if (attempt === this.attempt) this.accepted(frame.payload);
        },
        closed: (error) => {
          if (attempt === this.attempt) this.lost(error);
        },
        drained: () => {
          if (attempt === this.attempt) this.flush();
        },
      },
      { headers },
    );
    // A transport in memory may have closed it by now.
    if (attempt !== this.attempt) return;
    this.stream = stream;
    if (this.isConnected) return;
    this.timer = environment.after(ACCEPT_TIMEOUT_MS, () =>
      this.drop(new FlotillaError('REQUEST_TIMED_OUT', 'The peer does not accept the stream.')),
    );
  }

  /** See PeerTransport.send. */
  send(parts: readonly Uint8Array[]): boolean {
    if (this.stream === undefined || !this.isConnected) return false;
    if (!this.isBlocked) {
      this.isBlocked = !this.stream.send(partedFrame(parts));
      return true;
    }
    const length = lengthOf(parts);
    if (this.queuedBytes + length > MAX_BUFFERED_BYTES[this.options.lane]) return false;
    this.queue.push({ parts, length });
    this.queuedBytes += length;
    return true;
  }

  /**
   * The peer seems to be gone: starts over. The stream is ended cleanly, since a cancelled one would make the peer believe the same of us,
   * and the two could go on so for ever.
   */
  drop(error: Error): void {
    const { stream } = this;
    if (stream === undefined) return;
    this.lost(error);
    stream.end();
    this.options.environment.after(END_TIMEOUT_MS, () => stream.cancel());
  }

  /** The peer has just shown that it is alive: no reason to wait. */
  hurry(): void {
    if (this.stream !== undefined) return;
    this.backoffMs = MIN_BACKOFF_MS;
    this.open();
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    const { stream } = this;
    this.lost(undefined);
    stream?.end();
    this.timer?.cancel();
    this.options.channel.close();
  }

  private accepted(payload: Uint8Array): void {
    if (this.isConnected) return;
    const incarnation = decodeAccept(payload);
    if (incarnation === undefined) {
      this.drop(new FlotillaError('UNSUPPORTED_VERSION', 'The peer answers in a way that this version does not know.'));
      return;
    }
    this.timer?.cancel();
    this.incarnation = incarnation;
    this.backoffMs = MIN_BACKOFF_MS;
    this.logged = undefined;
    this.options.changed(true);
  }

  private flush(): void {
    this.isBlocked = false;
    const { queue, stream } = this;
    if (stream === undefined) return;
    let sent = 0;
    for (const { parts, length } of queue) {
      if (this.isBlocked) break;
      sent++;
      this.queuedBytes -= length;
      this.isBlocked = !stream.send(partedFrame(parts));
    }
    this.queue = sent === queue.length ? [] : queue.slice(sent);
  }

  private lost(error: Error | undefined): void {
    const wasConnected = this.isConnected;
    this.attempt++;
    this.stream = undefined;
    this.incarnation = undefined;
    this.isBlocked = false;
    this.queue = [];
    this.queuedBytes = 0;
    this.timer?.cancel();
    if (!this.isClosed) {
      this.log(error);
      const wait = this.backoffMs / 2 + randomBelow(this.options.environment, this.backoffMs / 2);
      this.backoffMs = Math.min(this.backoffMs * 2, MAX_BACKOFF_MS);
      this.timer = this.options.environment.after(wait, () => this.open());
    }
    if (wasConnected) this.options.changed(false);
  }

  private log(error: Error | undefined): void {
    const code = error instanceof FlotillaError ? error.code : 'ended';
    if (code === this.logged) return;
    this.logged = code;
    const { peer, lane, log } = this.options;
    const fields = { broker: peer.brokerId, address: peer.address, lane, code, error: error === undefined ? undefined : messageOf(error) };
    // A refusal lasts until a person does something; the rest passes.
    if (error instanceof FlotillaError && !error.retriable) log.warn('peer-refused', fields);
    else log.info('peer-lost', fields);
  }
}

/**
 * A broker without a replica of the metadata log follows it from any voter, as an observer outside the quorum. A stream that ends,
 * or is silent for FOLLOW_SILENCE_MS (that voter may be cut off), is replaced by one to the next voter, from where this broker's image is.
 */
import { create } from '@bufbuild/protobuf';
import type { Environment, Logger, Timer } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import type { BrokerId } from '../base/ids.ts';
import { FollowMetadataRequestSchema, type FollowMetadataResponse, Controller as Service } from '../gen/flotilla/v1/controller_pb.ts';
import type { MetadataStore } from '../metadata/view.ts';
import type { Connect, RpcChannel } from '../rpc/types.ts';
import { backoffMs } from './pause.ts';

/** Three keepalives. */
export const FOLLOW_SILENCE_MS = 6_000;

export interface MetadataFollowerOptions {
  readonly brokerId: BrokerId;
  /** Addresses of the voters. */
  readonly addresses: () => readonly string[];
  readonly connect: Connect;
  readonly metadata: MetadataStore;
  readonly environment: Environment;
  readonly logger: Logger;
  /** The metadata can't be read: an unknown record, damage. The broker must end and say why. */
  readonly failed: (error: Error) => void;
}

export class MetadataFollower {
  readonly #options: MetadataFollowerOptions;
  #turn = 0;
  #failures = 0;
  #session: FollowSession | undefined;
  #retry: Timer | undefined;
  #stopped = false;

  constructor(options: MetadataFollowerOptions) {
    this.#options = options;
    // Followers spread over the voters.
    this.#turn = options.brokerId;
  }

  start(): void {
    this.#connect();
  }

  stop(): void {
    this.#stopped = true;
    this.#retry?.cancel();
    this.#session?.close();
    this.#session = undefined;
  }

  #connect(): void {
    const addresses = this.#options.addresses();
    const address = addresses[this.#turn++ % Math.max(1, addresses.length)];
    if (address === undefined) {
      this.#reconnectLater('no voter is known');
      return;
    }
    this.#session = new FollowSession(this.#options, address, {
      progressed: () => {
        this.#failures = 0;
      },
      ended: (why) => this.#reconnectLater(`${address}: ${why}`),
      unreadable: (error) => {
        this.stop();
        this.#options.failed(error);
      },
    });
  }

  #reconnectLater(why: string): void {
    this.#session = undefined;
    if (this.#stopped) return;
    const { environment, logger } = this.#options;
    const ms = backoffMs(this.#failures++, environment);
    logger.info('following metadata from the next controller', { reason: why, inMs: Math.round(ms) });
    this.#retry = environment.after(ms, () => this.#connect());
  }
}

interface SessionOwner {
  progressed(): void;
  /** Called once, unless `close` or `unreadable` came before. */
  ended(why: string): void;
  unreadable(error: Error): void;
}

class FollowSession {
  readonly #options: MetadataFollowerOptions;
  readonly #owner: SessionOwner;
  readonly #channel: RpcChannel;
  #silence: Timer | undefined;
  #closed = false;

  constructor(options: MetadataFollowerOptions, address: string, owner: SessionOwner) {
    this.#options = options;
    this.#owner = owner;
    this.#channel = options.connect(address);
    this.#watch();
    const stream = this.#channel.stream(
      Service.method.followMetadata,
      {
        message: (message) => this.#take(message),
        closed: (error) => this.#end(error === undefined ? 'the stream ended' : messageOf(error)),
        drained: () => {},
      },
      {},
    );
    stream.send(create(FollowMetadataRequestSchema, { fromIndex: BigInt(options.metadata.image.index + 1), brokerId: options.brokerId }));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#silence?.cancel();
    this.#channel.close();
  }

  #take(message: FollowMetadataResponse): void {
    if (this.#closed) return;
    this.#watch();
    const { metadata } = this.#options;
    try {
      if (message.checkpoint.length > 0) metadata.replaceEncoded(message.checkpoint);
      for (const { index, payload } of message.entries) metadata.applyEntry(Number(index), payload);
    } catch (error) {
      this.close();
      this.#owner.unreadable(
        new Error(`can't read the metadata log after entry ${metadata.image.index}: ${messageOf(error)}`, { cause: error }),
      );
      return;
    }
    this.#owner.progressed();
  }

  #watch(): void {
    this.#silence?.cancel();
    this.#silence = this.#options.environment.after(FOLLOW_SILENCE_MS, () => this.#end('silent for too long'));
  }

  #end(why: string): void {
    if (this.#closed) return;
    this.close();
    this.#owner.ended(why);
  }
}

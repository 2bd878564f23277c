import type { Environment } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { CompressionTable } from '../record/compression.ts';
import { crc32c } from '../record/crc32c.ts';
import type { Crc32c } from '../record/types.ts';
import type { Connect } from '../rpc/types.ts';
import { Admin } from './admin.ts';
import { Channels } from './channels.ts';
import type { Cluster } from './cluster.ts';
import { Consumer, type ConsumerOptions } from './consumer.ts';
import { MetadataCache } from './metadata-cache.ts';
import { Producer } from './producer.ts';
import type { ProducerOptions } from './producer-options.ts';
import { abortable, backoffMs, sleep, throwIfAborted } from './wait.ts';

export interface ClientOptions {
  /** Brokers to start with, `host:port`: one string, a comma-separated one, or a list. The others are found through them. */
  readonly bootstrap: string | readonly string[];
  /** Aborts the connecting, not the connected client. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds until BROKER_NOT_AVAILABLE when no broker answers. Default 10,000. */
  readonly connectTimeoutMs?: number | undefined;
}

/** What a client stands on: production's is in connect.ts, a simulation brings its own. */
export interface ClientPlatform {
  readonly environment: Environment;
  readonly connect: Connect;
  /** Default: none. */
  readonly compression?: CompressionTable | undefined;
  /** Default: JavaScript. */
  readonly crc32c?: Crc32c | undefined;
}

export const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;

/** A connection to a cluster. Made by `connect`. Close it, or take it with `await using`: nothing of it outlives its close. */
export class Client implements AsyncDisposable {
  /** Topics, offsets, leaders, the cluster. */
  readonly admin: Admin;
  readonly #cluster: Cluster;
  readonly #closing: AbortController;
  readonly #handles = new Set<Producer | Consumer>();
  #closed: Promise<void> | undefined;

  private constructor(cluster: Cluster, closing: AbortController) {
    this.#cluster = cluster;
    this.#closing = closing;
    this.admin = new Admin(cluster);
  }

  /**
   * Connects on a given platform; see connect.ts for the one on Node.
   * @throws FlotillaError BROKER_NOT_AVAILABLE (no broker answered within connectTimeoutMs), INVALID_REQUEST, UNSUPPORTED_VERSION, ABORTED
   */
  static async open(platform: ClientPlatform, options: ClientOptions): Promise<Client> {
    const { environment } = platform;
    const { signal, connectTimeoutMs = DEFAULT_CONNECT_TIMEOUT_MS } = options;
    throwIfAborted(signal);
    const closing = new AbortController();
    const channels = new Channels(platform.connect);
    const metadata = new MetadataCache(environment, channels, bootstrapAddresses(options.bootstrap), closing.signal);
    const codecs = { compression: platform.compression ?? new CompressionTable(), crc32c: platform.crc32c ?? crc32c };
    const client = new Client({ environment, channels, metadata, codecs, closing: closing.signal }, closing);
    const late = environment.after(connectTimeoutMs, () =>
      closing.abort(new FlotillaError('REQUEST_TIMED_OUT', 'connectTimeoutMs is over')),
    );
    try {
      await abortable(firstRefresh(environment, metadata, closing.signal), signal);
      return client;
    } catch (error) {
      await client.close({ deadlineMs: 0 });
      throw error;
    } finally {
      late.cancel();
    }
  }

  /** 32 hex digits; undefined before a broker has told it. */
  get clusterId(): string | undefined {
    return this.#cluster.metadata.clusterId;
  }

  /** A producer. @throws FlotillaError for options that exclude each other (INVALID_REQUIRED_ACKS, INVALID_REQUEST), CLOSED */
  producer(options: ProducerOptions = {}): Producer {
    this.#assertOpen();
    const producer = new Producer(this.#cluster, options, (closed) => this.#handles.delete(closed));
    this.#handles.add(producer);
    return producer;
  }

  /** A consumer, which starts at once. @throws FlotillaError INVALID_REQUEST (no topic), CLOSED */
  consumer(options: ConsumerOptions): Consumer {
    this.#assertOpen();
    const consumer = new Consumer(this.#cluster, options, (closed) => this.#handles.delete(closed));
    this.#handles.add(consumer);
    return consumer;
  }

  /**
   * Closes its consumers, its producers (which first deliver what they hold, for at most `deadlineMs`: default 10,000) and its
   * connections. Never takes longer than the deadline, even with the whole cluster gone.
   */
  close(options?: { readonly deadlineMs?: number | undefined }): Promise<void> {
    this.#closed ??= this.#close(options);
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(options: { readonly deadlineMs?: number | undefined } | undefined): Promise<void> {
    await Promise.all([...this.#handles].map((handle) => (handle instanceof Producer ? handle.close(options) : handle.close())));
    this.#closing.abort(new FlotillaError('CLOSED', 'the client is closed'));
    this.#cluster.channels.close();
  }

  #assertOpen(): void {
    if (this.#closed) throw new FlotillaError('CLOSED', 'the client is closed: connect() again');
  }
}

async function firstRefresh(environment: Environment, metadata: MetadataCache, closing: AbortSignal): Promise<void> {
  let failure: unknown;
  for (let attempt = 1; ; attempt++) {
    try {
      return await abortable(metadata.refresh(), closing);
    } catch (error) {
      if (error instanceof FlotillaError && !error.retriable) throw error;
      if (!closing.aborted) failure = error;
    }
    try {
      await sleep(environment, backoffMs(environment, attempt), closing);
    } catch {
      throw new FlotillaError('BROKER_NOT_AVAILABLE', failure === undefined ? 'no broker answered in time' : messageOf(failure), {
        cause: failure,
      });
    }
  }
}

function bootstrapAddresses(bootstrap: string | readonly string[]): string[] {
  const addresses = (typeof bootstrap === 'string' ? bootstrap.split(',') : bootstrap).map((address) => address.trim()).filter(Boolean);
  if (addresses.length > 0 && addresses.every((address) => /:\d+$/.test(address))) return addresses;
  throw new FlotillaError('INVALID_REQUEST', `bootstrap is one or more host:port, not '${String(bootstrap)}'`);
}

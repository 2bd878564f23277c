/** A producer's streams, one a broker, and what becomes of one whose broker is silent. */
import type { Cluster } from './cluster.ts';
import { ProduceStream, type ProduceStreamOptions } from './produce-stream.ts';

/** A broker that owes answers and is silent for so long is checked against the cluster's metadata. */
const SILENCE_MS = 750;
/** What a broker's answer may take beyond its own timeout. */
const REQUEST_GRACE_MS = 2_000;

export class ProduceStreams {
  readonly #cluster: Cluster;
  readonly #options: ProduceStreamOptions;
  /** By address. */
  readonly #streams = new Map<string, ProduceStream>();
  #probing = false;

  constructor(cluster: Cluster, options: ProduceStreamOptions) {
    this.#cluster = cluster;
    this.#options = options;
  }

  to(address: string): ProduceStream {
    const known = this.#streams.get(address);
    if (known) return known;
    const { environment, channels } = this.#cluster;
    const stream = new ProduceStream(environment, channels.get(address), this.#options, (closed) => {
      if (this.#streams.get(address) === closed) this.#streams.delete(address);
    });
    this.#streams.set(address, stream);
    return stream;
  }

  /** To be called now and then while answers are owed. */
  check(nowMs: number): void {
    for (const stream of [...this.#streams.values()]) {
      const silentMs = stream.silentMs(nowMs);
      if (silentMs > this.#options.requestTimeoutMs + REQUEST_GRACE_MS) stream.cancel();
      else if (silentMs > SILENCE_MS) void this.#probe();
    }
  }

  cancel(): void {
    for (const stream of [...this.#streams.values()]) stream.cancel();
  }

  /** A silent broker may be cut off from the cluster: where others know a newer leader, its batches go there. */
  async #probe(): Promise<void> {
    if (this.#probing) return;
    this.#probing = true;
    await this.#cluster.metadata.refresh().catch(() => {});
    for (const stream of [...this.#streams.values()]) {
      for (const queue of stream.queues) {
        if (!queue.misrouted) continue;
        stream.cancel();
        break;
      }
    }
    this.#probing = false;
  }
}

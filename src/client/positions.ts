/** Which partitions a consumer reads, and which offsets in them 'beginning', 'end' and times stand for. */
import { FlotillaError } from '../base/errors.ts';
import type { Cluster } from './cluster.ts';
import type { ConsumerOptions } from './consumer.ts';
import { FetchedPartition } from './fetched-partition.ts';
import { noSuchPartition } from './metadata-cache.ts';
import { EARLIEST, type Isolation, LATEST, listOffsets, type Where } from './offsets.ts';
import { backoffMs, sleep } from './wait.ts';

export class Positions {
  readonly #cluster: Cluster;
  readonly #isolation: Isolation | undefined;
  readonly #signal: AbortSignal;

  /** `signal`: the consumer closes. */
  constructor(cluster: Cluster, isolation: Isolation | undefined, signal: AbortSignal) {
    this.#cluster = cluster;
    this.#isolation = isolation;
    this.#signal = signal;
  }

  /** Tries for as long as the consumer is open. Errors: UNKNOWN_TOPIC_OR_PARTITION. */
  async partitionsOf(topics: ConsumerOptions['topics']): Promise<FetchedPartition[]> {
    const { metadata } = this.#cluster;
    const partitions: FetchedPartition[] = [];
    const named = new Set<string>();
    for (const entry of topics) {
      const { topic, partitions: chosen } = typeof entry === 'string' ? { topic: entry, partitions: undefined } : entry;
      const state = await this.#persist(() => metadata.topic(topic, this.#signal));
      for (const partition of chosen ?? state.partitions.keys()) {
        if (state.partitions[partition] === undefined) throw noSuchPartition(state, partition);
        // Named twice, it is read once: no record comes twice.
        const name = `${topic}-${partition}`;
        if (named.has(name)) continue;
        named.add(name);
        partitions.push(new FetchedPartition(state, partition, partitions.length + 1));
      }
    }
    return partitions;
  }

  /** The offset in each of the partitions. Tries once. */
  async find(partitions: readonly FetchedPartition[], where: Where): Promise<number[]> {
    if (typeof where === 'object' && 'offset' in where) return partitions.map(() => where.offset);
    const query = (timestamp: number) => {
      const queries = partitions.map(({ topic, partition }) => ({ topic, partition, timestamp }));
      return listOffsets(this.#cluster, queries, { isolation: this.#isolation, signal: this.#signal });
    };
    if (where === 'beginning') return query(EARLIEST);
    if (where === 'end') return query(LATEST);
    const offsets = await query(where.time);
    if (!offsets.includes(-1)) return offsets;
    const ends = await query(LATEST);
    return offsets.map((offset, index) => (offset < 0 ? (ends[index] ?? 0) : offset));
  }

  /** As {@link find}; tries for as long as the consumer is open. */
  findPersistently(partitions: readonly FetchedPartition[], where: Where): Promise<number[]> {
    return this.#persist(() => this.find(partitions, where));
  }

  /** Until it succeeds, or the error is not to be retried. */
  async #persist<T>(attempt: () => Promise<T>): Promise<T> {
    const { environment } = this.#cluster;
    for (let round = 1; ; round++) {
      try {
        return await attempt();
      } catch (error) {
        const retriable = error instanceof FlotillaError && error.retriable && error.code !== 'UNKNOWN_TOPIC_OR_PARTITION';
        if (!retriable || this.#signal.aborted) throw error;
        await sleep(environment, backoffMs(environment, round), this.#signal);
      }
    }
  }
}

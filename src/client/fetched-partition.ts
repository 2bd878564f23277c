import type { Timer } from '../base/environment.ts';
import type { AbortedTransaction } from '../gen/flotilla/v1/data_pb.ts';
import type { BatchHeader } from '../record/types.ts';
import type { FetchStream } from './fetch-stream.ts';
import type { TopicState } from './metadata-cache.ts';

/** Where a consumer stands in one partition. */
export class FetchedPartition {
  readonly topic: string;
  readonly partition: number;
  /** Names the partition on every stream of the consumer. */
  readonly handle: number;
  topicId: Uint8Array;
  /** The topic id as text. */
  id: string;
  /** The offset of the next record that the application gets; -1: not yet known. */
  position = -1;
  /** Where the stream goes on: past what is buffered. */
  fetchOffset = -1;
  /** Where reading is to end, when it is to. */
  end = 0;
  /** Raised at each set, so that what a stream sent before can be told apart. */
  generation = 0;
  /** Raised by seek and pause: what was buffered before is dropped. */
  life = 0;
  paused = false;
  stream: FetchStream | undefined;
  routing = false;
  retryTimer: Timer | undefined;
  attempt = 0;
  /** The highest high watermark seen; undefined: none yet. */
  highWatermark: number | undefined;
  readonly aborted = new AbortedFilter();

  constructor(topic: TopicState, partition: number, handle: number) {
    this.topic = topic.name;
    this.topicId = topic.topicId;
    this.id = topic.id;
    this.partition = partition;
    this.handle = handle;
  }

  /** The topic was created again: another log, of which nothing is known yet. What was buffered of the old one is void. */
  adopt(topic: TopicState): void {
    this.topicId = topic.topicId;
    this.id = topic.id;
    this.highWatermark = undefined;
    this.generation++;
    this.life++;
    this.aborted.clear();
  }

  /** Goes to an offset; what was buffered is void. */
  moveTo(offset: number): void {
    this.position = offset;
    this.fetchOffset = offset;
    this.generation++;
    this.life++;
    this.aborted.clear();
  }
}

/** Filters the batches of aborted transactions, as Kafka's consumer does: by the broker's list, up to each transaction's marker. */
export class AbortedFilter {
  readonly #ongoing = new Set<bigint>();
  #ahead: AbortedTransaction[] = [];

  add(transactions: readonly AbortedTransaction[]): void {
    if (transactions.length === 0) return;
    this.#ahead.push(...transactions);
    this.#ahead.sort((a, b) => Number(a.firstOffset - b.firstOffset));
  }

  /** Whether the batch is no data: a marker, or part of an aborted transaction. Called for each batch in order. */
  drops(header: BatchHeader): boolean {
    if (this.#ahead.length === 0 && !header.isControl && !header.isTransactional) return false;
    const lastOffset = BigInt(header.baseOffset + header.lastOffsetDelta);
    while (this.#ahead[0] && this.#ahead[0].firstOffset <= lastOffset) {
      this.#ongoing.add(this.#ahead[0].producerId);
      this.#ahead.shift();
    }
    const producerId = BigInt(header.producerId);
    if (header.isControl) {
      this.#ongoing.delete(producerId);
      return true;
    }
    return header.isTransactional && this.#ongoing.has(producerId);
  }

  clear(): void {
    this.#ongoing.clear();
    this.#ahead = [];
  }
}

import { create } from '@bufbuild/protobuf';
import type { Environment } from '../base/environment.ts';
import {
  Data,
  type FetchPartition,
  FetchPartitionSchema,
  type FetchRequest,
  FetchRequestSchema,
  type FetchResult,
  type IsolationLevel,
} from '../gen/flotilla/v1/data_pb.ts';
import type { RpcChannel, RpcStream } from '../rpc/types.ts';
import type { FetchedPartition } from './fetched-partition.ts';

export interface FetchStreamOptions {
  readonly creditBytes: number;
  readonly isolation: IsolationLevel;
}

/** What a stream tells its consumer. */
export interface FetchStreamOwner {
  received(partition: FetchedPartition, result: FetchResult, stream: FetchStream): void;
  streamBroke(stream: FetchStream, partitions: readonly FetchedPartition[]): void;
}

/**
 * One fetch stream to one broker. The broker may send `creditBytes`; what the application has consumed is granted again, in quarters,
 * or as soon as the application waits.
 */
export class FetchStream {
  readonly address: string;
  readonly #environment: Environment;
  readonly #options: FetchStreamOptions;
  readonly #owner: FetchStreamOwner;
  readonly #stream: RpcStream<FetchRequest>;
  readonly #partitions = new Map<number, FetchedPartition>();
  #set: FetchPartition[] = [];
  #remove: number[] = [];
  #credit: number;
  #opened = false;
  #scheduled = false;
  #closed = false;
  lastHeardMs: number;
  /** When the leaders of its partitions were last asked for because it was silent. */
  lastCheckedMs = 0;

  constructor(environment: Environment, channel: RpcChannel, options: FetchStreamOptions, owner: FetchStreamOwner) {
    this.#environment = environment;
    this.#options = options;
    this.#owner = owner;
    this.#credit = options.creditBytes;
    this.address = channel.address;
    this.lastHeardMs = environment.monotonicMs();
    this.#stream = channel.stream(
      Data.method.fetch,
      {
        message: ({ results }) => this.#receive(results),
        closed: () => this.#break(),
        // Requests are small and bounded by what the consumer does; they queue.
        drained: () => {},
      },
      {},
    );
  }

  get closed(): boolean {
    return this.#closed;
  }

  get partitions(): Iterable<FetchedPartition> {
    return this.#partitions.values();
  }

  /** Reads the partition from its fetch offset on, under its generation of now. */
  set(partition: FetchedPartition): void {
    this.#partitions.set(partition.handle, partition);
    this.#set = this.#set.filter(({ partitionHandle }) => partitionHandle !== partition.handle);
    this.#remove = this.#remove.filter((handle) => handle !== partition.handle);
    this.#set.push(
      create(FetchPartitionSchema, {
        partitionHandle: partition.handle,
        topicId: partition.topicId,
        partition: partition.partition,
        offset: BigInt(partition.fetchOffset),
        generation: partition.generation,
      }),
    );
    this.#schedule();
  }

  remove(partition: FetchedPartition): void {
    if (!this.#partitions.delete(partition.handle)) return;
    this.#set = this.#set.filter(({ partitionHandle }) => partitionHandle !== partition.handle);
    this.#remove.push(partition.handle);
    this.#schedule();
  }

  /** Bytes that came on this stream are off the consumer's hands. */
  consumed(bytes: number): void {
    this.#credit += bytes;
    if (this.#credit >= this.#options.creditBytes / 4) this.#schedule();
  }

  /** The application waits: grants all there is. */
  grant(): void {
    if (this.#credit > 0) this.#schedule();
  }

  cancel(): void {
    this.#stream.cancel();
    // A transport that never says so must not keep the partitions.
    this.#break();
  }

  #schedule(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    this.#environment.soon(() => {
      this.#scheduled = false;
      // The first message of a stream sets partitions.
      if (this.#closed || (!this.#opened && this.#set.length === 0)) return;
      this.#opened = true;
      const { isolation } = this.#options;
      const request = { set: this.#set, remove: this.#remove, creditBytes: BigInt(this.#credit), isolationLevel: isolation };
      this.#set = [];
      this.#remove = [];
      this.#credit = 0;
      this.#stream.send(create(FetchRequestSchema, request));
    });
  }

  #receive(results: readonly FetchResult[]): void {
    if (this.#closed) return;
    this.lastHeardMs = this.#environment.monotonicMs();
    for (const result of results) {
      const partition = this.#partitions.get(result.partitionHandle);
      // Sent before a seek, a pause or a move: nobody wants it any more.
      if (partition === undefined || partition.generation !== result.generation) this.consumed(result.recordBatches.length);
      else {
        if (result.error) this.#partitions.delete(result.partitionHandle);
        this.#owner.received(partition, result, this);
      }
    }
  }

  #break(): void {
    if (this.#closed) return;
    this.#closed = true;
    const partitions = [...this.#partitions.values()];
    this.#partitions.clear();
    this.#owner.streamBroke(this, partitions);
  }
}

/**
 * Data.Fetch: push with credit. The client names partitions, offsets and how many bytes it will take; batches go out as they commit.
 * Any replica serves what it knows to be committed. Nothing runs while there is nothing to send.
 */

import { create } from '@bufbuild/protobuf';
import { concat } from '../base/bytes.ts';
import { FlotillaError } from '../base/errors.ts';
import { topicIdFromBytes } from '../base/ids.ts';
import {
  Data,
  type FetchPartition,
  type FetchRequest,
  type FetchResponse,
  FetchResponseSchema,
  type FetchResult,
  FetchResultSchema,
  IsolationLevel,
} from '../gen/flotilla/v1/data_pb.ts';
import { type CallContext, type RpcStream, type StreamHandler, type StreamReceiver, streamHandler } from '../rpc/types.ts';
import type { BatchRun } from '../storage/types.ts';
import { answerError, type BrokerContext } from './context.ts';
import { bytesBehind, OLD_DATA_BYTES, OldReads } from './old-reads.ts';
import type { Isolation, Partition } from './partition.ts';
import type { PartitionSubscriber } from './partition-state.ts';

/** Partitions that one stream may read. */
export const MAX_FETCH_PARTITIONS = 10_000;

/** Results that wait for the client to read; beyond, what it asks is answered by the end of the stream. */
export const MAX_RESULTS_HELD = 2 * MAX_FETCH_PARTITIONS;

/** Reads of one stream that wait for the disk at a time. */
export const MAX_CONCURRENT_READS = 4;

/** Bytes of one result when the client does not say. */
export const DEFAULT_PARTITION_BYTES = 1024 * 1024;

/** Bytes after which a response is sent and another one begun. */
export const MAX_RESPONSE_BYTES = 2 * 1024 * 1024;

export function fetchHandler(context: BrokerContext): [string, StreamHandler] {
  return streamHandler(Data.method.fetch, (responder, call) => new FetchStream(context, call, responder));
}

/** One partition of a stream: where it stands, and whether it waits, is queued or is being read. */
class Reader implements PartitionSubscriber {
  readonly handle: number;
  readonly generation: number;
  readonly partition: Partition;
  readonly #stream: FetchStream;
  offset: number;
  state: 'waiting' | 'queued' | 'reading' = 'waiting';
  removed = false;
  #unsubscribe: (() => void) | undefined;

  constructor(stream: FetchStream, request: FetchPartition, partition: Partition) {
    this.#stream = stream;
    this.handle = request.partitionHandle;
    this.generation = request.generation;
    this.offset = Number(request.offset);
    this.partition = partition;
    this.#unsubscribe = partition.subscribe(this);
  }

  advanced(): void {
    this.#stream.wake(this);
  }

  closed(error: FlotillaError): void {
    this.#unsubscribe = undefined;
    this.#stream.fail(this, error);
  }

  remove(): void {
    this.removed = true;
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
  }
}

class FetchStream implements StreamReceiver<FetchRequest> {
  readonly #context: BrokerContext;
  readonly #listener: string;
  readonly #responder: RpcStream<FetchResponse>;
  readonly #readers = new Map<number, Reader>();
  /** Readers with something to send: round robin. A set, so that one that is removed leaves at once. */
  readonly #queue = new Set<Reader>();
  readonly #oldReads: OldReads<Reader>;
  #results: FetchResult[] = [];
  /** What gives back the memory of {@link #results}. */
  #releases: (() => void)[] = [];
  #resultBytes = 0;
  #credit = 0;
  #maxBytes = DEFAULT_PARTITION_BYTES;
  #isolation: Isolation = 'read_uncommitted';
  #reads = 0;
  #writable = true;
  #closed = false;
  #pumpQueued = false;

  constructor(context: BrokerContext, call: CallContext, responder: RpcStream<FetchResponse>) {
    this.#context = context;
    this.#listener = call.listener;
    this.#responder = responder;
    this.#oldReads = new OldReads(context.environment, context.produceLoad, (readers) => {
      for (const reader of readers) this.#queue.add(reader);
      this.#schedule();
    });
  }

  message(request: FetchRequest): void {
    if (request.maxPartitionBytes > 0) this.#maxBytes = Math.min(request.maxPartitionBytes, MAX_RESPONSE_BYTES);
    if (request.isolationLevel !== IsolationLevel.UNSPECIFIED) {
      this.#isolation = request.isolationLevel === IsolationLevel.READ_COMMITTED ? 'read_committed' : 'read_uncommitted';
    }
    const credit = Number(request.creditBytes);
    if (credit > 0) this.#credit = Math.min(Number.MAX_SAFE_INTEGER, this.#credit + credit);
    for (const handle of request.remove) this.#remove(handle);
    for (const partition of request.set) {
      if (this.#results.length >= MAX_RESULTS_HELD) {
        throw new FlotillaError('THROTTLING_QUOTA_EXCEEDED', `${MAX_RESULTS_HELD} results wait for this client to read them. Read them.`);
      }
      this.#set(partition);
    }
    this.#schedule();
  }

  closed(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const reader of this.#readers.values()) reader.remove();
    this.#readers.clear();
    this.#queue.clear();
    this.#oldReads.close();
    this.#results = [];
    this.#responder.end();
  }

  drained(): void {
    this.#writable = true;
    this.#schedule();
  }

  /** The reader's partition moved: queue it if it has something to send. */
  wake(reader: Reader): void {
    if (reader.removed || reader.state !== 'waiting') return;
    try {
      reader.partition.checkReadable(reader.offset);
    } catch (error) {
      this.fail(reader, error);
      return;
    }
    if (reader.offset >= this.#endOf(reader.partition)) return;
    reader.state = 'queued';
    this.#queue.add(reader);
    this.#schedule();
  }

  /** Tells the client and forgets the partition. */
  fail(reader: Reader, error: unknown): void {
    if (reader.removed) return;
    this.#remove(reader.handle);
    this.#pushError(reader.handle, reader.generation, error);
  }

  #set(request: FetchPartition): void {
    this.#remove(request.partitionHandle);
    try {
      if (this.#readers.size >= MAX_FETCH_PARTITIONS) {
        throw new FlotillaError('INVALID_REQUEST', `A stream reads at most ${MAX_FETCH_PARTITIONS} partitions. Open another one.`);
      }
      const partition = this.#context.partitions.find(topicIdFromBytes(request.topicId), request.partition);
      const reader = new Reader(this, request, partition);
      this.#readers.set(reader.handle, reader);
      this.wake(reader);
      // Nothing to read yet: say so once, with the high watermark.
      if (reader.state === 'waiting' && !reader.removed)
        this.#push(this.#resultOf(reader, { chunks: [], bytes: 0, nextOffset: reader.offset }), 0);
    } catch (error) {
      this.#pushError(request.partitionHandle, request.generation, error);
    }
  }

  #remove(handle: number): void {
    const reader = this.#readers.get(handle);
    if (reader === undefined) return;
    reader.remove();
    this.#queue.delete(reader);
    this.#oldReads.remove(reader);
    this.#readers.delete(handle);
  }

  /** Everything that this turn brings is read and sent together. */
  #schedule(): void {
    if (this.#pumpQueued || this.#closed) return;
    this.#pumpQueued = true;
    this.#context.environment.soon(() => {
      this.#pumpQueued = false;
      this.#flush();
      this.#pump();
    });
  }

  #pump(): void {
    while (this.#writable && !this.#closed && this.#credit > 0 && this.#reads < MAX_CONCURRENT_READS) {
      const [reader] = this.#queue;
      if (reader === undefined) return;
      this.#queue.delete(reader);
      const bytes = Math.min(this.#maxBytes, this.#credit);
      const isOld = bytesBehind(reader.partition.replica.log, reader.offset) > OLD_DATA_BYTES;
      if (!isOld || this.#oldReads.begin(reader, bytes)) void this.#read(reader, bytes, isOld);
    }
  }

  async #read(reader: Reader, reserved: number, isOld: boolean): Promise<void> {
    // Credit is taken before the read, so that reads at the same time don't spend it twice.
    this.#credit -= reserved;
    this.#reads++;
    reader.state = 'reading';
    let spent = 0;
    const end = this.#endOf(reader.partition);
    try {
      const run = await reader.partition.read(reader.offset, reserved, this.#isolation);
      if (reader.removed || this.#closed || run.bytes === 0) run.release?.();
      if (!reader.removed && !this.#closed) {
        const advanced = run.nextOffset > reader.offset || this.#endOf(reader.partition) > end;
        // Without bytes the client learns where it goes on: what was there is compacted away.
        if (run.bytes > 0 || run.nextOffset > reader.offset) {
          spent = run.bytes;
          this.#push(this.#resultOf(reader, run), run.bytes, run.release);
        }
        reader.offset = run.nextOffset;
        reader.state = 'waiting';
        // A read that got nowhere waits for the next commit instead of spinning.
        if (advanced) this.wake(reader);
      }
    } catch (error) {
      this.fail(reader, error);
    } finally {
      this.#reads--;
      this.#credit += reserved - spent;
      if (isOld) this.#oldReads.giveBack(reserved - spent);
      this.#schedule();
    }
  }

  #endOf(partition: Partition): number {
    return this.#isolation === 'read_committed' ? partition.lastStableOffset : partition.highWatermark;
  }

  #resultOf(reader: Reader, run: BatchRun): FetchResult {
    const { partition } = reader;
    const result = create(FetchResultSchema);
    result.partitionHandle = reader.handle;
    result.generation = reader.generation;
    // The only copy on the way out, and none when there is one chunk.
    result.recordBatches = concat(run.chunks);
    result.nextOffset = BigInt(run.nextOffset);
    result.highWatermark = BigInt(partition.highWatermark);
    result.lastStableOffset = BigInt(partition.lastStableOffset);
    result.logStartOffset = BigInt(partition.logStartOffset);
    result.leaderEpoch = partition.leaderEpoch;
    return result;
  }

  #pushError(partitionHandle: number, generation: number, error: unknown): void {
    const wire = answerError(this.#context, this.#listener, error);
    this.#push(
      create(FetchResultSchema, {
        partitionHandle,
        generation,
        nextOffset: -1n,
        highWatermark: -1n,
        lastStableOffset: -1n,
        logStartOffset: -1n,
        error: wire,
      }),
      0,
    );
  }

  #push(result: FetchResult, bytes: number, release?: () => void): void {
    if (this.#closed) return;
    if (this.#resultBytes > 0 && this.#resultBytes + bytes > MAX_RESPONSE_BYTES) this.#flush();
    this.#results.push(result);
    if (release !== undefined) this.#releases.push(release);
    this.#resultBytes += bytes;
    this.#schedule();
  }

  /** What waits is bounded: one result for each partition that fails, and what {@link MAX_CONCURRENT_READS} reads bring. */
  #flush(): void {
    if (!this.#writable || this.#closed || this.#results.length === 0) return;
    const response = create(FetchResponseSchema);
    response.results = this.#results;
    const releases = this.#releases;
    this.#results = [];
    this.#releases = [];
    this.#resultBytes = 0;
    this.#writable = this.#responder.send(response, () => {
      for (const release of releases) release();
    });
  }
}

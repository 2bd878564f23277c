/** Data.Produce: a stream of batches in, a stream of results out. Results of one turn leave in one message. */

import { create } from '@bufbuild/protobuf';
import { FlotillaError } from '../base/errors.ts';
import { type TopicId, topicIdFromBytes } from '../base/ids.ts';
import type { Error as WireError } from '../gen/flotilla/v1/common_pb.ts';
import {
  Data,
  type PlainRecord,
  type ProduceBatch,
  type ProduceRequest,
  type ProduceResponse,
  ProduceResponseSchema,
  type ProduceResult,
  ProduceResultSchema,
  Acks as WireAcks,
} from '../gen/flotilla/v1/data_pb.ts';
import { BatchBuilder, recordSizeBound } from '../record/builder.ts';
import type { RecordHeader } from '../record/types.ts';
import { type CallContext, type RpcStream, type StreamHandler, type StreamReceiver, streamHandler } from '../rpc/types.ts';
import { answerError, type BrokerContext } from './context.ts';
import type { Acks, Partition } from './partition.ts';

/** Batches of one stream that are not answered yet, or whose answer the client has not read. */
export const MAX_BATCHES_IN_FLIGHT = 65_536;

/** A client that goes on sending while it reads no answers is cut off here: answers that say "too much" take memory as well. */
export const MAX_BATCHES_HELD = 2 * MAX_BATCHES_IN_FLIGHT;

/** Plain records in one batch. */
export const MAX_PLAIN_RECORDS = 100_000;

export function produceHandler(context: BrokerContext): [string, StreamHandler] {
  return streamHandler(Data.method.produce, (responder, call) => new ProduceStream(context, call, responder));
}

class ProduceStream implements StreamReceiver<ProduceRequest> {
  readonly #context: BrokerContext;
  readonly #listener: string;
  readonly #responder: RpcStream<ProduceResponse>;
  /** For plain records; made when the first come. */
  #builder: BatchBuilder | undefined;
  #results: ProduceResult[] = [];
  #bytesInFlight = 0;
  #batchesInFlight = 0;
  #flushQueued = false;
  #writable = true;
  #state: 'open' | 'ending' | 'closed' = 'open';

  constructor(context: BrokerContext, call: CallContext, responder: RpcStream<ProduceResponse>) {
    this.#context = context;
    this.#listener = call.listener;
    this.#responder = responder;
  }

  message(request: ProduceRequest): void {
    for (const batch of request.batches) {
      if (this.#state === 'closed') return;
      if (this.#batchesInFlight >= MAX_BATCHES_HELD) {
        throw new FlotillaError(
          'THROTTLING_QUOTA_EXCEEDED',
          `${MAX_BATCHES_HELD} batches wait for this client to read their results. Read them.`,
        );
      }
      this.#produce(batch);
    }
  }

  /** A client that ended cleanly still gets its results; one that was cut off has nowhere to get them. */
  closed(error: Error | undefined): void {
    this.#state = error === undefined ? 'ending' : 'closed';
    if (error !== undefined) this.#results = [];
    this.#endIfDone();
  }

  drained(): void {
    this.#writable = true;
    this.#flush();
  }

  /** Of a partition that is about to be led here, once it is: telling the producer to try again would cost both more than waiting does. */
  #produce(batch: ProduceBatch): void {
    const bytes = batch.recordBatch.length;
    this.#batchesInFlight++;
    this.#bytesInFlight += bytes;
    this.#context.produceLoad.began(bytes);
    try {
      this.#checkRoom();
      const topicId = this.#topicIdOf(batch);
      const opening = this.#context.partitions.opening(topicId, batch.partition);
      if (opening === undefined) this.#append(batch, topicId);
      else void opening.then(() => this.#opened(batch, topicId));
    } catch (error) {
      this.#answer(bytes, failure(batch.correlation, answerError(this.#context, this.#listener, error)));
    }
  }

  #opened(batch: ProduceBatch, topicId: TopicId): void {
    // A client that was cut off sends it again, with the same sequence, wherever it finds the leader then.
    if (this.#state === 'closed') this.#context.produceLoad.ended();
    else this.#append(batch, topicId);
  }

  #append(batch: ProduceBatch, topicId: TopicId): void {
    const { correlation } = batch;
    const bytes = batch.recordBatch.length;
    let partition: Partition;
    let promise: ReturnType<Partition['produce']>;
    try {
      partition = this.#context.partitions.find(topicId, batch.partition);
      const acks = acksOf(batch.acks);
      const timeoutMs = batch.timeoutMs === 0 ? this.#context.config.requestTimeoutMs : batch.timeoutMs;
      const deadlineMs = this.#context.environment.monotonicMs() + timeoutMs;
      promise = partition.produce(this.#bytesOf(batch, partition), { acks, leaderEpoch: batch.currentLeaderEpoch, deadlineMs });
    } catch (error) {
      this.#answer(bytes, failure(correlation, answerError(this.#context, this.#listener, error)));
      return;
    }
    promise.then(
      ({ baseOffset, leaderEpoch, logAppendTimeMs }) => {
        const result = create(ProduceResultSchema);
        result.correlation = correlation;
        result.baseOffset = BigInt(baseOffset);
        result.leaderEpoch = leaderEpoch;
        result.logAppendTimeMs = BigInt(logAppendTimeMs);
        result.logStartOffset = BigInt(partition.logStartOffset);
        this.#answer(bytes, result);
      },
      (error: unknown) => this.#answer(bytes, failure(correlation, answerError(this.#context, this.#listener, error))),
    );
  }

  #checkRoom(): void {
    const { queuedMaxRequestBytes } = this.#context.config;
    if (this.#bytesInFlight > queuedMaxRequestBytes || this.#batchesInFlight > MAX_BATCHES_IN_FLIGHT) {
      throw new FlotillaError(
        'THROTTLING_QUOTA_EXCEEDED',
        `This connection has ${this.#bytesInFlight} bytes in ${this.#batchesInFlight} batches in flight, more than ` +
          `queued.max.request.bytes=${queuedMaxRequestBytes} or ${MAX_BATCHES_IN_FLIGHT} batches. Wait for results before sending more.`,
      );
    }
  }

  #topicIdOf(batch: ProduceBatch): TopicId {
    if (batch.transactionalId !== '') {
      throw new FlotillaError('INVALID_REQUEST', 'Transactions are not supported yet. Produce without a transactional id.');
    }
    const { partitions } = this.#context;
    return batch.topicId.length === 0 && batch.topic !== '' ? partitions.topicIdOf(batch.topic) : topicIdFromBytes(batch.topicId);
  }

  #bytesOf(batch: ProduceBatch, partition: Partition): Uint8Array {
    const { recordBatch, records } = batch;
    if (records.length === 0) return recordBatch;
    if (recordBatch.length > 0) throw new FlotillaError('INVALID_REQUEST', 'A batch has either record_batch or records, not both.');
    return this.#build(records, partition.maxMessageBytes);
  }

  /** Plain records of one request are one batch, so producers are never mixed. */
  #build(records: readonly PlainRecord[], maxBytes: number): Uint8Array {
    if (records.length > MAX_PLAIN_RECORDS) {
      throw new FlotillaError(
        'INVALID_REQUEST',
        `A batch takes ${MAX_PLAIN_RECORDS} plain records, ${records.length} came. Send more batches.`,
      );
    }
    this.#builder ??= new BatchBuilder({ crc32c: this.#context.crc32c });
    const builder = this.#builder;
    builder.reset();
    const now = this.#context.environment.wallMs();
    for (const record of records) {
      const key = record.key ?? null;
      const value = record.value ?? null;
      const headers: RecordHeader[] = record.headers.map((header) => ({ key: header.key, value: header.value ?? null }));
      if (builder.sizeBytes + recordSizeBound(key, value, []) > maxBytes + PLAIN_RECORD_SLACK) {
        throw new FlotillaError(
          'MESSAGE_TOO_LARGE',
          `The records make a batch of more than ${maxBytes} bytes (max.message.bytes). Send fewer at a time.`,
        );
      }
      builder.append(key, value, headers, record.timestampMs === 0n ? now : timestampOf(record));
    }
    return builder.build();
  }

  #answer(bytes: number, result: ProduceResult): void {
    this.#bytesInFlight -= bytes;
    this.#context.produceLoad.ended();
    if (this.#state === 'closed') {
      this.#batchesInFlight--;
      return;
    }
    this.#results.push(result);
    if (this.#flushQueued) return;
    this.#flushQueued = true;
    this.#context.environment.soon(() => {
      this.#flushQueued = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (!this.#writable || this.#results.length === 0 || this.#state === 'closed') return;
    const results = this.#results;
    this.#results = [];
    this.#batchesInFlight -= results.length;
    const response = create(ProduceResponseSchema);
    response.results = results;
    this.#writable = this.#responder.send(response);
    this.#endIfDone();
  }

  #endIfDone(): void {
    if (this.#state !== 'ending' || this.#batchesInFlight > 0) return;
    this.#state = 'closed';
    this.#responder.end();
  }
}

/** {@link recordSizeBound} may overshoot by its fixed part; the exact check is the partition's. */
const PLAIN_RECORD_SLACK = 1024;

/** Beyond these bounds the difference of two times would not be exact, and nobody could read the batch. */
function timestampOf({ timestampMs }: PlainRecord): number {
  if (timestampMs >= 0n && timestampMs <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(timestampMs);
  throw new FlotillaError('INVALID_TIMESTAMP', `Timestamp ${timestampMs} is no time: give milliseconds since the epoch, 0 to 2^53 - 1.`);
}

function acksOf(acks: WireAcks): Acks {
  switch (acks) {
    case WireAcks.UNSPECIFIED:
    case WireAcks.QUORUM:
      return 'quorum';
    case WireAcks.LEADER:
      return 'leader';
    case WireAcks.NONE:
      return 'none';
    default:
      throw new FlotillaError('INVALID_REQUIRED_ACKS', `acks=${acks} is not known. Use quorum, leader or none.`);
  }
}

function failure(correlation: number, error: WireError): ProduceResult {
  return create(ProduceResultSchema, { correlation, baseOffset: -1n, logAppendTimeMs: -1n, logStartOffset: -1n, error });
}

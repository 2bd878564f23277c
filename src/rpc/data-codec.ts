/**
 * The messages that carry all the data, written and read by hand: protobuf-es copies a batch twice on its way out and takes microseconds for
 * each item, which adds up at tens of thousands of batches a second. Fields that are rare in them are left to protobuf-es: each function
 * returns undefined when it meets one. The tests hold both to the same bytes' meaning.
 */
import type {
  Acks,
  FetchResponse,
  FetchResult,
  ProduceBatch,
  ProduceRequest,
  ProduceResponse,
  ProduceResult,
} from '../gen/flotilla/v1/data_pb.ts';
import { MessageParts } from './message-parts.ts';
import { END, FieldReader, ItemWriter, LENGTH_DELIMITED, VARINT } from './wire.ts';

const ITEM_TAG = (1 << 3) | LENGTH_DELIMITED;
/** Six numbers of at most 11 bytes, a topic id and the payload's prefix. */
const PRODUCE_BATCH_BYTES = 96;
const PRODUCE_RESULT_BYTES = 56;
const FETCH_RESULT_BYTES = 88;
const TOPIC_ID_BYTES = 16;

const empty = new Uint8Array();

export function writeProduceRequest(message: ProduceRequest): MessageParts | undefined {
  const writer = new ItemWriter(message.batches.length, PRODUCE_BATCH_BYTES);
  for (const batch of message.batches) {
    if (batch.records.length > 0 || batch.topic !== '' || batch.transactionalId !== '' || batch.topicId.length > TOPIC_ID_BYTES)
      return undefined;
    writer.begin();
    writer.uint32(1, batch.correlation);
    writer.bytesField(2, batch.topicId);
    writer.uint32(3, batch.partition);
    writer.int32(4, batch.currentLeaderEpoch);
    writer.int32(5, batch.acks);
    writer.uint32(6, batch.timeoutMs);
    writer.end(7, batch.recordBatch);
  }
  return new MessageParts(writer.parts);
}

export function readProduceRequest(bytes: Uint8Array): ProduceRequest | undefined {
  const reader = new FieldReader(bytes);
  const batches: ProduceBatch[] = [];
  for (let tag = reader.tag(); tag !== END; tag = reader.tag()) {
    if (tag !== ITEM_TAG) return undefined;
    const outer = reader.enter();
    const batch = readProduceBatch(reader);
    if (batch === undefined || reader.isUnsure) return undefined;
    batches.push(batch);
    reader.leave(outer);
  }
  return reader.isUnsure ? undefined : { $typeName: 'flotilla.v1.ProduceRequest', batches };
}

function readProduceBatch(reader: FieldReader): ProduceBatch | undefined {
  const batch: ProduceBatch = {
    $typeName: 'flotilla.v1.ProduceBatch',
    correlation: 0,
    topicId: empty,
    partition: 0,
    currentLeaderEpoch: 0,
    acks: 0,
    timeoutMs: 0,
    recordBatch: empty,
    records: [],
    topic: '',
    transactionalId: '',
  };
  for (let tag = reader.tag(); tag !== END && !reader.isUnsure; tag = reader.tag()) {
    if (tag === varintTag(1)) batch.correlation = reader.uint32();
    else if (tag === bytesTag(2)) batch.topicId = reader.bytesField();
    else if (tag === varintTag(3)) batch.partition = reader.uint32();
    else if (tag === varintTag(4)) batch.currentLeaderEpoch = reader.smallInt32();
    else if (tag === varintTag(5)) batch.acks = reader.smallInt32() as Acks;
    else if (tag === varintTag(6)) batch.timeoutMs = reader.uint32();
    else if (tag === bytesTag(7)) batch.recordBatch = reader.bytesField();
    else return undefined;
  }
  return batch;
}

export function writeProduceResponse(message: ProduceResponse): MessageParts | undefined {
  const writer = new ItemWriter(message.results.length, PRODUCE_RESULT_BYTES);
  for (const result of message.results) {
    if (result.error !== undefined) return undefined;
    writer.begin();
    writer.uint32(1, result.correlation);
    writer.int64(2, result.baseOffset);
    writer.int32(3, result.leaderEpoch);
    writer.int64(4, result.logAppendTimeMs);
    writer.int64(5, result.logStartOffset);
    writer.end(0, undefined);
  }
  return new MessageParts(writer.parts);
}

export function readProduceResponse(bytes: Uint8Array): ProduceResponse | undefined {
  const reader = new FieldReader(bytes);
  const results: ProduceResult[] = [];
  for (let tag = reader.tag(); tag !== END; tag = reader.tag()) {
    if (tag !== ITEM_TAG) return undefined;
    const outer = reader.enter();
    const result = readProduceResult(reader);
    if (result === undefined || reader.isUnsure) return undefined;
    results.push(result);
    reader.leave(outer);
  }
  return reader.isUnsure ? undefined : { $typeName: 'flotilla.v1.ProduceResponse', results };
}

function readProduceResult(reader: FieldReader): ProduceResult | undefined {
  const result: ProduceResult = {
    $typeName: 'flotilla.v1.ProduceResult',
    correlation: 0,
    baseOffset: 0n,
    leaderEpoch: 0,
    logAppendTimeMs: 0n,
    logStartOffset: 0n,
  };
  for (let tag = reader.tag(); tag !== END && !reader.isUnsure; tag = reader.tag()) {
    if (tag === varintTag(1)) result.correlation = reader.uint32();
    else if (tag === varintTag(2)) result.baseOffset = reader.int64();
    else if (tag === varintTag(3)) result.leaderEpoch = reader.smallInt32();
    else if (tag === varintTag(4)) result.logAppendTimeMs = reader.int64();
    else if (tag === varintTag(5)) result.logStartOffset = reader.int64();
    else return undefined;
  }
  return result;
}

export function writeFetchResponse(message: FetchResponse): MessageParts | undefined {
  const writer = new ItemWriter(message.results.length, FETCH_RESULT_BYTES);
  for (const result of message.results) {
    if (result.aborted.length > 0 || result.error !== undefined) return undefined;
    writer.begin();
    writer.uint32(1, result.partitionHandle);
    writer.uint32(2, result.generation);
    writer.int64(4, result.nextOffset);
    writer.int64(5, result.highWatermark);
    writer.int64(6, result.lastStableOffset);
    writer.int64(7, result.logStartOffset);
    writer.int32(8, result.leaderEpoch);
    writer.end(3, result.recordBatches);
  }
  return new MessageParts(writer.parts);
}

export function readFetchResponse(bytes: Uint8Array): FetchResponse | undefined {
  const reader = new FieldReader(bytes);
  const results: FetchResult[] = [];
  for (let tag = reader.tag(); tag !== END; tag = reader.tag()) {
    if (tag !== ITEM_TAG) return undefined;
    const outer = reader.enter();
    const result = readFetchResult(reader);
    if (result === undefined || reader.isUnsure) return undefined;
    results.push(result);
    reader.leave(outer);
  }
  return reader.isUnsure ? undefined : { $typeName: 'flotilla.v1.FetchResponse', results };
}

function readFetchResult(reader: FieldReader): FetchResult | undefined {
  const result: FetchResult = {
    $typeName: 'flotilla.v1.FetchResult',
    partitionHandle: 0,
    generation: 0,
    recordBatches: empty,
    nextOffset: 0n,
    highWatermark: 0n,
    lastStableOffset: 0n,
    logStartOffset: 0n,
    leaderEpoch: 0,
    aborted: [],
  };
  for (let tag = reader.tag(); tag !== END && !reader.isUnsure; tag = reader.tag()) {
    if (tag === varintTag(1)) result.partitionHandle = reader.uint32();
    else if (tag === varintTag(2)) result.generation = reader.uint32();
    else if (tag === bytesTag(3)) result.recordBatches = reader.bytesField();
    else if (tag === varintTag(4)) result.nextOffset = reader.int64();
    else if (tag === varintTag(5)) result.highWatermark = reader.int64();
    else if (tag === varintTag(6)) result.lastStableOffset = reader.int64();
    else if (tag === varintTag(7)) result.logStartOffset = reader.int64();
    else if (tag === varintTag(8)) result.leaderEpoch = reader.smallInt32();
    else return undefined;
  }
  return result;
}

function varintTag(field: number): number {
  return (field << 3) | VARINT;
}

function bytesTag(field: number): number {
  return (field << 3) | LENGTH_DELIMITED;
}

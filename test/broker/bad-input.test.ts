import { gzipSync } from 'node:zlib';
import { create } from '@bufbuild/protobuf';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ErrorCodes } from '../../src/base/errors.ts';
import { OffsetOutOfRangeError } from '../../src/client/consumer.ts';
import { type Acks, FetchRequestSchema, type ProduceResult } from '../../src/gen/flotilla/v1/data_pb.ts';
import { BATCH_CRC_START, BATCH_HEADER_BYTES, BatchField, writeInt32 } from '../../src/record/batch.ts';
import { BatchBuilder } from '../../src/record/builder.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import type { Compression } from '../../src/record/types.ts';
import { batch } from './batches.ts';
import { SimWorld, type Topic, textOf } from './sim-world.ts';

let world: SimWorld;
let topic: Topic;
let leader: number;
/** What the topic must hold at any time: nothing that was refused, nothing lost. */
const expected: string[] = [];

beforeAll(async () => {
  world = await SimWorld.start({ settings: { 'message.max.bytes': 100_000 } });
  topic = await world.createTopic('orders');
  leader = await world.leaderOf(topic);
});

afterEach(async () => {
  expected.push(`after ${expected.length}`);
  await world.send(topic, expected.at(-1) as string);
  expect(await world.readAll(topic, expected.length)).toEqual(expected);
  world.assertAllUp();
});

afterAll(() => world[Symbol.asyncDispose]());

describe('a topic', () => {
  const createTopic = (spec: { name?: string; partitions?: number; replicas?: number }) =>
    world.client.admin.createTopic({ name: 'new', partitions: 1, replicas: 3, ...spec });

  it.each(['', '.', '..', 'a b', 'a/b', 'ä', 'x'.repeat(250)])('can not be called %j', async (name) => {
    await world.refused(createTopic({ name }), 'INVALID_TOPIC_EXCEPTION', /topic name .*(empty|characters|can't be|may contain only)/);
  });

  it('can not take the name of another', async () => {
    await world.refused(createTopic({ name: 'orders' }), 'TOPIC_ALREADY_EXISTS', /'orders' already exists/);
  });

  it.each([0, -1, 1.5, Number.NaN, 1_000_000, 2 ** 40])('can not have %s partitions', async (partitions) => {
    await world.refused(createTopic({ partitions }), 'INVALID_PARTITIONS', /1 to 100000 partitions|whole number from 1/);
  });

  it.each([0, -1, 1.5, 2 ** 40])('can not have %s replicas', async (replicas) => {
    await world.refused(createTopic({ replicas }), 'INVALID_REPLICATION_FACTOR', /replication factor/);
  });

  it('can not have more replicas than there are brokers', async () => {
    await world.refused(createTopic({ replicas: 4 }), 'INVALID_REPLICATION_FACTOR', /4 needs as many live brokers, there are 3/);
  });

  it('can not take batches that fit into no file of the write-ahead log', async () => {
    const create = (bytes: string) => world.createTopic('large', { 'max.message.bytes': bytes });
    await world.refused(create('8388609'), 'INVALID_CONFIG', /more than 8388608, half of the brokers' flotilla\.wal\.file\.bytes/);
    const large = await create('8388608');
    const producer = world.client.producer({ maxBatchBytes: 8 << 20 });
    const value = 'x'.repeat((8 << 20) - 200);
    await world.settle(producer.send('large', { value }));
    await world.settle(producer.close());
    expect((await world.readAll(large, 1))[0]?.length).toBe(value.length);
  });

  it('that does not exist is neither written, read, described nor deleted', async () => {
    const { client } = world;
    const producer = client.producer();
    await world.refused(producer.send('nope', { value: 'x' }), 'UNKNOWN_TOPIC_OR_PARTITION', /'nope' does not exist: create it/);
    await world.settle(producer.close());
    const consumer = client.consumer({ topics: ['nope'] });
    await world.refused(consumer[Symbol.asyncIterator]().next(), 'UNKNOWN_TOPIC_OR_PARTITION', /'nope' does not exist: create it/);
    await world.refused(client.admin.describeTopic('nope'), 'UNKNOWN_TOPIC_OR_PARTITION', /no topic/i);
    await world.refused(client.admin.deleteTopic('nope'), 'UNKNOWN_TOPIC_OR_PARTITION', /no topic/);
  });

  it.each([1, -1, 0.5, 2 ** 32])('has no partition %s', async (partition) => {
    const producer = world.client.producer();
    const sent = producer.send('orders', { value: 'x', partition });
    await world.refused(sent, 'UNKNOWN_TOPIC_OR_PARTITION', /partitions 0 to 0, not/);
    await world.settle(producer.close());
    const consumer = world.client.consumer({ topics: [{ topic: 'orders', partitions: [partition] }], from: 'beginning' });
    await world.refused(consumer[Symbol.asyncIterator]().next(), 'UNKNOWN_TOPIC_OR_PARTITION', /partitions 0 to 0, not/);
  });
});

describe('a record', () => {
  it('over message.max.bytes fails alone', async () => {
    const producer = world.client.producer();
    const small = { value: 'small' };
    await world.settle(producer.send('orders', small));
    const large = producer.send('orders', { value: 'x'.repeat(200_000) });
    await world.refused(large, 'MESSAGE_TOO_LARGE', /takes at most 100000 \(max\.message\.bytes\)/);
    await world.settle(producer.send('orders', small));
    expected.push('small', 'small');
    await world.settle(producer.close());
  });

  it('over what any broker can take is refused before it is sent', async () => {
    const producer = world.client.producer({ maxBufferedBytes: 256 << 20, maxBatchBytes: 256 << 20 });
    await world.refused(producer.send('orders', { value: new Uint8Array(33 << 20) }), 'MESSAGE_TOO_LARGE', /at most/);
    expect(producer.bufferedBytes).toBe(0);
    await world.settle(producer.close());
  });

  it.each([Number.NaN, 1.5, -1, 2 ** 60, Number.POSITIVE_INFINITY])('can not be of time %s', async (timestamp) => {
    const producer = world.client.producer();
    await world.refused(producer.send('orders', { value: 'x', timestamp }), 'INVALID_TIMESTAMP', /timestamp/);
    expect(producer.bufferedBytes).toBe(0);
    await world.settle(producer.close());
  });

  it('too far in the future is refused with the bound', async () => {
    const producer = world.client.producer();
    const timestamp = world.cluster.time.epochMs + 30 * 86_400_000;
    await world.refused(
      producer.send('orders', { value: 'x', timestamp }),
      'INVALID_TIMESTAMP',
      /message\.timestamp\.after\.max\.ms=3600000/,
    );
    await world.settle(producer.close());
  });
});

const damaged: [string, keyof typeof ErrorCodes, RegExp, () => Uint8Array][] = [
  ['with a flipped bit', 'CORRUPT_MESSAGE', /CRC32C/, () => altered((bytes) => flip(bytes, bytes.length - 2))],
  ['of no bytes', 'CORRUPT_MESSAGE', /too few/, () => new Uint8Array(0)],
  ['cut off in its header', 'CORRUPT_MESSAGE', /damaged/, () => batch(1).slice(0, 40)],
  ['cut off in its records', 'CORRUPT_MESSAGE', /states \d+ bytes, \d+ came/, () => batch(1).slice(0, -1)],
  ['followed by another', 'CORRUPT_MESSAGE', /came/, () => Uint8Array.from([...batch(1), ...batch(1)])],
  [
    'of a negative length',
    'CORRUPT_MESSAGE',
    /less than its header/,
    () => altered((bytes) => writeInt32(bytes, BatchField.batchLength, -5)),
  ],
  ['of another version', 'CORRUPT_MESSAGE', /magic is 1/, () => altered((bytes) => bytes.fill(1, BatchField.magic, BatchField.magic + 1))],
  [
    'of an unknown codec',
    'UNSUPPORTED_COMPRESSION_TYPE',
    /type 7 is unknown; use one of/,
    () => signed((bytes) => setAttributes(bytes, 7)),
  ],
  ['of more records than fit', 'INVALID_RECORD', /don't fit/, () => signed((bytes) => setCount(bytes, 1_000_000))],
  ['of no records', 'INVALID_RECORD', /record count is 0/, () => signed((bytes) => setCount(bytes, 0))],
  ['that pretends to be a control batch', 'INVALID_RECORD', /by brokers only/, () => signed((bytes) => setAttributes(bytes, 0x20))],
  [
    'of a time beyond all clocks',
    'INVALID_RECORD',
    /beyond 2\^53/,
    () => signed((bytes) => bytes.fill(0x7f, BatchField.maxTimestamp, BatchField.maxTimestamp + 8)),
  ],
];

describe('a batch', () => {
  it.each(damaged)('%s is refused alone', async (_what, code, message, build) => {
    const produce = world.produceStream(leader);
    const good = () => ({ topicId: topic.topicId, recordBatch: batch(1, { value: 'good', timestamp: world.cluster.time.epochMs }) });
    const results = await produce.produce(good(), { topicId: topic.topicId, recordBatch: build() }, good());
    expected.push('good', 'good');
    expect(results.map(codeOf)).toEqual([undefined, code, undefined]);
    expect(results[1]?.error?.message).toMatch(message);
    produce.stream.cancel();
  });

  const addressed: [string, keyof typeof ErrorCodes, RegExp, object][] = [
    ['for a topic id of 3 bytes', 'INVALID_REQUEST', /16 bytes/, { topicId: new Uint8Array(3) }],
    ['for a topic id that nobody has', 'UNKNOWN_TOPIC_ID', /Refresh metadata/, { topicId: new Uint8Array(16) }],
    ['for a topic name that nobody has', 'UNKNOWN_TOPIC_OR_PARTITION', /Create it first/, { topicId: new Uint8Array(0), topic: 'nope' }],
    ['for a partition that is not there', 'UNKNOWN_TOPIC_OR_PARTITION', /partitions 0 to 0, not 9/, { partition: 9 }],
    ['with acknowledgements of an unknown kind', 'INVALID_REQUIRED_ACKS', /acks=17/, { acks: 17 as Acks }],
    ['for an older leader', 'UNKNOWN_LEADER_EPOCH', /try again/, { currentLeaderEpoch: 1_000_000 }],
    ['of a transaction', 'INVALID_REQUEST', /not supported yet/, { transactionalId: 't' }],
    ['as bytes and as records', 'INVALID_REQUEST', /not both/, { records: [{ value: new Uint8Array(1) }] }],
  ];
  it.each(addressed)('%s is refused alone', async (_what, code, message, change) => {
    const produce = world.produceStream(leader);
    const [refused] = await produce.produce({ topicId: topic.topicId, recordBatch: batch(1), ...change });
    expect(codeOf(refused)).toBe(code);
    expect(refused?.error?.message).toMatch(message);
    produce.stream.cancel();
  });

  it('at a broker that does not lead says who does', async () => {
    const produce = world.produceStream((leader % 3) + 1);
    const [refused] = await produce.produce({ topicId: topic.topicId, recordBatch: batch(1) });
    expect(codeOf(refused)).toBe('NOT_LEADER_OR_FOLLOWER');
    expect(refused?.error).toMatchObject({ retriable: true, leader: { brokerId: leader, address: `broker-${leader}:9000` } });
    produce.stream.cancel();
  });

  it('of plain records over all bounds is refused', async () => {
    const produce = world.produceStream(leader);
    const { topicId } = topic;
    const value = new Uint8Array(1);
    const results = await produce.produce(
      { topicId, records: [{ value: new Uint8Array(1 << 20) }] },
      { topicId, records: [{ value, headers: [{ key: 'k', value: new Uint8Array(1 << 20) }] }] },
      { topicId, records: [{ value, timestampMs: 2n ** 63n - 1n }] },
      { topicId, records: [{ value }, { value, timestampMs: -(2n ** 63n) }] },
      { topicId, records: Array.from({ length: 100_001 }, () => ({})) },
    );
    expect(results.map(codeOf)).toEqual([
      'MESSAGE_TOO_LARGE',
      'MESSAGE_TOO_LARGE',
      'INVALID_TIMESTAMP',
      'INVALID_TIMESTAMP',
      'INVALID_REQUEST',
    ]);
    produce.stream.cancel();
  });
});

describe('a consumer', () => {
  it('is not brought down by a decompression bomb: it is told, and can go past it', async () => {
    const bombs = await world.createTopic('bombs', { 'max.message.bytes': '4000000' });
    const produce = world.produceStream(await world.leaderOf(bombs));
    const { topicId } = bombs;
    const timestamp = world.cluster.time.epochMs;
    const results = await produce.produce(
      { topicId, recordBatch: batch(1, { value: 'before', timestamp }) },
      { topicId, recordBatch: bomb(timestamp) },
      { topicId, recordBatch: batch(1, { value: 'behind', timestamp }) },
    );
    expect(results.map(codeOf)).toEqual([undefined, undefined, undefined]);
    const consumer = world.client.consumer({ topics: ['bombs'], from: 'beginning' });
    expect((await world.take(consumer, 1)).map(textOf)).toEqual(['before']);
    const before = process.memoryUsage.rss();
    await world.refused(world.take(consumer, 1), 'MESSAGE_TOO_LARGE', /more than \d+ bytes decompressed/);
    expect(process.memoryUsage.rss() - before).toBeLessThan(600 << 20);
    expect(consumer.position('bombs', 0)).toBe(1);
    await world.settle(consumer.seek('bombs', 0, 2));
    expect((await world.take(consumer, 1)).map(textOf)).toEqual(['behind']);
    await world.settle(consumer.close());
    produce.stream.cancel();
  });

  it('that meets what does not decompress is told, and can go past it', async () => {
    const junk = await world.createTopic('junk');
    const produce = world.produceStream(await world.leaderOf(junk));
    const timestamp = world.cluster.time.epochMs;
    const notGzip = signed((bytes) => setAttributes(bytes, 1), timestamp);
    await produce.produce({ topicId: junk.topicId, recordBatch: notGzip }, { topicId: junk.topicId, recordBatch: batch(1, { timestamp }) });
    const consumer = world.client.consumer({ topics: ['junk'], from: 'beginning' });
    await world.refused(world.take(consumer, 1), 'CORRUPT_MESSAGE', /does not decompress as gzip/);
    await world.settle(consumer.seek('junk', 0, 1));
    expect((await world.take(consumer, 1)).map(({ offset }) => offset)).toEqual([1]);
    await world.settle(consumer.close());
    produce.stream.cancel();
  });

  it.each([1_000_000, -5])('at offset %s is told what there is', async (offset) => {
    const consumer = world.client.consumer({ topics: ['orders'], from: { offset } });
    const error = await world.refused(world.take(consumer, 1), 'OFFSET_OUT_OF_RANGE', /has offsets 0 to \d+, not .*: seek\(\), or set/);
    expect(error).toBeInstanceOf(OffsetOutOfRangeError);
    expect(error).toMatchObject({ start: 0, end: expected.length });
  });

  it('of its own making gets an error for each partition that can not be read', async () => {
    const { stream, results } = world.fetchStream(leader);
    const { topicId } = topic;
    const set = [
      { partitionHandle: 1, topicId: new Uint8Array(2) },
      { partitionHandle: 2, topicId, partition: 5 },
      { partitionHandle: 3, topicId, offset: -1n },
      { partitionHandle: 4, topicId, offset: 2n ** 63n - 1n },
      { partitionHandle: 5, topicId },
    ];
    stream.send(create(FetchRequestSchema, { set, remove: [77], creditBytes: 1n << 20n }));
    await world.cluster.time.runUntil(() => results.some(({ recordBatches }) => recordBatches.length > 0), 10_000);
    const codes = Object.fromEntries(results.map((result) => [result.partitionHandle, codeOf(result)]));
    expect(codes).toEqual({
      1: 'INVALID_REQUEST',
      2: 'UNKNOWN_TOPIC_OR_PARTITION',
      3: 'OFFSET_OUT_OF_RANGE',
      4: 'OFFSET_OUT_OF_RANGE',
      5: undefined,
    });
    stream.cancel();
  });
});

function codeOf(result: Pick<ProduceResult, 'error'> | undefined): string | undefined {
  const code = result?.error?.code;
  return code === undefined ? undefined : Object.entries(ErrorCodes).find(([, known]) => known.code === code)?.[0];
}

function altered(change: (bytes: Uint8Array) => void): Uint8Array {
  const bytes = batch(1);
  change(bytes);
  return bytes;
}

/** A batch whose header lies under a checksum that holds. */
function signed(change: (bytes: Uint8Array) => void, timestamp = 1_790_000_000_000): Uint8Array {
  const bytes = batch(1, { timestamp });
  change(bytes);
  writeInt32(bytes, BatchField.crc, crc32c(bytes.subarray(BATCH_CRC_START)));
  return bytes;
}

function flip(bytes: Uint8Array, at: number): void {
  bytes[at] = (bytes[at] as number) ^ 0x10;
}

function setAttributes(bytes: Uint8Array, attributes: number): void {
  bytes[BatchField.attributes + 1] = attributes;
}

function setCount(bytes: Uint8Array, count: number): void {
  writeInt32(bytes, BatchField.recordCount, count);
  writeInt32(bytes, BatchField.lastOffsetDelta, count - 1);
}

/** 1.3 MB on the wire, 300 MiB in memory. */
function bomb(timestamp: number): Uint8Array {
  const zeros = gzipSync(new Uint8Array(300 << 20), { level: 1 });
  const compression: Compression = { name: 'gzip', compress: () => zeros, decompress: (bytes) => bytes };
  const builder = new BatchBuilder({ crc32c, compression });
  builder.append(null, new Uint8Array(1), [], timestamp);
  const bytes = builder.build();
  expect(bytes.length).toBeGreaterThan(BATCH_HEADER_BYTES);
  return bytes;
}

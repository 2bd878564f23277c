import { create } from '@bufbuild/protobuf';
import { beforeEach, describe, expect, it } from 'vitest';
import { InvariantError } from '../../src/base/assert.ts';
import { ErrorCodes } from '../../src/base/errors.ts';
import { topicIdToBytes } from '../../src/base/ids.ts';
import type { Partition } from '../../src/broker/partition.ts';
import { MAX_BATCHES_HELD, produceHandler } from '../../src/broker/produce.ts';
import { Acks, type ProduceRequest, ProduceRequestSchema, type ProduceResponse } from '../../src/gen/flotilla/v1/data_pb.ts';
import { decodeBatch, readBatchHeader } from '../../src/record/batch.ts';
import { batch, openPartition } from './batches.ts';
import { FakeReplica, topicId } from './fake-replica.ts';
import { contextOf, TestStream } from './handlers.ts';
import { ManualEnvironment, settled } from './manual-environment.ts';

let fakes: FakeReplica[];
let environment: ManualEnvironment;
let partitions: Partition[];

beforeEach(async () => {
  environment = new ManualEnvironment();
  fakes = [new FakeReplica(), new FakeReplica()];
  partitions = await Promise.all(fakes.map((fake) => openPartition(fake, environment)));
});

const open = (set: readonly string[] = []) =>
  new TestStream<ProduceRequest, ProduceResponse>(produceHandler(contextOf(partitions, environment, set)));

type Batch = {
  correlation: number;
  partition?: number;
  recordBatch?: Uint8Array;
  topic?: string;
  acks?: Acks;
  topicId?: Uint8Array;
  records?: object[];
  transactionalId?: string;
};

const request = (...batches: Batch[]) =>
  create(ProduceRequestSchema, {
    batches: batches.map((one) => ({
      topicId: topicIdToBytes(topicId),
      partition: 0,
      ...(one.records ? {} : { recordBatch: batch(1) }),
      ...one,
    })) as never,
  });

const resultsOf = (stream: TestStream<ProduceRequest, ProduceResponse>) => stream.sent.flatMap(({ results }) => results);

describe('the produce stream', () => {
  it('answers what one turn brings in one message', async () => {
    const stream = open();
    stream.receiver.message(request({ correlation: 1 }, { correlation: 2, partition: 1 }, { correlation: 3 }));
    await settled();
    expect(stream.sent).toHaveLength(0);
    fakes[0]!.commitTo(2);
    fakes[1]!.commitTo(1);
    await settled();
    expect(stream.sent).toHaveLength(1);
    expect(resultsOf(stream).map(({ correlation, baseOffset }) => [correlation, Number(baseOffset)])).toEqual([
      [1, 0],
      [3, 1],
      [2, 0],
    ]);
    expect(resultsOf(stream)[0]).toMatchObject({ leaderEpoch: 1, logAppendTimeMs: -1n, logStartOffset: 0n });
  });

  it('holds what is for a partition that is about to be led here, in its order', async () => {
    const context = contextOf(partitions, environment);
    const opening = Promise.withResolvers<void>();
    let leads = false;
    context.partitions.opening = (_, partition) => (partition === 0 && !leads ? opening.promise : undefined);
    const stream = new TestStream<ProduceRequest, ProduceResponse>(produceHandler(context));
    stream.receiver.message(request({ correlation: 1 }, { correlation: 2, partition: 1 }, { correlation: 3 }));
    await settled();
    expect(fakes.map(({ entries }) => entries.length)).toEqual([0, 1]);
    leads = true;
    opening.resolve();
    await settled();
    stream.receiver.message(request({ correlation: 4 }));
    fakes[0]!.commitTo(3);
    await settled();
    expect(resultsOf(stream).map(({ correlation, baseOffset }) => [correlation, Number(baseOffset)])).toEqual([
      [1, 0],
      [3, 1],
      [4, 2],
    ]);
  });

  it('drops what it holds of a client that is cut off, which sends it again elsewhere, and ends what ended in order behind it', async () => {
    const context = contextOf(partitions, environment);
    const opening = Promise.withResolvers<void>();
    context.partitions.opening = () => opening.promise;
    const [cutOff, ended] = [1, 2].map(() => new TestStream<ProduceRequest, ProduceResponse>(produceHandler(context)));
    for (const stream of [cutOff!, ended!]) stream.receiver.message(request({ correlation: 1 }));
    cutOff!.receiver.closed(new Error('reset'));
    ended!.receiver.closed(undefined);
    await settled();
    opening.resolve();
    await settled();
    expect(fakes[0]!.entries).toHaveLength(1);
    expect(ended!.ended).toBe(false);
    fakes[0]!.commitTo(1);
    await settled();
    expect([cutOff!.sent, resultsOf(ended!).length, ended!.ended]).toEqual([[], 1, true]);
    expect(context.produceLoad.inHand).toBe(false);
  });

  it('answers each bad batch by itself', async () => {
    const stream = open();
    stream.receiver.message(
      request(
        { correlation: 1, partition: 7 },
        { correlation: 2, topicId: new Uint8Array(16) },
        { correlation: 3, topicId: new Uint8Array(3) },
        { correlation: 4, topicId: new Uint8Array(), topic: 'nothing' },
        { correlation: 5, recordBatch: batch(1).subarray(0, 20) },
        { correlation: 6, acks: 9 as Acks },
        { correlation: 7, transactionalId: 'me' },
        { correlation: 8, topicId: new Uint8Array(), topic: 'orders' },
      ),
    );
    fakes[0]!.commitTo(1);
    await settled();
    const codes = new Map(resultsOf(stream).map(({ correlation, error }) => [correlation, error?.code ?? 0]));
    expect(Object.fromEntries(codes)).toEqual({
      1: ErrorCodes.UNKNOWN_TOPIC_OR_PARTITION.code,
      2: ErrorCodes.UNKNOWN_TOPIC_ID.code,
      3: ErrorCodes.INVALID_REQUEST.code,
      4: ErrorCodes.UNKNOWN_TOPIC_OR_PARTITION.code,
      5: ErrorCodes.CORRUPT_MESSAGE.code,
      6: ErrorCodes.INVALID_REQUIRED_ACKS.code,
      7: ErrorCodes.INVALID_REQUEST.code,
      8: 0,
    });
  });

  it('throttles beyond queued.max.request.bytes, and takes more once that is answered', async () => {
    const stream = open(['queued.max.request.bytes=1MiB']);
    const big = { recordBatch: batch(1, { value: 'x'.repeat(600_000) }) };
    stream.receiver.message(request({ correlation: 1, ...big }, { correlation: 2, ...big, recordBatch: big.recordBatch.slice() }));
    await settled();
    expect(resultsOf(stream)).toMatchObject([
      { correlation: 2, error: { code: ErrorCodes.THROTTLING_QUOTA_EXCEEDED.code, retriable: true } },
    ]);
    fakes[0]!.commitTo(1);
    await settled();
    stream.receiver.message(request({ correlation: 3, ...big, recordBatch: big.recordBatch.slice() }));
    fakes[0]!.commitTo(2);
    await settled();
    expect(resultsOf(stream).map(({ correlation, error }) => [correlation, error === undefined])).toEqual([
      [2, false],
      [1, true],
      [3, true],
    ]);
  });

  it('builds a batch of plain records', async () => {
    const stream = open();
    const text = (value: string) => new TextEncoder().encode(value);
    stream.receiver.message(
      request({
        correlation: 1,
        records: [{ key: text('k'), value: text('a'), timestampMs: 7n, headers: [{ key: 'h', value: text('v') }] }, { value: text('b') }],
      }),
    );
    fakes[0]!.commitTo(1);
    await settled();
    expect(resultsOf(stream)[0]!.error).toBeUndefined();
    const stored = fakes[0]!.fakeLog.entries[0]!.payload;
    expect(readBatchHeader(stored)).toMatchObject({ recordCount: 2, producerId: -1 });
    const records = decodeBatch(stored, { compression: new Map() as never, maxBytes: 1000 });
    expect(records.map(({ timestamp, offset, headers }) => [timestamp, offset, headers.length])).toEqual([
      [7, 0, 1],
      [environment.wallMs(), 1, 0],
    ]);
  });

  it('holds results while the client does not read, and sends them in one when it does', async () => {
    const stream = open();
    stream.writable = false;
    for (let i = 1; i <= 3; i++) {
      stream.receiver.message(request({ correlation: i, acks: Acks.NONE }));
      await settled();
    }
    expect(stream.sent).toHaveLength(1);
    stream.writable = true;
    stream.receiver.drained();
    expect(stream.sent.map(({ results }) => results.length)).toEqual([1, 2]);
  });

  it('cuts off a client that goes on sending and reads nothing', async () => {
    const stream = open();
    stream.writable = false;
    const many = request(...Array.from({ length: 10_000 }, (_, correlation) => ({ correlation, topicId: new Uint8Array(0) })));
    let sent = 0;
    const flood = () => {
      for (; sent < 3 * MAX_BATCHES_HELD; sent += many.batches.length) stream.receiver.message(many);
    };
    expect(flood).toThrow(expect.objectContaining({ code: 'THROTTLING_QUOTA_EXCEEDED', message: expect.stringMatching(/Read them/) }));
    expect(sent).toBeLessThanOrEqual(MAX_BATCHES_HELD);
  });

  it('answers a client that ended cleanly before it ends; one that was cut off gets nothing', async () => {
    const clean = open();
    const cut = open();
    for (const stream of [clean, cut]) stream.receiver.message(request({ correlation: 1 }));
    clean.receiver.closed(undefined);
    cut.receiver.closed(new Error('reset'));
    expect([clean.ended, cut.ended]).toEqual([false, false]);
    fakes[0]!.commitTo(2);
    await settled();
    expect([resultsOf(clean).length, clean.ended]).toEqual([1, true]);
    expect(resultsOf(cut)).toHaveLength(0);
  });

  it('ends the process on a broken invariant', async () => {
    const context = contextOf(partitions, environment);
    const stream = new TestStream<ProduceRequest, ProduceResponse>(produceHandler(context));
    partitions[0]!.produce = () => Promise.reject(new InvariantError('broken'));
    stream.receiver.message(request({ correlation: 1 }));
    await settled();
    expect(context.fatals).toHaveLength(1);
    expect(resultsOf(stream)).toMatchObject([{ error: { code: ErrorCodes.BROKER_NOT_AVAILABLE.code, retriable: true } }]);
  });
});

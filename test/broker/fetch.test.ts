import { queryObjects } from 'node:v8';
import { create } from '@bufbuild/protobuf';
import { beforeEach, describe, expect, it } from 'vitest';
import { ErrorCodes, FlotillaError } from '../../src/base/errors.ts';
import { topicIdToBytes } from '../../src/base/ids.ts';
import { fetchHandler, MAX_RESULTS_HELD } from '../../src/broker/fetch.ts';
import type { Partition } from '../../src/broker/partition.ts';
import { type FetchRequest, FetchRequestSchema, type FetchResponse } from '../../src/gen/flotilla/v1/data_pb.ts';
import { batch, openPartition } from './batches.ts';
import { FakeReplica, topicId } from './fake-replica.ts';
import { contextOf, TestStream } from './handlers.ts';
import { ManualEnvironment, settled } from './manual-environment.ts';

let fakes: FakeReplica[];
let environment: ManualEnvironment;
let partitions: Partition[];
let stream: TestStream<FetchRequest, FetchResponse>;

beforeEach(async () => {
  environment = new ManualEnvironment();
  fakes = [new FakeReplica(), new FakeReplica()];
  partitions = await Promise.all(fakes.map((fake) => openPartition(fake, environment)));
  stream = new TestStream(fetchHandler(contextOf(partitions, environment)));
});

/** Appends and commits batches of one record. */
function append(partition: number, count: number, value = 'v'): void {
  const fake = fakes[partition]!;
  for (let i = 0; i < count; i++)
    void partitions[partition]!.produce(batch(1, { value }), { acks: 'none', leaderEpoch: 0, deadlineMs: 1e9 });
  fake.commitTo(fake.lastIndex);
}

interface Asked {
  set?: { handle?: number; partition?: number; offset?: number; generation?: number; topicId?: Uint8Array }[];
  credit?: number;
  remove?: number[];
  maxPartitionBytes?: number;
}

function ask({ set = [], credit = 0, remove = [], maxPartitionBytes = 0 }: Asked): void {
  stream.receiver.message(
    create(FetchRequestSchema, {
      set: set.map(({ handle, partition = 0, offset = 0, generation = 1, topicId: id }) => ({
        partitionHandle: handle ?? partition,
        topicId: id ?? topicIdToBytes(topicId),
        partition,
        offset: BigInt(offset),
        generation,
      })),
      creditBytes: BigInt(credit),
      remove,
      maxPartitionBytes,
    }),
  );
}

const results = () => stream.sent.flatMap((response) => response.results);
const dataResults = () => results().filter(({ recordBatches }) => recordBatches.length > 0);

describe('the fetch stream', () => {
  it('sends what is there, then what commits', async () => {
    append(0, 2);
    ask({ set: [{ generation: 4 }], credit: 1 << 20 });
    await settled();
    expect(results()).toMatchObject([
      { partitionHandle: 0, generation: 4, nextOffset: 2n, highWatermark: 2n, lastStableOffset: 2n, leaderEpoch: 1 },
    ]);
    append(0, 3);
    await settled();
    expect(dataResults().at(-1)).toMatchObject({ nextOffset: 5n });
    expect(Buffer.concat(dataResults().map(({ recordBatches }) => recordBatches))).toEqual(
      Buffer.concat(fakes[0]!.fakeLog.entries.map(({ payload }) => payload)),
    );
  });

  it('gives the memory of a read back once its bytes are sent, or when nobody wants them', async () => {
    const { fakeLog } = fakes[0]!;
    const read = fakeLog.read.bind(fakeLog);
    const released: number[] = [];
    fakeLog.read = async (from, until, maxBytes) => ({ ...(await read(from, until, maxBytes)), release: () => released.push(from) });
    append(0, 1);
    ask({ set: [{}], credit: 1 << 20 });
    await settled();
    append(0, 1);
    await settled();
    expect(dataResults()).toHaveLength(2);
    expect(released).toEqual([]);
    for (const sent of stream.tellSent) sent?.();
    expect(released).toEqual([0, 1]);

    let go = (): void => {};
    const held = new Promise<void>((resolve) => {
      go = resolve;
    });
    fakeLog.read = async (from, until, maxBytes) => {
      const run = await read(from, until, maxBytes);
      await held;
      return { ...run, release: () => released.push(from) };
    };
    append(0, 1);
    await settled();
    ask({ remove: [0] });
    go();
    await settled();
    expect(dataResults()).toHaveLength(2);
    expect(released).toEqual([0, 1, 2]);
  });

  it('says once where the end is when there is nothing to read, and does no work while it waits', async () => {
    append(0, 1);
    ask({ set: [{ offset: 1 }], credit: 1 << 20 });
    await settled();
    expect(results()).toMatchObject([{ nextOffset: 1n, highWatermark: 1n }]);
    expect(results()[0]!.recordBatches).toHaveLength(0);
    partitions[0]!.state.notify();
    await settled();
    expect(fakes[0]!.fakeLog.reads).toBe(0);
    expect(stream.sent).toHaveLength(1);
  });

  it('sends no more than it has credit for, but always one whole batch', async () => {
    append(0, 4, 'x'.repeat(1000));
    ask({ set: [{}], credit: 10 });
    await settled();
    expect(results()).toMatchObject([{ nextOffset: 1n }]);
    ask({ credit: 1 });
    await settled();
    expect(results()).toHaveLength(1);
    ask({ credit: 2500 });
    await settled();
    expect(results().at(-1)!.nextOffset).toBeLessThan(4n);
    ask({ credit: 1 << 20 });
    await settled();
    expect(results().at(-1)!.nextOffset).toBe(4n);
  });

  it('stops while the client does not read', async () => {
    append(0, 4, 'x'.repeat(1000));
    stream.writable = false;
    ask({ set: [{}], credit: 1 << 20, maxPartitionBytes: 1000 });
    await settled();
    const sent = stream.sent.length;
    append(0, 4, 'x'.repeat(1000));
    await settled();
    expect(stream.sent).toHaveLength(sent);
    stream.writable = true;
    stream.receiver.drained();
    await settled();
    expect(dataResults().at(-1)!.nextOffset).toBe(8n);
  });

  it('cuts off a client that goes on asking and reads nothing', async () => {
    stream.writable = false;
    const set = Array.from({ length: 5_000 }, (_, handle) => ({ handle, topicId: new Uint8Array(3) }));
    let asked = 0;
    const flood = () => {
      for (; asked < 3 * MAX_RESULTS_HELD; asked += set.length) ask({ set });
    };
    expect(flood).toThrow(expect.objectContaining({ code: 'THROTTLING_QUOTA_EXCEEDED', message: expect.stringMatching(/Read them/) }));
    expect(asked).toBeLessThanOrEqual(MAX_RESULTS_HELD);
  });

  it('keeps nothing of what a client without credit asked for before', async () => {
    append(0, 1);
    const [partition] = partitions;
    const subscribe = partition!.subscribe.bind(partition);
    let Reader: new () => object = Object as never;
    partition!.subscribe = (subscriber) => {
      Reader = subscriber.constructor as never;
      return subscribe(subscriber);
    };
    for (let generation = 1; generation <= 1_000; generation++) ask({ set: [{ generation }] });
    await settled();
    expect(queryObjects(Reader, { format: 'count' })).toBeLessThan(10);
    ask({ credit: 1 << 20 });
    await settled();
    expect(dataResults()).toMatchObject([{ generation: 1_000 }]);
  });

  it('takes partitions in turn', async () => {
    append(0, 6, 'x'.repeat(1000));
    append(1, 6, 'x'.repeat(1000));
    ask({ set: [{ partition: 0 }, { partition: 1 }], credit: 1 << 20, maxPartitionBytes: 1000 });
    await settled();
    expect(results().map(({ partitionHandle }) => partitionHandle)).toEqual([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
  });

  it('seeks: results of the earlier generation do not follow', async () => {
    append(0, 4, 'x'.repeat(1000));
    ask({ set: [{}], credit: 10 });
    await settled();
    ask({ set: [{ offset: 0, generation: 2 }], credit: 1 << 20 });
    await settled();
    expect(results().map(({ generation, nextOffset }) => [generation, Number(nextOffset)])).toEqual([
      [1, 1],
      [2, 4],
    ]);
  });

  it('names the range when an offset is out of it, and goes on with the others', async () => {
    append(0, 3);
    append(1, 3);
    fakes[0]!.fakeLog.logStartOffset = 2;
    ask({ set: [{ offset: 0 }, { partition: 1, offset: 9 }, { handle: 5, offset: 2 }], credit: 1 << 20 });
    await settled();
    const byHandle = new Map(results().map((result) => [result.partitionHandle, result]));
    expect(byHandle.get(0)).toMatchObject({
      error: { code: ErrorCodes.OFFSET_OUT_OF_RANGE.code, message: expect.stringContaining('2 to 3') as string },
    });
    expect(byHandle.get(1)).toMatchObject({
      error: { code: ErrorCodes.OFFSET_OUT_OF_RANGE.code, message: expect.stringContaining('0 to 3') as string },
    });
    expect(byHandle.get(5)).toMatchObject({ nextOffset: 3n });
    append(0, 1);
    await settled();
    expect(results().filter(({ partitionHandle }) => partitionHandle === 0)).toHaveLength(1);
  });

  it('waits, as a follower, past what it knows to be committed', async () => {
    fakes[0]!.become({ role: 'follower' });
    ask({ set: [{ offset: 1 }], credit: 1 << 20 });
    await settled();
    expect(results()).toMatchObject([{ nextOffset: 1n }]);
    fakes[0]!.become({ role: 'leader' });
    await settled();
    expect(results().at(-1)).toMatchObject({ error: { code: ErrorCodes.OFFSET_OUT_OF_RANGE.code } });
  });

  it('tells of deleted and unknown topics', async () => {
    ask({ set: [{}, { handle: 9, topicId: new Uint8Array(16) }], credit: 1 << 20 });
    await settled();
    partitions[0]!.state.close(new FlotillaError('UNKNOWN_TOPIC_ID', 'Topic orders was deleted.'));
    await settled();
    expect(results().filter(({ error }) => error !== undefined)).toMatchObject([
      { partitionHandle: 9, error: { code: ErrorCodes.UNKNOWN_TOPIC_ID.code } },
      { partitionHandle: 0, error: { code: ErrorCodes.UNKNOWN_TOPIC_ID.code } },
    ]);
  });

  it('tells of a disk that failed, as retriable', async () => {
    append(0, 1);
    fakes[0]!.fakeLog.failure = Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
    ask({ set: [{}], credit: 1 << 20 });
    await settled();
    expect(results()).toMatchObject([{ error: { code: ErrorCodes.STORAGE_ERROR.code, retriable: true } }]);
  });

  it('leaves nothing behind when the client is gone', async () => {
    ask({ set: [{}], credit: 1 << 20 });
    await settled();
    stream.receiver.closed(new Error('reset'));
    const sent = stream.sent.length;
    append(0, 1);
    await settled();
    expect(stream.sent).toHaveLength(sent);
    expect(stream.ended).toBe(true);
    expect(fakes[0]!.fakeLog.reads).toBe(0);
  });

  it('removes partitions on request', async () => {
    ask({ set: [{}], credit: 1 << 20 });
    ask({ remove: [0] });
    append(0, 1);
    await settled();
    expect(dataResults()).toHaveLength(0);
  });
});

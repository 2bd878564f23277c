import { create } from '@bufbuild/protobuf';
import { beforeEach, describe, expect, it } from 'vitest';
import { topicIdToBytes } from '../../src/base/ids.ts';
import type { BrokerContext } from '../../src/broker/context.ts';
import { fetchHandler } from '../../src/broker/fetch.ts';
import {
  bytesBehind,
  FLOOR_BYTES_PER_MS,
  MAX_ALLOWANCE_BYTES,
  MAX_DEBT_BYTES,
  OLD_DATA_BYTES,
  OldReads,
  PACE_MS,
  ProduceLoad,
  SHARE_OF_PRODUCED,
} from '../../src/broker/old-reads.ts';
import { produceHandler } from '../../src/broker/produce.ts';
import {
  type FetchRequest,
  FetchRequestSchema,
  type FetchResponse,
  type ProduceRequest,
  ProduceRequestSchema,
  type ProduceResponse,
} from '../../src/gen/flotilla/v1/data_pb.ts';
import { batch, openPartition } from './batches.ts';
import { FakeLog, FakeReplica, topicId } from './fake-replica.ts';
import { contextOf, TestStream } from './handlers.ts';
import { ManualEnvironment, settled } from './manual-environment.ts';

const READ_BYTES = 1 << 20;

let environment: ManualEnvironment;

beforeEach(() => {
  environment = new ManualEnvironment();
});

describe('the share of a stream for old data', () => {
  let load: ProduceLoad;
  let reads: OldReads<string>;
  let began: number;

  beforeEach(() => {
    load = new ProduceLoad();
    began = 0;
    const tryAll = (readers: Iterable<string>): void => {
      for (const reader of readers) while (reads.begin(reader, READ_BYTES)) began++;
    };
    reads = new OldReads(environment, load, tryAll);
  });

  /** Bytes that a reader which always wants more begins to read in so many milliseconds, while producers write at a rate. */
  function readWhile(ms: number, producedBytesPerMs: number): number {
    began = 0;
    while (reads.begin('reader', READ_BYTES)) began++;
    for (let passed = 0; passed < ms; passed += PACE_MS) {
      load.began(producedBytesPerMs * PACE_MS);
      load.ended();
      environment.advance(PACE_MS);
    }
    return began * READ_BYTES;
  }

  it('has no bound while no producer waits', () => {
    for (let i = 0; i < 1000; i++) expect(reads.begin('reader', READ_BYTES)).toBe(true);
    expect(environment.timers).toBe(0);
  });

  it.each([1000, 20_000, 60_000])('is %i bytes a millisecond and a quarter more, and the floor', (rate) => {
    load.began(0);
    environment.advance(1);
    const ms = 10_000;
    const share = ms * (rate * SHARE_OF_PRODUCED + FLOOR_BYTES_PER_MS);
    const read = readWhile(ms, rate);
    expect(read).toBeGreaterThan(share - 2 * READ_BYTES);
    expect(read).toBeLessThan(share + MAX_ALLOWANCE_BYTES + 2 * READ_BYTES);
    // So the reader comes nearer.
    expect(read).toBeGreaterThan(ms * rate);
  });

  it('goes on at the floor while producers wait for a disk that hangs', () => {
    load.began(50);
    expect(readWhile(10_000, 0)).toBeGreaterThan(10_000 * FLOOR_BYTES_PER_MS - 2 * READ_BYTES);
  });

  it('is not saved up', () => {
    load.began(1 << 30);
    environment.advance(60_000);
    expect(readWhile(0, 0)).toBe(MAX_ALLOWANCE_BYTES);
  });

  it('counts what was read between two batches, up to a bound', () => {
    for (let i = 0; i < 1000; i++) reads.begin('reader', READ_BYTES);
    load.began(0);
    const untilPaid = MAX_DEBT_BYTES / FLOOR_BYTES_PER_MS;
    expect(readWhile(untilPaid - PACE_MS, 0)).toBe(0);
    expect(readWhile(2 * PACE_MS, 0)).toBe(READ_BYTES);
  });

  it('counts what was read, not what was asked for', () => {
    load.began(0);
    environment.advance(1000);
    expect(reads.begin('reader', MAX_ALLOWANCE_BYTES)).toBe(true);
    reads.giveBack(MAX_ALLOWANCE_BYTES - 100);
    expect(reads.begin('reader', MAX_ALLOWANCE_BYTES)).toBe(true);
    expect(reads.begin('reader', 1)).toBe(false);
  });

  it('tries nobody again who was removed, and nothing after the end', () => {
    load.began(0);
    expect(reads.begin('gone', READ_BYTES)).toBe(false);
    expect(reads.begin('stays', READ_BYTES)).toBe(false);
    reads.remove('gone');
    environment.advance(PACE_MS);
    expect(began).toBe(1);
    expect(reads.begin('stays', READ_BYTES)).toBe(false);
    reads.close();
    expect(environment.timers).toBe(0);
  });
});

describe('a reader', () => {
  it('is as many bytes behind as its share of the offsets says', () => {
    const log = { logStartOffset: 100, nextOffset: 300, sizeBytes: 1000 };
    expect([100, 200, 300].map((offset) => bytesBehind(log, offset))).toEqual([1000, 500, 0]);
    expect(bytesBehind({ logStartOffset: 7, nextOffset: 7, sizeBytes: 0 }, 7)).toBe(0);
  });
});

describe('a fetch stream', () => {
  /** Says that it holds more than it does. */
  class LargeLog extends FakeLog {
    override get sizeBytes(): number {
      return 2 * OLD_DATA_BYTES;
    }
  }

  let fake: FakeReplica;
  let context: BrokerContext;
  let fetched: TestStream<FetchRequest, FetchResponse> | undefined;

  beforeEach(async () => {
    fake = new FakeReplica({ log: new LargeLog() });
    const partition = await openPartition(fake, environment);
    context = contextOf([partition], environment);
    fetched = undefined;
    for (let i = 0; i < 8; i++) void partition.produce(batch(1), { acks: 'none', leaderEpoch: 0, deadlineMs: 1e9 });
    fake.commitTo(fake.lastIndex);
  });

  function fetch(offset: number): void {
    fetched ??= new TestStream(fetchHandler(context));
    fetched.receiver.message(
      create(FetchRequestSchema, {
        set: [{ partitionHandle: 0, topicId: topicIdToBytes(topicId), partition: 0, offset: BigInt(offset), generation: 1 }],
        creditBytes: 1n << 20n,
        maxPartitionBytes: 1,
      }),
    );
  }

  const nextOffset = () => fetched?.sent.flatMap(({ results }) => results).at(-1)?.nextOffset;

  /** A batch that is not committed: its producer waits. */
  function produce(): TestStream<ProduceRequest, ProduceResponse> {
    const stream = new TestStream<ProduceRequest, ProduceResponse>(produceHandler(context));
    const recordBatch = batch(1);
    stream.receiver.message(
      create(ProduceRequestSchema, { batches: [{ topicId: topicIdToBytes(topicId), partition: 0, recordBatch, timeoutMs: 60_000 }] }),
    );
    return stream;
  }

  it('reads all of a log while no producer waits', async () => {
    fetch(0);
    await settled();
    expect(nextOffset()).toBe(8n);
    expect(environment.timers).toBe(0);
  });

  it('reads old data at its share while a producer waits, and the rest of a log as it comes', async () => {
    produce();
    fetch(0);
    await settled();
    expect(nextOffset()).toBeUndefined();
    // Four of eight records are more than OLD_DATA_BYTES behind the end, which is that of the producer's.
    for (let i = 0; nextOffset() === undefined; i++) {
      expect(i).toBeLessThan(100);
      environment.advance(PACE_MS);
      await settled();
    }
    expect(nextOffset()).toBe(8n);
  });

  it('reads what is near the end at once, and old data once the producer has its answer', async () => {
    produce();
    fetch(5);
    await settled();
    expect(nextOffset()).toBe(8n);
    fetch(0);
    await settled();
    const { reads } = fake.fakeLog;
    expect(reads).toBe(3);
    fake.commitTo(fake.lastIndex);
    await settled();
    environment.advance(PACE_MS);
    await settled();
    expect(fake.fakeLog.reads).toBeGreaterThan(reads);
    expect(nextOffset()).toBe(9n);
  });

  it('reads nothing more once it is closed', async () => {
    produce();
    fetch(0);
    await settled();
    fetched?.receiver.closed(undefined);
    environment.advance(1000);
    await settled();
    expect(fake.fakeLog.reads).toBe(0);
  });
});

import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import type { BrokerId, ReplicaId } from '../../src/base/ids.ts';
import type { NotLeaderError } from '../../src/broker/not-leader.ts';
import type { Acks, Partition, ProduceOptions } from '../../src/broker/partition.ts';
import { nodeCompressions } from '../../src/platform/compression.ts';
import { nativeCompressions } from '../../src/platform/compression-native.ts';
import { EntryKind } from '../../src/raft/core/entry.ts';
import { readBatchHeader, validateBatch } from '../../src/record/batch.ts';
import { BatchBuilder } from '../../src/record/builder.ts';
import { cleanBatch } from '../../src/record/clean.ts';
import { CompressionTable } from '../../src/record/compression.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import { decodeTombstoneFloor } from '../../src/storage/tombstone-floor.ts';
import { batch, defaults, openPartition, outcome } from './batches.ts';
import { FakeLog, FakeReplica } from './fake-replica.ts';
import { ManualEnvironment } from './manual-environment.ts';

const options = (acks: Acks = 'quorum', more: Partial<ProduceOptions> = {}): ProduceOptions => ({
  acks,
  leaderEpoch: 0,
  deadlineMs: 1000,
  ...more,
});
/** Sends to `partition`; the outcome may be looked at later. */
function send(bytes: Uint8Array, how: ProduceOptions) {
  const answer = partition.produce(bytes, how);
  answer.catch(() => undefined);
  return answer;
}

const noSignal = new AbortController().signal;

let fake: FakeReplica;
let environment: ManualEnvironment;
let partition: Partition;

beforeEach(async () => {
  fake = new FakeReplica();
  environment = new ManualEnvironment();
  partition = await openPartition(fake, environment);
});

describe('produce', () => {
  it('stamps, proposes before it returns, and answers at commit', async () => {
    const first = send(batch(3), options());
    const second = send(batch(2), options());
    expect(fake.entries.map(({ nextOffset }) => nextOffset)).toEqual([3, 5]);
    expect(readBatchHeader(fake.entries[1]!.payload)).toMatchObject({ baseOffset: 3, leaderEpoch: 1 });
    expect(await outcome(first)).toBe('pending');
    fake.commitTo(1);
    expect(await outcome(first)).toMatchObject({ baseOffset: 0, leaderEpoch: 1, logAppendTimeMs: -1 });
    expect(await outcome(second)).toBe('pending');
    fake.commitTo(2);
    expect(await outcome(second)).toMatchObject({ baseOffset: 3 });
    expect(partition.highWatermark).toBe(5);
  });

  it('answers acks=leader once it is on the own disk, acks=none at once without an offset', async () => {
    const leader = send(batch(1), options('leader'));
    const none = send(batch(1), options('none'));
    expect(await outcome(none)).toMatchObject({ baseOffset: -1 });
    expect(await outcome(leader)).toBe('pending');
    fake.durableIndex = 1;
    partition.state.progressed();
    expect(await outcome(leader)).toMatchObject({ baseOffset: 0 });
    expect(partition.highWatermark).toBe(0);
  });

  it('sends what it does not lead to the leader', async () => {
    fake.become({ role: 'follower', term: 2, leader: { replicaId: 2 as ReplicaId, brokerId: 2 as BrokerId } });
    const error = (await send(batch(1), options()).catch((error: unknown) => error)) as NotLeaderError;
    expect(error).toMatchObject({ code: 'NOT_LEADER_OR_FOLLOWER', retriable: true, leader: { brokerId: 2, leaderEpoch: 2 } });
    expect(error.message).toContain('Broker 2 leads in epoch 2');
  });

  it('fences requests of another leader epoch', async () => {
    fake.become({ term: 5 });
    expect(await outcome(send(batch(1), options('quorum', { leaderEpoch: 4 })))).toBe('FENCED_LEADER_EPOCH');
    expect(await outcome(send(batch(1), options('quorum', { leaderEpoch: 6 })))).toBe('UNKNOWN_LEADER_EPOCH');
    expect(await outcome(send(batch(1), options('quorum', { leaderEpoch: 5 })))).toBe('pending');
    expect(fake.entries).toHaveLength(1);
  });

  it('refuses what is damaged, too large, or out of time, and appends none of it', async () => {
    const damaged = batch(1);
    damaged[65]! ^= 1;
    expect(await outcome(send(damaged, options()))).toBe('CORRUPT_MESSAGE');
    expect(await outcome(send(batch(1, { value: 'x'.repeat(1_100_000) }), options()))).toBe('MESSAGE_TOO_LARGE');
    const late = batch(1, { timestamp: environment.wallMs() + 3_600_001 });
    await expect(send(late, options())).rejects.toThrow(/message\.timestamp\.after\.max\.ms=3600000/);
    const bounded = await openPartition(new FakeReplica(), environment, { timestampBeforeMaxMs: 10 });
    await expect(bounded.produce(batch(1, { timestamp: environment.wallMs() - 11 }), options())).rejects.toThrow(/before\.max\.ms=10/);
    expect(fake.entries).toHaveLength(0);
  });

  it('refuses idempotence without a quorum, control and transactional batches', async () => {
    expect(await outcome(send(batch(1, { producer: [1, 0, 0] }), options('leader')))).toBe('INVALID_REQUIRED_ACKS');
    for (const [bit, code] of [
      [0x10, 'INVALID_REQUEST'],
      [0x20, 'INVALID_RECORD'],
    ] as const) {
      const special = batch(1, { producer: [1, 0, 0] });
      special[22]! |= bit;
      new DataView(special.buffer).setUint32(17, crc32c(special.subarray(21)));
      expect(await outcome(send(special, options()))).toBe(code);
    }
    expect(fake.entries).toHaveLength(0);
  });

  it('sets the time itself with LogAppendTime, and the checksum still holds', async () => {
    partition = await openPartition(fake, environment, { timestampType: 'LogAppendTime' });
    const answer = send(batch(2, { timestamp: 5 }), options());
    fake.commitTo(1);
    expect(await outcome(answer)).toMatchObject({ logAppendTimeMs: 1_000_000 });
    const header = validateBatch(fake.fakeLog.entries[0]!.payload, { maxBytes: 10_000, crc32c });
    expect(header).toMatchObject({ timestampType: 'LogAppendTime', maxTimestamp: 1_000_000 });
    expect(fake.fakeLog.entries[0]!.payloadChecksum).toBe(header.crc);
  });

  it('times out, and leaves no timer behind', async () => {
    const first = send(batch(1), options('quorum', { deadlineMs: 500 }));
    const second = send(batch(1), options('quorum', { deadlineMs: 100 }));
    environment.advance(100);
    expect(await outcome(second)).toBe('REQUEST_TIMED_OUT');
    expect(await outcome(first)).toBe('pending');
    environment.advance(400);
    expect(await outcome(first)).toBe('REQUEST_TIMED_OUT');
    fake.commitTo(2);
    expect(environment.timers).toBe(0);
  });

  it('passes on that too much is uncommitted', async () => {
    fake.full = true;
    expect(await outcome(send(batch(1, { producer: [1, 0, 0] }), options()))).toBe('THROTTLING_QUOTA_EXCEEDED');
    fake.full = false;
    expect(await outcome(send(batch(1, { producer: [1, 0, 0] }), options()))).toBe('pending');
  });
});

describe('losing leadership', () => {
  it('rejects what was not committed, at step-down', async () => {
    const quorum = send(batch(1), options());
    const leader = send(batch(1), options('leader'));
    fake.become({ role: 'follower', term: 2, leader: undefined });
    expect(await outcome(quorum)).toBe('NOT_LEADER_OR_FOLLOWER');
    expect(await outcome(leader)).toBe('NOT_LEADER_OR_FOLLOWER');
  });

  it('rejects it too when this replica leads again in a higher term', async () => {
    const answer = send(batch(1), options());
    fake.become({ term: 3, ready: false });
    expect(await outcome(answer)).toBe('NOT_LEADER_OR_FOLLOWER');
  });

  it('lets the same batch be sent again after truncation, as a new one', async () => {
    const lost = send(batch(1, { producer: [9, 0, 0] }), options());
    fake.become({ role: 'follower', term: 2 });
    fake.truncateTo(0);
    expect(await outcome(lost)).toBe('NOT_LEADER_OR_FOLLOWER');
    fake.become({ role: 'leader', term: 3, ready: true });
    const again = send(batch(1, { producer: [9, 0, 0] }), options());
    expect(fake.entries).toHaveLength(1);
    fake.commitTo(1);
    expect(await outcome(again)).toMatchObject({ baseOffset: 0, leaderEpoch: 3 });
  });
});

describe('idempotence', () => {
  it('makes a duplicate wait for its original, and answers the first offset', async () => {
    void send(batch(2), options());
    const original = send(batch(3, { producer: [9, 0, 0] }), options());
    const later = send(batch(1, { producer: [9, 0, 3] }), options());
    const duplicate = send(batch(3, { producer: [9, 0, 0] }), options());
    expect(fake.entries).toHaveLength(3);
    expect(await outcome(duplicate)).toBe('pending');
    fake.commitTo(2);
    expect(await outcome(duplicate)).toMatchObject({ baseOffset: 2 });
    expect(await outcome(original)).toMatchObject({ baseOffset: 2 });
    expect(await outcome(later)).toBe('pending');
    expect(await outcome(send(batch(3, { producer: [9, 0, 0] }), options()))).toMatchObject({ baseOffset: 2 });
  });

  it('knows, as a new leader, what it appended as a follower', async () => {
    fake.become({ role: 'follower', term: 1 });
    fake.receive(1, { kind: EntryKind.batch, payload: batch(3, { producer: [9, 0, 0] }), recordCount: 3, payloadChecksum: 0 });
    fake.become({ role: 'leader', term: 2, ready: false });
    const duplicate = send(batch(3, { producer: [9, 0, 0] }), options());
    expect(fake.entries).toHaveLength(1);
    expect(await outcome(send(batch(1, { producer: [9, 0, 7] }), options()))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(await outcome(duplicate)).toBe('pending');
    fake.commitTo(1);
    expect(await outcome(duplicate)).toMatchObject({ baseOffset: 0 });
  });

  it('is restored from a snapshot, the log after it, and what is appended meanwhile', async () => {
    for (let i = 0; i < 3; i++) void send(batch(1, { producer: [9, 0, i] }), options());
    fake.commitTo(2);
    const log = new FakeLog();
    log.entries = fake.fakeLog.entries;
    log.snapshot = { nextOffset: 1, state: fake.fakeLog.snapshotSource!(1)! };
    const restarted = new FakeReplica({ log });
    const opened = openPartition(restarted, environment);
    restarted.owner!.appended([fake.entries[0]!]);
    restarted.entries = fake.entries;
    const again = await opened;
    for (let i = 0; i < 2; i++)
      expect(await outcome(again.produce(batch(1, { producer: [9, 0, i] }), options()))).toMatchObject({ baseOffset: i });
    expect(await outcome(again.produce(batch(1, { producer: [9, 0, 2] }), options()))).toBe('pending');
    expect(await outcome(again.produce(batch(1, { producer: [9, 0, 4] }), options()))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(restarted.entries).toHaveLength(1);
  });

  it('knows what committed while it was being restored', async () => {
    for (let i = 0; i < 2; i++) void send(batch(1, { producer: [9, 0, i] }), options());
    fake.commitTo(1);
    const log = new FakeLog();
    log.entries = fake.fakeLog.entries;
    const restarted = new FakeReplica({ log });
    const opened = openPartition(restarted, environment);
    restarted.entries = fake.entries;
    restarted.owner!.appended(restarted.entries);
    restarted.commitTo(2);
    const again = await opened;
    expect(await outcome(again.produce(batch(1, { producer: [9, 0, 1] }), options()))).toMatchObject({ baseOffset: 1 });
    expect(restarted.lastIndex).toBe(2);
  });
});

describe('min.insync.replicas', () => {
  it('above a majority delays the answer, not the commit', async () => {
    partition = await openPartition(fake, environment, { minInsyncReplicas: 3 });
    const answer = send(batch(1), options());
    fake.match = [1, 1, 0];
    fake.commitTo(1);
    expect(partition.highWatermark).toBe(1);
    expect(await outcome(answer)).toBe('pending');
    fake.match = [1, 1, 1];
    partition.state.progressed();
    expect(await outcome(answer)).toMatchObject({ baseOffset: 0 });
  });

  it('that can not be reached is refused before anything is appended', async () => {
    partition = await openPartition(fake, environment, { minInsyncReplicas: 3 });
    fake.syncBrokers = [1, 2] as BrokerId[];
    await expect(send(batch(1), options())).rejects.toThrow(/2 replicas in sync of 3.*min\.insync\.replicas=3/);
    const single = await openPartition(new FakeReplica({ voters: 1 }), environment, { minInsyncReplicas: 2 });
    expect(await outcome(single.produce(batch(1), options()))).toBe('NOT_ENOUGH_REPLICAS');
    expect(fake.entries).toHaveLength(0);
  });
});

describe('read and listOffsets', () => {
  it('serves committed batches only, and waits at their end', async () => {
    void send(batch(2), options());
    void send(batch(2), options());
    fake.commitTo(1);
    expect(await partition.read(0, 1 << 20, 'read_uncommitted')).toMatchObject({ nextOffset: 2 });
    expect(await partition.read(3, 1 << 20, 'read_uncommitted')).toMatchObject({ bytes: 0, nextOffset: 3 });
    await expect(partition.read(5, 1 << 20, 'read_committed')).rejects.toThrow(/Offset 5 of orders-0 is out of range: it holds 0 to 2/);
    fake.fakeLog.logStartOffset = 1;
    expect(await outcome(partition.read(0, 1 << 20, 'read_uncommitted'))).toBe('OFFSET_OUT_OF_RANGE');
    fake.become({ role: 'follower' });
    expect(await partition.read(50, 1 << 20, 'read_uncommitted')).toMatchObject({ bytes: 0 });
  });

  it('confirms leadership, and that it has applied what was committed, before it says what is latest', async () => {
    void send(batch(2), options());
    const latest = partition.listOffsets(-1, 1000, noSignal);
    expect(await outcome(latest)).toBe('pending');
    fake.readIndexes[0]!.resolve(1);
    expect(await outcome(latest)).toBe('pending');
    fake.commitTo(1);
    expect(await outcome(latest)).toEqual({ offset: 2, leaderEpoch: 1 });
  });

  it('does not know before the first commit of its term', async () => {
    fake.become({ ready: false });
    expect(await outcome(partition.listOffsets(-1, 1000, noSignal))).toBe('OFFSET_NOT_AVAILABLE');
    fake.become({ role: 'follower' });
    expect(await outcome(partition.listOffsets(-1, 1000, noSignal))).toBe('NOT_LEADER_OR_FOLLOWER');
    // But any replica knows where to begin.
    expect(await outcome(partition.listOffsets(-2, 1000, noSignal))).toEqual({ offset: 0, leaderEpoch: 1 });
  });

  it('finds times and the start', async () => {
    void send(batch(1, { timestamp: 10 }), options());
    void send(batch(1, { timestamp: 20 }), options());
    fake.commitTo(2);
    const ask = async (timestamp: number) => {
      const answer = partition.listOffsets(timestamp, 1000, noSignal);
      fake.readIndexes.at(-1)!.resolve(2);
      return (await answer).offset;
    };
    expect(await ask(15)).toBe(1);
    expect(await ask(21)).toBeUndefined();
    expect(await ask(-2)).toBe(0);
    await expect(ask(-7)).rejects.toThrow(/-1 \(latest\)/);
  });

  it.each(['none', 'gzip', 'lz4'] as const)('finds the record, not its batch, by its time: %s', async (compression) => {
    const codec = [...nodeCompressions, ...nativeCompressions].find(({ name }) => name === compression);
    const builder = (...times: readonly number[]) => {
      const built = new BatchBuilder({ crc32c, compression: codec });
      for (const time of times) built.append(null, new TextEncoder().encode('v'.repeat(100)), [], time);
      return built.build();
    };
    void send(builder(10, 30, 20), options());
    void send(builder(40, 50, 60), options());
    fake.commitTo(2);
    const ask = async (timestamp: number) => {
      const answer = partition.listOffsets(timestamp, 1000, noSignal);
      fake.readIndexes.at(-1)!.resolve(2);
      return (await answer).offset;
    };
    // This broker has no lz4: it answers where a reader finds it.
    const exact = compression !== 'lz4';
    expect(await ask(10)).toBe(0);
    expect(await ask(11)).toBe(exact ? 1 : 0);
    expect(await ask(31)).toBe(3);
    expect(await ask(55)).toBe(exact ? 5 : 3);
    expect(await ask(61)).toBeUndefined();
    // What was deleted is not found, and what is left of its batch is.
    fake.fakeLog.logStartOffset = 2;
    expect(await ask(25)).toBe(exact ? 3 : 2);
    expect(await ask(15)).toBe(2);
  });
});

it('acknowledges exactly what commits, whatever happens in between', async () => {
  const action = fc.oneof(
    { weight: 5, arbitrary: fc.constant('produce') },
    { weight: 2, arbitrary: fc.constant('resend') },
    { weight: 3, arbitrary: fc.constant('commit') },
    { weight: 1, arbitrary: fc.constant('lose') },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 40 }), async (actions) => {
      const replica = new FakeReplica();
      const tested = await openPartition(replica, new ManualEnvironment());
      const acknowledged = new Map<number, number>();
      let sequence = 0;
      for (const what of actions) {
        if (what === 'commit') replica.commitTo(replica.commitIndex + 1);
        else if (what === 'lose') {
          replica.become({ role: 'follower', term: replica.leadership.term + 1 });
          replica.truncateTo(replica.commitIndex);
          replica.become({ role: 'leader', term: replica.leadership.term + 1 });
          sequence = tested.highWatermark;
        } else {
          if (what === 'resend' && sequence > 0) sequence--;
          const sent = sequence++;
          tested.produce(batch(1, { producer: [7, 0, sent] }), options()).then(
            ({ baseOffset }) => acknowledged.set(sent, baseOffset),
            () => undefined,
          );
        }
        await outcome(Promise.resolve());
      }
      for (const [sent, offset] of acknowledged) {
        expect(offset).toBe(sent);
        expect(offset).toBeLessThan(tested.highWatermark);
        expect(readBatchHeader(replica.fakeLog.entries[offset]!.payload).baseSequence).toBe(sent);
      }
      expect(replica.fakeLog.entries.map(({ payload }) => readBatchHeader(payload).baseSequence)).toEqual(
        replica.fakeLog.entries.map((_, at) => at),
      );
    }),
    { numRuns: 100 },
  );
});

describe('a compacted topic', () => {
  const keyed = (key: string | null, value: string | null = 'v') => {
    const builder = new BatchBuilder({ crc32c });
    const bytes = (of: string | null) => (of === null ? null : new TextEncoder().encode(of));
    builder.append(bytes('first'), bytes('v'), [], 1_000_000);
    builder.append(bytes(key), bytes(value), [], 1_000_000);
    return builder.build();
  };

  beforeEach(async () => {
    partition = await openPartition(fake, environment, { compacts: true, deletes: false, retentionMs: 1, retentionBytes: 1 });
  });

  it.each(['quorum', 'leader', 'none'] as const)('takes no record without a key, with acks=%s', async (acks) => {
    const refused = send(keyed(null), options(acks));
    await expect(refused).rejects.toMatchObject({
      code: 'INVALID_RECORD',
      retriable: false,
      message: expect.stringMatching(/give every record a key/),
    });
    expect(fake.entries).toEqual([]);
  });

  it('takes records with keys, be they empty, and tombstones', async () => {
    for (const batchOfTwo of [keyed('a'), keyed(''), keyed('a', null)]) send(batchOfTwo, options());
    expect(fake.entries).toHaveLength(3);
  });

  it('takes nothing that it could not look into', async () => {
    const [codec] = nativeCompressions;
    const builder = new BatchBuilder({ crc32c, compression: codec });
    builder.append(Uint8Array.of(1), Uint8Array.of(2), [], 1_000_000);
    await expect(send(builder.build(), options())).rejects.toMatchObject({ code: 'UNSUPPORTED_COMPRESSION_TYPE' });
  });

  it('looks into nothing where the topic is not compacted', async () => {
    partition.configure({ ...defaults, compacts: false });
    send(keyed(null), options());
    const [codec] = nativeCompressions;
    const builder = new BatchBuilder({ crc32c, compression: codec });
    builder.append(null, Uint8Array.of(2), [], 1_000_000);
    send(builder.build(), options());
    expect(fake.entries).toHaveLength(2);
    partition.configure({ ...defaults, compacts: true });
    await expect(send(keyed(null), options())).rejects.toMatchObject({ code: 'INVALID_RECORD' });
  });

  it('answers a batch that is sent again with its offset, also when it came before the topic was compacted', async () => {
    partition.configure({ ...defaults, compacts: false });
    const first = batch(1, { producer: [7, 0, 0] });
    send(first.slice(), options());
    partition.configure({ ...defaults, compacts: true });
    const again = send(first, options());
    fake.commitTo(1);
    expect(await outcome(again)).toMatchObject({ baseOffset: 0 });
  });

  it('keeps for ever what only compaction removes', () => {
    expect(partition.retention).toEqual({ retentionMs: -1, retentionBytes: -1, retentionTopicBytes: -1 });
    partition.configure({ ...defaults, compacts: true, deletes: true, retentionMs: 5 });
    expect(partition.retention.retentionMs).toBe(5);
  });

  it('a read of what is gone goes on behind it', async () => {
    for (let i = 0; i < 3; i++) send(keyed(`${i}`), options());
    fake.commitTo(3);
    fake.fakeLog.entries.splice(1, 1);
    expect(await partition.read(2, 1_000, 'read_uncommitted')).toMatchObject({ nextOffset: 6 });
    fake.fakeLog.entries.splice(1, 1, { ...fake.fakeLog.entries[1]!, kind: EntryKind.noop });
    expect(await partition.read(2, 1_000, 'read_uncommitted')).toEqual({ chunks: [], bytes: 0, nextOffset: 6 });
  });

  it('counts the sequences of batches that compaction left a part of, or nothing (B30)', async () => {
    partition = await openPartition(fake, environment, { compacts: false });
    for (const sequence of [0, 3]) send(batch(3, { producer: [7, 0, sequence] }), options());
    fake.commitTo(2);
    const last = fake.fakeLog.entries[1]!;
    const codecs = { compression: new CompressionTable(), maxBytes: 1_000, crc32c };
    const left = cleanBatch(last.payload, ({ offset }) => offset === 4, codecs)!;
    expect(readBatchHeader(left)).toMatchObject({ recordCount: 1, lastOffsetDelta: 2 });
    const log = new FakeLog();
    log.entries = [{ ...last, payload: left }];
    fake = new FakeReplica({ log });
    partition = await openPartition(fake, environment, { compacts: false });
    expect(await outcome(send(batch(3, { producer: [7, 0, 3] }), options()))).toMatchObject({ baseOffset: 3 });
    send(batch(1, { producer: [7, 0, 6] }), options());
    expect(fake.entries).toHaveLength(1);
    expect(await outcome(send(batch(1, { producer: [7, 0, 9] }), options()))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
  });

  it('raises the tombstone floor on all replicas, by an entry', async () => {
    const raised = partition.raiseTombstoneFloor(4711, 1_000);
    raised.catch(() => undefined);
    expect(fake.entries[0]).toMatchObject({ kind: EntryKind.tombstoneFloor, recordCount: 0 });
    expect(decodeTombstoneFloor(fake.entries[0]!.payload)).toBe(4711);
    expect(await outcome(raised)).toBe('pending');
    fake.commitTo(1);
    await raised;
  });
});

import { getEventListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import type { FlotillaError } from '../../src/base/errors.ts';
import { Client } from '../../src/client/client.ts';
import { CompressionTable } from '../../src/record/compression.ts';
import { partitionForKey } from '../../src/record/partitioner.ts';
import type { Compression } from '../../src/record/types.ts';
import { FakeCluster, type ProduceFault } from './fake-cluster.ts';

const code = (error: unknown) => (error as FlotillaError).code;

describe('producer', () => {
  it('resolves each record with its partition, offset and timestamp', async () => {
    const cluster = new FakeCluster();
    cluster.createTopic('t', 3);
    const client = await cluster.client();
    const producer = client.producer();
    const sent = ['a', 'b', 'a'].map((key, i) => producer.send('t', { key, value: `v${i}`, timestamp: 1000 + i, headers: { h: 'x' } }));
    const results = await cluster.settle(Promise.all(sent));
    const a = partitionForKey(new TextEncoder().encode('a'), 3);
    expect(results[0]).toEqual({ partition: a, offset: 0, timestamp: 1000 });
    expect(results[2]?.partition).toBe(a);
    expect(cluster.topics.get('t')?.[a]?.values()).toContain('v2');
    await cluster.settle(client.close());
  });

  it('sends at once when idle, and gathers while the broker is busy', async () => {
    const cluster = new FakeCluster();
    const [partition] = cluster.createTopic('t', 1);
    const client = await cluster.client();
    const producer = client.producer();
    await cluster.settle(producer.send('t', { value: 'warm' }));
    const broker = cluster.brokers[0]!;
    const before = broker.produced;
    await cluster.settle(producer.send('t', { value: 'alone' }));
    expect(broker.produced).toBe(before + 1);
    await cluster.settle(Promise.all(Array.from({ length: 1000 }, (_, i) => producer.send('t', { value: `${i}` }))));
    expect(broker.produced).toBeLessThanOrEqual(before + 4);
    expect(partition?.values()).toHaveLength(1002);
    await cluster.settle(client.close());
  });

  it('goes on with a topic that was created again, and fails what is for partitions that it no longer has', async () => {
    const cluster = new FakeCluster();
    cluster.createTopic('t', 3);
    const client = await cluster.client();
    const producer = client.producer();
    const send = (partition: number) => cluster.settle(producer.send('t', { value: `${partition}`, partition }).catch(code), 20_000);
    for (const partition of [0, 1, 2]) await send(partition);
    cluster.deleteTopic('t');
    const [created] = cluster.createTopic('t', 1);
    // One that is on its way when the client learns of it, and one after.
    for (const partition of [2, 1, 2]) expect(await send(partition)).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    expect(await send(0)).toMatchObject({ partition: 0, offset: 0 });
    expect(created?.values()).toEqual(['0']);
    await cluster.settle(client.close());
  });

  it('refuses idempotence without quorum, unknown topics and bad partitions', async () => {
    const cluster = new FakeCluster();
    cluster.createTopic('t', 2);
    const client = await cluster.client();
    expect(() => client.producer({ acks: 'leader', idempotent: true })).toThrow(/idempotent/);
    const producer = client.producer();
    expect(code(await cluster.settle(producer.send('none', { value: 'x' }).catch((error) => error)))).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    expect(code(await cluster.settle(producer.send('t', { value: 'x', partition: 7 }).catch((error) => error)))).toBe(
      'UNKNOWN_TOPIC_OR_PARTITION',
    );
    expect(producer.bufferedBytes).toBe(0);
    await cluster.settle(client.close());
  });

  it('finds a topic that is created while it asks', async () => {
    const cluster = new FakeCluster();
    const client = await cluster.client();
    const sent = client.producer().send('late', { value: 'x' });
    cluster.time.schedule(1500, () => cluster.createTopic('late'));
    expect((await cluster.settle(sent)).offset).toBe(0);
    await cluster.settle(client.close());
  });

  it('keeps its buffer bounded: send waits, enqueue says no, ready tells', async () => {
    const cluster = new FakeCluster();
    const [partition] = cluster.createTopic('t', 1);
    cluster.commitMs = undefined;
    const client = await cluster.client();
    const producer = client.producer({ maxBufferedBytes: 10_000 });
    const value = 'x'.repeat(1000);
    let acked = 0;
    const sent = Array.from({ length: 50 }, (_, i) => producer.send('t', { value: `${i}${value}` }).then(() => acked++));
    await cluster.time.run(1000);
    expect(producer.bufferedBytes).toBeLessThanOrEqual(10_000);
    expect(producer.enqueue('t', { value })).toBe(false);
    expect(acked).toBe(0);
    let ready = false;
    const isReady = producer.ready().then(() => {
      ready = true;
    });
    await cluster.time.run(10);
    expect(ready).toBe(false);
    cluster.commitMs = 1;
    partition?.commit();
    await cluster.settle(Promise.all([...sent, isReady]));
    expect(partition?.values().map((each) => Number(each.slice(0, -1000)))).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(producer.bufferedBytes).toBe(0);
    await cluster.settle(client.close());
  });

  it('aborts what waits, and what is on its way', async () => {
    const cluster = new FakeCluster();
    cluster.createTopic('t', 1);
    cluster.commitMs = undefined;
    const client = await cluster.client();
    const producer = client.producer({ maxBufferedBytes: 2000 });
    const controller = new AbortController();
    const { signal } = controller;
    const calls = [0, 1, 2].map(() => producer.send('t', { value: 'x'.repeat(900) }, { signal }));
    const flushed = producer.flush({ signal });
    const ready = producer.ready({ signal });
    await cluster.time.run(100);
    controller.abort();
    const results = await cluster.settle(Promise.allSettled([...calls, flushed, ready, producer.send('t', { value: 'y' }, { signal })]));
    expect(results.map((result) => result.status === 'rejected' && code(result.reason))).toEqual(Array(6).fill('ABORTED'));
    await cluster.settle(client.close({ deadlineMs: 100 }));
  });

  it('gives up after the delivery timeout and says whether it may be there', async () => {
    const cluster = new FakeCluster();
    cluster.createTopic('t', 1);
    const client = await cluster.client();
    const producer = client.producer({ deliveryTimeoutMs: 5000 });
    await cluster.settle(producer.send('t', { value: 'warm' }));
    cluster.brokers[0]!.mute = true;
    const error = await cluster.settle(producer.send('t', { value: 'x' }).catch((caught) => caught));
    expect(code(error)).toBe('REQUEST_TIMED_OUT');
    expect(error.message).toMatch(/may have been appended/);
    await cluster.settle(client.close({ deadlineMs: 100 }));
  });

  it('keeps its producer id while what was never sent is given up', async () => {
    const cluster = new FakeCluster();
    const [partition] = cluster.createTopic('t', 1);
    cluster.commitMs = 400;
    const client = await cluster.client();
    const producer = client.producer({ deliveryTimeoutMs: 2_000, maxInFlight: 1, maxBatchBytes: 200 });
    const outcomes: Promise<string>[] = [];
    for (let i = 0; i < 300; i++) {
      outcomes.push(producer.send('t', { value: `${i}`.padStart(100, '0') }).then(() => 'ok', code));
      await cluster.settle(new Promise<void>((resolve) => cluster.time.schedule(20, resolve)));
    }
    const counts = Object.groupBy(await cluster.settle(Promise.all(outcomes)), (outcome) => outcome);
    expect(counts['REQUEST_TIMED_OUT']?.length).toBeGreaterThan(100);
    expect(counts['ok']?.length).toBeGreaterThan(10);
    expect(partition!.values()).toEqual([...new Set(partition!.values())].sort());
    expect(cluster.nextProducerId).toBe(1001);
    await cluster.settle(client.close());
  });

  it.each([true, false])('sends what is too large as a batch in smaller ones, idempotent: %s', async (idempotent) => {
    const cluster = new FakeCluster();
    const [partition] = cluster.createTopic('t', 1);
    partition!.maxBytes = 1_000;
    const client = await cluster.client();
    const producer = client.producer({ idempotent, maxBatchBytes: 8_000, ...(idempotent ? {} : { maxInFlight: 1 }) });
    const values = Array.from({ length: 400 }, (_, i) => `${i}`.padStart(100, '.'));
    const send = (value: string, i: number) => producer.send('t', { key: `k${i}`, value, headers: { h: value }, timestamp: 1_000 + i });
    const results = cluster.settle(Promise.all(values.map(send)));
    const flushed = cluster.settle(producer.flush());
    expect(await results).toEqual(values.map((_, offset) => ({ partition: 0, offset, timestamp: 1_000 + offset })));
    await flushed;
    expect(partition!.values()).toEqual(values);
    expect(producer.bufferedBytes).toBe(0);
    // It has learned: what follows goes through at once.
    const before = cluster.brokers.reduce((sum, { produced }) => sum + produced, 0);
    const after = partition!.entries.length;
    await cluster.settle(Promise.all(values.map(send)));
    expect(cluster.brokers.reduce((sum, { produced }) => sum + produced, 0) - before).toBe(partition!.entries.length - after);
    await cluster.settle(client.close());
  });

  it('fails only the record that is too large by itself', async () => {
    const cluster = new FakeCluster();
    const [partition] = cluster.createTopic('t', 1);
    partition!.maxBytes = 1_000;
    const client = await cluster.client();
    const producer = client.producer();
    const values = Array.from({ length: 50 }, (_, i) => (i === 20 ? 'x'.repeat(2_000) : `${i}`.padStart(100, '.')));
    const results = await cluster.settle(Promise.all(values.map((value) => producer.send('t', { value }).catch(code))));
    expect(results.filter((result) => typeof result === 'string')).toEqual(['MESSAGE_TOO_LARGE']);
    expect(results[20]).toBe('MESSAGE_TOO_LARGE');
    expect(partition!.values()).toEqual(values.filter((_, i) => i !== 20));
    await cluster.settle(client.close());
  });

  it('fails the records of a batch that can not be compressed, and goes on', async () => {
    const cluster = new FakeCluster();
    const [partition] = cluster.createTopic('t', 1);
    let broken = true;
    const compress = (bytes: Uint8Array) => {
      if (broken) throw new Error('out of memory');
      return bytes.slice();
    };
    const gzip: Compression = { name: 'gzip', compress, decompress: (bytes) => bytes.slice() };
    const platform = { environment: cluster.clientEnvironment, connect: cluster.network.connectFrom('client', cluster.clientEnvironment) };
    const bootstrap = cluster.brokers.map(({ address }) => address);
    const client = await cluster.settle(Client.open({ ...platform, compression: new CompressionTable([gzip]) }, { bootstrap }));
    const producer = client.producer({ compression: 'gzip', maxBatchBytes: 500 });
    const sent = Array.from({ length: 20 }, () => producer.send('t', { value: 'x'.repeat(100) }).catch(code));
    expect(new Set(await cluster.settle(Promise.all(sent)))).toEqual(new Set(['INVALID_RECORD']));
    expect(producer.bufferedBytes).toBe(0);
    broken = false;
    expect(await cluster.settle(producer.send('t', { value: 'y' }))).toMatchObject({ offset: 0 });
    expect(partition!.entries).toHaveLength(1);
    await cluster.settle(client.close());
  });

  it('counts the delivery timeout from send on, also for what waits for space or for its topic', async () => {
    const cluster = new FakeCluster();
    const [partition] = cluster.createTopic('t', 1);
    const client = await cluster.client();
    const producer = client.producer({ deliveryTimeoutMs: 2_000, maxBufferedBytes: 1_000 });
    await cluster.settle(producer.send('t', { value: 'x' }));
    cluster.brokers[partition!.leader - 1]!.mute = true;
    const start = cluster.clientEnvironment.monotonicMs();
    const waits = ['a', 'b', 'c', 'd'].map((value) =>
      producer.send('t', { value: value.repeat(800) }).catch((error: FlotillaError) => error),
    );
    const results = await cluster.settle(Promise.all(waits));
    expect(results.map(code)).toEqual(Array(4).fill('REQUEST_TIMED_OUT'));
    expect((results[3] as FlotillaError).message).toContain('it was not appended');
    expect(cluster.clientEnvironment.monotonicMs() - start).toBeLessThan(3_000);
    expect(producer.bufferedBytes).toBe(0);
    await cluster.settle(client.close());
  });

  it('counts it for records whose topic is not found in time, one by one', async () => {
    const cluster = new FakeCluster();
    const client = await cluster.client();
    for (const broker of cluster.brokers) broker.stop();
    const producer = client.producer({ deliveryTimeoutMs: 2_000 });
    const start = cluster.clientEnvironment.monotonicMs();
    const tookMs: number[] = [];
    const send = () =>
      producer.send('t', { value: 'x' }).catch((error: unknown) => {
        tookMs.push(cluster.clientEnvironment.monotonicMs() - start);
        return code(error);
      });
    const first = send();
    const second = new Promise((resolve) => {
      cluster.clientEnvironment.after(1_500, () => resolve(send()));
    });
    expect(await cluster.settle(first)).toBe('REQUEST_TIMED_OUT');
    expect(await cluster.settle(second)).toBe('REQUEST_TIMED_OUT');
    await cluster.settle(producer.flush());
    expect(tookMs[0]).toBeLessThan(3_000);
    expect(tookMs[1]).toBeGreaterThan(3_400);
    expect(tookMs[1]).toBeLessThan(4_500);
    await cluster.settle(client.close());
  });

  it('fails the record whose partitioner throws, and only that', async () => {
    const cluster = new FakeCluster();
    const [partition] = cluster.createTopic('t', 1);
    const client = await cluster.client();
    const partitioner = (_topic: string, key: Uint8Array | null) => {
      if (key !== null) throw new Error('no idea');
      return 0;
    };
    const producer = client.producer({ partitioner });
    const send = (key: string | null) => producer.send('t', { key, value: 'v' }).catch(code);
    // Before the topic is known, and after.
    const sent = [send(null), send('k'), send(null)];
    expect(await cluster.settle(Promise.all(sent))).toMatchObject([{ offset: 0 }, 'INVALID_RECORD', { offset: 1 }]);
    expect(await cluster.settle(send('k'))).toBe('INVALID_RECORD');
    expect(producer.bufferedBytes).toBe(0);
    expect(partition?.values()).toHaveLength(2);
    await cluster.settle(client.close());
  });

  it('leaves no listener on a signal once a record that waited for space was taken', async () => {
    const cluster = new FakeCluster();
    cluster.createTopic('t', 1);
    const client = await cluster.client();
    const producer = client.producer({ maxBufferedBytes: 1_000 });
    const { signal } = new AbortController();
    const waits = Array.from({ length: 20 }, () => producer.send('t', { value: 'x'.repeat(800) }, { signal }));
    await cluster.settle(Promise.all(waits));
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
    await cluster.settle(client.close());
  });

  it.each(['deliveryTimeoutMs', 'requestTimeoutMs', 'maxBufferedBytes', 'maxBatchBytes'])('refuses %s that is no number', async (name) => {
    const cluster = new FakeCluster();
    const client = await cluster.client();
    for (const value of [Number.NaN, -1, '5']) expect(() => client.producer({ [name]: value })).toThrow(name);
    await cluster.settle(client.close());
  });

  it('closes within its deadline with the whole cluster gone, and leaves no timer', async () => {
    const cluster = new FakeCluster();
    cluster.createTopic('t', 3);
    const client = await cluster.client();
    const producer = client.producer();
    await cluster.settle(producer.send('t', { value: 'warm' }));
    for (const broker of cluster.brokers) broker.stop();
    const sent = producer.send('t', { value: 'x' }).catch((error) => error);
    await cluster.time.run(500);
    const start = cluster.time.nowMs;
    await cluster.settle(client.close({ deadlineMs: 1000 }));
    expect(cluster.time.nowMs - start).toBeLessThanOrEqual(1001);
    expect(code(await sent)).toBe('CLOSED');
    await cluster.time.run(60_000);
    const events = cluster.time.events;
    await cluster.time.run(600_000);
    expect(cluster.time.events).toBe(events);
    expect(code(await producer.send('t', { value: 'y' }).catch((error) => error))).toBe('CLOSED');
  });

  it('throws the failure of an enqueued record from flush', async () => {
    const cluster = new FakeCluster();
    cluster.createTopic('t', 1);
    const client = await cluster.client();
    const producer = client.producer();
    expect(producer.enqueue('none', { value: 'x' })).toBe(true);
    expect(code(await cluster.settle(producer.flush().catch((error) => error)))).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    expect(producer.enqueue('t', { value: 'x' })).toBe(true);
    await cluster.settle(producer.flush());
    await cluster.settle(client.close());
  });

  it('moves at once to the leader that an error names', async () => {
    const cluster = new FakeCluster();
    const [partition] = cluster.createTopic('t', 1);
    const client = await cluster.client();
    const producer = client.producer();
    await cluster.settle(producer.send('t', { value: 'a' }));
    const { metadataCalls } = cluster;
    partition?.moveTo(2);
    const start = cluster.time.nowMs;
    expect((await cluster.settle(producer.send('t', { value: 'b' }))).offset).toBe(1);
    expect(cluster.metadataCalls).toBe(metadataCalls);
    expect(cluster.time.nowMs - start).toBeLessThan(10);
    await cluster.settle(client.close());
  });

  it('goes on with all partitions of a dead leader as soon as it has heard of the next, whichever of them asked', async () => {
    const cluster = new FakeCluster();
    const partitions = cluster.createTopic('t', 50);
    for (const partition of partitions) partition.moveTo(1);
    const client = await cluster.client();
    const producer = client.producer();
    const send = () => partitions.map(({ partition }) => producer.send('t', { value: 'a', partition }));
    await cluster.settle(Promise.all(send()));
    cluster.brokers[0]!.stop();
    const sent = send();
    // By now each waits for up to a second before it tries again.
    await cluster.time.run(5_000);
    for (const partition of partitions) partition.moveTo(2);
    const start = cluster.time.nowMs;
    await cluster.settle(Promise.all(sent));
    expect(cluster.time.nowMs - start).toBeLessThan(250);
    await cluster.settle(client.close());
  });

  it('leaves a leader that is cut off from its cluster and answers nothing', async () => {
    const cluster = new FakeCluster();
    const [partition] = cluster.createTopic('t', 1);
    const client = await cluster.client();
    const producer = client.producer();
    await cluster.settle(producer.send('t', { value: 'a' }));
    cluster.brokers[0]!.mute = true;
    const sent = producer.send('t', { value: 'b' });
    partition?.moveTo(3);
    const start = cluster.time.nowMs;
    await cluster.settle(sent);
    expect(cluster.time.nowMs - start).toBeLessThan(5000);
    await cluster.settle(client.close());
  });

  it('takes a new producer id when the broker lost its state, without a duplicate', async () => {
    const cluster = new FakeCluster();
    const [partition] = cluster.createTopic('t', 1);
    const client = await cluster.client();
    const producer = client.producer();
    await cluster.settle(producer.send('t', { value: 'a' }));
    partition!.entries = partition!.entries.map((entry) => ({ ...entry, producerId: -1 }));
    await cluster.settle(Promise.all(['b', 'c'].map((value) => producer.send('t', { value }))));
    expect(partition?.values()).toEqual(['a', 'b', 'c']);
    await cluster.settle(client.close());
  });

  it('does not send again what may be there when the broker lost its state', async () => {
    const cluster = new FakeCluster();
    const [partition] = cluster.createTopic('t', 1);
    const client = await cluster.client();
    const producer = client.producer();
    await cluster.settle(producer.send('t', { value: 'a' }));
    cluster.brokers[0]!.fault = () => {
      cluster.brokers[0]!.fault = () => 'none';
      cluster.time.schedule(1.5, () => {
        partition!.entries = partition!.entries.map((entry) => ({ ...entry, producerId: -1 }));
      });
      return 'cut-after';
    };
    const error = await cluster.settle(producer.send('t', { value: 'b' }).catch((caught) => caught));
    expect(code(error)).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect((await cluster.settle(producer.send('t', { value: 'c' }))).offset).toBe(2);
    expect(partition?.values()).toEqual(['a', 'b', 'c']);
    await cluster.settle(client.close());
  });

  const faults: ProduceFault[] = ['error-before', 'error-after', 'lost', 'cut-before', 'cut-after', 'twice'];
  it.each(Array.from({ length: 40 }, (_, seed) => seed))('loses, repeats and reorders nothing: schedule %i', async (seed) => {
    const cluster = new FakeCluster({ seed });
    const { random } = cluster;
    const partitions = cluster.createTopic('t', 3);
    // In every second one most batches are too large, and go out in parts.
    if (seed % 2 === 1) for (const partition of partitions) partition.maxBytes = 100;
    cluster.hints = random.chance(0.7);
    cluster.commitMs = random.between(0, 20);
    const client = await cluster.client();
    const producer = client.producer({ requestTimeoutMs: 1000, maxBatchBytes: 600, maxInFlight: 1 + random.below(5) });
    let calm = false;
    const rate = random.between(0, 0.4);
    for (const broker of cluster.brokers) broker.fault = () => (!calm && random.chance(rate) ? random.pick(faults) : 'none');
    const expected: string[][] = [[], [], []];
    const acked: { partition: number; offset: number; value: string }[] = [];
    const failed: unknown[] = [];
    for (let round = 0; round < 60; round++) {
      for (let i = random.below(12); i > 0; i--) {
        const partition = random.below(3);
        const value = `${partition}:${expected[partition]!.length}`;
        expected[partition]!.push(value);
        producer.send('t', { value, partition }).then(
          ({ offset }) => acked.push({ partition, offset, value }),
          (error) => failed.push(error),
        );
      }
      await cluster.time.run(random.between(0, 15));
      if (random.chance(0.15)) random.pick(partitions).moveTo(1 + random.below(3), random.below(3));
      if (random.chance(0.03)) cluster.network.reset('client', `broker${1 + random.below(3)}`);
    }
    calm = true;
    await cluster.settle(producer.flush());
    expect(failed).toEqual([]);
    for (const [partition, { entries }] of partitions.entries()) {
      expect(partitions[partition]!.values()).toEqual(expected[partition]);
      expect(entries.length).toBeGreaterThan(0);
    }
    for (const { partition, offset, value } of acked) expect(partitions[partition]!.values()[offset]).toBe(value);
    await cluster.settle(client.close());
  });
});

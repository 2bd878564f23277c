/** The SDK against three real broker processes: over real gRPC, with real codecs, on a real clock. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DevCluster } from '../../bench/dev-cluster.ts';
import { type Client, type Consumer, type ConsumerRecord, connect, OffsetOutOfRangeError } from '../../src/client/index.ts';
import { nativeCompressions } from '../../src/platform/compression-native.ts';
import type { CompressionName } from '../../src/record/types.ts';
import { run } from '../processes.ts';

let cluster: DevCluster;
let client: Client;
let topics = 0;

beforeAll(async () => {
  cluster = await DevCluster.start();
  client = await connect({ bootstrap: cluster.bootstrap, codecs: nativeCompressions });
}, 60_000);

afterAll(async () => {
  await client?.close({ deadlineMs: 1_000 });
  await cluster?.[Symbol.asyncDispose]();
}, 60_000);

async function createTopic(partitions = 1): Promise<string> {
  const name = `sdk-${++topics}`;
  await client.admin.createTopic({ name, partitions, replicas: 3 });
  return name;
}

async function take(consumer: Consumer, count: number): Promise<ConsumerRecord[]> {
  const records: ConsumerRecord[] = [];
  for await (const record of consumer) if (records.push(record) === count) break;
  return records;
}

async function readAll(topic: string, count: number, from: Client = client): Promise<ConsumerRecord[]> {
  await using consumer = from.consumer({ topics: [topic], from: 'beginning' });
  return await take(consumer, count);
}

const textOf = ({ value }: Pick<ConsumerRecord, 'value'>) => (value === null ? null : Buffer.from(value).toString());
const flotilla = (argv: readonly string[], stdin = '') => run(argv, { bootstrap: cluster.bootstrap, stdin });
const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'resolved',
    (error: { code: string }) => error.code,
  );

describe('compression', () => {
  const line = 'the same words again and again, the same words again and again, ';

  it.each<CompressionName>(['none', 'gzip', 'zstd', 'lz4', 'snappy'])(
    '%s goes from the SDK to the SDK and to the command line',
    async (compression) => {
      const topic = await createTopic();
      await using producer = client.producer({ compression });
      const values = Array.from({ length: 1_000 }, (_, at) => `${line}${at}`);
      await Promise.all(values.map((value) => producer.send(topic, { key: 'k', value, headers: { h: 'x' } })));
      expect((await readAll(topic, values.length)).map(textOf)).toEqual(values);
      await using consumer = client.consumer({ topics: [topic], from: 'beginning' });
      const { value: batch } = await consumer.batches().next();
      expect(batch.header.compression).toBe(compression);
      const { sizeBytes } = (await client.admin.describeTopic(topic)).partitions[0]!;
      if (compression !== 'none') expect(sizeBytes).toBeLessThan(values.length * line.length * 0.5);
      const consumed = await flotilla(['consume', topic, '--from', 'beginning', '--until-end']);
      expect(consumed, consumed.err).toMatchObject({ code: 0, out: `${values.join('\n')}\n` });
    },
  );

  it('of the command line is read by the SDK', async () => {
    const topic = await createTopic();
    const values = Array.from({ length: 300 }, (_, at) => `${line}${at}`);
    for (const [at, compression] of (['lz4', 'snappy', 'gzip', 'zstd'] as const).entries()) {
      const part = values.slice(at * 75, at * 75 + 75);
      const { code, err } = await flotilla(['produce', topic, '--compression', compression], part.join('\n'));
      expect(code, err).toBe(0);
    }
    expect((await readAll(topic, 300)).map(textOf)).toEqual(values);
    await using consumer = client.consumer({ topics: [topic], from: 'beginning' });
    const codecs = new Set<string>();
    let offset = 0;
    for await (const { header } of consumer.batches()) {
      codecs.add(header.compression ?? 'unknown');
      offset += header.lastOffsetDelta + 1;
      if (offset === 300) break;
    }
    expect([...codecs]).toEqual(['lz4', 'snappy', 'gzip', 'zstd']);
  });

  it('that was not registered is refused, when producing at once, when consuming by name', async () => {
    const topic = await createTopic();
    await using producer = client.producer({ compression: 'lz4' });
    await producer.send(topic, { value: line });
    await using plain = await connect({ bootstrap: cluster.bootstrap });
    expect(() => plain.producer({ compression: 'lz4' })).toThrow(/lz4/);
    await expect(readAll(topic, 1, plain)).rejects.toMatchObject({
      code: 'UNSUPPORTED_COMPRESSION_TYPE',
      message: expect.stringContaining('lz4'),
    });
  });
});

describe('records', () => {
  it('keep every byte of keys, values and headers, and what is null', async () => {
    const topic = await createTopic();
    const bytes = Uint8Array.from({ length: 256 }, (_, at) => at);
    await using producer = client.producer();
    await producer.send(topic, {
      key: bytes,
      value: bytes,
      headers: [
        { key: 'a', value: bytes },
        { key: 'a', value: null },
        { key: 'ü', value: '' },
      ],
    });
    await producer.send(topic, { key: null, value: null });
    await producer.send(topic, { key: '', value: '' });
    await producer.send(topic, { value: 'ünïcödé 🚢', key: 'ключ' });
    const large = new Uint8Array(900_000).fill(7);
    await producer.send(topic, { value: large });
    const [first, second, third, fourth, fifth] = await readAll(topic, 5);
    const plain = (data: Uint8Array | null | undefined) => data && new Uint8Array(data);
    expect(plain(first?.key)).toEqual(bytes);
    expect(plain(first?.value)).toEqual(bytes);
    expect(first?.headers.map(({ key, value }) => [key, plain(value)])).toEqual([
      ['a', bytes],
      ['a', null],
      ['ü', new Uint8Array(0)],
    ]);
    expect(second).toMatchObject({ key: null, value: null, offset: 1 });
    expect([third?.key?.length, third?.value?.length]).toEqual([0, 0]);
    expect([fourth && textOf(fourth), Buffer.from(fourth?.key ?? []).toString()]).toEqual(['ünïcödé 🚢', 'ключ']);
    expect(fifth?.value && Buffer.compare(fifth.value, large)).toBe(0);
  });

  it.each(['none', 'leader', 'quorum'] as const)('are acknowledged with acks %s', async (acks) => {
    const topic = await createTopic();
    await using producer = client.producer({ acks });
    const values = Array.from({ length: 200 }, (_, at) => `${acks} ${at}`);
    const acknowledged = await Promise.all(values.map((value) => producer.send(topic, { value })));
    if (acks !== 'none') expect(acknowledged.map(({ offset }) => offset)).toEqual(values.map((_, at) => at));
    expect((await readAll(topic, values.length)).map(textOf)).toEqual(values);
    const cli = await flotilla(['produce', topic, '--acks', acks], 'from the command line');
    expect(cli, cli.err).toMatchObject({ code: 0 });
    expect((await readAll(topic, values.length + 1)).map(textOf).at(-1)).toBe('from the command line');
  });

  it('are idempotent with acks quorum only', () => {
    for (const acks of ['none', 'leader'] as const) {
      expect(() => client.producer({ acks, idempotent: true })).toThrow(expect.objectContaining({ code: 'INVALID_REQUIRED_ACKS' }));
    }
  });

  it('are found by their time, by the SDK and by the command line', async () => {
    const topic = await createTopic();
    await using producer = client.producer();
    const noon = Date.UTC(2026, 0, 31, 12);
    for (const minute of [0, 10, 20, 30]) await producer.send(topic, { value: `+${minute}m`, timestamp: noon + minute * 60_000 });
    const times = [noon - 1, noon, noon + 15 * 60_000, noon + 30 * 60_000, noon + 31 * 60_000];
    const queries = times.map((time) => ({ topic, partition: 0, at: { time } }));
    expect(await client.admin.listOffsets(queries)).toEqual([0, 0, 2, 3, -1]);
    await using consumer = client.consumer({ topics: [topic], from: { time: noon + 15 * 60_000 } });
    expect((await take(consumer, 2)).map(textOf)).toEqual(['+20m', '+30m']);
    for (const time of ['@2026-01-31T12:15:00Z', `@${noon + 15 * 60_000}`]) {
      const cli = await flotilla(['consume', topic, '--from', time, '--until-end']);
      expect(cli, cli.err).toMatchObject({ code: 0, out: '+20m\n+30m\n' });
    }
  });
});

describe('a consumer', () => {
  it('seeks, pauses and resumes, over two topics', async () => {
    const a = await createTopic();
    const b = await createTopic(2);
    await using producer = client.producer();
    for (let at = 0; at < 20; at++) {
      await producer.send(a, { value: `a${at}` });
      await producer.send(b, { value: `b${at}`, partition: at % 2 });
    }
    await using consumer = client.consumer({ topics: [a, { topic: b, partitions: [1] }], from: 'beginning' });
    const all = await take(consumer, 30);
    expect(all.filter(({ topic }) => topic === a).map(textOf)).toEqual(Array.from({ length: 20 }, (_, at) => `a${at}`));
    expect(all.filter(({ topic }) => topic === b).map(textOf)).toEqual(Array.from({ length: 10 }, (_, at) => `b${at * 2 + 1}`));

    await consumer.pause(a);
    await producer.send(a, { value: 'held back' });
    await producer.send(b, { value: 'passes', partition: 1 });
    expect((await take(consumer, 1)).map(textOf)).toEqual(['passes']);
    await consumer.resume(a);
    expect((await take(consumer, 1)).map(textOf)).toEqual(['held back']);

    await consumer.seek(a, 0, 19);
    expect((await take(consumer, 2)).map(textOf)).toEqual(['a19', 'held back']);
    await consumer.seek(b, 1, 'beginning');
    expect((await take(consumer, 1)).map(textOf)).toEqual(['b1']);
    await consumer.seek(b, 1, 'end');
    await producer.send(b, { value: 'after the end', partition: 1 });
    expect((await take(consumer, 1)).map(textOf)).toEqual(['after the end']);
    expect(consumer.lag()).toBe(0);
  });

  it('and a producer obey their AbortSignals', async () => {
    const topic = await createTopic();
    const stop = new AbortController();
    const consumer = client.consumer({ topics: [topic], signal: stop.signal });
    const reading = codeOf(take(consumer, 1));
    const unknown = client.producer().send('no-such-topic', { value: 'x' }, { signal: stop.signal });
    const aborted = codeOf(unknown);
    stop.abort();
    expect(await reading).toBe('ABORTED');
    expect(await aborted).toBe('ABORTED');
    expect(await codeOf(client.admin.listTopics({ signal: AbortSignal.abort() }))).toBe('ABORTED');
    expect(await codeOf(connect({ bootstrap: cluster.bootstrap, signal: AbortSignal.abort() }))).toBe('ABORTED');
  });
});

describe('a topic that is deleted and created again', () => {
  it('takes a running producer along, and tells a running consumer', async () => {
    const topic = await createTopic(3);
    await using producer = client.producer();
    const send = (value: string, partition = 0) => producer.send(topic, { value, partition });
    for (let at = 0; at < 9; at++) await send(`old ${at}`, at % 3);
    await using told = client.consumer({ topics: [{ topic, partitions: [0] }], from: 'beginning' });
    await using follows = client.consumer({ topics: [{ topic, partitions: [0] }], from: 'beginning', onOutOfRange: 'beginning' });
    for (const consumer of [told, follows]) expect((await take(consumer, 3)).map(textOf)).toEqual(['old 0', 'old 3', 'old 6']);

    await client.admin.deleteTopic(topic);
    await client.admin.createTopic({ name: topic, partitions: 2, replicas: 3 });
    const acknowledged = await send('new 0');
    expect(acknowledged.offset).toBe(0);
    for (let at = 1; at < 9; at++) await send(`new ${at}`);
    expect(await codeOf(send('nowhere', 2))).toBe('UNKNOWN_TOPIC_OR_PARTITION');

    await expect(take(told, 1)).rejects.toThrow(OffsetOutOfRangeError);
    expect((await take(follows, 9)).map(textOf)).toEqual(Array.from({ length: 9 }, (_, at) => `new ${at}`));
    expect((await readAll(topic, 9)).map(textOf)).not.toContain('old 0');
  }, 30_000);

  it('fails both when it stays away', async () => {
    const topic = await createTopic();
    await using producer = client.producer();
    await producer.send(topic, { value: 'a' });
    await using consumer = client.consumer({ topics: [topic], from: 'beginning' });
    await take(consumer, 1);
    await client.admin.deleteTopic(topic);
    const failures = [take(consumer, 1), producer.send(topic, { value: 'b' })].map(codeOf);
    expect(await Promise.all(failures)).toEqual(['UNKNOWN_TOPIC_OR_PARTITION', 'UNKNOWN_TOPIC_OR_PARTITION']);
  }, 30_000);
});

describe('the end', () => {
  it('comes with the scope, records delivered first', async () => {
    const topic = await createTopic();
    let sent: Promise<unknown>[];
    {
      await using mine = await connect({ bootstrap: cluster.bootstrap });
      const producer = mine.producer();
      sent = Array.from({ length: 500 }, (_, at) => producer.send(topic, { value: `${at}` }));
    }
    await Promise.all(sent);
    expect(await readAll(topic, 500)).toHaveLength(500);
  });

  // The last one: no broker is left after it.
  it('comes within the deadline with every broker killed', async () => {
    const topic = await createTopic();
    const mine = await connect({ bootstrap: cluster.bootstrap });
    const producer = mine.producer();
    await producer.send(topic, { value: 'a' });
    const consumer = mine.consumer({ topics: [topic], from: 'beginning' });
    await take(consumer, 1);
    const reading = take(consumer, 1);
    for (const broker of [1, 2, 3]) cluster.signal(broker, 'SIGKILL');
    const lost = codeOf(producer.send(topic, { value: 'b' }));
    const startedMs = performance.now();
    await mine.close({ deadlineMs: 1_000 });
    expect(performance.now() - startedMs).toBeLessThan(4_000);
    expect(await lost).toBe('CLOSED');
    expect(await reading).toEqual([]);
    expect(() => mine.producer()).toThrow(/closed/);
    await expect(connect({ bootstrap: cluster.bootstrap, connectTimeoutMs: 300 })).rejects.toMatchObject({ code: 'BROKER_NOT_AVAILABLE' });
  }, 30_000);
});

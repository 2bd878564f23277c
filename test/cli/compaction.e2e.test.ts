/** A real broker with its worker thread. */
import { expect, it } from 'vitest';
import { connect } from '../../src/client/index.ts';
import { BrokerUnderTest, freePorts, TemporaryDirectory } from '../processes.ts';

const CODECS = [undefined, 'gzip', 'zstd'] as const;
const text = new TextDecoder();

it('cleans a compacted topic in a worker thread, compressed batches too, and ends', async () => {
  using directory = new TemporaryDirectory();
  const bootstrap = `127.0.0.1:${await freePorts(1)}`;
  const sets = [
    'node.id=1',
    `listeners=PLAINTEXT://${bootstrap}`,
    `log.dirs=${directory.join('data')}`,
    'flotilla.wal.file.bytes=8MiB',
    'flotilla.disk.reserve.bytes=1MiB',
    'log.cleaner.backoff.ms=100',
  ];
  const broker = await new BrokerUnderTest(sets.flatMap((set) => ['--set', set])).ready();
  try {
    await using client = await connect({ bootstrap });
    const configs = { 'cleanup.policy': 'compact', 'segment.bytes': '4000', 'min.cleanable.dirty.ratio': '0.01' };
    await client.admin.createTopic({ name: 'profiles', partitions: 1, replicas: 1, configs });
    for (const compression of CODECS) {
      await using producer = client.producer({ maxBatchBytes: 2_000, ...(compression && { compression }) });
      for (let n = 0; n < 400; n++) {
        producer.enqueue('profiles', { key: `${compression}-${n % 3}`, value: `${n} ${'x'.repeat(50)}${n * n}` });
        if (n % 10 === 0) await producer.flush();
      }
      await producer.flush();
      await expect(producer.send('profiles', { value: 'no key' })).rejects.toMatchObject({ code: 'INVALID_RECORD' });
    }
    let newest = new Map<string, string>();
    for (let count = Number.POSITIVE_INFINITY; count > 250; ) {
      newest = new Map();
      count = 0;
      await using consumer = client.consumer({ topics: ['profiles'], from: 'beginning', until: 'end' });
      for await (const { key, value } of consumer) {
        newest.set(text.decode(key ?? undefined), text.decode(value ?? undefined).split(' ')[0] ?? '');
        count++;
      }
    }
    const expected = CODECS.flatMap((compression) => [397, 398, 399].map((n) => [`${compression}-${n % 3}`, String(n)] as const));
    expect(new Map([...newest].sort())).toEqual(new Map([...expected].sort()));
    expect(broker.log).toContain('"cleaned"');
    expect(broker.log).not.toContain('cleaning failed');
  } finally {
    process.kill(broker.pid, 'SIGTERM');
  }
  expect((await broker.ended).code).toBe(0);
});

import { Readable, Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { FlotillaError } from '../../src/base/errors.ts';
import { FakeCluster, flotilla } from './fake.ts';

const text = (value: string) => Buffer.from(value);

function clusterWith(...values: string[]): FakeCluster {
  const cluster = new FakeCluster();
  cluster.add('orders', 3);
  values.forEach((value, at) => {
    cluster.append('orders', at % 3, { key: text(`k${at}`), value: text(value), headers: [{ key: 'h', value: text('x') }] }, 1_000 + at);
  });
  return cluster;
}

describe('exit codes', () => {
  it.each([
    [['topic', 'list'], 0],
    [['--help'], 0],
    [['topic', 'create', '--help'], 0],
    [['topic', 'describe', 'none'], 1],
    [['topic', 'delete', 'none'], 1],
    [[], 2],
    [['topic'], 2],
    [['topics'], 2],
    [['topic', 'create'], 2],
    [['topic', 'create', 'x', '--partitions', '0'], 2],
    [['topic', 'create', 'x', '--replicas', 'three'], 2],
    [['topic', 'create', 'x', '--config', 'novalue'], 2],
    [['raft', 'describe', 'none/0'], 1],
    [['raft', 'list', '--topic', 'none'], 1],
    [['raft', 'list', '--broker', '9'], 1],
    [['raft', 'describe'], 2],
    [['raft', 'describe', 'none'], 2],
    [['raft', 'list', '--broker', 'one'], 2],
    [['topic', 'list', '--bogus'], 2],
    [['topic', 'alter', 'x'], 2],
    [['topic', 'alter', 'none', '--config', 'retention.ms=1h'], 1],
    [['topic', 'delete-records', 'x'], 2],
    [['topic', 'delete-records', 'none', '--before', 'end'], 1],
    [['topic', 'list', '--bootstrap', 'nowhere'], 2],
    [['consume', 'x', '--from', 'somewhere'], 2],
    [['produce', 'x', '--acks', 'some'], 2],
    // Without a file the environment and --set must say it all; here they don't.
    [['start'], 1],
    [['completion', 'tcsh'], 2],
  ])('%j is %d', async (argv, code) => {
    expect((await flotilla(argv)).code).toBe(code);
  });

  it('says on stderr what is wrong, and what to do', async () => {
    const outcome = await flotilla(['topic', 'describe', 'none']);
    expect(outcome).toMatchObject({ code: 1, out: '' });
    expect(outcome.err).toContain("Topic 'none' does not exist.");
    expect(outcome.err).toContain('flotilla topic list');
  });

  it('says it in JSON with --json', async () => {
    const { err, out } = await flotilla(['topic', 'describe', 'none', '--json']);
    expect(out).toBe('');
    expect(JSON.parse(err)).toEqual({
      error: { code: 'UNKNOWN_TOPIC_OR_PARTITION', retriable: true, message: "Topic 'none' does not exist." },
    });
  });

  it('closes the client, come what may', async () => {
    const cluster = new FakeCluster();
    await flotilla(['topic', 'list'], { cluster });
    await flotilla(['topic', 'describe', 'none'], { cluster });
    expect(cluster.closed).toBe(2);
  });

  it.each([
    'dev',
    'start',
    'config',
    'format',
    'produce',
    'consume',
    'topic create',
    'topic list',
    'topic describe',
    'topic alter',
    'topic delete-records',
    'topic delete',
    'cluster describe',
    'raft list',
    'raft describe',
    'bench produce',
    'bench consume',
    'bench latency',
    'completion',
  ])('%s has help with examples', async (command) => {
    const { out, code } = await flotilla([...command.split(' '), '--help']);
    expect(code).toBe(0);
    expect(out).toContain('Examples:\n  $ ');
  });
});

describe('topic', () => {
  it('creates with what was asked for', async () => {
    const cluster = new FakeCluster();
    const argv = ['topic', 'create', 'orders', '--partitions', '6', '--replicas', '2', '--config', 'a=1', '--config', 'b=2'];
    expect(await flotilla(argv, { cluster })).toMatchObject({ code: 0, out: 'created orders\n' });
    expect(cluster.topic('orders')).toMatchObject({ partitions: 6, replicas: 2, configs: { a: '1', b: '2' } });
    expect((await flotilla(argv, { cluster })).code).toBe(1);
  });

  it('lists names, or objects', async () => {
    const cluster = new FakeCluster();
    cluster.add('b', 2);
    cluster.add('a', 1, 1);
    expect((await flotilla(['topic', 'list'], { cluster })).out).toBe('a\nb\n');
    expect((await flotilla(['--json', 'topic', 'list'], { cluster })).json).toEqual([
      { name: 'a', partitions: 1, replicas: 1 },
      { name: 'b', partitions: 2, replicas: 3 },
    ]);
  });

  it('describes each partition', async () => {
    const cluster = clusterWith('a', 'b', 'c', 'd');
    expect((await flotilla(['topic', 'describe', 'orders', '--json'], { cluster })).json).toMatchObject({
      name: 'orders',
      partitions: [
        { partition: 0, leader: 1, leaderEpoch: 7, replicas: [1, 2, 3], logStartOffset: 0, highWatermark: 2 },
        { partition: 1, leader: 2, leaderEpoch: 7, replicas: [2, 3, 1], logStartOffset: 0, highWatermark: 1 },
        { partition: 2, leader: 3, leaderEpoch: 7, replicas: [3, 1, 2], logStartOffset: 0, highWatermark: 1 },
      ],
    });
    const { out } = await flotilla(['topic', 'describe', 'orders'], { cluster });
    expect(out).toMatch(/^PARTITION +LEADER +EPOCH +REPLICAS/m);
    expect(out).toMatch(/^2 +3 +7 +3,1,2 +3,1,2 +0 +1 +10 B$/m);
    expect(out).not.toContain('\u001b');
  });

  it('deletes', async () => {
    const cluster = clusterWith();
    expect(await flotilla(['topic', 'delete', 'orders'], { cluster })).toMatchObject({
      code: 0,
      out: 'deleted orders: 90 B on all brokers together, given back after log.segment.delete.delay.ms\n',
    });
    expect(cluster.topics.size).toBe(0);
  });
});

describe('topic alter', () => {
  it('sets and unsets, and shows what the topic sets then', async () => {
    const cluster = new FakeCluster();
    cluster.add('orders', 1);
    const set = await flotilla(['topic', 'alter', 'orders', '--config', 'retention.ms=7d', '--config', 'segment.bytes=1MiB'], { cluster });
    expect(set).toMatchObject({ code: 0, out: 'orders: retention.ms=7d segment.bytes=1MiB\n' });
    const json = await flotilla(['topic', 'alter', 'orders', '--unset', 'segment.bytes', '--json'], { cluster });
    expect(JSON.parse(json.out)).toEqual({ name: 'orders', configs: { 'retention.ms': '7d' } });
    const none = await flotilla(['topic', 'alter', 'orders', '--unset', 'retention.ms'], { cluster });
    expect(none.out).toBe('orders: all as the brokers have it\n');
  });
});

describe('topic delete-records', () => {
  it.each([
    [
      ['--before', 'end'],
      [2, 2, 1],
    ],
    [
      ['--before', '1'],
      [1, 1, 1],
    ],
    [
      ['--before', '@1004'],
      [2, 1, 1],
    ],
    [['--before', '@999999', '--partition', '1'], [2]],
  ])('%j', async (options, starts) => {
    const cluster = clusterWith('a', 'b', 'c', 'd', 'e');
    const { out, code } = await flotilla(['topic', 'delete-records', 'orders', ...options, '--json'], { cluster });
    expect(code).toBe(0);
    expect(JSON.parse(out).partitions.map((each: { logStartOffset: number }) => each.logStartOffset)).toEqual(starts);
  });

  it('says where each partition starts then, and what is wrong', async () => {
    const cluster = clusterWith('a', 'b', 'c', 'd', 'e');
    const { out } = await flotilla(['topic', 'delete-records', 'orders', '--before', '1'], { cluster });
    expect(out).toBe('PARTITION  START\n0          1\n1          1\n2          1\n');
    const none = await flotilla(['topic', 'delete-records', 'orders', '--before', 'end', '--partition', '3'], { cluster });
    expect(none).toMatchObject({ code: 2, err: expect.stringContaining('has no partition 3: it has 0 to 2') });
    const above = await flotilla(['topic', 'delete-records', 'orders', '--before', '9'], { cluster });
    expect(above).toMatchObject({ code: 1, err: expect.stringContaining("can't start at 9") });
  });
});

describe('cluster describe', () => {
  it('tells brokers, controller and the health of each partition', async () => {
    const cluster = clusterWith();
    cluster.deadBrokers = [3];
    const described = (await flotilla(['cluster', 'describe', '--json'], { cluster })).json;
    expect(described).toMatchObject({
      controller: 2,
      controllerEpoch: 4,
      voters: [1, 2, 3],
      brokers: [{ id: 1, alive: true }, {}, { id: 3, alive: false }],
    });
    expect(described).toMatchObject({
      topics: [{ partitions: [{ health: 'under-replicated' }, { health: 'under-replicated' }, { leader: 3, health: 'leaderless' }] }],
    });
    const { out } = await flotilla(['cluster', 'describe'], { cluster });
    expect(out).toContain('broker 2 in epoch 4 leads the metadata quorum of 1, 2, 3');
    expect(out).toMatch(/^3 +127\.0\.0\.1:7103 +- +dead/m);
  });
});

describe('produce', () => {
  it('sends a record a line, the last one without an end too', async () => {
    const cluster = clusterWith();
    const { code, err } = await flotilla(['produce', 'orders'], { cluster, stdin: 'one\n\nthree' });
    expect({ code, err }).toMatchObject({ code: 0, err: expect.stringContaining('3 records acknowledged') });
    expect(cluster.topic('orders').logs[0]!.map(({ key, value }) => [key, value?.toString()])).toEqual([
      [null, 'one'],
      [null, ''],
      [null, 'three'],
    ]);
  });

  it('hands on key, headers, partition, acks and compression', async () => {
    const cluster = clusterWith();
    const argv = [
      'produce',
      'orders',
      '--key-separator',
      ':',
      '--header',
      'a=1',
      '--header',
      'a=2',
      '--partition',
      '2',
      '--acks',
      'leader',
    ];
    await flotilla([...argv, '--compression', 'zstd'], { cluster, stdin: 'k:v:w\n' });
    expect(cluster.producers).toEqual([{ acks: 'leader', compression: 'zstd' }]);
    expect(cluster.topic('orders').logs[2]).toMatchObject([
      {
        key: text('k'),
        value: text('v:w'),
        headers: [
          { key: 'a', value: text('1') },
          { key: 'a', value: text('2') },
        ],
      },
    ]);
  });

  it('fails with the line that has no key, and keeps what came before', async () => {
    const cluster = clusterWith();
    const { code, err } = await flotilla(['produce', 'orders', '--key-separator', ':'], { cluster, stdin: 'a:1\nb\nc:3\n' });
    expect(code).toBe(1);
    expect(err).toContain('Line 2');
    expect(cluster.topic('orders').logs[0]).toHaveLength(1);
  });

  it('fails when one record is not acknowledged', async () => {
    const cluster = clusterWith();
    cluster.failSend = (sent) => (sent === 2 ? new FlotillaError('REQUEST_TIMED_OUT', 'Not in time.') : undefined);
    const { code, err, out } = await flotilla(['produce', 'orders'], { cluster, stdin: 'a\nb\nc\nd\n' });
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toContain('Not in time.');
  });

  it('refuses an unknown topic before it reads anything', async () => {
    const stdin = new Readable({
      read() {
        throw new Error('read');
      },
    });
    expect(await flotilla(['produce', 'none'], { stdin })).toMatchObject({ code: 1 });
  });

  it('reads no more than may be in flight', async () => {
    const cluster = clusterWith();
    const lines = 120_000;
    const stdin = Readable.from(Array.from({ length: 60 }, () => text('x\n'.repeat(lines / 60))));
    expect((await flotilla(['produce', 'orders', '--json'], { cluster, stdin })).json).toMatchObject({
      topic: 'orders',
      acknowledged: lines,
      bytes: lines,
    });
    expect(cluster.maxUnacknowledged).toBeLessThanOrEqual(50_000);
  });

  it('ends when it is interrupted while nothing comes on its input', async () => {
    const stdin = new Readable({ read() {} });
    const cluster = clusterWith();
    let interrupt = () => {};
    cluster.failSend = () => {
      setTimeout(interrupt, 10);
      return undefined;
    };
    const done = flotilla(['produce', 'orders'], {
      cluster,
      stdin,
      interrupt: (stop) => {
        interrupt = stop;
      },
    });
    stdin.push('one\n');
    const outcome = await done;
    expect(outcome.code).toBe(1);
    expect(outcome.err).toContain('Stopped after 1 acknowledged record, before the end of the input');
  });

  it('says what is wrong with input that is not made of lines', async () => {
    const stdin = Readable.from(Array.from({ length: 13 }, () => new Uint8Array(8 * 2 ** 20).fill(1)));
    const outcome = await flotilla(['produce', 'orders'], { cluster: clusterWith(), stdin });
    expect(outcome.code).toBe(1);
    expect(outcome.err).toContain('Is this input made of lines?');
    expect(outcome.err).not.toContain('defect');
  });

  it('is not done when it is interrupted before the end of its input', async () => {
    const cluster = clusterWith();
    let interrupt = () => {};
    async function* endless() {
      yield text('one\n');
      interrupt();
      yield text('two\n');
    }
    const outcome = await flotilla(['produce', 'orders'], {
      cluster,
      stdin: Readable.from(endless()),
      interrupt: (stop) => {
        interrupt = stop;
      },
    });
    expect(outcome.code).toBe(1);
    expect(outcome.err).toContain('before the end of the input');
  });
});

describe('consume', () => {
  it('prints values to the end', async () => {
    const { out, code } = await flotilla(['consume', 'orders', '--from', 'beginning', '--until-end'], {
      cluster: clusterWith('a', 'b', 'c', 'd'),
    });
    expect({ code, lines: out.trim().split('\n').sort() }).toEqual({ code: 0, lines: ['a', 'b', 'c', 'd'] });
  });

  it('ends at the end though the last records were compacted away', async () => {
    const cluster = clusterWith('a', 'b', 'c', 'd');
    for (const { logs } of cluster.topics.values()) for (const log of logs) cluster.compacted.add(log.at(-1)!);
    expect(await flotilla(['consume', 'orders', '--from', 'beginning', '--until-end'], { cluster })).toMatchObject({ code: 0 });
  });

  it('ends at once where there is nothing', async () => {
    expect(await flotilla(['consume', 'orders', '--until-end'], { cluster: clusterWith('a') })).toMatchObject({ code: 0, out: '' });
  });

  it('prints JSON objects', async () => {
    const argv = ['consume', 'orders', '--from', 'beginning', '--partition', '1', '--until-end', '--format', 'json'];
    const { out } = await flotilla(argv, { cluster: clusterWith('a', 'b') });
    expect(
      out
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual([{ topic: 'orders', partition: 1, offset: 0, timestamp: 1001, key: 'k1', value: 'b', headers: { h: 'x' } }]);
  });

  it.each([
    [
      ['--from', '1'],
      ['d', 'e'],
    ],
    [
      ['--from', '@1003'],
      ['d', 'e'],
    ],
    [
      ['--from', 'beginning', '--partition', '0'],
      ['a', 'd'],
    ],
    [['--from', 'beginning', '--max', '1'], ['a']],
  ])('%j', async (options, expected) => {
    const { out } = await flotilla(['consume', 'orders', '--until-end', ...options], { cluster: clusterWith('a', 'b', 'c', 'd', 'e') });
    expect(out.trim().split('\n').sort()).toEqual(expected);
  });

  it('prints keys before values', async () => {
    const argv = ['consume', 'orders', '--from', 'beginning', '--until-end', '--format', 'key-value'];
    expect((await flotilla(argv, { cluster: clusterWith('a') })).out).toBe('k0\ta\n');
  });

  it('names the partitions that there are', async () => {
    const { code, err } = await flotilla(['consume', 'orders', '--partition', '3'], { cluster: clusterWith() });
    expect({ code, err }).toMatchObject({ code: 1, err: expect.stringContaining('it has 0 to 2') });
  });

  it('carries any bytes through base64, and back', async () => {
    const key = Buffer.from([0, 10, 9, 255]);
    const value = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
    const cluster = clusterWith();
    cluster.append('orders', 0, { key, value });
    cluster.add('copy');
    const argv = ['consume', 'orders', '--from', 'beginning', '--until-end', '--format', 'key-value', '--encoding', 'base64'];
    const { out } = await flotilla(argv, { cluster });
    await flotilla(['produce', 'copy', '--key-separator', '\\t', '--encoding', 'base64'], { cluster, stdin: out });
    expect(cluster.topic('copy').logs[0]).toMatchObject([{ key, value }]);
  });

  it('prints a value without encoding byte for byte', async () => {
    const cluster = clusterWith();
    cluster.append('orders', 0, { value: Buffer.from([0, 128, 255]) });
    const { bytes } = await flotilla(['consume', 'orders', '--from', 'beginning', '--until-end'], { cluster });
    expect([...bytes]).toEqual([0, 128, 255, 10]);
  });

  it('takes a closed pipe for the end', async () => {
    let lines = 0;
    const stdout = new Writable({
      write(_chunk, _encoding, done) {
        lines++;
        done(lines > 2 ? Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }) : undefined);
      },
    });
    const cluster = clusterWith(...Array.from({ length: 100 }, (_, at) => String(at)));
    expect(await flotilla(['consume', 'orders', '--from', 'beginning'], { cluster, stdout })).toMatchObject({ code: 0, err: '' });
    expect(lines).toBe(3);
  });

  it('fails, with what is wrong, when its results can not be written', async () => {
    const stdout = new Writable({
      write(_chunk, _encoding, done) {
        done(Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC', syscall: 'write' }));
      },
    });
    const outcome = await flotilla(['consume', 'orders', '--from', 'beginning'], { cluster: clusterWith('a', 'b'), stdout });
    expect(outcome).toMatchObject({ code: 1, err: 'flotilla: ENOSPC: no space left on device, write\n' });
  });

  it('ends well when it is interrupted', async () => {
    const interrupt = (stop: () => void) => void setImmediate(stop);
    expect(await flotilla(['consume', 'orders'], { cluster: clusterWith(), interrupt })).toMatchObject({ code: 0, out: '' });
  });
});

describe('bench', () => {
  it('reports in JSON, and leaves nothing behind', async () => {
    const cluster = new FakeCluster();
    const { json, code } = await flotilla(['bench', 'latency', '--seconds', '1', '--rate', '200', '--json'], { cluster });
    expect(code).toBe(0);
    expect(json).toMatchObject({ bench: 'latency', correctedForCoordinatedOmission: true, latencyMs: { count: expect.any(Number) } });
    expect((json as { records: number }).records).toBeGreaterThan(50);
    expect(cluster.topics.size).toBe(0);
  });

  it('reads what it wrote', async () => {
    const argv = ['bench', 'consume', '--seconds', '1', '--fill', '100k', '--record-size', '100', '--json'];
    expect((await flotilla(argv)).json).toMatchObject({ bench: 'consume', records: expect.any(Number) });
  });
});

describe('config', () => {
  it('shows each key with its source', async () => {
    const env = { FLOTILLA_BROKER_RACK: 'r1' };
    const { json } = await flotilla(['config', '--set', 'num.partitions=6', '--json'], { env });
    expect(json).toContainEqual({ key: 'num.partitions', value: '6', source: 'command line', dynamic: true });
    expect(json).toContainEqual({ key: 'broker.rack', value: 'r1', source: 'environment', dynamic: false });
    expect(json).toContainEqual(expect.objectContaining({ key: 'log.dir', source: 'default' }));
  });

  it('refuses an unknown key with the nearest, and a file that is not there', async () => {
    const misspelt = await flotilla(['config', '--set', 'num.partition=6']);
    expect({ code: misspelt.code, err: misspelt.err }).toMatchObject({ code: 1, err: expect.stringContaining('num.partitions') });
    expect(await flotilla(['config', '--config', '/nowhere.yaml'])).toMatchObject({
      code: 1,
      err: expect.stringContaining('/nowhere.yaml'),
    });
  });
});

describe('completion', () => {
  it.each(['bash', 'zsh', 'fish'])('%s knows every command', async (shell) => {
    const { out, code } = await flotilla(['completion', shell]);
    expect(code).toBe(0);
    for (const word of ['topic', 'create', 'consume', 'until-end', 'latency', 'key-value']) expect(out).toContain(word);
  });
});

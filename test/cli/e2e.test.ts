/** Real broker processes on this machine, driven as a person drives them. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DemoRun } from '../../src/cli/demo/run.ts';
import { DevCluster } from '../../src/cli/dev/cluster.ts';
import { connectCluster } from '../../src/cli/sdk.ts';
import type { RaftGroupDescription } from '../../src/client/index.ts';
import { freePorts, isAlive, run, start, until } from '../processes.ts';

describe('a cluster of three broker processes', () => {
  let cluster: DevCluster;
  const flotilla = (argv: readonly string[], stdin = '') => run(argv, { bootstrap: cluster.bootstrap, stdin });

  beforeAll(async () => {
    cluster = await DevCluster.start({ brokers: 3, port: await freePorts(3) });
  });
  afterAll(() => cluster.end());

  it('takes records in and gives them back, binary ones too', async () => {
    expect(await flotilla(['topic', 'create', 'round', '--partitions', '3', '--replicas', '3'])).toMatchObject({
      code: 0,
      out: 'created round\n',
    });
    const lines = Array.from({ length: 500 }, (_, at) => `key-${at % 7}:value ${at}`);
    const produced = await flotilla(
      ['produce', 'round', '--key-separator', ':', '--header', 'a=b', '--compression', 'zstd'],
      lines.join('\n'),
    );
    expect(produced).toMatchObject({ code: 0, err: expect.stringContaining('500 records acknowledged') });
    const consumed = await flotilla(['consume', 'round', '--from', 'beginning', '--until-end', '--format', 'json']);
    const records = consumed.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(consumed.code).toBe(0);
    expect(records.map(({ key, value }) => `${key}:${value}`).sort()).toEqual(lines.sort());
    expect(records[0]).toMatchObject({ topic: 'round', headers: { a: 'b' }, timestamp: expect.any(Number) });

    const bytes = Buffer.from([0, 10, 13, 255, 128]).toString('base64');
    await flotilla(['produce', 'round', '--encoding', 'base64', '--partition', '1'], bytes);
    const { highWatermark } = JSON.parse((await flotilla(['topic', 'describe', 'round', '--json'])).out).partitions[1];
    const last = await flotilla([
      'consume',
      'round',
      '--partition',
      '1',
      '--from',
      String(highWatermark - 1),
      '--max',
      '1',
      '--encoding',
      'base64',
    ]);
    expect(last).toMatchObject({ code: 0, out: `${bytes}\n` });
  });

  it('loses nothing when a leader is killed in mid-stream, and takes it back', async () => {
    await using client = await connectCluster(cluster.bootstrap, new AbortController().signal);
    const demo = await DemoRun.start(cluster, client, 1_000, new AbortController().signal);
    try {
      await until(() => demo.ledger.acknowledgedCount > 500 && demo.partitions.length > 0);
      const leader = cluster.broker(demo.partitions[0]!.leader)!;
      await leader.kill();
      expect(leader.state).toBe('dead');
      const before = demo.ledger.acknowledgedCount;
      await until(() => demo.ledger.acknowledgedCount > before + 1_000);
      await leader.start();
      await until(() => demo.ledger.acknowledgedCount > before + 2_000);
      expect(await demo.finish()).toMatchObject({ lost: 0, doubled: 0, outOfOrder: 0, misplaced: 0, holds: true });
      expect(await demo.readBack()).toMatchObject({ lost: 0, doubled: 0, outOfOrder: 0, misplaced: 0, holds: true });
    } finally {
      await demo.close();
    }
  }, 60_000);

  it('shows a Raft group as its replicas see it, with a broker down as well', async () => {
    await flotilla(['topic', 'create', 'looked-into', '--partitions', '1', '--replicas', '3']);
    await flotilla(['produce', 'looked-into'], 'one\ntwo');
    const described = async () => JSON.parse((await flotilla(['raft', 'describe', 'looked-into/0', '--json'])).out) as RaftGroupDescription;
    await until(async () => (await described()).problems.length === 0);
    const { leader, replicas, commitIndex } = await described();
    expect(replicas.map(({ brokerId }) => brokerId)).toEqual([1, 2, 3]);
    for (const replica of replicas)
      expect(replica).toMatchObject({ leader, lastIndex: commitIndex, durableIndex: commitIndex, nextOffset: 2 });
    const listed = await flotilla(['raft', 'list', '--topic', 'looked-into']);
    expect(listed).toMatchObject({
      code: 0,
      err: '',
      out: expect.stringMatching(/^looked-into\/0 +[123] +\d+ +\d+ +3\/3 +(ok|quiesced)$/m),
    });

    const victim = cluster.broker(leader?.brokerId === 1 ? 2 : 1)!;
    await victim.kill();
    try {
      const { out, code } = await flotilla(['raft', 'describe', 'looked-into/0']);
      expect(code).toBe(0);
      expect(out).toMatch(new RegExp(`^${victim.id} +\\d+ +no answer`, 'm'));
      expect(out).toContain(`broker ${victim.id} did not answer`);
      expect((await flotilla(['raft', 'list', '--problems'])).out).toMatch(/^looked-into\/0 .* no-answer$/m);
    } finally {
      await victim.start();
    }
    expect(await flotilla(['raft', 'describe', 'unknown/0'])).toMatchObject({
      code: 1,
      out: '',
      err: expect.stringContaining('topic list'),
    });
    expect(await flotilla(['raft', 'describe', 'unknown'])).toMatchObject({ code: 2, err: expect.stringContaining('TOPIC/PARTITION') });
  }, 60_000);

  it('answers bad requests with what to do', async () => {
    expect(await flotilla(['topic', 'create', 'wide', '--replicas', '4'])).toMatchObject({
      code: 1,
      err: expect.stringContaining('cluster describe'),
    });
    expect(await flotilla(['topic', 'create', 'bad name'])).toMatchObject({ code: 1 });
    expect(await flotilla(['topic', 'create', 'many', '--partitions', '1000000'])).toMatchObject({ code: 1 });
    expect(await flotilla(['produce', 'unknown'], 'x')).toMatchObject({ code: 1, err: expect.stringContaining('topic create') });
    const described = await flotilla(['cluster', 'describe', '--json']);
    expect(JSON.parse(described.out).brokers.map(({ alive }: { alive: boolean }) => alive)).toEqual([true, true, true]);
  });
});

describe('flotilla dev', () => {
  it('prints where it serves, keeps data, obeys, and ends all with SIGINT', async () => {
    const port = await freePorts(2);
    const data = mkdtempSync(join(tmpdir(), 'flotilla-e2e-'));
    const pidOf = () => Number(readFileSync(join(data, 'broker-1.pid'), 'utf8'));
    try {
      for (const round of [1, 2]) {
        const dev = start(['dev', '--brokers', '1', '--port', String(port), '--data', data]);
        const [ready] = (await dev.stdout!.take(1).toArray()) as Buffer[];
        expect(ready?.toString()).toBe(`ready 127.0.0.1:${port}\n`);
        const config = readFileSync(join(data, 'broker-1', 'broker.yaml'), 'utf8');
        const other = await run(['dev', '--brokers', '1', '--port', String(port + 1), '--data', data]);
        expect(other).toMatchObject({ code: 1, err: expect.stringContaining('is in use by process') });
        expect(readFileSync(join(data, 'broker-1', 'broker.yaml'), 'utf8')).toBe(config);
        if (round === 1) expect(await run(['topic', 'create', 'kept'], { bootstrap: `127.0.0.1:${port}` })).toMatchObject({ code: 0 });
        expect((await run(['topic', 'list'], { bootstrap: `127.0.0.1:${port}` })).out).toBe('kept\n');
        const first = pidOf();
        process.kill(first, 'SIGKILL');
        await until(() => !isAlive(first));
        dev.stdin!.write('start 1\n');
        await until(() => {
          try {
            return pidOf() !== first;
          } catch {
            return false;
          }
        });
        const second = pidOf();
        dev.kill('SIGINT');
        expect(await new Promise((resolve) => dev.once('close', resolve))).toBe(0);
        expect(isAlive(second)).toBe(false);
      }
    } finally {
      rmSync(data, { recursive: true, force: true });
    }
  }, 60_000);

  it('takes its brokers with it when it dies', async () => {
    const port = await freePorts(1);
    const dev = start(['dev', '--brokers', '1', '--port', String(port), '--json']);
    const [ready] = (await dev.stdout!.take(1).toArray()) as Buffer[];
    const { data } = JSON.parse(ready!.toString()) as { data: string };
    try {
      const pid = Number(readFileSync(join(data, 'broker-1.pid'), 'utf8'));
      dev.kill('SIGKILL');
      await until(() => !isAlive(pid));
    } finally {
      rmSync(data, { recursive: true, force: true });
    }
  });

  it('names the port that is taken', async () => {
    const server = createServer();
    const port = await new Promise<number>((resolve) =>
      server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port)),
    );
    try {
      expect(await run(['dev', '--port', String(port)])).toMatchObject({
        code: 1,
        out: '',
        err: expect.stringContaining(`Port ${port} is taken`),
      });
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });
});

describe('flotilla start', () => {
  it.each([
    [['--set', 'num.partition=3'], 'num.partitions'],
    [['--set', 'node.id=zero'], 'node.id'],
  ])('refuses %j', async (options, named) => {
    const data = mkdtempSync(join(tmpdir(), 'flotilla-e2e-'));
    try {
      const config = join(data, 'broker.yaml');
      writeFileSync(config, `node.id: 1\nlog.dir: ${data}\n`);
      expect(await run(['start', '--config', config, ...options])).toMatchObject({
        code: 1,
        err: expect.stringContaining(named),
      });
    } finally {
      rmSync(data, { recursive: true, force: true });
    }
  });
});

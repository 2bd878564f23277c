/** The examples, each as a person runs it: a process of its own against three broker processes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { DevCluster } from '../bench/dev-cluster.ts';
import { connect } from '../src/client/index.ts';

const root = join(import.meta.dirname, '..');
let cluster: DevCluster;

beforeAll(async () => {
  cluster = await DevCluster.start();
}, 60_000);

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
}, 60_000);

interface Run {
  readonly child: ChildProcess;
  /** Resolves when the text stood on stderr; rejects when the process ended without it. */
  readonly said: (text: string) => Promise<void>;
  readonly ended: Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }>;
}

const run = (name: string, args: readonly string[] = [], environment: Record<string, string> = {}) =>
  start([join(root, 'examples', name), ...args], environment);

function start(argv: readonly string[], environment: Record<string, string> = {}): Run {
  const child = spawn(process.execPath, argv, {
    cwd: root,
    env: { ...process.env, FLOTILLA_BOOTSTRAP: cluster.bootstrap, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const ended = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
  const said = (text: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => {
        if (stderr.includes(text)) resolve();
      };
      look();
      child.stderr.on('data', look);
      child.on('close', () => reject(new Error(`ended without '${text}': ${stderr}`)));
    });
  return { child, said, ended };
}

test('first-steps reads back what it sent, and again on a topic that exists', async () => {
  const first = await run('first-steps.ts').ended;
  expect(first, first.stderr).toMatchObject({ code: 0 });
  expect(first.stdout).toContain('created first-steps');
  expect(first.stdout).toContain('10 records acknowledged');
  expect(first.stdout).toContain('hello from ada');
  expect(first.stdout).toContain('read 10 of 10');
  const second = await run('first-steps.ts').ended;
  expect(second, second.stderr).toMatchObject({ code: 0 });
  expect(second.stdout).toContain('read 20 of 20');
}, 60_000);

test('orders-by-key finds every order complete and in order', async () => {
  const { code, stdout, stderr } = await run('orders-by-key.ts', [], { ORDERS: '120' }).ended;
  expect(stderr).toBe('');
  expect(code).toBe(0);
  expect(stdout).toContain('120 orders, 600 events acknowledged');
  expect(stdout).toContain('120 orders read back complete and in order, from 3 partitions');
}, 60_000);

test('tail follows from the end: what came before is not shown, what comes after is', async () => {
  await using client = await connect({ bootstrap: cluster.bootstrap });
  await client.admin.createTopic({ name: 'followed', partitions: 3, replicas: 3 });
  const producer = client.producer();
  await producer.send('followed', { key: 'old', value: 'before' });
  const tail = run('tail.ts', ['followed'], { MAX: '3' });
  await tail.said('following followed');
  await Promise.all(['a', 'b', 'c'].map((key) => producer.send('followed', { key, value: `after ${key}` })));
  const { code, stdout, stderr } = await tail.ended;
  expect(code, stderr).toBe(0);
  expect(stdout.trim().split('\n')).toHaveLength(3);
  for (const key of ['a', 'b', 'c']) expect(stdout).toContain(`${key} after ${key}`);
  expect(stdout).not.toContain('before');
}, 60_000);

test('tail ends cleanly when it is interrupted', async () => {
  await using client = await connect({ bootstrap: cluster.bootstrap });
  await client.admin.createTopic({ name: 'quiet', partitions: 1, replicas: 3 });
  const tail = run('tail.ts', ['quiet']);
  await tail.said('following quiet');
  tail.child.kill('SIGINT');
  const { code, stdout, stderr } = await tail.ended;
  expect(code, stderr).toBe(0);
  expect(stdout).toBe('');
  expect(stderr).toContain('0 records');
}, 60_000);

test("the tutorial's program runs as it is printed", async () => {
  const page = readFileSync(join(root, 'docs/tutorial.md'), 'utf8');
  const program = /```ts\n([\s\S]*?)```/.exec(page)?.[1]?.replace('127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103', cluster.bootstrap);
  const { code, stdout, stderr } = await start(['--input-type=module-typescript', '--eval', program ?? 'throw new Error("none")']).ended;
  expect(code, stderr).toBe(0);
  expect(stdout).toBe('10000 acknowledged\n10000 read, each parcel in order\n');
}, 60_000);

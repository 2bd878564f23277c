/** The package `@flotilla/client` as who installs it has it: packed, unpacked beside its dependencies, and run on the oldest Node that is here. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { DevCluster } from '../../bench/dev-cluster.ts';
import { root, tool } from '../../scripts/steps.ts';
import { TemporaryDirectory } from '../processes.ts';

interface Manifest {
  readonly version: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly bundleDependencies?: readonly string[];
  readonly scripts?: Readonly<Record<string, string>>;
}

const app = new TemporaryDirectory();
const installed = app.join('node_modules', '@flotilla', 'client');
const manifestOf = (directory: string) => JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as Manifest;
let cluster: DevCluster;

beforeAll(async () => {
  cluster = await DevCluster.start({ brokers: 1 });
  execFileSync(process.execPath, [join(root, 'scripts/pack.ts')], { stdio: 'pipe' });
  mkdirSync(installed, { recursive: true });
  const archive = join(root, 'dist', `flotilla-client-${manifestOf(root).version}.tgz`);
  execFileSync('tar', ['-xzf', archive, '--strip-components=1', '-C', installed]);
  // What npm would fetch: the dependencies that are not inside, and the two that an application adds for lz4 and snappy.
  for (const name of ['@bufbuild/protobuf', 'lz4-napi', 'snappy']) {
    mkdirSync(join(app.join('node_modules', name), '..'), { recursive: true });
    symlinkSync(join(root, 'node_modules', name), app.join('node_modules', name));
  }
  writeFileSync(app.join('package.json'), '{ "type": "module" }');
}, 120_000);

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
  app[Symbol.dispose]();
}, 60_000);

/** Node binaries on PATH, by major version, and the one that runs this. */
function nodes(): Map<number, string> {
  const found = new Map([[Number(process.versions.node.split('.')[0]), process.execPath]]);
  for (const directory of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(directory, process.platform === 'win32' ? 'node.exe' : 'node');
    if (!existsSync(path)) continue;
    const major = Number(/^v(\d+)/.exec(spawnSync(path, ['--version'], { encoding: 'utf8' }).stdout)?.[1] ?? 0);
    if (major >= 20 && !found.has(major)) found.set(major, path);
  }
  return found;
}

const program = `
import { connect, FlotillaError } from '@flotilla/client';
import { lz4Compression } from '@flotilla/client/lz4';
import { snappyCompression } from '@flotilla/client/snappy';

const client = await connect({ bootstrap: process.argv[2], codecs: [lz4Compression, snappyCompression] });
const topic = process.argv[3];
await client.admin.createTopic({ name: topic, partitions: 2 });
const sent = [];
for (const compression of ['none', 'gzip', 'lz4', 'snappy']) {
  const producer = client.producer({ compression });
  for (let at = 0; at < 50; at++) sent.push(producer.send(topic, { key: compression, value: compression + ' ' + at, headers: { at: String(at) } }));
  await producer.flush();
  await producer[Symbol.asyncDispose]();
}
await Promise.all(sent);
const consumer = client.consumer({ topics: [topic], from: 'beginning' });
const read = {};
let left = 200;
for await (const { key, value } of consumer) {
  (read[Buffer.from(key)] ??= []).push(Buffer.from(value).toString());
  if (--left === 0) break;
}
for (const [codec, values] of Object.entries(read)) {
  if (values.some((value, at) => value !== codec + ' ' + at)) throw new Error(codec + ' is out of order');
}
const error = await client.admin.deleteTopic('no-such-topic').catch((thrown) => thrown);
if (!(error instanceof FlotillaError) || error.code !== 'UNKNOWN_TOPIC_OR_PARTITION') throw error;
await client.close();
console.log(process.versions.node + ': ' + Object.values(read).flat().length);
`;

test.each([...nodes()])('produces and consumes on Node %i', (major, node) => {
  writeFileSync(app.join('app.js'), program);
  const { status, stdout, stderr } = spawnSync(node, ['app.js', cluster.bootstrap, `on-node-${major}`], {
    cwd: app.path,
    encoding: 'utf8',
  });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(stdout).toMatch(new RegExp(`^${major}\\..*: 200\n$`));
});

test('has types that any TypeScript program can be checked with', () => {
  const typed = `
import { type Client, connect, type ConsumerRecord } from '@flotilla/client';
import { lz4Compression } from '@flotilla/client/lz4';
const client: Client = await connect({ bootstrap: '127.0.0.1:1', codecs: [lz4Compression] });
const { offset }: { offset: number } = await client.producer({ acks: 'leader' }).send('t', { value: 'x' });
for await (const record of client.consumer({ topics: ['t'] })) { const it: ConsumerRecord = record; console.log(it.offset + offset); }
// @ts-expect-error: acks are none, leader or quorum
client.producer({ acks: 'all' });
`;
  writeFileSync(app.join('typed.ts'), typed);
  const compilerOptions = {
    module: 'NodeNext',
    target: 'ES2022',
    lib: ['ES2022', 'DOM', 'ESNext.Disposable'],
    types: [],
    strict: true,
    noEmit: true,
  };
  writeFileSync(app.join('tsconfig.json'), JSON.stringify({ compilerOptions, files: ['typed.ts'] }));
  const [command, ...args] = tool('typescript', 'tsc');
  const { status, stdout } = spawnSync(command as string, [...args, '-p', app.path], { encoding: 'utf8' });
  expect(stdout).toBe('');
  expect(status).toBe(0);
});

test('runs no script when it is installed: neither itself, nor what is inside, nor what npm adds', () => {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { hasInstallScript?: boolean; dependencies?: Record<string, string> }>;
  };
  const scriptsOf = ({ scripts = {} }: Manifest) => Object.keys(scripts).filter((name) => /^(pre|post)?install$|^prepare$/.test(name));
  const inside = readdirSync(installed, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('package.json'));
  expect(inside.length).toBeGreaterThan(2);
  for (const path of inside) expect(scriptsOf(manifestOf(join(installed, path, '..'))), path).toEqual([]);

  const { dependencies = {}, bundleDependencies = [] } = manifestOf(installed);
  const wanted = Object.keys(dependencies).filter((name) => !bundleDependencies.includes(name));
  const closure = new Set<string>();
  for (const name of wanted) {
    closure.add(name);
    wanted.push(...Object.keys(lock.packages[`node_modules/${name}`]?.dependencies ?? {}).filter((each) => !closure.has(each)));
  }
  expect([...closure]).toEqual(['@bufbuild/protobuf']);
  for (const name of closure) expect(lock.packages[`node_modules/${name}`], name).not.toHaveProperty('hasInstallScript');
  // Everything that the bundled ones need is inside, too.
  for (const path of inside) {
    for (const name of Object.keys(manifestOf(join(installed, path, '..')).dependencies ?? {})) {
      expect(closure.has(name) || existsSync(join(installed, 'node_modules', name)), `${path} needs ${name}`).toBe(true);
    }
  }
});

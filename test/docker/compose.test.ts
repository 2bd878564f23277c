/** The image of deploy/Dockerfile, three times by deploy/docker-compose.yaml, used from the host, as a person would. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  DockerComposeEnvironment,
  getContainerRuntimeClient,
  type StartedDockerComposeEnvironment,
  type StartedTestContainer,
} from 'testcontainers';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { hasComposePlugin } from '../../scripts/engine.ts';
import { type Client, connect } from '../../src/client/index.ts';

const root = join(import.meta.dirname, '../..');
const MAIN = join(root, 'src/cli/main.ts');
/** Away from those of a cluster that may run here. */
const PORTS = [18191, 18192, 18193];
const BOOTSTRAP = PORTS.map((port) => `127.0.0.1:${port}`).join(',');
const PROJECT = `flotilla-test-${process.pid}`;
const text = new TextDecoder();

let environment: StartedDockerComposeEnvironment;
let client: Client;

beforeAll(async () => {
  environment = await new DockerComposeEnvironment(join(root, 'deploy'), 'docker-compose.yaml')
    .withProjectName(PROJECT)
    .withBuild()
    // Not `flotilla`, which may be the image of a cluster that somebody uses.
    .withEnvironment({
      FLOTILLA_IMAGE: 'flotilla-test',
      ...Object.fromEntries(PORTS.map((port, at) => [`FLOTILLA_PORT_${at + 1}`, String(port)])),
    })
    .withClientOptions(hasComposePlugin() ? {} : { executable: { standalone: true, executablePath: 'docker-compose' } })
    .withStartupTimeout(120_000)
    .up();
  client = await connect({ bootstrap: BOOTSTRAP });
});

afterAll(async () => {
  await client?.close();
  await environment?.down({ removeVolumes: true, timeout: 0 });
});

function broker(id: number): StartedTestContainer {
  const service = `flotilla-${id}`;
  // As the plugin names it, and as docker-compose 1.29 does.
  for (const name of [`${service}-1`, `${PROJECT}_${service}_1`]) {
    try {
      return environment.getContainer(name);
    } catch {}
  }
  throw new Error(`no container of ${service}`);
}

async function flotilla(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [MAIN, ...args], {
    env: { ...process.env, FLOTILLA_BOOTSTRAP: BOOTSTRAP },
  });
  return stdout;
}

async function send(topic: string, from: number, count: number): Promise<void> {
  const producer = client.producer();
  await Promise.all(Array.from({ length: count }, (_, at) => producer.send(topic, { key: String(at % 17), value: String(from + at) })));
  await producer.close();
}

/** All values of the topic up to its end of now, in order. */
async function readAll(topic: string): Promise<number[]> {
  const found: number[] = [];
  const { partitions } = await client.admin.describeTopic(topic);
  const ends = await client.admin.listOffsets(partitions.map(({ partition }) => ({ topic, partition, at: 'end' as const })));
  let missing = ends.reduce((sum, end) => sum + end, 0);
  await using consumer = client.consumer({ topics: [topic], from: 'beginning' });
  for await (const { value } of consumer) {
    found.push(Number(text.decode(value ?? new Uint8Array())));
    if (--missing === 0) break;
  }
  return found.sort((a, b) => a - b);
}

const numbers = (count: number) => Array.from({ length: count }, (_, at) => at);

test('the command line on the host reaches all three', async () => {
  const description = JSON.parse(await flotilla('cluster', 'describe', '--json')) as { brokers: { alive: boolean; address: string }[] };
  expect(description.brokers.filter(({ alive }) => alive).map(({ address }) => address)).toEqual(BOOTSTRAP.split(','));
  await flotilla('topic', 'create', 'greetings', '--partitions', '3', '--replicas', '3');
  await send('greetings', 0, 3);
  const out = await flotilla('consume', 'greetings', '--from', 'beginning', '--until-end');
  expect(out.trim().split('\n')).toHaveLength(3);
});

test('a container that is killed costs nothing, and comes back', async () => {
  await client.admin.createTopic({ name: 'parcels', partitions: 3, replicas: 3 });
  await send('parcels', 0, 1_000);
  const { partitions } = await client.admin.describeTopic('parcels');
  const victim = broker(partitions[0]?.leader ?? 1);
  const engine = await getContainerRuntimeClient();
  const sending = send('parcels', 1_000, 1_000);
  await engine.container.getById(victim.getId()).kill();
  await sending;
  await send('parcels', 2_000, 1_000);
  expect(await readAll('parcels')).toEqual(numbers(3_000));
  // Resolves when its healthcheck says that it serves.
  await victim.restart();
  await send('parcels', 3_000, 1_000);
  expect(await readAll('parcels')).toEqual(numbers(4_000));
});

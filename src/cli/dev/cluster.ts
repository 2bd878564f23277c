/** The cluster of `flotilla dev`: its directories, its configuration, its processes. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { DiskLock } from '../../base/environment.ts';
import type { BrokerId, ClusterId, ReplicaId } from '../../base/ids.ts';
import { crc32 } from '../../platform/crc32.ts';
import { NodeDisk } from '../../platform/disk.ts';
import { nodeEnvironment } from '../../platform/environment.ts';
import { formatDirectory, initDirectory } from '../../storage/directory.ts';
import { Failure } from '../failures.ts';
import { type BrokerEvent, BrokerProcess } from './broker-process.ts';
import { checkPorts } from './ports.ts';

export interface DevClusterOptions {
  readonly brokers: number;
  /** Port of broker 1; the others follow. */
  readonly port: number;
  /** Undefined: a temporary directory, removed at the end. */
  readonly data?: string | undefined;
  /** `key=value`, for all brokers. */
  readonly set?: readonly string[] | undefined;
  readonly onEvent?: (event: BrokerEvent) => void;
}

const STOP_TIMEOUT_MS = 8_000;

export class DevCluster implements AsyncDisposable {
  readonly brokers: readonly BrokerProcess[];
  /** Where the data is. */
  readonly directory: string;
  readonly #temporary: boolean;
  #ended = false;

  private constructor(brokers: readonly BrokerProcess[], directory: string, temporary: boolean) {
    this.brokers = brokers;
    this.directory = directory;
    this.#temporary = temporary;
  }

  /** Prepares the directories and starts all brokers. Resolves when each of them serves. */
  static async start(options: DevClusterOptions): Promise<DevCluster> {
    const ids = Array.from({ length: options.brokers }, (_, at) => at + 1);
    const addresses = ids.map((id) => `127.0.0.1:${options.port + id - 1}`);
    await checkPorts(ids.map((id) => options.port + id - 1));
    const temporary = options.data === undefined;
    const directory = options.data === undefined ? await mkdtemp(join(tmpdir(), 'flotilla-')) : resolve(options.data);
    try {
      await prepare(directory, ids, addresses, options.set ?? []);
    } catch (error) {
      if (temporary) await rm(directory, { recursive: true, force: true });
      throw error;
    }
    const brokers = ids.map((id, at) => {
      const files = {
        config: configFile(directory, id),
        pid: join(directory, `broker-${id}.pid`),
        log: join(directory, `broker-${id}.log`),
        groups: join(directory, `broker-${id}`, 'groups'),
      };
      return new BrokerProcess(id, addresses[at] as string, files, options.onEvent ?? (() => {}));
    });
    const cluster = new DevCluster(brokers, directory, temporary);
    try {
      await Promise.all(brokers.map((broker) => broker.start()));
    } catch (error) {
      await cluster.end();
      throw error;
    }
    return cluster;
  }

  get bootstrap(): string {
    return this.brokers.map(({ address }) => address).join(',');
  }

  broker(id: number): BrokerProcess | undefined {
    return this.brokers[id - 1];
  }

  /** Ends all brokers: cleanly where the data is kept, at once where it is removed. */
  async end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await Promise.all(this.brokers.map((broker) => (this.#temporary ? broker.kill() : broker.stop(STOP_TIMEOUT_MS))));
    if (this.#temporary) await rm(this.directory, { recursive: true, force: true, maxRetries: 3 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}

/**
 * Formats new directories as one cluster, so that the first start needs no talk about who is empty, and writes each broker's
 * configuration. Directories that exist keep their cluster.
 */
async function prepare(directory: string, ids: readonly number[], addresses: readonly string[], set: readonly string[]): Promise<void> {
  const disk = new NodeDisk();
  await disk.makeDirectory(directory);
  const existing = (await readdir(directory)).filter((name) => /^broker-\d+$/.test(name));
  if (existing.length > 0 && existing.length !== ids.length) {
    throw new Failure(
      `${directory} holds ${existing.length} brokers, not ${ids.length}. Give --brokers ${existing.length}, or another --data.`,
    );
  }
  const locks: DiskLock[] = [];
  try {
    for (const id of ids) {
      await disk.makeDirectory(join(directory, `broker-${id}`));
      // Brokers that run on it keep their configuration.
      locks.push(await disk.lock(join(directory, `broker-${id}`)));
    }
    await format(disk, directory, ids);
    await Promise.all(ids.map((id) => writeFile(configFile(directory, id), configText(directory, id, addresses, set))));
  } finally {
    for (const lock of locks) await lock.release();
  }
}

async function format(disk: NodeDisk, directory: string, ids: readonly number[]): Promise<void> {
  const access = (id: number) => ({ disk, path: join(directory, `broker-${id}`), crc32 });
  const identities = await Promise.all(ids.map((id) => initDirectory(access(id), { brokerId: id as BrokerId, random: nodeEnvironment })));
  const clusterId = identities.find((identity) => identity.clusterId !== undefined)?.clusterId ?? newClusterId();
  const controllerVoters = identities.map(({ brokerId, directoryId }) => ({
    replicaId: brokerId as number as ReplicaId,
    brokerId,
    directoryId,
  }));
  await Promise.all(ids.map((id) => formatDirectory(access(id), { clusterId, controllerVoters })));
}

export function newClusterId(): ClusterId {
  return randomUUID().replaceAll('-', '') as ClusterId;
}

function configFile(directory: string, id: number): string {
  return join(directory, `broker-${id}`, 'broker.yaml');
}

function configText(directory: string, id: number, addresses: readonly string[], set: readonly string[]): string {
  const settings: [string, string][] = [
    ['node.id', String(id)],
    ['process.roles', 'broker,controller'],
    ['listeners', `PLAINTEXT://${addresses[id - 1]}`],
    ['controller.quorum.voters', addresses.map((address, at) => `${at + 1}@${address}`).join(',')],
    ['log.dirs', join(directory, `broker-${id}`)],
    ['num.partitions', '3'],
    ['default.replication.factor', String(Math.min(3, addresses.length))],
    ...set.map((assignment): [string, string] => {
      const at = assignment.indexOf('=');
      return [assignment.slice(0, at), assignment.slice(at + 1)];
    }),
  ];
  const lines = [...new Map(settings)].map(([key, value]) => `${key}: ${JSON.stringify(value)}`);
  return `# Written by \`flotilla dev\` at each start: change it with --set.\n${lines.join('\n')}\n`;
}

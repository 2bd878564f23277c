/**
 * Brokers as processes of their own, started as production starts them, with every connection among them and from clients going through
 * {@link TcpProxy}: each listener binds one port and advertises another, which is the proxy's.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BrokerEvent, BrokerProcess } from '../../src/cli/dev/broker-process.ts';
import { freePorts } from '../processes.ts';
import { CLIENTS, openedBy, TcpProxy } from './proxy.ts';

const PORTS_A_BROKER = 4;

export interface ClusterOptions {
  readonly brokers?: number;
  /** The first of four for each broker. Undefined: any that are free. */
  readonly port?: number | undefined;
  /** `key=value` of broker settings. */
  readonly set?: readonly string[] | undefined;
}

export class Cluster implements AsyncDisposable {
  readonly directory: string;
  readonly network = new TcpProxy();
  readonly brokers: readonly BrokerProcess[];
  readonly bootstrap: string;
  /** What went wrong without having been done to them: brokers that ended by themselves. */
  readonly crashes: string[] = [];
  /** Its directory stays, for whoever looks for the reason. */
  keep = false;
  #ending = false;

  private constructor(directory: string, ports: readonly Ports[], set: readonly string[]) {
    this.directory = directory;
    this.bootstrap = ports.map(({ clientProxy }) => `127.0.0.1:${clientProxy}`).join(',');
    this.brokers = ports.map((_, at) => {
      const home = join(directory, `broker-${at + 1}`);
      mkdirSync(home);
      const files = { config: join(home, 'broker.yaml'), pid: `${home}.pid`, log: `${home}.log`, groups: join(home, 'groups') };
      writeFileSync(files.config, configText(at + 1, home, ports, set));
      return new BrokerProcess(at + 1, `127.0.0.1:${ports[at]?.client}`, files, (event) => this.#seen(event));
    });
  }

  /** Resolves when every broker serves. */
  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const count = options.brokers ?? 3;
    const first = options.port ?? (await freePorts(count * PORTS_A_BROKER));
    const ports = Array.from({ length: count }, (_, at) => portsFrom(first + at * PORTS_A_BROKER));
    const cluster = new Cluster(mkdtempSync(join(tmpdir(), 'flotilla-jepsen-')), ports, options.set ?? []);
    try {
      for (const [at, { peer, peerProxy, client, clientProxy }] of ports.entries()) {
        await cluster.network.listen(peerProxy, at + 1, peer, (socket) => openedBy(socket, cluster.#pids()));
        await cluster.network.listen(clientProxy, at + 1, client, () => CLIENTS);
      }
      await Promise.all(cluster.brokers.map((broker) => broker.start()));
      return cluster;
    } catch (error) {
      cluster.keep = true;
      await cluster[Symbol.asyncDispose]();
      throw new Error(`the cluster did not start: see ${cluster.directory}`, { cause: error });
    }
  }

  get ids(): readonly number[] {
    return this.brokers.map(({ id }) => id);
  }

  broker(id: number): BrokerProcess {
    const broker = this.brokers[id - 1];
    if (broker === undefined) throw new Error(`there is no broker ${id}`);
    return broker;
  }

  /** No change to a broker that is not there. */
  signal(id: number, signal: 'SIGSTOP' | 'SIGCONT'): void {
    const { pid } = this.broker(id);
    if (pid !== undefined) process.kill(pid, signal);
  }

  /** Starts a broker that is dead. Resolves when it serves, or is killed meanwhile. */
  async start(id: number): Promise<void> {
    // When it failed by itself, #seen has noted that.
    await this.broker(id)
      .start()
      .catch(() => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending = true;
    await Promise.all(this.brokers.map((broker) => broker.kill()));
    this.network.close();
    if (!this.keep) rmSync(this.directory, { recursive: true, force: true, maxRetries: 3 });
  }

  #pids(): ReadonlyMap<number, number> {
    return new Map(this.brokers.flatMap(({ id, pid }) => (pid === undefined ? [] : [[id, pid] as const])));
  }

  #seen({ id, what, detail }: BrokerEvent): void {
    if (what === 'failed' && !this.#ending) this.crashes.push(`broker ${id} ended by itself: ${detail}`);
  }
}

interface Ports {
  /** Where a broker listens for other brokers. */
  readonly peer: number;
  readonly peerProxy: number;
  readonly client: number;
  readonly clientProxy: number;
}

function portsFrom(first: number): Ports {
  return { peer: first, peerProxy: first + 1, client: first + 2, clientProxy: first + 3 };
}

function configText(id: number, home: string, ports: readonly Ports[], set: readonly string[]): string {
  const own = ports[id - 1] as Ports;
  const settings = {
    'node.id': id,
    listeners: [`INTERNAL://127.0.0.1:${own.peer}`, `CLIENT://127.0.0.1:${own.client}`],
    'advertised.listeners': [`INTERNAL://127.0.0.1:${own.peerProxy}`, `CLIENT://127.0.0.1:${own.clientProxy}`],
    'inter.broker.listener.name': 'INTERNAL',
    'controller.quorum.voters': ports.map(({ peerProxy }, at) => `${at + 1}@127.0.0.1:${peerProxy}`),
    'log.dirs': home,
    'default.replication.factor': Math.min(3, ports.length),
    ...Object.fromEntries(
      set.map((assignment) => [assignment.slice(0, assignment.indexOf('=')), assignment.slice(assignment.indexOf('=') + 1)]),
    ),
  };
  return JSON.stringify(settings, undefined, 2); // JSON is YAML.
}

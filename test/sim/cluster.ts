import { crc32 } from 'node:zlib';
import { must } from '../../src/base/assert.ts';
import { type Logger, silentLogger } from '../../src/base/environment.ts';
import { type Broker, startBroker } from '../../src/broker/broker.ts';
import { loadConfig } from '../../src/broker/config.ts';
import { nativeCrc32c } from '../../src/platform/crc32c.ts';
import { RpcPeerTransport } from '../../src/rpc/peer-transport.ts';
import { MemoryStateStore } from '../../src/storage/memory-state-store.ts';
import { SimDisk } from './disk.ts';
import { SimNetwork } from './network.ts';
import { SeededRandom } from './random.ts';
import { VirtualEnvironment, VirtualTime } from './virtual-environment.ts';

const PORT = 9000;

/** One simulated machine: its disk outlives the processes on it. */
class SimMachine {
  readonly id: number;
  readonly disk: SimDisk;
  /** When the disk's completions reach the process. */
  readonly completions: VirtualEnvironment;
  readonly stores = new Map<string, MemoryStateStore>();
  environment: VirtualEnvironment | undefined;
  broker: Broker | undefined;

  constructor(id: number, completions: VirtualEnvironment, random: SeededRandom) {
    this.id = id;
    this.completions = completions;
    this.disk = new SimDisk(completions, random);
  }
}

export interface SimClusterOptions {
  readonly seed: number;
  readonly brokers: number;
  /** Broker settings by Kafka's keys, on top of what the simulation needs. */
  readonly settings?: Readonly<Record<string, string | number>>;
  readonly log?: Logger;
}

/** The production broker, several times over, on a virtual clock, network and disk. One seed, one schedule. */
export class SimCluster {
  readonly time = new VirtualTime();
  readonly random: SeededRandom;
  readonly network: SimNetwork;
  readonly machines: readonly SimMachine[];
  readonly #options: SimClusterOptions;
  readonly failures: Error[] = [];

  constructor(options: SimClusterOptions) {
    this.#options = options;
    this.random = new SeededRandom(options.seed);
    this.network = new SimNetwork(this.time, this.random.fork());
    this.machines = Array.from({ length: options.brokers }, (_, i) => {
      // The disk belongs to the machine: its completions come while any process of it lives.
      const completions = new VirtualEnvironment(this.time, this.random.fork());
      return new SimMachine(i + 1, completions, this.random.fork());
    });
  }

  machine(id: number): SimMachine {
    return must(this.machines[id - 1], 'no such machine', id);
  }

  get bootstrap(): string {
    return this.machines.map(({ id }) => this.#address(id)).join(',');
  }

  async start(id: number): Promise<void> {
    const machine = this.machine(id);
    const environment = new VirtualEnvironment(this.time, this.random.fork());
    machine.environment = environment;
    machine.completions.pausedUntilMs = 0;
    const voters = this.machines.slice(0, 3).map((voter) => `${voter.id}@${this.#address(voter.id)}`);
    const config = loadConfig({
      file: {
        'node.id': id,
        listeners: `CLIENT://${this.#host(id)}:${PORT}`,
        'controller.quorum.voters': voters.join(','),
        'log.dirs': '/data',
        ...this.#options.settings,
      },
      environment: {},
      set: [],
    });
    machine.broker = await startBroker({
      config,
      environment,
      disk: machine.disk,
      openStateStore: async (path) => {
        const store = machine.stores.get(path) ?? new MemoryStateStore();
        machine.stores.set(path, store);
        return store;
      },
      connect: this.network.connectFrom(this.#host(id), environment),
      createTransport: (options) => new RpcPeerTransport(options),
      serve: (options) => this.network.serve(this.#host(id), environment, options),
      crc32,
      crc32c: nativeCrc32c,
      log: (this.#options.log ?? silentLogger).child({ broker: id }),
      fatal: (error) => {
        this.failures.push(error);
        this.kill(id);
      },
    });
  }

  async startAll(): Promise<void> {
    await this.time.settle(Promise.all(this.machines.map(({ id }) => this.start(id))), 60_000);
  }

  /** kill -9: the process is gone, the page cache stays. */
  kill(id: number): void {
    this.#end(id);
    this.machine(id).disk.kill();
  }

  /** The power fails: what was not synced may be lost, in any subset of sectors. */
  powerCut(id: number): void {
    this.#end(id);
    const { disk } = this.machine(id);
    disk.crash();
    disk.restart();
  }

  pause(id: number, ms: number): void {
    const { environment, completions } = this.machine(id);
    if (environment === undefined) return;
    environment.pausedUntilMs = this.time.nowMs + ms;
    completions.pausedUntilMs = environment.pausedUntilMs;
  }

  isUp(id: number): boolean {
    const { environment } = this.machine(id);
    return environment !== undefined && !environment.killed;
  }

  /** An environment and a network for a client on a machine of its own. */
  client(name: string) {
    const environment = new VirtualEnvironment(this.time, this.random.fork());
    return { environment, connect: this.network.connectFrom(name, environment) };
  }

  #end(id: number): void {
    const machine = this.machine(id);
    const { environment, broker } = machine;
    if (environment === undefined || environment.killed) return;
    environment.kill();
    broker?.kill();
    this.network.kill(environment);
  }

  #host(id: number): string {
    return `broker-${id}`;
  }

  #address(id: number): string {
    return `${this.#host(id)}:${PORT}`;
  }
}

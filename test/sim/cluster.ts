import { crc32 } from 'node:zlib';
import { must } from '../../src/base/assert.ts';
import { concat } from '../../src/base/bytes.ts';
import { type Logger, silentLogger } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import { type Broker, type ServedTransport, startBroker } from '../../src/broker/broker.ts';
import { loadConfig } from '../../src/broker/config.ts';
import { nodeCompressions } from '../../src/platform/compression.ts';
import { nativeCrc32c } from '../../src/platform/crc32c.ts';
import type { MakeCore } from '../../src/raft/types.ts';
import { inlineCompute } from '../../src/record/cleaning.ts';
import { CompressionTable } from '../../src/record/compression.ts';
import { RpcPeerTransport } from '../../src/rpc/peer-transport.ts';
import { MemoryStateStore } from '../../src/storage/memory-state-store.ts';
import { SimDisk } from './disk.ts';
import { SimNetwork } from './network.ts';
import { SeededRandom } from './random.ts';
import { VirtualEnvironment, VirtualTime } from './virtual-environment.ts';

const PORT = 9000;

export function hostOf(broker: number): string {
  return `broker-${broker}`;
}

/** One simulated machine: its disk outlives the processes on it. */
export class SimMachine {
  readonly id: number;
  disk: SimDisk;
  readonly #random: SeededRandom;
  /** When the disk's completions reach the process. */
  readonly completions: VirtualEnvironment;
  stores = new Map<string, MemoryStateStore>();
  /** What it returns may be something else than what was written. */
  rots = false;
  wiped = false;
  environment: VirtualEnvironment | undefined;
  broker: Broker | undefined;

  constructor(id: number, completions: VirtualEnvironment, random: SeededRandom) {
    this.id = id;
    this.completions = completions;
    completions.machine = id;
    this.#random = random;
    this.disk = this.#newDisk();
  }

  /** An empty disk instead of the one that was there. */
  wipe(): void {
    const { latencyMs, disorderly, onDurable } = this.disk;
    this.disk.crash();
    this.disk = Object.assign(this.#newDisk(), { latencyMs, disorderly, onDurable });
    this.rots = false;
    this.wiped = true;
    this.stores = new Map();
  }

  #newDisk(): SimDisk {
    return new SimDisk(this.completions, this.#random.fork());
  }
}

export interface SimClusterOptions {
  readonly seed: number;
  readonly brokers: number;
  /** How many of them, from the first on, are voters of the metadata quorum. Default 3. */
  readonly controllers?: number;
  /** Broker settings by Kafka's keys, on top of what the simulation needs. */
  readonly settings?: Readonly<Record<string, string | number>>;
  readonly log?: Logger;
  /** Makes the Raft cores of all brokers: ones that tell what they do. */
  readonly makeCore?: MakeCore;
}

/** The production broker, several times over, on a virtual clock, network and disk. One seed, one schedule. */
export class SimCluster {
  readonly time = new VirtualTime();
  readonly random: SeededRandom;
  readonly network: SimNetwork;
  readonly machines: readonly SimMachine[];
  readonly #options: SimClusterOptions;
  /** What a broker may not end itself for. */
  readonly failures: Error[] = [];
  /** Told when a broker ended itself because its disk failed, as it must. */
  onDiskFailure: (id: number, error: Error) => void = () => {};
  onWiped: (id: number) => void = () => {};
  /** Told of each frame of Raft messages as a broker sends it. */
  onRaftFrame: (from: number, frame: Uint8Array) => void = () => {};

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
    environment.machine = id;
    machine.environment = environment;
    machine.broker = undefined;
    this.time.pause(machine.completions, 0);
    const voters = this.machines.filter((voter) => this.isController(voter.id)).map((voter) => `${voter.id}@${this.#address(voter.id)}`);
    const config = loadConfig({
      file: {
        'node.id': id,
        listeners: `CLIENT://${hostOf(id)}:${PORT}`,
        'controller.quorum.voters': voters.join(','),
        'log.dirs': '/data',
        'flotilla.disk.reserve.bytes': '64KiB',
        ...this.#options.settings,
      },
      environment: {},
      set: [],
    });
    const compression = new CompressionTable(nodeCompressions);
    machine.broker = await startBroker({
      config,
      environment,
      disk: machine.disk,
      openStateStore: async (path) => {
        const store = machine.stores.get(path) ?? new MemoryStateStore();
        machine.stores.set(path, store);
        return store;
      },
      connect: this.network.connectFrom(hostOf(id), environment),
      createTransport: (options) => this.#watched(id, new RpcPeerTransport(options)),
      serve: (options) => this.network.serve(hostOf(id), environment, options),
      crc32,
      crc32c: nativeCrc32c,
      compression,
      compute: inlineCompute({ compression, crc32c: nativeCrc32c }),
      log: (this.#options.log ?? silentLogger).child({ broker: id }),
      makeCore: this.#options.makeCore,
      fatal: (error) => {
        const stalled = machine.disk.isStalled;
        this.kill(id);
        // A disk that stalls for long enough ends the process too (hazard B38); it must be one that does.
        if (isOfDisk(error) || (isOfStall(error) && stalled)) this.onDiskFailure(id, error);
        else this.failures.push(error);
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

  /** The disk is replaced by an empty one. */
  wipe(id: number): void {
    this.#end(id);
    this.machine(id).wipe();
    this.onWiped(id);
  }

  pause(id: number, ms: number): void {
    const { environment, completions } = this.machine(id);
    if (environment === undefined) return;
    this.time.pause(environment, ms);
    this.time.pause(completions, ms);
  }

  isUp(id: number): boolean {
    const { environment } = this.machine(id);
    return environment !== undefined && !environment.killed;
  }

  /** A voter of the metadata quorum. */
  isController(id: number): boolean {
    return id <= (this.#options.controllers ?? 3);
  }

  /** An environment and a network for a client on a machine of its own. */
  client(name: string) {
    const environment = new VirtualEnvironment(this.time, this.random.fork());
    return { environment, connect: this.network.connectFrom(name, environment) };
  }

  #watched(from: number, transport: ServedTransport): ServedTransport {
    return {
      handlers: () => transport.handlers(),
      start: (receiver) => transport.start(receiver),
      setPeers: (peers) => transport.setPeers(peers),
      send: (to, lane, frame) => {
        if (lane === 'raft') this.onRaftFrame(from, concat(frame));
        return transport.send(to, lane, frame);
      },
      close: () => transport.close(),
    };
  }

  #end(id: number): void {
    const machine = this.machine(id);
    const { environment, broker } = machine;
    if (environment === undefined || environment.killed) return;
    environment.kill();
    broker?.kill();
    this.network.kill(environment);
  }

  #address(id: number): string {
    return `${hostOf(id)}:${PORT}`;
  }
}

/** Whether the error goes back to one that the simulated disk gave. */
export function isOfDisk(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) if (/\b(?:EIO|ENOSPC): injected/.test(at.message)) return true;
  return false;
}

function isOfStall(error: Error): boolean {
  return error instanceof FlotillaError && error.code === 'STORAGE_ERROR' && error.message.startsWith('the disk has not finished a flush');
}

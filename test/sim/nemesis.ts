import { sleep } from '../../src/client/wait.ts';
import type { SimCluster } from './cluster.ts';
import type { SeededRandom } from './random.ts';
import type { VirtualEnvironment } from './virtual-environment.ts';

export const FAULTS = [
  'kill',
  'killAll',
  'powerCut',
  'powerCutAll',
  'pause',
  'isolate',
  'cutPeers',
  'oneWay',
  'cutLinks',
  'slowLinks',
  'reset',
  'slowDisk',
  'stop',
  'clockJump',
] as const;
export type Fault = (typeof FAULTS)[number];

/** A seed's faults: which exist, and how dense they come (swarm testing: what is absent in a seed lets the others go further). */
export interface Weather {
  readonly faults: readonly Fault[];
  /** Milliseconds between the beginnings of two faults, on average. */
  readonly everyMs: number;
  /** Milliseconds that a fault lasts, at most. */
  readonly lastMs: number;
  /** Milliseconds of a disk operation, at most; 0: none. */
  readonly diskMs: number;
}

export function drawWeather(random: SeededRandom): Weather {
  return {
    faults: FAULTS.filter(() => random.chance(0.35)),
    everyMs: random.pick([300, 1_000, 3_000]),
    lastMs: random.pick([500, 2_000, 6_000]),
    diskMs: random.pick([0, 0.3, 2, 10]),
  };
}

/** Breaks the cluster by the seed, and heals it. */
export class Nemesis {
  readonly counts = new Map<Fault, number>();
  readonly #cluster: SimCluster;
  readonly #weather: Weather;
  readonly #random: SeededRandom;
  readonly #environment: VirtualEnvironment;
  readonly #clients: () => readonly string[];
  readonly #log: (text: string) => void;
  #stopped = false;
  /** Processes that are stopping, or have stopped, cleanly. */
  readonly #stopping = new WeakSet<VirtualEnvironment>();

  constructor(
    cluster: SimCluster,
    weather: Weather,
    random: SeededRandom,
    clients: () => readonly string[],
    log: (text: string) => void = () => {},
  ) {
    this.#cluster = cluster;
    this.#weather = weather;
    this.#random = random;
    this.#clients = clients;
    this.#log = log;
    this.#environment = cluster.client('nemesis').environment;
    for (const { disk } of cluster.machines) disk.latencyMs = () => (weather.diskMs === 0 ? 0 : random.between(0, weather.diskMs));
  }

  start(): void {
    if (this.#weather.faults.length > 0) void this.#storm();
  }

  /** Ends all faults, for the machines named and the links between them; the others stay broken. */
  heal(except: readonly number[] = []): void {
    this.#stopped = true;
    this.#cluster.network.heal();
    for (const { id, disk, environment } of this.#cluster.machines) {
      disk.latencyMs = () => 0;
      this.#cluster.pause(id, 0);
      if (except.includes(id) || (environment !== undefined && this.#stopping.has(environment))) this.#down(id);
      if (except.includes(id)) continue;
      this.#up(id);
    }
  }

  async #storm(): Promise<void> {
    while (!this.#stopped) {
      await this.#sleep(this.#random.between(0, 2 * this.#weather.everyMs));
      if (this.#stopped) return;
      const fault = this.#random.pick(this.#weather.faults);
      this.counts.set(fault, (this.counts.get(fault) ?? 0) + 1);
      const lastMs = this.#random.between(0, this.#weather.lastMs);
      this.#log(`${this.#environment.monotonicMs().toFixed(1)} ${fault} for ${lastMs.toFixed(0)} ms`);
      void this.#inflict(fault, lastMs);
    }
  }

  async #inflict(fault: Fault, ms: number): Promise<void> {
    const { network, machines } = this.#cluster;
    const victim = this.#random.pick(machines);
    const { id } = victim;
    switch (fault) {
      case 'kill':
      case 'powerCut':
        if (fault === 'kill') this.#cluster.kill(id);
        else this.#cluster.powerCut(id);
        return this.#later(ms, () => this.#up(id));
      case 'killAll':
      case 'powerCutAll':
        for (const machine of machines) {
          if (fault === 'killAll') this.#cluster.kill(machine.id);
          else this.#cluster.powerCut(machine.id);
          void this.#later(this.#random.between(0, ms), () => this.#up(machine.id));
        }
        return;
      case 'stop':
        return this.#stop(id, ms);
      case 'pause':
        return this.#cluster.pause(id, ms);
      case 'isolate':
        for (const other of this.#others(id)) this.#cut(`broker-${id}`, other, true);
        return this.#later(ms, () => network.heal());
      case 'cutPeers':
        // Clients still reach it: as a leader it must not answer them once the others may have another.
        for (const other of this.#brokersBut(id)) this.#cut(`broker-${id}`, other, true);
        return this.#later(ms, () => network.heal());
      case 'oneWay':
        for (const other of this.#others(id)) {
          if (this.#random.chance(0.3)) continue;
          if (this.#random.chance(0.5)) network.block(`broker-${id}`, other);
          else network.block(other, `broker-${id}`);
        }
        return this.#later(ms, () => network.heal());
      case 'cutLinks':
        for (const other of this.#others(id)) if (this.#random.chance(0.5)) this.#cut(`broker-${id}`, other, this.#random.chance(0.7));
        return this.#later(ms, () => network.heal());
      case 'slowLinks':
        for (const other of this.#others(id)) network.slow(`broker-${id}`, other, this.#random.between(0, 400));
        return this.#later(ms, () => network.heal());
      case 'reset':
        for (const other of this.#others(id)) if (this.#random.chance(0.5)) network.reset(`broker-${id}`, other);
        return;
      case 'slowDisk': {
        const latency = this.#random.pick([20, 200, 1_500]);
        const before = victim.disk.latencyMs;
        victim.disk.latencyMs = () => this.#random.between(0, latency);
        return this.#later(ms, () => {
          victim.disk.latencyMs = before;
        });
      }
      case 'clockJump':
        if (victim.environment !== undefined) victim.environment.wallSkewMs = this.#random.between(-60_000, 60_000);
        return;
    }
  }

  /** A clean stop, within a deadline, and a start. */
  async #stop(id: number, ms: number): Promise<void> {
    const { broker, environment } = this.#cluster.machine(id);
    if (broker === undefined || environment === undefined || environment.killed) return;
    this.#stopping.add(environment);
    void broker.stop(10_000);
    await this.#sleep(this.#random.between(0, 11_000));
    if (this.#stopped) return;
    if (environment.killed) return;
    this.#down(id);
    await this.#later(ms, () => this.#up(id));
  }

  #up(id: number): void {
    if (this.#cluster.isUp(id)) return;
    this.#cluster.start(id).catch((error: Error) => this.#cluster.failures.push(error));
  }

  #down(id: number): void {
    if (this.#cluster.isUp(id)) this.#cluster.kill(id);
  }

  #cut(a: string, b: string, bothWays: boolean): void {
    this.#cluster.network.block(a, b);
    if (bothWays) this.#cluster.network.block(b, a);
  }

  #others(id: number): string[] {
    return [...this.#brokersBut(id), ...this.#clients()];
  }

  #brokersBut(id: number): string[] {
    return this.#cluster.machines.filter((machine) => machine.id !== id).map((machine) => `broker-${machine.id}`);
  }

  async #later(ms: number, task: () => void): Promise<void> {
    await this.#sleep(ms);
    if (!this.#stopped) task();
  }

  #sleep(ms: number): Promise<void> {
    return sleep(this.#environment, ms);
  }
}

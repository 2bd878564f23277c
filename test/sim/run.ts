/**
 * One seed, one world: the production broker and SDK on a virtual clock, network and disk. First the safety phase, in which the nemesis breaks what
 * the seed's weather allows; then the liveness phase: a healed majority must commit within a bound, then all machines are healed, everything
 * acknowledged is read back, and all logs are compared.
 */
import type { Logger } from '../../src/base/environment.ts';
import { check } from '../jepsen-lite/checker.ts';
import { SimCluster } from './cluster.ts';
import { Invariants, Violation } from './invariants.ts';
import { drawWeather, Nemesis, type Weather } from './nemesis.ts';
import { SeededRandom } from './random.ts';
import { drawWorkload, Workload, type WorkloadShape } from './workload.ts';

export interface SimulateOptions {
  readonly seed: number;
  /** Simulated milliseconds of the safety phase. Default 20,000. */
  readonly safetyMs?: number | undefined;
  /** Instead of what the seed draws: to search near a suspicion. */
  readonly weather?: Partial<Weather> | undefined;
  readonly workload?: Partial<WorkloadShape> | undefined;
  readonly log?: Logger | undefined;
  /** Told of each fault and phase, a line each. */
  readonly narrate?: ((line: string) => void) | undefined;
}

export interface SimulationResult {
  readonly seed: number;
  /** Over every event and the history: equal for equal seeds. */
  readonly hash: string;
  readonly simulatedMs: number;
  readonly events: number;
  readonly messages: number;
  readonly acknowledged: number;
  readonly unknown: number;
  readonly elections: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly weather: Weather;
  readonly workload: WorkloadShape;
}

export const DEFAULT_SAFETY_MS = 20_000;
const CHECK_EVERY_MS = 25;
/** For a cluster of healthy machines to form. */
const FORM_MS = 60_000;
/** For a healed majority to elect, tell its clients and commit. */
const MAJORITY_MS = 30_000;
/** For all that is left, once all is healed. Below the longest delivery timeout, which must not be needed. */
const HEALED_MS = 60_000;

/** Runs a seed. @throws Violation with what broke; replay it with `npm run sim -- --seed N`. */
export async function simulate(options: SimulateOptions): Promise<SimulationResult> {
  const simulation = new Simulation(options);
  const onRejection = (error: unknown) => simulation.cluster.failures.push(new Error('a rejection that nobody handles', { cause: error }));
  process.on('unhandledRejection', onRejection);
  try {
    return await simulation.run();
  } finally {
    process.off('unhandledRejection', onRejection);
  }
}

class Simulation {
  readonly cluster: SimCluster;
  readonly #options: SimulateOptions;
  readonly #random: SeededRandom;
  readonly #weather: Weather;
  readonly #workload: Workload;
  readonly #nemesis: Nemesis;
  readonly #invariants: Invariants;
  #phase = 'forming';

  constructor(options: SimulateOptions) {
    const { seed, log, narrate } = options;
    this.#options = options;
    this.#random = new SeededRandom(seed);
    const random = this.#random;
    const election = random.pick([300, 1_000]);
    this.cluster = new SimCluster({
      seed: random.uint32(),
      brokers: random.pick([3, 3, 3, 4, 5]),
      settings: {
        'flotilla.wal.file.bytes': '1MiB',
        'flotilla.wal.file.count': random.pick([2, 4]),
        'flotilla.raft.election.timeout.ms': election,
        'flotilla.raft.heartbeat.interval.ms': election / 10,
        'message.max.bytes': random.pick([100_000, 500_000]),
      },
      ...(log === undefined ? {} : { log }),
    });
    this.#weather = { ...drawWeather(random.fork()), ...options.weather };
    this.#workload = new Workload(this.cluster, { ...drawWorkload(random.fork()), ...options.workload }, random.fork());
    this.#nemesis = new Nemesis(this.cluster, this.#weather, random.fork(), () => this.#workload.hosts, narrate);
    this.#invariants = new Invariants(this.cluster);
  }

  async run(): Promise<SimulationResult> {
    try {
      await this.#safety();
      await this.#liveness();
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      throw new Violation(
        `seed ${this.#options.seed}, ${this.#phase}, at ${this.cluster.time.nowMs.toFixed(1)} ms: ${message}\n${this.#report()}`,
        {
          cause: error,
        },
      );
    }
    return this.#result();
  }

  async #safety(): Promise<void> {
    const { time } = this.cluster;
    const { signal } = new AbortController();
    await this.cluster.startAll();
    await this.#settle(Promise.all(this.cluster.machines.map(({ broker }) => broker?.ready(signal))), FORM_MS);
    this.#enter('creating topics');
    await this.#settle(this.#workload.start(), FORM_MS);
    this.#enter('the safety phase');
    this.#nemesis.start();
    const end = time.nowMs + (this.#options.safetyMs ?? DEFAULT_SAFETY_MS);
    while (time.nowMs < end) {
      await time.run(CHECK_EVERY_MS);
      this.#check();
    }
  }

  async #liveness(): Promise<void> {
    const dead = 1 + this.#random.below(this.cluster.machines.length);
    this.#enter(`healed but broker ${dead}`);
    this.#nemesis.heal([dead]);
    await this.#settle(this.#workload.probe(MAJORITY_MS), MAJORITY_MS);
    this.#enter('healed');
    this.#nemesis.heal();
    await this.#settle(this.#workload.stopSending(), HEALED_MS);
    this.#enter('using what was created');
    await this.#settle(this.#workload.useCreated(), HEALED_MS);
    this.#enter('reading back');
    await this.#settle(this.#workload.readBack(), HEALED_MS);
    this.#enter('converging');
    for (let left = HEALED_MS; !this.#invariants.converged(); left -= CHECK_EVERY_MS) {
      if (left <= 0) throw new Violation('the replicas do not converge');
      await this.cluster.time.run(CHECK_EVERY_MS);
      this.#check();
    }
    await this.#settle(this.#invariants.compareLogs(), HEALED_MS);
    const verdict = check(this.#workload.history);
    if (!verdict.valid) throw new Violation(`anomalies: ${JSON.stringify(verdict.anomalies)}`);
    if (verdict.sends.ok === 0) throw new Violation('nothing was acknowledged: the run proves nothing');
  }

  /** Waits for what must happen, and checks all the while. */
  async #settle(promise: Promise<unknown>, withinMs: number): Promise<void> {
    const { time } = this.cluster;
    let settled = false;
    const done = () => {
      settled = true;
    };
    promise.then(done, done);
    const end = time.nowMs + withinMs;
    while (!(await time.runUntil(() => settled, CHECK_EVERY_MS))) {
      this.#check();
      if (time.nowMs >= end) throw new Violation(`still waiting after ${withinMs} ms`);
    }
    await promise;
    this.#check();
  }

  #check(): void {
    this.#invariants.check();
    const [failure] = this.#workload.failures;
    if (failure !== undefined) throw new Violation(`the SDK failed: ${failure.stack}`, { cause: failure });
  }

  #enter(phase: string): void {
    this.#phase = phase;
    this.#options.narrate?.(`${this.cluster.time.nowMs.toFixed(1)} ${phase}`);
  }

  #report(): string {
    return `${this.#invariants.describe()}\n${JSON.stringify({ ...this.#weather, ...this.#workload.shape, ...this.#faults() })}`;
  }

  #faults(): Record<string, number> {
    return Object.fromEntries(this.#nemesis.counts);
  }

  #result(): SimulationResult {
    const { time, network } = this.cluster;
    const { history } = this.#workload;
    for (const operation of history) {
      if (operation.type === 'send') time.note(operation.outcome === 'ok' ? operation.offset : -1);
      else if (operation.type === 'poll') for (const { offset } of operation.records) time.note(offset);
    }
    return {
      seed: this.#options.seed,
      hash: time.hash.toString(16).padStart(8, '0'),
      simulatedMs: time.nowMs,
      events: time.events,
      messages: network.messages,
      acknowledged: this.#workload.acknowledged,
      unknown: history.filter((operation) => operation.type === 'send' && operation.outcome === 'info').length,
      elections: this.#invariants.elections,
      faults: this.#faults(),
      weather: this.#weather,
      workload: this.#workload.shape,
    };
  }
}

/**
 * One seed, one world: the production broker and SDK on a virtual clock, network and disk. First the safety phase, in which the nemesis breaks what
 * the seed's weather allows; then the liveness phase: a healed majority must commit within a bound while the rest stays broken, then all is
 * healed, everything acknowledged is read back, and all logs are compared.
 */
import type { Logger } from '../../src/base/environment.ts';
import { check } from '../jepsen-lite/checker.ts';
import { TraceChecker } from '../spec/cluster.ts';
import { recorded } from '../spec/recorder.ts';
import { describeBreakage } from './breakage.ts';
import { SimCluster } from './cluster.ts';
import { allWhole, compareLogs, converged, describe } from './convergence.ts';
import { Invariants, Violation } from './invariants.ts';
import { Nemesis } from './nemesis.ts';
import { SeededRandom } from './random.ts';
import { traceOf } from './trace.ts';
import { Workload } from './workload.ts';
import { drawWorld, type Overrides, type World } from './world.ts';

export interface SimulateOptions extends Overrides {
  readonly seed: number;
  readonly log?: Logger | undefined;
  /** Told of each fault and phase, a line each. */
  readonly narrate?: ((line: string) => void) | undefined;
  /** Each message as well. */
  readonly trace?: boolean | undefined;
  /** A seed that has not seen enough when its time is over goes on, until it counts. Default true. */
  readonly untilItCounts?: boolean | undefined;
}

export interface SimulationResult {
  readonly seed: number;
  /** Over every event and the history: equal for equal seeds. */
  readonly hash: string;
  /** See {@link counts}. */
  readonly counts: boolean;
  readonly simulatedMs: number;
  readonly events: number;
  readonly messages: number;
  /** Operations that the SDK saw succeed: records sent, offsets asked for, calls of an administrator. */
  readonly operations: number;
  readonly unknown: number;
  readonly elections: number;
  /** Offsets below the starts of the logs at the end. */
  readonly deleted: number;
  /** Offsets that compaction left nothing at, over all replicas, at the end. */
  readonly compacted: number;
  /** Readings of compacted partitions over one replica after the other, in time. */
  readonly walks: number;
  /** Occurrences that took effect, by fault; the others changed nothing. */
  readonly effects: Readonly<Record<string, number>>;
  readonly effective: number;
  readonly inflicted: number;
  readonly world: World;
}

const CHECK_EVERY_MS = 25;
/** Replicas of compacted topics are compared meanwhile, too: at the end all may have been cleaned. */
const COMPARE_EVERY_MS = 1_000;
/** For a cluster of healthy machines to form. */
const FORM_MS = 60_000;
/** For a healed majority to elect, tell its clients and commit. */
const MAJORITY_MS = 30_000;
/** For all that is left, once all is healed. Below the longest delivery timeout, which must not be needed. */
const HEALED_MS = 60_000;

/** What makes a seed worth counting, besides a liveness phase. */
export const LEAST = { simulatedMs: 60_000, operations: 500, effective: 5 } as const;
/** A world that is too quiet goes on for so much longer, at most. */
const MAX_SAFETY_FACTOR = 2;

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
  readonly #world: World;
  readonly #workload: Workload;
  readonly #nemesis: Nemesis;
  readonly #invariants: Invariants;
  #phase = 'forming';

  constructor(options: SimulateOptions) {
    this.#options = options;
    const world = drawWorld(options.seed, options);
    this.#world = world;
    const { brokers, controllers, settings, seeds } = world;
    const specification = new TraceChecker();
    const makeCore = recorded((event) => {
      try {
        specification.check(event);
      } catch (error) {
        // Not thrown here, into the broker, which might bear it.
        this.#invariants.fail(new Violation(error instanceof Error ? error.message : String(error), { cause: error }));
      }
    });
    const cluster = new SimCluster({
      seed: seeds.cluster,
      brokers,
      controllers,
      settings,
      makeCore,
      ...(options.log && { log: options.log }),
    });
    this.cluster = cluster;
    cluster.network.shape = world.network;
    const ofDisks = cluster.random.fork();
    for (const { disk } of cluster.machines) {
      disk.disorderly = world.disk.disorderly;
      if (world.disk.latencyMs > 0) disk.latencyMs = () => ofDisks.between(0, world.disk.latencyMs);
    }
    const say = (text: string) => options.narrate?.(`${cluster.time.nowMs.toFixed(3)} ${text}`);
    if (options.trace) traceOf(cluster, say);
    this.#workload = new Workload(cluster, world.workload, new SeededRandom(seeds.workload));
    this.#nemesis = new Nemesis(cluster, world.weather, new SeededRandom(seeds.nemesis), () => this.#workload.hosts, say);
    this.#invariants = new Invariants(cluster);
  }

  async run(): Promise<SimulationResult> {
    try {
      await this.#form();
      await this.#safety();
      await this.#liveness();
      await this.#readEverything();
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const { nowMs } = this.cluster.time;
      throw new Violation(`seed ${this.#world.seed}, ${this.#phase}, at ${nowMs.toFixed(1)} ms: ${message}\n${this.#report()}`, {
        cause: error,
      });
    } finally {
      this.cluster.time.afterEvent = undefined;
    }
    return this.#result();
  }

  async #form(): Promise<void> {
    const { signal } = new AbortController();
    await this.cluster.startAll();
    await this.#settle(Promise.all(this.cluster.machines.map(({ broker }) => broker?.ready(signal))), FORM_MS);
    this.#enter('creating topics');
    await this.#settle(this.#workload.start(), FORM_MS);
  }

  async #safety(): Promise<void> {
    this.#enter('the safety phase');
    this.#nemesis.start();
    const { time } = this.cluster;
    const { safetyMs } = this.#world;
    const { untilItCounts = true } = this.#options;
    const end = time.nowMs + safetyMs;
    const last = time.nowMs + safetyMs * MAX_SAFETY_FACTOR;
    let compareAt = this.#workload.compacted === undefined ? Number.POSITIVE_INFINITY : time.nowMs + COMPARE_EVERY_MS;
    while (time.nowMs < end || (untilItCounts && time.nowMs < last && !this.#hasSeenEnough())) {
      await time.run(CHECK_EVERY_MS);
      this.#check();
      if (time.nowMs < compareAt) continue;
      await this.#settle(this.#workload.compareCompacted(), HEALED_MS);
      compareAt = time.nowMs + COMPARE_EVERY_MS;
    }
  }

  async #liveness(): Promise<void> {
    const { breakage } = this.#world;
    const { effects } = this.#nemesis;
    if (effects.has('wipe') || this.#rots) await this.#replaceLost();
    if (this.#rots) await this.#repairRotten();
    this.#enter(describeBreakage(breakage));
    this.#nemesis.heal(breakage);
    await this.#settle(this.#workload.probe(MAJORITY_MS), MAJORITY_MS);
    this.#enter('healed');
    this.#nemesis.heal();
    await this.#settle(this.#workload.stopSending(), HEALED_MS);
    this.#enter('using what was created');
    await this.#settle(this.#workload.useCreated(), HEALED_MS);
  }

  /** A disk that was lost and a machine that stays broken would be two of three; the first must heal by itself. */
  async #replaceLost(): Promise<void> {
    this.#enter('replacing what was on lost disks');
    this.#nemesis.heal();
    const end = this.cluster.time.nowMs + HEALED_MS;
    while (!allWhole(this.cluster)) {
      if (this.cluster.time.nowMs >= end) throw new Violation('what was on lost disks is not replaced');
      await this.cluster.time.run(CHECK_EVERY_MS);
      this.#check();
    }
  }

  get #rots(): boolean {
    return this.cluster.machines.some(({ rots }) => rots);
  }

  /** Nobody but the brokers' own scrubbers: a pass that finds nothing on any of them. */
  async #repairRotten(): Promise<void> {
    this.#enter('repairing what rotted');
    const { machines, time } = this.cluster;
    const end = time.nowMs + HEALED_MS;
    for (const { id, broker } of machines) {
      for (let before = -1; ; ) {
        const status = broker?.scrubber?.status;
        if (status === undefined) break;
        if (!status.running && status.pass > before && before >= 0 && status.findings.length === 0) break;
        if (!status.running) {
          before = status.pass;
          broker?.scrubber?.scrubNow();
        }
        if (time.nowMs >= end) throw new Violation(`broker ${id} still finds damage: ${JSON.stringify(status)}`);
        await time.run(CHECK_EVERY_MS);
        this.#check();
      }
    }
  }

  async #readEverything(): Promise<void> {
    const { cluster } = this;
    if (this.#world.lastPowerCut) {
      this.#enter('after a last power cut of all');
      for (const { id } of cluster.machines) cluster.powerCut(id);
      this.#nemesis.heal();
    }
    this.#enter('reading back');
    await this.#settle(this.#workload.readBack(), HEALED_MS);
    this.#enter('converging');
    for (let left = HEALED_MS; !converged(cluster); left -= CHECK_EVERY_MS) {
      if (left <= 0) throw new Violation('the replicas do not converge');
      await cluster.time.run(CHECK_EVERY_MS);
      this.#check();
    }
    if (this.#rots) await this.#repairRotten();
    await this.#settle(compareLogs(cluster), HEALED_MS);
    const { compacted } = this.#workload;
    if (compacted !== undefined) {
      await this.#settle(this.#workload.compareCompacted(), HEALED_MS);
      compacted.readers.checkWalks();
    }
    const verdict = check(this.#workload.history, this.#workload.starts, (value) => compacted?.records.mayBeGone(value) ?? false);
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

  #hasSeenEnough(): boolean {
    return (
      this.cluster.time.nowMs >= LEAST.simulatedMs &&
      this.#workload.acknowledged >= LEAST.operations &&
      this.#nemesis.effective >= LEAST.effective
    );
  }

  #enter(phase: string): void {
    this.#phase = phase;
    this.#options.narrate?.(`${this.cluster.time.nowMs.toFixed(3)} ${phase}`);
  }

  #report(): string {
    const { world, effects } = { world: this.#world, effects: Object.fromEntries(this.#nemesis.effects) };
    return `${describe(this.cluster)}\n${JSON.stringify({ ...world, weather: { ...world.weather, without: [], muted: [] }, effects })}`;
  }

  #result(): SimulationResult {
    const { time, network } = this.cluster;
    const { history, acknowledged } = this.#workload;
    for (const operation of history) {
      if (operation.type === 'send') time.note(operation.outcome === 'ok' ? operation.offset : -1);
      else if (operation.type === 'poll') for (const { offset } of operation.records) time.note(offset);
    }
    const { effects, effective, inflicted } = this.#nemesis;
    return {
      seed: this.#world.seed,
      hash: time.hash.toString(16).padStart(8, '0'),
      counts: this.#hasSeenEnough(),
      simulatedMs: time.nowMs,
      events: time.events,
      messages: network.messages,
      operations: acknowledged,
      unknown: history.filter((operation) => operation.type === 'send' && operation.outcome === 'info').length,
      elections: this.#invariants.elections,
      deleted: [...this.#workload.starts.values()].reduce((sum, start) => sum + start, 0),
      compacted: this.#workload.compacted?.readers.gone ?? 0,
      walks: this.#workload.compacted?.readers.walks ?? 0,
      effects: Object.fromEntries(effects),
      effective,
      inflicted,
      world: this.#world,
    };
  }
}

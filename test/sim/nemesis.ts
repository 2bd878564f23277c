import type { Breakage } from './breakage.ts';
import { breakForGood } from './breakage.ts';
import type { SimCluster } from './cluster.ts';
import { isOfDisk } from './cluster.ts';
import type { Fault, Occurrence } from './faults/fault.ts';
import { FAULTS } from './faults/faults.ts';
import type { SeededRandom } from './random.ts';
import type { Weather } from './world.ts';

/** How long a machine whose disk failed takes to come back, at most. */
const REPAIR_MS = 3_000;

interface Pending {
  readonly atMs: number;
  end(): void;
}

/** Breaks the cluster by the seed, and heals it. */
export class Nemesis {
  /** Occurrences that took effect, by fault. */
  readonly effects = new Map<string, number>();
  /** Occurrences that were inflicted, whether or not anything came of it. */
  inflicted = 0;
  readonly #cluster: SimCluster;
  readonly #weather: Weather;
  readonly #random: SeededRandom;
  readonly #clients: () => readonly string[];
  readonly #log: (text: string) => void;
  readonly #pending = new Set<Pending>();
  #occurrences = 0;
  #storming = false;

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
    cluster.onDiskFailure = (id, error) => this.#diskFailed(id, error);
  }

  /** Occurrences that took effect. */
  get effective(): number {
    let sum = 0;
    for (const count of this.effects.values()) sum += count;
    return sum;
  }

  start(): void {
    this.#storming = true;
    if (this.#weather.faults.length > 0) this.#next();
  }

  /** Ends all faults. The machines that `broken` names break for good instead, and the directions that it names stay cut. */
  heal(broken?: Breakage): void {
    this.#storming = false;
    while (this.#pending.size > 0) {
      for (const pending of [...this.#pending]) {
        this.#pending.delete(pending);
        pending.end();
      }
    }
    const { network, machines } = this.#cluster;
    network.heal();
    for (const { id, disk, environment } of machines) {
      this.#cluster.pause(id, 0);
      disk.intercept = undefined;
      if (environment !== undefined) environment.turnMs = undefined;
      this.#up(id);
    }
    if (broken !== undefined)
      for (const end of breakForGood(this.#cluster, broken)) this.#pending.add({ atMs: Number.POSITIVE_INFINITY, end });
  }

  #next(): void {
    this.#after(this.#random.between(0, 2 * this.#weather.everyMs), () => {
      if (!this.#storming) return;
      this.#strike();
      this.#next();
    });
  }

  #strike(): void {
    const name = this.#random.pick(this.#weather.faults);
    const ms = this.#random.between(0, this.#weather.lastMs);
    // A source of its own, so that an occurrence that is left out shifts none of the others.
    const random = this.#random.fork();
    const number = ++this.#occurrences;
    if (this.#weather.muted.has(number) || this.#weather.without.has(name)) return;
    const fault = FAULTS.get(name);
    if (fault === undefined) throw new Error(`no fault ${name}`);
    this.#log(`fault ${number}: ${name} for ${ms.toFixed(0)} ms`);
    this.#inflict(fault, ms, random);
  }

  #inflict(fault: Fault, ms: number, random: SeededRandom): void {
    let took = false;
    this.inflicted++;
    const occurrence: Occurrence = {
      cluster: this.#cluster,
      random,
      clients: this.#clients(),
      ms,
      bite: () => {
        if (took) return;
        took = true;
        this.effects.set(fault.name, (this.effects.get(fault.name) ?? 0) + 1);
      },
      until: (end, afterMs = ms) => this.#until(end, afterMs),
      up: (id) => this.#up(id),
    };
    fault.inflict(occurrence);
  }

  #until(end: () => void, ms: number): void {
    const pending = { atMs: this.#cluster.time.nowMs + ms, end };
    this.#pending.add(pending);
    this.#after(ms, () => {
      if (this.#pending.delete(pending)) end();
    });
  }

  /** As it must, the broker ended itself. Somebody starts it again, perhaps the whole machine. */
  #diskFailed(id: number, error: Error): void {
    this.#log(`broker ${id} ended itself: ${error.message}`);
    if (this.#random.chance(0.3)) this.#cluster.powerCut(id);
    this.#until(() => this.#up(id), this.#random.between(0, REPAIR_MS));
  }

  #up(id: number): void {
    if (this.#cluster.isUp(id)) return;
    this.#cluster.start(id).catch((error: Error) => {
      if (!isOfDisk(error)) {
        this.#cluster.failures.push(error);
        return;
      }
      this.#cluster.kill(id);
      this.#diskFailed(id, error);
    });
  }

  #after(ms: number, task: () => void): void {
    this.#cluster.time.schedule(ms, task);
  }
}

/**
 * Three replicas on the real storage over simulated disks, under load, and one disk of the three that damages a file: while its process runs, or while it is
 * down. Each trial ends when nothing is left to repair: nothing that was acknowledged may be missing, on any of them.
 */
import { FlotillaError } from '../../../src/base/errors.ts';
import type { BrokerId } from '../../../src/base/ids.ts';
import { crc32 } from '../../../src/platform/crc32.ts';
import { EntryKind } from '../../../src/raft/core/entry.ts';
import { encodeLogStart } from '../../../src/storage/log-start.ts';
import { brokers, groupKey } from '../../raft/host/cluster.ts';
import { StoredCluster } from '../../raft/host/stored-cluster.ts';
import type { SimDisk } from '../../sim/disk.ts';
import { seeded } from '../fixture.ts';
import { damage, KINDS, type Kind } from './damage.ts';

export const CLASSES = {
  wal: /\/wal\/\d{8}\.wal$/,
  log: /\/groups\/.*\.log$/,
  entries: /\/groups\/.*\.entries$/,
  control: /\/groups\/.*\.control$/,
  snapshot: /\/groups\/.*\.snapshot$/,
  replica: /\/groups\/.*\/replica$/,
  identity: /\/directory(\.copy)?\.json$/,
} as const;
export type FileClass = keyof typeof CLASSES;
export const FILE_CLASSES = Object.keys(CLASSES) as FileClass[];

export interface Outcome {
  readonly file: FileClass;
  readonly kind: Kind;
  readonly whileDown: boolean;
  readonly repaired: boolean;
  readonly lost: number;
  /** What went wrong, if anything did. */
  readonly why: string | undefined;
}

const GROUP = groupKey(0);
/** Simulated milliseconds within which all must be whole again. */
const REPAIR_MS = 60_000;

export class Trials {
  readonly #cluster: StoredCluster;
  readonly #draw: (bound: number) => number;
  /** Commands that committed, as somebody saw. */
  readonly #acknowledged = new Set<number>();

  private constructor(cluster: StoredCluster, seed: number) {
    const random = seeded(seed);
    this.#cluster = cluster;
    this.#draw = (bound) => random.uint32() % bound;
  }

  static async begin(seed: number): Promise<Trials> {
    const trials = new Trials(await StoredCluster.start(seed, {}, false, true), seed);
    await trials.#cluster.elected();
    for (let i = 0; i < 6; i++) await trials.#load();
    return trials;
  }

  /** Undefined: there was no such file, or nothing changed by it. */
  async run(file: FileClass, kind: Kind): Promise<Outcome | undefined> {
    const cluster = this.#cluster;
    const victim = brokers[this.#draw(brokers.length)] as BrokerId;
    const disk = cluster.disks.get(victim) as SimDisk;
    const whileDown = this.#draw(2) === 0;
    await this.#load();
    if (this.#draw(2) === 0) await this.#flush();
    if (whileDown) {
      cluster.kill(victim);
      await this.#load();
    }
    const paths = disk.files().filter((path) => CLASSES[file].test(path) && disk.sizeOf(path) > 0);
    const path = paths[this.#draw(Math.max(1, paths.length))];
    const changed = path !== undefined && (await cluster.settle(damage(disk, path, kind, this.#draw)));
    let why: string | undefined;
    let lost = 0;
    try {
      await this.#load();
      // Whose a directory is, is looked at when a process starts.
      if (!whileDown && (file === 'identity' || this.#draw(2) === 0)) cluster.kill(victim);
      if (!cluster.nodes.has(victim)) await cluster.boot(victim);
      await this.#load();
      await this.#repair(victim);
      await cluster.converge();
      lost = this.#lost();
      if (cluster.fatal.length > 0) why = String(cluster.fatal[0]);
    } catch (error) {
      why = error instanceof Error ? error.message : String(error);
    }
    if (!changed && why === undefined) return undefined;
    return { file, kind, whileDown, repaired: why === undefined, lost, why };
  }

  async #load(): Promise<void> {
    const cluster = this.#cluster;
    cluster.propose(1 + this.#draw(8));
    const leader = cluster.leader();
    if (leader !== undefined && this.#draw(3) === 0) {
      const payload = encodeLogStart(0);
      try {
        cluster.replica(leader).propose({ kind: EntryKind.setLogStart, payload, recordCount: 0, payloadChecksum: crc32(payload) });
      } catch (error) {
        if (!(error instanceof FlotillaError && error.retriable)) throw error;
      }
    }
    await cluster.environment.run(60);
    for (const broker of cluster.nodes.keys()) for (const number of cluster.owner(broker).numbers) this.#acknowledged.add(number);
  }

  async #flush(): Promise<void> {
    for (const broker of this.#cluster.nodes.keys()) await this.#cluster.settle(this.#cluster.replica(broker).log.flush());
  }

  /** As the scrubber does, until there is nothing to find. */
  async #repair(victim: BrokerId): Promise<void> {
    const cluster = this.#cluster;
    const { environment } = cluster;
    const end = environment.monotonicMs() + REPAIR_MS;
    const { host, storage } = cluster.nodes.get(victim)!;
    // One that finds out that it lost what it had acknowledged takes no part, and returns on probation when its process starts again.
    await environment.run(2_000);
    if (cluster.replica(victim).quarantined !== undefined) {
      cluster.kill(victim);
      await cluster.boot(victim);
      return this.#repair(victim);
    }
    await environment.until(() => cluster.replica(victim)?.core.probation === 0, 'the probation ends', REPAIR_MS);
    for (;;) {
      const repair = storage.repairOf(GROUP)!;
      let damages = await cluster.settle(repair.renewSnapshots(async () => {}));
      for (const firstIndex of repair.segments()) {
        const found = await cluster.settle(repair.check(firstIndex, async () => {}));
        if (found.length > 0) host.repair(GROUP, firstIndex);
        damages = [...damages, ...found];
      }
      if (damages.length === 0) return;
      if (environment.monotonicMs() > end) throw new Error(`still damaged: ${JSON.stringify(damages[0])}`);
      await cluster.settle(host.untilWhole(GROUP));
      cluster.propose(1);
      await environment.run(50);
    }
  }

  #lost(): number {
    let lost = 0;
    for (const broker of brokers) {
      const has = this.#cluster.owner(broker).numbers;
      for (const number of this.#acknowledged) if (!has.has(number)) lost++;
    }
    return lost;
  }
}

export interface Tally {
  trials: number;
  repaired: number;
  lost: number;
}

export interface TrialsResult {
  readonly rows: Map<string, Tally>;
  readonly failures: string[];
  readonly total: Tally;
}

/** Trials of one cluster, one after the other; a cluster that could not be repaired is left. */
const TRIALS_A_CLUSTER = 20;

/** So many trials, from a seed on. `told` after each cluster. */
export async function runTrials(count: number, seed: number, told: (result: TrialsResult) => void = () => {}): Promise<TrialsResult> {
  const rows = new Map<string, Tally>();
  const result: TrialsResult = { rows, failures: [], total: { trials: 0, repaired: 0, lost: 0 } };
  for (let at = seed; result.total.trials < count; at++) {
    const trials = await Trials.begin(at);
    const random = seeded(at + 1_000_000);
    for (let i = 0; i < TRIALS_A_CLUSTER && result.total.trials < count; i++) {
      const file = FILE_CLASSES[random.uint32() % FILE_CLASSES.length] as FileClass;
      const kind = KINDS[random.uint32() % KINDS.length] as Kind;
      const outcome = await trials.run(file, kind);
      if (outcome === undefined) continue;
      for (const tally of [result.total, tallyOf(rows, `${file} ${kind}`)]) {
        tally.trials++;
        tally.lost += outcome.lost;
        if (outcome.repaired) tally.repaired++;
      }
      if (outcome.repaired && outcome.lost === 0) continue;
      const where = outcome.whileDown ? 'while it was down' : 'while it ran';
      result.failures.push(`seed ${at}, trial ${i}: ${file}, ${kind}, ${where}: ${outcome.why ?? `${outcome.lost} lost`}`);
      break;
    }
    told(result);
  }
  return result;
}

function tallyOf(rows: Map<string, Tally>, key: string): Tally {
  let tally = rows.get(key);
  if (tally === undefined) {
    tally = { trials: 0, repaired: 0, lost: 0 };
    rows.set(key, tally);
  }
  return tally;
}

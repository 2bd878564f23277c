/**
 * Three replicas on the real storage over simulated disks, under load and being cleaned, and one disk of the three that damages a file: while its process runs, or
 * while it is down. Whoever reads from it in the meantime gets what was written, or an error. Each trial ends when nothing is left to repair: nothing that was
 * acknowledged may be missing, on any of them. A replica that says that it is to be replaced loses all that it has, and copies it from the others.
 */
import { must } from '../../../src/base/assert.ts';
import { FlotillaError, messageOf } from '../../../src/base/errors.ts';
import type { BrokerId } from '../../../src/base/ids.ts';
import { crc32 } from '../../../src/platform/crc32.ts';
import { EntryKind } from '../../../src/raft/core/entry.ts';
import { encodeLogStart } from '../../../src/storage/log-start.ts';
import { batchMaxTimestampAt } from '../../../src/storage/payload.ts';
import { encodeTombstoneFloor } from '../../../src/storage/tombstone-floor.ts';
import type { BatchRun } from '../../../src/storage/types.ts';
import { brokers, groupKey } from '../../raft/host/cluster.ts';
import { StoredCluster } from '../../raft/host/stored-cluster.ts';
import type { SimDisk } from '../../sim/disk.ts';
import { batchesIn, batchPayload, cleanBy, fateOf, hex, seeded } from '../fixture.ts';
import { damage, KINDS, type Kind, type Outcome } from './damage.ts';
import { StateProcess } from './state-process.ts';
import { isStateClass, STATE_CLASSES, StateTrials } from './state-trials.ts';

export const CLASSES = {
  wal: /\/wal\/\d{8}\.wal$/,
  log: /\/groups\/[^/]+\/\d{20}-\d{20}\.log$/,
  entries: /\/groups\/[^/]+\/\d{20}-\d{20}\.entries$/,
  control: /\/groups\/.*\.control$/,
  cleaned: /\/groups\/[^/]+\/\d{20}-\d{20}\.\d+\.(log|entries)$/,
  snapshot: /\/groups\/.*\.snapshot$/,
  replica: /\/groups\/.*\/replica$/,
  identity: /\/directory(\.copy)?\.json$/,
} as const;
export type FileClass = keyof typeof CLASSES;
const GROUP_CLASSES = Object.keys(CLASSES) as FileClass[];
export const FILE_CLASSES: readonly string[] = [...GROUP_CLASSES, ...STATE_CLASSES];

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
    try {
      if (file === 'cleaned' || this.#draw(4) === 0) await this.#clean(victim);
    } catch (error) {
      return { whileDown: false, repaired: false, lost: 0, why: `not cleaned: ${messageOf(error)}` };
    }
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
      if (!whileDown) await this.#readAll(victim);
      // Whose a directory is, is looked at when a process starts.
      if (!whileDown && (file === 'identity' || this.#draw(2) === 0)) cluster.kill(victim);
      if (!cluster.nodes.has(victim)) await cluster.boot(victim);
      await this.#load();
      await this.#repair(victim);
      await cluster.converge();
      lost = this.#lost();
      const unreadable = await this.#readAll(victim);
      if (unreadable !== undefined) throw unreadable;
      if (cluster.fatal.length > 0) why = String(cluster.fatal[0]);
    } catch (error) {
      why = messageOf(error);
    }
    if (!changed && why === undefined) return undefined;
    return { whileDown, repaired: why === undefined, lost, why };
  }

  async #load(): Promise<void> {
    const cluster = this.#cluster;
    cluster.propose(1 + this.#draw(8));
    if (this.#draw(3) === 0) this.#propose(EntryKind.setLogStart, encodeLogStart(0));
    if (this.#draw(3) === 0) this.#propose(EntryKind.tombstoneFloor, encodeTombstoneFloor(this.#draw(4)));
    await cluster.environment.run(60);
    for (const broker of cluster.nodes.keys()) for (const number of cluster.owner(broker).numbers) this.#acknowledged.add(number);
  }

  #propose(kind: EntryKind, payload: Uint8Array): void {
    const leader = this.#cluster.leader();
    try {
      if (leader !== undefined) this.#cluster.replica(leader).propose({ kind, payload, recordCount: 0, payloadChecksum: crc32(payload) });
    } catch (error) {
      if (!(error instanceof FlotillaError && error.retriable)) throw error;
    }
  }

  /** Compacts some of what the broker's segments hold. What the trials before damaged is whole again, so nothing may keep it from that. */
  async #clean(broker: BrokerId): Promise<void> {
    const { log } = this.#cluster.replica(broker);
    await this.#cluster.settle(log.flush());
    const cleanable = log.cleanable();
    const through = cleanable[this.#draw(Math.max(1, cleanable.length))]?.lastIndex ?? 0;
    await this.#cluster.settle(log.clean(through, cleanBy(fateOf), new AbortController().signal));
  }

  /**
   * Reads the broker's log from its beginning on, as consumers do. Returns the first error that they get.
   * @throws when they get, or miss, what they should not.
   */
  async #readAll(broker: BrokerId): Promise<Error | undefined> {
    const { log } = this.#cluster.replica(broker);
    const { cleanedTo, nextOffset: end } = log;
    const isDue = (offset: number) => offset >= cleanedTo || fateOf(offset) !== 'gone';
    let refused: Error | undefined;
    for (let offset = 0; offset < end; ) {
      let run: BatchRun;
      try {
        run = await this.#cluster.settle(log.read(offset, end, 1 + this.#draw(3_000)));
      } catch (error) {
        if (!(error instanceof FlotillaError)) throw error;
        refused ??= error;
        offset++;
        continue;
      }
      const got = run.chunks.flatMap(batchesIn);
      for (const batch of got) {
        while (offset < end && !isDue(offset)) offset++;
        const due = batchPayload(offset, 1, 200, batchMaxTimestampAt(batch, 0));
        if (hex(batch) !== hex(due)) throw new Error(`wrong bytes served at offset ${offset}`);
        offset++;
      }
      while (offset < run.nextOffset && !isDue(offset)) offset++;
      if (run.nextOffset !== offset && got.length > 0) throw new Error(`offsets ${offset} to ${run.nextOffset} skipped`);
      if (got.length === 0) {
        while (offset < end && !isDue(offset)) offset++;
        if (offset < end) throw new Error(`nothing served at offset ${offset}`);
      }
    }
    return refused;
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
    if (cluster.replica(victim).quarantined !== undefined) return this.#replace(victim);
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
      const canBe = await cluster.settle(host.untilWhole(GROUP));
      if (!canBe && cluster.quarantined.some(({ broker }) => broker === victim)) return this.#replace(victim);
      cluster.propose(1);
      await environment.run(50);
    }
  }

  /** It said that another is to take its place: what is here never counts again, and all is copied. */
  async #replace(victim: BrokerId): Promise<void> {
    const cluster = this.#cluster;
    cluster.kill(victim);
    cluster.quarantined.length = 0;
    await cluster.boot(victim);
    if (cluster.replica(victim).core.probation === 0) throw new Error('what is to be replaced counts again');
    return this.#repair(victim);
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
  /** Processes that died over what they read, and were started again. */
  deaths: number;
}

/** Trials of one cluster, one after the other; a cluster that could not be repaired is left. */
const TRIALS_A_CLUSTER = 20;

/** So many trials, from a seed on. `told` after each cluster. */
export async function runTrials(count: number, seed: number, told: (result: TrialsResult) => void = () => {}): Promise<TrialsResult> {
  const rows = new Map<string, Tally>();
  const result: TrialsResult = { rows, failures: [], total: { trials: 0, repaired: 0, lost: 0 }, deaths: 0 };
  using process = new StateProcess();
  for (let at = seed; result.total.trials < count; at++) {
    const trials = await Trials.begin(at);
    using state = await StateTrials.begin(at, process);
    const random = seeded(at + 1_000_000);
    for (let i = 0; i < TRIALS_A_CLUSTER && result.total.trials < count; i++) {
      const file = must(FILE_CLASSES[random.uint32() % FILE_CLASSES.length], 'a class');
      const kind = KINDS[random.uint32() % KINDS.length] as Kind;
      const outcome = await (isStateClass(file) ? state.run(file, kind) : trials.run(file as FileClass, kind));
      if (outcome === undefined) continue;
      result.deaths += outcome.deaths ?? 0;
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

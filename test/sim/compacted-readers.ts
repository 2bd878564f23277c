/** Reads compacted partitions as clients do that change replicas, and as nobody does: every replica, to the end. */
import { FlotillaError } from '../../src/base/errors.ts';
import { encodeGroupKey } from '../../src/base/ids.ts';
import { sleep } from '../../src/client/wait.ts';
import { membersOf } from '../../src/raft/core/configuration.ts';
import type { Replica } from '../../src/raft/types.ts';
import { decodeBatch, splitBatches } from '../../src/record/batch.ts';
import { CompressionTable } from '../../src/record/compression.ts';
import type { SimCluster } from './cluster.ts';
import type { KeyedRecords, Newest } from './compacted.ts';
import { Violation } from './invariants.ts';
import type { SeededRandom } from './random.ts';
import type { VirtualEnvironment } from './virtual-environment.ts';

/** A read that takes longer is of a machine that died. */
const READ_MS = 2_000;
/** Of delete.retention.ms: the brokers' clocks and the reader's are not one. */
const IN_TIME = 0.8;
const text = new TextDecoder();

export interface Place {
  readonly topic: string;
  readonly partition: number;
  /** Its number in the history. */
  readonly number: number;
}

interface Read {
  readonly key: string;
  readonly newest: Newest;
}

/** A walk from the beginning of a partition to its end, over one replica after the other, in time. */
interface Walk {
  readonly place: Place;
  readonly start: number;
  readonly end: number;
  readonly newest: ReadonlyMap<string, Newest>;
}

export class CompactedReaders {
  readonly #cluster: SimCluster;
  readonly #keyed: KeyedRecords;
  readonly #random: SeededRandom;
  readonly #walks: Walk[] = [];
  /** Records of which a replica has none any more, when all were last compared. */
  gone = 0;

  constructor(cluster: SimCluster, keyed: KeyedRecords, random: SeededRandom) {
    this.#cluster = cluster;
    this.#keyed = keyed;
    this.#random = random;
  }

  /** Walks that came to their end in time. */
  get walks(): number {
    return this.#walks.length;
  }

  async walk(environment: VirtualEnvironment, places: readonly Place[], deleteRetentionMs: number, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#walk(environment, this.#random.pick(places), deleteRetentionMs, signal);
      await sleep(environment, this.#random.between(0, 500));
    }
  }

  async #walk(environment: VirtualEnvironment, place: Place, deleteRetentionMs: number, signal: AbortSignal): Promise<void> {
    const since = environment.monotonicMs();
    const inTime = () => environment.monotonicMs() - since < deleteRetentionMs * IN_TIME;
    const newest = new Map<string, Newest>();
    const pauseMs = this.#random.between(0, deleteRetentionMs / 10);
    let start: number | undefined;
    let position: number | undefined;
    while (inTime() && !signal.aborted) {
      const replicas = this.#replicasOf(place).filter(({ log }) => log.nextOffset >= (position ?? 0));
      const replica = replicas.length === 0 ? undefined : this.#random.pick(replicas);
      const end = replica?.log.nextOffset ?? 0;
      start ??= replica?.log.logStartOffset;
      position ??= start;
      if (replica !== undefined && start !== undefined && position !== undefined) {
        if (position >= end) {
          if (end > 0) this.#walks.push({ place, start, end: position, newest });
          return;
        }
        const read = await this.#read(environment, replica, position, end, 500);
        if (read === 'below the start') return;
        if (read !== undefined && inTime()) {
          for (const { key, newest: record } of read.records) newest.set(key, record);
          position = read.nextOffset;
        }
      }
      await sleep(environment, this.#random.between(0, pauseMs));
    }
  }

  /**
   * Of each key every replica has the newest record, or, once it is a tombstone that need not stay, none at all; and where one replica has no tombstone any more, no
   * other has what it deleted.
   */
  async compare(environment: VirtualEnvironment, places: readonly Place[], deleteRetentionMs: number): Promise<void> {
    this.gone = 0;
    for (const place of places) {
      const since = environment.monotonicMs();
      const contents = await Promise.all(this.#replicasOf(place).map((replica) => this.#contents(environment, replica)));
      const known = contents.filter((each) => each !== undefined);
      for (const { newest } of known) for (const record of newest.values()) this.#keyed.seen(record.id, record.offset);
      // Replicas that are read one after the other are not read at one moment: what one had may have gone by then.
      const inTime = environment.monotonicMs() - since < deleteRetentionMs * IN_TIME;
      for (const [key, newest] of this.#keyed.newestOf(place.number)) this.#compareKey(place, key, newest, { replicas: known, inTime });
    }
  }

  #compareKey(place: Place, key: string, newest: Newest, { replicas, inTime }: Compared): void {
    const where = `${place.topic}-${place.partition}, key ${key}`;
    let lacksTombstone = false;
    let holdsValue: Newest | undefined;
    for (const { start, end, newest: found, records } of replicas) {
      if (newest.offset < start || newest.offset >= end) continue;
      const last = found.get(key);
      const older = records.findLast((each) => each.key === key && !each.newest.tombstone)?.newest;
      if (older !== undefined && older.offset >= start) holdsValue ??= older;
      if (last?.offset === newest.offset) {
        if (last.id !== newest.id) throw new Violation(`${where}: ${last.id} is at offset ${last.offset}, where ${newest.id} was`);
        continue;
      }
      if (newest.tombstone && last === undefined) lacksTombstone = true;
      else if (!this.#keyed.mayBeDeleted(`${place.number}/${key}`)) {
        throw new Violation(`${where}: a replica ends with ${describe(last)}, and not with ${describe(newest)}`);
      }
    }
    if (inTime && newest.tombstone && lacksTombstone && holdsValue !== undefined) {
      throw new Violation(`${where}: one replica has no tombstone ${describe(newest)} any more, another still has ${describe(holdsValue)}`);
    }
  }

  /** Once all is known: whoever walked saw the newest record of each key that stands below where the walk ended, or that it is deleted. */
  checkWalks(): void {
    for (const { place, start, end, newest: walked } of this.#walks) {
      for (const [key, newest] of this.#keyed.newestOf(place.number)) {
        if (newest.offset < start || newest.offset >= end) continue;
        const last = walked.get(key);
        if (last?.offset === newest.offset || (last === undefined && newest.tombstone)) continue;
        if (this.#keyed.mayBeDeleted(`${place.number}/${key}`)) continue;
        throw new Violation(
          `a reader of ${place.topic}-${place.partition} that changed replicas came to offset ${end} with ${describe(last)} for key ${key}, and not with ${describe(newest)}`,
        );
      }
    }
  }

  async #contents(environment: VirtualEnvironment, replica: Replica): Promise<Contents | undefined> {
    const { logStartOffset: start, nextOffset: end } = replica.log;
    const newest = new Map<string, Newest>();
    const records: Read[] = [];
    for (let position = start; position < end; ) {
      const read = await this.#read(environment, replica, position, end, 1 << 16);
      if (read === undefined || read === 'below the start') return undefined;
      for (const each of read.records) {
        newest.set(each.key, each.newest);
        records.push(each);
      }
      position = read.nextOffset;
    }
    this.gone += end - start - records.length;
    return { start, end, newest, records };
  }

  async #read(environment: VirtualEnvironment, { log }: Replica, from: number, until: number, maxBytes: number) {
    const late = sleep(environment, READ_MS).then(() => undefined);
    try {
      const run = await Promise.race([log.read(from, until, maxBytes), late]);
      if (run === undefined) return undefined;
      const records: Read[] = [];
      for (const chunk of run.chunks) {
        for (const batch of splitBatches(chunk)) {
          for (const { key, value, headers, offset } of decodeBatch(batch, { compression: new CompressionTable(), maxBytes: 1 << 20 })) {
            const id = text.decode(headers[0]?.value ?? undefined);
            if (offset >= from) records.push({ key: text.decode(key ?? undefined), newest: { id, offset, tombstone: value === null } });
          }
        }
      }
      run.release?.();
      // As a partition does for its readers.
      return { records, nextOffset: run.bytes === 0 ? until : run.nextOffset };
    } catch (error) {
      if (error instanceof FlotillaError && error.code === 'OFFSET_OUT_OF_RANGE') return 'below the start';
      return undefined;
    }
  }

  /** Of the members, as the newest configuration says that any of them knows: who was removed is read by nobody. */
  #replicasOf({ topic, partition }: Place): readonly Replica[] {
    const found: Replica[] = [];
    for (const { id, broker } of this.#cluster.machines) {
      if (broker === undefined || !this.#cluster.isUp(id)) continue;
      const image = [...(broker.metadata?.topics.values() ?? [])].find(({ name }) => name === topic);
      const generation = image?.partitions[partition]?.groupGeneration;
      if (image === undefined || generation === undefined) continue;
      const group = encodeGroupKey({ topicId: image.topicId, partition, groupGeneration: generation });
      for (const replica of broker.replicas) if (replica.group === group && replica.quarantined === undefined) found.push(replica);
    }
    const [newest] = [...found].sort((one, other) => other.configurationIndex - one.configurationIndex);
    const members = new Set(newest === undefined ? [] : membersOf(newest.configuration).map(({ replicaId }) => replicaId));
    return found.filter(({ replicaId }) => members.has(replicaId));
  }
}

interface Compared {
  readonly replicas: readonly Contents[];
  readonly inTime: boolean;
}

interface Contents {
  readonly start: number;
  readonly end: number;
  readonly newest: ReadonlyMap<string, Newest>;
  readonly records: readonly Read[];
}

function describe(newest: Newest | undefined): string {
  return newest === undefined ? 'nothing' : `${newest.tombstone ? 'the tombstone ' : ''}${newest.id} at offset ${newest.offset}`;
}

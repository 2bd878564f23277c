/** Gets damaged entries of a segment from the other replicas, one after the other, and has them written where they stood. */
import type { Logger } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { type BrokerId, formatGroupKey, type ReplicaId } from '../base/ids.ts';
import type { LogRepair } from '../storage/types.ts';
import { membersOf } from './core/configuration.ts';
import type { Entry } from './core/entry.ts';
import { entrySize } from './core/entry-codec.ts';
import type { Member } from './core/types.ts';
import type { RepairExchange } from './repair-exchange.ts';
import type { RaftReplica } from './replica.ts';

/** Bytes of entries that are written at once. */
const WRITE_BYTES = 8 << 20;

export interface RefetchOptions {
  readonly exchange: Pick<RepairExchange, 'ask'>;
  readonly isAlive: (broker: BrokerId) => boolean;
  readonly log: Logger;
}

/** A segment of the replica's log. */
export interface DamagedSegment {
  readonly replica: RaftReplica;
  readonly repair: LogRepair;
  readonly firstIndex: number;
}

export type Range = readonly [first: number, last: number];

/** Gone: not there any more, where all of them were asked. */
export type RefetchOutcome = 'repaired' | 'gone' | 'notNow';

export class Refetch {
  readonly #options: RefetchOptions;

  constructor(options: RefetchOptions) {
    this.#options = options;
  }

  async refetch(segment: DamagedSegment, range: Range): Promise<RefetchOutcome> {
    const { replica } = segment;
    const gone = new Set<ReplicaId>();
    const others = othersOf(replica);
    for (const peer of others) {
      if (!this.#options.isAlive(peer.brokerId)) continue;
      const outcome = await this.#from(peer, segment, range);
      if (replica.closed) return 'notNow';
      if (outcome === 'repaired') return 'repaired';
      if (outcome === 'gone') gone.add(peer.replicaId);
    }
    return others.length > 0 && gone.size === others.length ? 'gone' : 'notNow';
  }

  async #from(peer: Member, segment: DamagedSegment, [first, last]: Range): Promise<RefetchOutcome> {
    let entries: Entry[] = [];
    let bytes = 0;
    for (let next = first; next <= last; ) {
      const answer = await this.#options.exchange.ask(segment.replica, peer, next, last);
      if (answer?.entries[0] === undefined) return answer?.without ?? 'notNow';
      for (const entry of answer.entries) {
        entries.push(entry);
        bytes += entrySize(entry);
      }
      next += answer.entries.length;
      if (bytes < WRITE_BYTES && next <= last) continue;
      if (!(await this.#write(segment, peer.brokerId, entries, last))) return 'notNow';
      entries = [];
      bytes = 0;
    }
    return 'repaired';
  }

  async #write(
    { replica, repair, firstIndex }: DamagedSegment,
    from: BrokerId,
    entries: readonly Entry[],
    damagedTo: number,
  ): Promise<boolean> {
    const { log } = this.#options;
    const group = formatGroupKey(replica.group);
    try {
      await repair.write(firstIndex, entries, damagedTo);
    } catch (error) {
      log.warn('entries for repair not written', { group, from, error: messageOf(error) });
      return false;
    }
    log.info('entries repaired', { group, from, first: entries[0]?.index, entries: entries.length });
    return true;
  }
}

/** The leader first: it is sure to have what is committed. */
export function othersOf(replica: RaftReplica): Member[] {
  const others = membersOf(replica.core.configuration).filter(({ replicaId }) => replicaId !== replica.replicaId);
  const { leader } = replica.core;
  return others.sort((a, b) => Number(b.replicaId === leader) - Number(a.replicaId === leader));
}

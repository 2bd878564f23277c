/** What a directory must hold after a power cut: all that was acknowledged, whatever was under way. */
import { must } from '../../../src/base/assert.ts';
import type { GroupKey, ReplicaId } from '../../../src/base/ids.ts';
import { type Entry, EntryKind } from '../../../src/raft/core/entry.ts';
import { decodeLogStart } from '../../../src/storage/log-start.ts';
import type { BrokerStorage } from '../../../src/storage/storage.ts';
import type { PartitionLog } from '../../../src/storage/types.ts';
import { batchesIn, bytesOf, cleaned, fateOf, hex } from '../fixture.ts';

/** Of one replica, at one moment. */
export interface Acknowledged {
  readonly group: GroupKey;
  readonly replicaId: ReplicaId;
  /** From the first one on, also those that the log may have forgotten since. */
  readonly entries: readonly Entry[];
  readonly term: number;
  readonly vote: number;
  /** The furthest start that was asked for: what lies below may be gone. */
  readonly furthestStart: number;
  /** The last entry that was ever to be cleaned: up to it, segments may have what {@link fateOf} leaves. */
  readonly furthestCleaned: number;
}

export const LOG_SETTINGS = { segmentBytes: 6_000 };

/** Opens every replica and compares. @throws with what is missing. */
export async function verify(storage: BrokerStorage, promises: readonly Acknowledged[]): Promise<void> {
  for (const promise of promises) await verifyReplica(storage, promise);
}

async function verifyReplica(
  storage: BrokerStorage,
  { group, replicaId, entries, term, vote, furthestStart, furthestCleaned }: Acknowledged,
): Promise<void> {
  const { log, tail, whole, hardState } = await storage.openLog(group, LOG_SETTINGS, replicaId);
  require(whole, 'is not whole: it could not be elected');
  require(hardState.term >= term, `has forgotten term ${term}: it is in ${hardState.term}`);
  require(hardState.term > term || vote === 0 || hardState.vote === vote, `has forgotten its vote for ${vote} in term ${term}`);
  const first = log.firstReplicableIndex;
  require(entries
    .slice(0, first - 1)
    .every(
      ({ index, nextOffset }) => nextOffset <= furthestStart || index <= furthestCleaned,
    ), `begins at entry ${first}, which nobody asked for`);
  const found: Entry[] = [];
  while (first + found.length <= log.lastIndex) found.push(...(await log.readEntries(first + found.length, 50_000)));
  found.push(...tail);
  const [got, wanted] = [bytesOf(found), bytesOf(entries.slice(first - 1))];
  const missing = wanted.findIndex((entry, at) => got[at] !== entry);
  require(missing < 0, `has not entry ${first + missing} as it was acknowledged`);
  const start = startOf(entries.slice(0, log.lastIndex));
  require(log.logStartOffset >= start, `starts at offset ${log.logStartOffset}, and ${start} was acknowledged`);
  require(log.logStartOffset <= furthestStart, `starts at offset ${log.logStartOffset}, and ${furthestStart} was asked for`);
  const lost = await firstLost(log, entries);
  require(lost === undefined, `serves batch ${lost?.index} neither as it was nor as it will be`);

  function require(holds: boolean, what: string): void {
    must(holds || undefined, `a replica ${what}`, { group: Buffer.from(group, 'latin1').toString('hex'), replicaId });
  }
}

/** The first batch that a reader does not get: below where Raft's log starts it may be as a cleaning leaves it. */
async function firstLost(log: PartitionLog, entries: readonly Entry[]): Promise<Entry | undefined> {
  const read: Uint8Array[] = [];
  for (let offset = log.logStartOffset; offset < log.nextOffset; ) {
    const { chunks, nextOffset } = await log.read(offset, log.nextOffset, 50_000);
    if (nextOffset === offset) break;
    for (const chunk of chunks) read.push(...batchesIn(chunk).map((batch) => batch.slice()));
    offset = nextOffset;
  }
  let at = 0;
  const isBatch = ({ recordCount, nextOffset, index }: Entry) =>
    recordCount > 0 && nextOffset > log.logStartOffset && index <= log.lastIndex;
  return entries.filter(isBatch).find(({ index, payload, nextOffset, recordCount }) => {
    const stored = hex(read[at] ?? new Uint8Array(0));
    const left = index < log.firstReplicableIndex ? cleaned(payload, fateOf(nextOffset - recordCount)) : payload;
    if (stored === hex(payload) || (left !== undefined && stored === hex(left))) at++;
    else return left !== undefined;
    return false;
  });
}

export function startOf(entries: readonly Entry[]): number {
  return entries.reduce(
    (start, { kind, payload }) => (kind === EntryKind.setLogStart ? Math.max(start, decodeLogStart(payload)) : start),
    0,
  );
}

/**
 * Whether entries that a peer sent are those that this replica had: its own rows say so, or the chain that leads to them, or on from them
 * (docs/adr/0008). Nothing else is written where entries rotted.
 */
import { must } from '../base/assert.ts';
import { FlotillaError } from '../base/errors.ts';
import { continuesChain } from '../raft/core/append-check.ts';
import type { Entry } from '../raft/core/entry.ts';
import type { LogPosition } from '../raft/core/types.ts';
import { batchBaseOffsetAt, batchNextOffsetAt, type Checksums, isRecordBatch, payloadIntact } from './payload.ts';
import type { SegmentBase } from './segment-files.ts';
import type { IndexRow } from './segment-index.ts';

const NOTHING = new Uint8Array(0);

/** What this replica still has of them and around them, as far as it is whole. */
export interface Surroundings {
  /** Their own rows, by index. */
  readonly rows: ReadonlyMap<number, IndexRow>;
  readonly previous: LogPosition | undefined;
  readonly following: IndexRow | undefined;
  /** The segment behind theirs. */
  readonly next: SegmentBase | undefined;
  /** Where the log ends. */
  readonly end: LogPosition;
}

/** `entries`: consecutive. @throws CORRUPT_MESSAGE when one of them is not this replica's, or nothing tells. */
export function verifyOwn(entries: readonly Entry[], { rows, previous, following, next, end }: Surroundings, checksums: Checksums): void {
  const first = must(entries[0], 'there are entries');
  const last = must(entries.at(-1), 'there are entries');
  let before = previous;
  for (const entry of entries) {
    if (before !== undefined && !(before.index + 1 === entry.index && continuesChain(before, entry)))
      throw foreign(entry, 'what stands before it');
    if (!payloadIntact(entry, checksums) || !offsetsMatch(entry)) throw foreign(entry, 'its own checksum');
    before = entry;
  }
  const isEnd = last.index === end.index;
  if (following !== undefined && !continuesChain(last, { ...following, payload: NOTHING })) throw foreign(last, 'what stands behind it');
  if (isEnd && !sameChain(last, end)) throw foreign(last, 'the end of the log');
  if (next !== undefined && last.index === next.index - 1 && last.nextOffset !== next.offset) throw foreign(last, 'the next segment');
  const isAnchored = previous !== undefined || following !== undefined || isEnd;
  if (!isAnchored && !entries.some((entry) => isOwn(rows.get(entry.index), entry))) throw foreign(first, 'anything that is left here');
}

/** Whether the row is the entry's. */
export function isOwn(row: IndexRow | undefined, { header }: Entry): boolean {
  return row?.header.every((byte, at) => byte === header[at]) ?? false;
}

function sameChain(a: LogPosition, b: LogPosition): boolean {
  return a.chainHigh === b.chainHigh && a.chainLow === b.chainLow && a.nextOffset === b.nextOffset;
}

/** A batch's own checksum does not cover the offset that its leader stamped. */
function offsetsMatch(entry: Entry): boolean {
  if (!isRecordBatch(entry)) return true;
  const { payload, nextOffset, recordCount } = entry;
  return batchBaseOffsetAt(payload, 0) === nextOffset - recordCount && batchNextOffsetAt(payload, 0) === nextOffset;
}

function foreign({ index }: Entry, what: string): FlotillaError {
  return new FlotillaError('CORRUPT_MESSAGE', `entry ${index} that a peer sent does not match ${what}`);
}

/** What a follower checks of an append before it changes anything. */
import { type ChainResult, chainAfter } from './chain.ts';
import { decodeConfiguration } from './configuration.ts';
import { type Entry, EntryKind } from './entry.ts';
import type { AppendRequest, LogPosition } from './types.ts';

const chain: ChainResult = { chainHigh: 0, chainLow: 0 };

/** Logs with the same (index, term) are the same up to there (paper 5.3): the chain makes sure. */
export function continuesChain(previous: LogPosition, entry: Entry): boolean {
  chainAfter(previous, entry.index, entry.term, entry.kind, entry.payloadChecksum, chain);
  return (
    chain.chainHigh === entry.chainHigh && chain.chainLow === entry.chainLow && previous.nextOffset + entry.recordCount === entry.nextOffset
  );
}

/** False for what no correct leader sends. */
export function isWellFormed({
  prevIndex,
  prevTerm,
  term,
  entries,
}: Pick<AppendRequest, 'prevIndex' | 'prevTerm' | 'term' | 'entries'>): boolean {
  let index = prevIndex;
  let before = prevTerm;
  for (const entry of entries) {
    if (entry.index !== ++index || entry.term < before || entry.term > term) return false;
    before = entry.term;
    if (entry.kind === EntryKind.config && !isReadable(entry)) return false;
  }
  return prevTerm <= term;
}

function isReadable(entry: Entry): boolean {
  try {
    decodeConfiguration(entry.payload);
    return true;
  } catch {
    return false;
  }
}

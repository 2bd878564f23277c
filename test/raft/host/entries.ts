import { type Entry, EntryKind } from '../../../src/raft/core/entry.ts';
import { makeEntry } from '../../../src/raft/core/entry-codec.ts';

/** One-record batches after `prevIndex`. */
export function entriesAfter(prevIndex: number, atTerm: number, payloads: readonly Uint8Array[]): Entry[] {
  const entries: Entry[] = [];
  for (const payload of payloads) {
    const previous = entries.at(-1) ?? { chainHigh: 0, chainLow: 0, nextOffset: 7 };
    const at = prevIndex + entries.length + 1;
    const nextOffset = previous.nextOffset + 1;
    entries.push(
      makeEntry({ index: at, term: atTerm, kind: EntryKind.batch, nextOffset, recordCount: 1, payloadChecksum: 9, payload, previous }),
    );
  }
  return entries;
}

/**
 * The payload of a tombstoneFloor entry (offset-payload.ts): once it has committed, a cleaning removes tombstones below this offset. The leader decides it
 * when every voter has cleaned past it, and `delete.retention.ms` went by since: by then nobody can read what they delete.
 */
import { decodeOffset, encodeOffset } from './offset-payload.ts';

export function encodeTombstoneFloor(offset: number): Uint8Array {
  return encodeOffset(offset);
}

/** An unknown version stops the replica: it could remove what a reader of another one still needs. */
export function decodeTombstoneFloor(payload: Uint8Array): number {
  return decodeOffset(payload, 'the tombstone floor');
}

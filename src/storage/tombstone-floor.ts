/**
 * The payload of a tombstoneFloor entry: once it has committed, a cleaning removes tombstones below this offset. The leader decides it when every voter
 * has cleaned past it, and `delete.retention.ms` went by since: by then nobody can read what they delete. Big-endian, 16 bytes:
 *
 *    0  u8   version 1
 *    1  7 x  reserved, 0
 *    8  u64  floor
 */
import { assert } from '../base/assert.ts';
import { putUint64, readUint64 } from '../raft/core/entry-codec.ts';

const VERSION = 1;
const BYTES = 16;

export function encodeTombstoneFloor(offset: number): Uint8Array {
  const payload = new Uint8Array(BYTES);
  payload[0] = VERSION;
  putUint64(payload, 8, offset);
  return payload;
}

/** An unknown version stops the replica: it could remove what a reader of another one still needs. */
export function decodeTombstoneFloor(payload: Uint8Array): number {
  assert(payload.length === BYTES && payload[0] === VERSION, 'the tombstone floor is of a version that this release knows', payload);
  return readUint64(payload, 8);
}

/**
 * The payload of a setLogStart entry: the offset that readers start from once the entry has committed. The leader decides it, and every replica drops
 * what lies below as its own segments allow (hazard B36). Big-endian, 16 bytes:
 *
 *    0  u8   version 1
 *    1  7 x  reserved, 0
 *    8  u64  logStartOffset
 */
import { assert } from '../base/assert.ts';
import { putUint64, readUint64 } from '../raft/core/entry-codec.ts';

const VERSION = 1;
const BYTES = 16;

export function encodeLogStart(offset: number): Uint8Array {
  const payload = new Uint8Array(BYTES);
  payload[0] = VERSION;
  putUint64(payload, 8, offset);
  return payload;
}

/** An unknown version stops the replica: skipped, it would serve what the others have dropped. */
export function decodeLogStart(payload: Uint8Array): number {
  assert(payload.length === BYTES && payload[0] === VERSION, 'the start of the log is of a version that this release knows', payload);
  return readUint64(payload, 8);
}

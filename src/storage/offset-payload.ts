/**
 * The payload of an entry that says one offset and nothing else: log-start.ts, tombstone-floor.ts. Big-endian, 16 bytes:
 *
 *    0  u8   version 1
 *    1  7 x  reserved, 0
 *    8  u64  offset
 */
import { assert } from '../base/assert.ts';
import { putUint64, readUint64 } from '../raft/core/entry-codec.ts';

const VERSION = 1;
const BYTES = 16;

export function encodeOffset(offset: number): Uint8Array {
  const payload = new Uint8Array(BYTES);
  payload[0] = VERSION;
  putUint64(payload, 8, offset);
  return payload;
}

/** An unknown version stops the replica. `what` the offset is, for the message. */
export function decodeOffset(payload: Uint8Array, what: string): number {
  assert(payload.length === BYTES && payload[0] === VERSION, `${what} is of a version that this release knows`, payload);
  return readUint64(payload, 8);
}

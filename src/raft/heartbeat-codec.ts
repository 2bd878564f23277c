/**
 * A frame of the heartbeat lane: what one broker tells another each heartbeat interval, for itself and for the groups that they share.
 *
 * Layout (big-endian):
 *
 *   0  u8   magic 0xF8
 *   1  u8   version, 2
 *   2  u8   flags: 1 diskFresh, 2 wake, 4 the loop is late (loopFresh is false), 8 the disk is nearly full (hasRoom is false)
 *   3  u8   reserved, 0
 *   4  u32  number of messages
 *   8  u64  incarnation of the sending process
 *  16  u64  seq: 1 for the first heartbeat of an incarnation to this peer, then one more each
 *  24  u32  number of groups that the sender leads and holds at rest with the receiver
 *  28  u32  their hash (quiescence.ts)
 *  32  heartbeat and heartbeatResponse messages of groups that do not rest, laid out as in codec.ts
 *
 * Version 1, which is still read, ends its header at 24, and has no groups at rest.
 */
import { FlotillaError } from '../base/errors.ts';
import { encodedBytes, FrameReader, FrameWriter, type GroupMessage } from './codec.ts';
import type { Digest } from './quiescence.ts';

const HEARTBEAT_MAGIC = 0xf8;
const HEARTBEAT_VERSION = 2;
const HEADER_BYTES = 32;
const FLAG_DISK_FRESH = 1;
const FLAG_WAKE = 2;
const FLAG_LOOP_LATE = 4;
const FLAG_NO_ROOM = 8;

export interface NodeHeartbeat {
  /** Differs for each process that runs on a data directory. */
  readonly incarnation: number;
  readonly seq: number;
  /** No flush of the write-ahead log has been waiting for long (hazard B38). */
  readonly diskFresh: boolean;
  /** The event loop of the sender is not late. */
  readonly loopFresh: boolean;
  /** There is room for records on the disk of the sender (hazard B37). */
  readonly hasRoom: boolean;
  /** The groups that the receiver leads and holds at rest with the sender are to wake: the two differ about them (hazard B39). */
  readonly wake: boolean;
  /** The groups that the sender leads and holds at rest with the receiver. */
  readonly quiesced: Digest;
  /** Heartbeats and their responses, one at most of each a group. */
  readonly messages: readonly GroupMessage[];
}

export function encodeHeartbeat(heartbeat: NodeHeartbeat): Uint8Array {
  let size = HEADER_BYTES;
  for (const { message } of heartbeat.messages) size += encodedBytes(message);
  const writer = new FrameWriter(size);
  writer.u8(HEARTBEAT_MAGIC);
  writer.u8(HEARTBEAT_VERSION);
  const { diskFresh, loopFresh, hasRoom, wake } = heartbeat;
  writer.u8((diskFresh ? FLAG_DISK_FRESH : 0) | (wake ? FLAG_WAKE : 0) | (loopFresh ? 0 : FLAG_LOOP_LATE) | (hasRoom ? 0 : FLAG_NO_ROOM));
  writer.u8(0);
  writer.u32(heartbeat.messages.length);
  writer.u64(heartbeat.incarnation);
  writer.u64(heartbeat.seq);
  writer.u32(heartbeat.quiesced.count);
  writer.u32(heartbeat.quiesced.hash);
  for (const { group, message } of heartbeat.messages) writer.message(group, message);
  return writer.bytes;
}

/** @throws FlotillaError CORRUPT_MESSAGE for bytes that no broker of this version sends. */
export function decodeHeartbeat(frame: Uint8Array): NodeHeartbeat {
  const reader = new FrameReader(frame);
  if (reader.u8() !== HEARTBEAT_MAGIC) throw corrupt('it does not start as one');
  const version = reader.u8();
  if (version !== 1 && version !== HEARTBEAT_VERSION)
    throw corrupt(`its version is ${version}, this broker reads 1 and ${HEARTBEAT_VERSION}`);
  const flags = reader.u8();
  reader.zero(1);
  const count = reader.u32();
  const incarnation = reader.u64();
  const seq = reader.u64();
  const quiesced = version === 1 ? { count: 0, hash: 0 } : { count: reader.u32(), hash: reader.u32() };
  const messages = reader.messages(count);
  reader.end();
  if (messages.some(({ message }) => message.type !== 'heartbeat' && message.type !== 'heartbeatResponse')) {
    throw corrupt('it carries messages that belong to the raft lane');
  }
  return {
    incarnation,
    seq,
    diskFresh: (flags & FLAG_DISK_FRESH) !== 0,
    loopFresh: (flags & FLAG_LOOP_LATE) === 0,
    hasRoom: (flags & FLAG_NO_ROOM) === 0,
    wake: (flags & FLAG_WAKE) !== 0,
    quiesced,
    messages,
  };
}

function corrupt(what: string): FlotillaError {
  return new FlotillaError(
    'CORRUPT_MESSAGE',
    `dropped a heartbeat from a peer: ${what}. If this repeats, check that all brokers run the same version.`,
  );
}

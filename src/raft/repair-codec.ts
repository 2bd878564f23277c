/**
 * A frame of the bulk lane: entries that a replica asks another one for, since its own rotted, and the answer.
 *
 * Layout (big-endian):
 *
 *   0  u8   magic 0xFA
 *   1  u8   version, 1
 *   2  u8   type: 1 want, 2 give
 *   3  u8   give: 0 entries follow; 1 gone: they lie below this log's start; 2 not now: they are not committed or not readable here
 *   4  u32  number of entries that follow
 *   8  24   raftGroup
 *  32  u64  from (replica id)
 *  40  u64  to (replica id)
 *  48  u64  id of the request
 *  56  u64  first index
 *  64  u64  want: last index
 *  72  give: the entries as the log has them (core/entry.ts)
 *
 * Decoded entries are views into the frame.
 */
import { FlotillaError } from '../base/errors.ts';
import { GROUP_KEY_BYTES, type GroupKey, type ReplicaId } from '../base/ids.ts';
import type { Entry } from './core/entry.ts';
import { decodeEntry, entrySize, putUint32, putUint64, readUint32, readUint64 } from './core/entry-codec.ts';

export const REPAIR_MAGIC = 0xfa;
const VERSION = 1;
const HEADER_BYTES = 72;
const TYPES = ['want', 'give'] as const;
const REASONS = [undefined, 'gone', 'notNow'] as const;

interface Envelope {
  readonly group: GroupKey;
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  readonly id: number;
  readonly first: number;
}

export interface EntriesRequest extends Envelope {
  readonly type: 'want';
  readonly last: number;
}

export interface EntriesAnswer extends Envelope {
  readonly type: 'give';
  /** Consecutive, from `first` on, fewer than were asked for if those are many. */
  readonly entries: readonly Entry[];
  /** Why there are none. */
  readonly without: 'gone' | 'notNow' | undefined;
}

export type RepairMessage = EntriesRequest | EntriesAnswer;

/** The parts of a frame. */
export function encodeRepairMessage(message: RepairMessage): Uint8Array[] {
  const bytes = new Uint8Array(HEADER_BYTES);
  const entries = message.type === 'give' ? message.entries : [];
  bytes[0] = REPAIR_MAGIC;
  bytes[1] = VERSION;
  bytes[2] = 1 + TYPES.indexOf(message.type);
  bytes[3] = message.type === 'give' ? REASONS.indexOf(message.without) : 0;
  putUint32(bytes, 4, entries.length);
  for (let i = 0; i < GROUP_KEY_BYTES; i++) bytes[8 + i] = message.group.charCodeAt(i);
  putUint64(bytes, 32, message.from);
  putUint64(bytes, 40, message.to);
  putUint64(bytes, 48, message.id);
  putUint64(bytes, 56, message.first);
  putUint64(bytes, 64, message.type === 'want' ? message.last : 0);
  return [bytes, ...entries.flatMap(({ header, payload }) => [header, payload])];
}

/** @throws INVALID_REQUEST, or CORRUPT_MESSAGE for entries that are none. */
export function decodeRepairMessage(frame: Uint8Array): RepairMessage {
  const type = TYPES[(frame[2] ?? 0) - 1];
  if (frame.length < HEADER_BYTES || frame[1] !== VERSION || type === undefined) throw malformed('its head');
  let group = '';
  for (let i = 0; i < GROUP_KEY_BYTES; i++) group += String.fromCharCode(frame[8 + i] ?? 0);
  const ids = { from: readUint64(frame, 32) as ReplicaId, to: readUint64(frame, 40) as ReplicaId, id: readUint64(frame, 48) };
  const envelope = { group: group as GroupKey, ...ids, first: readUint64(frame, 56) };
  const entries: Entry[] = [];
  let at = HEADER_BYTES;
  for (let left = readUint32(frame, 4); left > 0; left--) {
    const entry = decodeEntry(frame, at);
    if (entry.index !== envelope.first + entries.length) throw malformed('the order of its entries');
    entries.push(entry);
    at += entrySize(entry);
  }
  if (at !== frame.length) throw malformed('its length');
  if (type === 'want') return { type, ...envelope, last: readUint64(frame, 64) };
  return { type, ...envelope, entries, without: REASONS[frame[3] ?? 0] };
}

function malformed(what: string): FlotillaError {
  return new FlotillaError(
    'INVALID_REQUEST',
    `a frame for the repair of a log is malformed: ${what}; the peer runs another version, or the network damages data`,
  );
}

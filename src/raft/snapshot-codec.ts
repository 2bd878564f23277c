/**
 * A frame of the bulk lane: one message of a snapshot's way from a replica to another.
 *
 * Layout (big-endian):
 *
 *   0  u8   magic 0xF9
 *   1  u8   version, 1
 *   2  u8   type: 1 offer, 2 pull, 3 chunk, 4 done, 5 gone
 *   3  u8   flags: pull 1: the puller has bytes with the checksum; chunk 1: so they are, nothing follows; done 1: failed
 *   4  u32  checksum, crc32 of a chunk's bytes, those sent or those the puller has; 0 elsewhere
 *   8  24   raftGroup
 *  32  u64  from (replica id)
 *  40  u64  to (replica id)
 *  48  u64  id of the snapshot, the sender's own
 *
 *   offer   u64 lastIndex, u32 lastTerm, u32 number of files; for each: u64 length, u8 length of the name, the name
 *   pull    u64 position, u32 file (its place in the offer), u32 length
 *   chunk   u64 position, u32 file, u32 length; then the bytes
 *   done    nothing
 *   gone    nothing: the snapshot can't be pulled any more
 *
 * The bytes of a decoded chunk are a view into the frame.
 */
import { must } from '../base/assert.ts';
import { FlotillaError } from '../base/errors.ts';
import { GROUP_KEY_BYTES, type GroupKey, type ReplicaId } from '../base/ids.ts';
import type { SnapshotFile } from '../storage/types.ts';

const MAGIC = 0xf9;
const VERSION = 1;
export const SNAPSHOT_HEADER_BYTES = 56;
const TYPES = ['offer', 'pull', 'chunk', 'done', 'gone'] as const;

interface Envelope {
  readonly group: GroupKey;
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  readonly id: number;
}

export interface ChunkName {
  /** Its place in the offer. */
  readonly file: number;
  readonly position: number;
  readonly length: number;
}

export interface SnapshotOffer extends Envelope {
  readonly type: 'offer';
  readonly lastIndex: number;
  readonly lastTerm: number;
  readonly files: readonly SnapshotFile[];
}

export interface SnapshotPull extends Envelope, ChunkName {
  readonly type: 'pull';
  /** Of what the puller has there already. */
  readonly checksum: number | undefined;
}

export interface SnapshotChunk extends Envelope, ChunkName {
  readonly type: 'chunk';
  readonly checksum: number;
  /** Undefined: what the puller has is the same. */
  readonly bytes: Uint8Array | undefined;
}

export interface SnapshotDone extends Envelope {
  readonly type: 'done';
  readonly failed: boolean;
}

export interface SnapshotGone extends Envelope {
  readonly type: 'gone';
}

export type SnapshotMessage = SnapshotOffer | SnapshotPull | SnapshotChunk | SnapshotDone | SnapshotGone;

/** The parts of a frame; a chunk's bytes stay where they are. */
export function encodeSnapshotMessage(message: SnapshotMessage): Uint8Array[] {
  const body = bodyOf(message);
  const bytes = new Uint8Array(SNAPSHOT_HEADER_BYTES + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, MAGIC);
  view.setUint8(1, VERSION);
  view.setUint8(2, 1 + TYPES.indexOf(message.type));
  view.setUint8(3, flagsOf(message));
  if (message.type === 'pull' || message.type === 'chunk') view.setUint32(4, message.checksum ?? 0);
  for (let i = 0; i < GROUP_KEY_BYTES; i++) bytes[8 + i] = message.group.charCodeAt(i);
  putUint64(view, 32, message.from);
  putUint64(view, 40, message.to);
  putUint64(view, 48, message.id);
  bytes.set(body, SNAPSHOT_HEADER_BYTES);
  return message.type === 'chunk' && message.bytes !== undefined ? [bytes, message.bytes] : [bytes];
}

/** @throws INVALID_REQUEST when it is none of these. */
export function decodeSnapshotMessage(frame: Uint8Array): SnapshotMessage {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (frame.length < SNAPSHOT_HEADER_BYTES || view.getUint8(0) !== MAGIC || view.getUint8(1) !== VERSION) throw malformed('its head');
  const type = TYPES[view.getUint8(2) - 1];
  const flag = view.getUint8(3) === 1;
  if (type === undefined || view.getUint8(3) > 1) throw malformed('its type');
  let group = '';
  for (let i = 0; i < GROUP_KEY_BYTES; i++) group += String.fromCharCode(view.getUint8(8 + i));
  const ids = { from: uint64(view, 32) as ReplicaId, to: uint64(view, 40) as ReplicaId, id: uint64(view, 48) };
  const envelope = { group: group as GroupKey, ...ids };
  if (type === 'offer') return { type, ...envelope, ...readOffer(frame, view) };
  if (type === 'done') return exact(frame, 0, { type, ...envelope, failed: flag });
  if (type === 'gone') return exact(frame, 0, { type, ...envelope });
  if (frame.length < SNAPSHOT_HEADER_BYTES + 16) throw malformed('its length');
  const name = { position: uint64(view, 56), file: view.getUint32(64), length: view.getUint32(68) };
  const checksum = view.getUint32(4);
  if (type === 'pull') return exact(frame, 16, { type, ...envelope, ...name, checksum: flag ? checksum : undefined });
  const bytes = flag ? undefined : frame.subarray(SNAPSHOT_HEADER_BYTES + 16);
  return exact(frame, 16 + (flag ? 0 : name.length), { type, ...envelope, ...name, checksum, bytes });
}

function flagsOf(message: SnapshotMessage): number {
  if (message.type === 'pull') return message.checksum === undefined ? 0 : 1;
  if (message.type === 'chunk') return message.bytes === undefined ? 1 : 0;
  return message.type === 'done' && message.failed ? 1 : 0;
}

function bodyOf(message: SnapshotMessage): Uint8Array {
  if (message.type === 'offer') return offerBody(message);
  if (message.type !== 'pull' && message.type !== 'chunk') return new Uint8Array(0);
  const body = new Uint8Array(16);
  const view = new DataView(body.buffer);
  putUint64(view, 0, message.position);
  view.setUint32(8, message.file);
  view.setUint32(12, message.length);
  return body;
}

function offerBody({ lastIndex, lastTerm, files }: SnapshotOffer): Uint8Array {
  const names = files.map(({ name }) => new TextEncoder().encode(name));
  const body = new Uint8Array(16 + names.reduce((bytes, name) => bytes + 9 + name.length, 0));
  const view = new DataView(body.buffer);
  putUint64(view, 0, lastIndex);
  view.setUint32(8, lastTerm);
  view.setUint32(12, files.length);
  let at = 16;
  for (const [i, name] of names.entries()) {
    putUint64(view, at, must(files[i], 'a file has a name').length);
    view.setUint8(at + 8, name.length);
    body.set(name, at + 9);
    at += 9 + name.length;
  }
  return body;
}

function readOffer(frame: Uint8Array, view: DataView): Pick<SnapshotOffer, 'lastIndex' | 'lastTerm' | 'files'> {
  let at = SNAPSHOT_HEADER_BYTES + 16;
  if (frame.length < at) throw malformed('its length');
  const files: SnapshotFile[] = [];
  for (let left = view.getUint32(68); left > 0; left--) {
    if (at + 9 > frame.length || at + 9 + view.getUint8(at + 8) > frame.length) throw malformed('its files');
    const end = at + 9 + view.getUint8(at + 8);
    files.push({ name: new TextDecoder().decode(frame.subarray(at + 9, end)), length: uint64(view, at) });
    at = end;
  }
  if (at !== frame.length) throw malformed('its length');
  return { lastIndex: uint64(view, 56), lastTerm: view.getUint32(64), files };
}

function exact<T extends SnapshotMessage>(frame: Uint8Array, bodyBytes: number, message: T): T {
  if (frame.length !== SNAPSHOT_HEADER_BYTES + bodyBytes) throw malformed('its length');
  return message;
}

function putUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value >>> 0);
}

function uint64(view: DataView, at: number): number {
  const value = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
  if (value > Number.MAX_SAFE_INTEGER) throw malformed('a number');
  return value;
}

function malformed(what: string): FlotillaError {
  return new FlotillaError(
    'INVALID_REQUEST',
    `a snapshot frame is malformed: ${what}; the peer runs another version, or the network damages data`,
  );
}

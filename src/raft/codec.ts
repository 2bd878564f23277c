/**
 * A frame of the raft lane: the Raft messages of many groups for one broker, one frame a turn of the host's loop.
 *
 * Layout (big-endian):
 *
 *   0  u8   magic 0xF7
 *   1  u8   version, 2; in version 1 a voteResponse has no body
 *   2  u16  reserved, 0
 *   4  u32  number of messages
 *   8  messages, back to back; nothing follows the last
 *
 * A message is an envelope of 48 bytes and a body:
 *
 *   0  24   raftGroup (topic id, partition, group generation)
 *  24  u8   type, {@link MessageType}
 *  25  u8   flags: 1 pre, 2 granted, 4 rejected, 8 transfer, 16 quiesce, 32 check, 64 verdict, 128 awake
 *  26  u16  reserved, 0
 *  28  u32  term
 *  32  u64  from (replica id)
 *  40  u64  to (replica id)
 *
 *   append             u64 prevIndex, u64 commit, u32 prevTerm, u32 number of entries; then the entries, each byte for byte
 *                      as the write-ahead log has it (raft/core/entry.ts): header of 48 bytes and payload
 *   appendResponse     u64 matchIndex, u64 rejectedIndex, u64 hintIndex, u32 hintTerm, u32 probation
 *   vote               u64 lastIndex, u32 lastTerm, u32 reserved
 *   voteResponse       u64 lastIndex, u32 lastTerm, u32 reserved
 *   heartbeat          u64 commit, u64 readContext
 *   heartbeatResponse  u64 readContext
 *                      both, with flag check: u64 index, u32 chainHigh, u32 chainLow
 *                      heartbeat, with flag over: u32 over, u32 reserved
 *   timeoutNow         nothing
 *   pull               u64 prevIndex, u32 prevTerm, u32 reserved
 *   pullResponse       u64 prevIndex, u64 lastIndex, u32 prevTerm, u32 lastTerm, u32 number of entries, u32 reserved; then the entries
 *
 * Encoding copies what is small; a large payload stays where it is, as a part of its own, and must not change until the frame has left. Decoding copies nothing: headers and payloads of
 * the decoded entries are views into the frame, which therefore must never change once it was handed over (hazard B42).
 * The transport carries frames whole; what a peer of another version or a fault made of them is checked here, field by field.
 */
import { unreachable } from '../base/assert.ts';
import { FlotillaError } from '../base/errors.ts';
import { GROUP_KEY_BYTES, type GroupKey, type ReplicaId } from '../base/ids.ts';
import { ENTRY_HEADER_BYTES, type Entry } from './core/entry.ts';
import { decodeEntry, entrySize } from './core/entry-codec.ts';
import type { AppendRequest, LogCheck, Message, PullResponse } from './core/types.ts';

/** A turn's messages to one peer beyond this many bytes are split over several frames. One message is never split. */
export const MAX_FRAME_BYTES = 1024 * 1024;
export const FRAME_HEADER_BYTES = 8;
export const ENVELOPE_BYTES = 48;
/** From here on a payload is a part of its own: a part costs as much as to copy about so many bytes. */
const PART_BYTES = 2048;

const FRAME_MAGIC = 0xf7;
const FRAME_VERSION = 2;
const MAX_TERM = 2 ** 31 - 1;

export const MessageType = {
  append: 0,
  appendResponse: 1,
  vote: 2,
  voteResponse: 3,
  heartbeat: 4,
  heartbeatResponse: 5,
  timeoutNow: 6,
  pull: 7,
  pullResponse: 8,
} as const satisfies Record<Message['type'], number>;

const bodyBytes = [24, 32, 16, 16, 16, 8, 0, 16, 32] as const;

const Flag = { pre: 1, over: 1, granted: 2, rejected: 4, transfer: 8, quiesce: 16, check: 32, verdict: 64, awake: 128 } as const;
const CHECK_BYTES = 16;
const OVER_BYTES = 8;

/** A message and the group that it is of. */
export interface GroupMessage {
  readonly group: GroupKey;
  readonly message: Message;
}

export function encodedBytes(message: Message): number {
  let bytes = ENVELOPE_BYTES + (bodyBytes[MessageType[message.type]] ?? 0);
  for (const entry of entriesOf(message)) bytes += entrySize(entry);
  if ((message.type === 'heartbeat' || message.type === 'heartbeatResponse') && message.check !== undefined) bytes += CHECK_BYTES;
  if (message.type === 'heartbeat' && message.over > 0) bytes += OVER_BYTES;
  return bytes;
}

const NO_LOG_END = { lastIndex: 0, lastTerm: 0 };
const NO_ENTRIES: readonly Entry[] = [];

function entriesOf(message: Message): readonly Entry[] {
  return message.type === 'append' || message.type === 'pullResponse' ? message.entries : NO_ENTRIES;
}

/** Parts that leave back to back. */
export type EncodedFrame = readonly Uint8Array[];

/** Frames with all the messages in their order, each of at most `maxBytes` unless a single message is longer. */
export function encodeFrames(messages: readonly GroupMessage[], maxBytes: number = MAX_FRAME_BYTES): EncodedFrame[] {
  const frames: EncodedFrame[] = [];
  let from = 0;
  let bytes = FRAME_HEADER_BYTES;
  messages.forEach(({ message }, at) => {
    const size = encodedBytes(message);
    if (at > from && bytes + size > maxBytes) {
      frames.push(encodeFrame(messages, from, at, bytes));
      from = at;
      bytes = FRAME_HEADER_BYTES;
    }
    bytes += size;
  });
  if (messages.length > from) frames.push(encodeFrame(messages, from, messages.length, bytes));
  return frames;
}

function encodeFrame(messages: readonly GroupMessage[], from: number, to: number, bytes: number): EncodedFrame {
  const writer = new FrameWriter(bytes - partBytes(messages, from, to));
  writer.u8(FRAME_MAGIC);
  writer.u8(FRAME_VERSION);
  writer.u16(0);
  writer.u32(to - from);
  for (let at = from; at < to; at++) {
    const item = messages[at];
    if (item !== undefined) writer.message(item.group, item.message);
  }
  return writer.parts();
}

/** Bytes of the payloads that are not copied. */
function partBytes(messages: readonly GroupMessage[], from: number, to: number): number {
  let bytes = 0;
  for (let at = from; at < to; at++) {
    const message = messages[at]?.message;
    if (message === undefined) continue;
    for (const { payload } of entriesOf(message)) if (payload.length >= PART_BYTES) bytes += payload.length;
  }
  return bytes;
}

/**
 * The messages of a frame. Entries are views into it.
 * @throws FlotillaError CORRUPT_MESSAGE, or UNSUPPORTED_VERSION for an entry of a newer release; nothing of such a frame is used.
 */
export function decodeFrame(frame: Uint8Array): GroupMessage[] {
  const reader = new FrameReader(frame);
  if (reader.u8() !== FRAME_MAGIC) throw corrupt('it does not start as a raft frame');
  const version = reader.u8();
  if (version < 1 || version > FRAME_VERSION) throw corrupt(`its version is ${version}, this broker reads ${FRAME_VERSION}`);
  reader.zero(2);
  const messages = reader.messages(reader.u32(), version);
  reader.end();
  return messages;
}

/** Writes the fields above into a buffer that has room for all but the large payloads. */
export class FrameWriter {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;
  readonly #parts: Uint8Array[] = [];
  /** Up to here the bytes are in parts. */
  #parted = 0;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.#view = new DataView(this.bytes.buffer);
  }

  u8(value: number): void {
    this.#view.setUint8(this.#at, value);
    this.#at += 1;
  }

  u16(value: number): void {
    this.#view.setUint16(this.#at, value);
    this.#at += 2;
  }

  u32(value: number): void {
    this.#view.setUint32(this.#at, value);
    this.#at += 4;
  }

  u64(value: number): void {
    this.#view.setUint32(this.#at, Math.floor(value / 2 ** 32));
    this.#view.setUint32(this.#at + 4, value >>> 0);
    this.#at += 8;
  }

  message(group: GroupKey, message: Message): void {
    for (let i = 0; i < GROUP_KEY_BYTES; i++) this.bytes[this.#at + i] = group.charCodeAt(i);
    this.#at += GROUP_KEY_BYTES;
    this.u8(MessageType[message.type]);
    this.u8(flagsOf(message));
    this.u16(0);
    this.u32(message.term);
    this.u64(message.from);
    this.u64(message.to);
    this.#body(message);
  }

  /** All that was written, in the order of writing. */
  parts(): readonly Uint8Array[] {
    this.#closePart();
    return this.#parts;
  }

  #payload(payload: Uint8Array): void {
    if (payload.length < PART_BYTES) {
      this.bytes.set(payload, this.#at);
      this.#at += payload.length;
      return;
    }
    this.#closePart();
    this.#parts.push(payload);
  }

  #closePart(): void {
    if (this.#at > this.#parted) this.#parts.push(this.bytes.subarray(this.#parted, this.#at));
    this.#parted = this.#at;
  }

  #body(message: Message): void {
    switch (message.type) {
      case 'append':
        this.#append(message);
        break;
      case 'appendResponse':
        this.u64(message.matchIndex);
        this.u64(message.rejectedIndex);
        this.u64(message.hintIndex);
        this.u32(message.hintTerm);
        this.u32(message.probation);
        break;
      case 'vote':
        this.u64(message.lastIndex);
        this.u32(message.lastTerm);
        this.u32(0);
        break;
      case 'heartbeat':
        this.u64(message.commit);
        this.u64(message.readContext);
        this.#check(message.check);
        if (message.over > 0) {
          this.u32(message.over);
          this.u32(0);
        }
        break;
      case 'heartbeatResponse':
        this.u64(message.readContext);
        this.#check(message.check);
        break;
      case 'voteResponse':
        this.u64(message.lastIndex);
        this.u32(message.lastTerm);
        this.u32(0);
        break;
      case 'pull':
        this.u64(message.prevIndex);
        this.u32(message.prevTerm);
        this.u32(0);
        break;
      case 'pullResponse':
        this.#pullResponse(message);
        break;
      case 'timeoutNow':
        break;
      default:
        unreachable(message);
    }
  }

  #check(check: LogCheck | undefined): void {
    if (check === undefined) return;
    this.u64(check.index);
    this.u32(check.chainHigh);
    this.u32(check.chainLow);
  }

  #append(message: AppendRequest): void {
    this.u64(message.prevIndex);
    this.u64(message.commit);
    this.u32(message.prevTerm);
    this.u32(message.entries.length);
    this.#entries(message.entries);
  }

  #pullResponse(message: PullResponse): void {
    this.u64(message.prevIndex);
    this.u64(message.lastIndex);
    this.u32(message.prevTerm);
    this.u32(message.lastTerm);
    this.u32(message.entries.length);
    this.u32(0);
    this.#entries(message.entries);
  }

  #entries(entries: readonly Entry[]): void {
    for (const entry of entries) {
      this.bytes.set(entry.header, this.#at);
      this.#at += ENTRY_HEADER_BYTES;
      this.#payload(entry.payload);
    }
  }
}

function flagsOf(message: Message): number {
  switch (message.type) {
    case 'vote':
      return (message.pre ? Flag.pre : 0) | (message.transfer ? Flag.transfer : 0);
    case 'voteResponse':
      return (message.pre ? Flag.pre : 0) | (message.granted ? Flag.granted : 0);
    case 'appendResponse':
      return message.rejected ? Flag.rejected : 0;
    case 'heartbeat':
      return (
        (message.quiesce ? Flag.quiesce : 0) |
        (message.verdict ? Flag.verdict : 0) |
        (message.check === undefined ? 0 : Flag.check) |
        (message.over === 0 ? 0 : Flag.over)
      );
    case 'heartbeatResponse':
      return (message.awake ? Flag.awake : 0) | (message.check === undefined ? 0 : Flag.check);
    default:
      return 0;
  }
}

/** Reads the same fields; every read is checked against the frame's end. */
export class FrameReader {
  readonly #frame: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(frame: Uint8Array) {
    this.#frame = frame;
    this.#view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  }

  get remaining(): number {
    return this.#frame.length - this.#at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4));
  }

  u64(): number {
    const at = this.#take(8);
    const high = this.#view.getUint32(at);
    if (high >= 2 ** 21) throw corrupt('a number in it is above 2^53 - 1');
    return high * 2 ** 32 + this.#view.getUint32(at + 4);
  }

  term(): number {
    const term = this.u32();
    if (term > MAX_TERM) throw corrupt('a term in it is above 2^31 - 1');
    return term;
  }

  /** Reserved bytes, so that a later version may give them a meaning. */
  zero(count: number): void {
    for (let i = 0; i < count; i++) if (this.u8() !== 0) throw corrupt('reserved bytes in it are set');
  }

  end(): void {
    if (this.remaining !== 0) throw corrupt(`${this.remaining} bytes follow its last message`);
  }

  messages(count: number, version = FRAME_VERSION): GroupMessage[] {
    if (count * ENVELOPE_BYTES > this.remaining) throw corrupt(`it states ${count} messages in ${this.remaining} bytes`);
    const messages: GroupMessage[] = [];
    for (let i = 0; i < count; i++) {
      const at = this.#take(GROUP_KEY_BYTES);
      const group = String.fromCharCode(...this.#frame.subarray(at, at + GROUP_KEY_BYTES)) as GroupKey;
      messages.push({ group, message: this.#message(version) });
    }
    return messages;
  }

  #message(version: number): Message {
    const type = this.u8();
    const flags = this.u8();
    this.zero(2);
    const term = this.term();
    const from = this.u64() as ReplicaId;
    const to = this.u64() as ReplicaId;
    if (from === 0 || to === 0) throw corrupt('a message in it has no sender or receiver');
    const pre = (flags & Flag.pre) !== 0;
    switch (type) {
      case MessageType.append:
        return this.#append(from, to, term);
      case MessageType.appendResponse: {
        const rejected = (flags & Flag.rejected) !== 0;
        const matchIndex = this.u64();
        const rejectedIndex = this.u64();
        const hintIndex = this.u64();
        const hintTerm = this.term();
        const probation = this.u32();
        return { type: 'appendResponse', from, to, term, rejected, matchIndex, rejectedIndex, hintIndex, hintTerm, probation };
      }
      case MessageType.vote: {
        return { type: 'vote', from, to, term, pre, ...this.#logEnd(), transfer: (flags & Flag.transfer) !== 0 };
      }
      case MessageType.voteResponse: {
        const end = version === 1 ? NO_LOG_END : this.#logEnd();
        return { type: 'voteResponse', from, to, term, pre, granted: (flags & Flag.granted) !== 0, ...end };
      }
      case MessageType.heartbeat:
        return {
          type: 'heartbeat',
          from,
          to,
          term,
          commit: this.u64(),
          readContext: this.u64(),
          quiesce: (flags & Flag.quiesce) !== 0,
          check: this.#check(flags),
          verdict: (flags & Flag.verdict) !== 0,
          over: this.#over(flags),
        };
      case MessageType.heartbeatResponse:
        return {
          type: 'heartbeatResponse',
          from,
          to,
          term,
          readContext: this.u64(),
          awake: (flags & Flag.awake) !== 0,
          check: this.#check(flags),
        };
      case MessageType.timeoutNow:
        return { type: 'timeoutNow', from, to, term };
      case MessageType.pull: {
        const prevIndex = this.u64();
        const prevTerm = this.term();
        this.zero(4);
        return { type: 'pull', from, to, term, prevIndex, prevTerm };
      }
      case MessageType.pullResponse:
        return this.#pullResponse(from, to, term);
      default:
        throw corrupt(`it has a message of the unknown type ${type}`);
    }
  }

  #check(flags: number): LogCheck | undefined {
    return (flags & Flag.check) === 0 ? undefined : { index: this.u64(), chainHigh: this.u32(), chainLow: this.u32() };
  }

  #over(flags: number): number {
    if ((flags & Flag.over) === 0) return 0;
    const over = this.u32();
    this.zero(4);
    return over;
  }

  #logEnd(): { readonly lastIndex: number; readonly lastTerm: number } {
    const lastIndex = this.u64();
    const lastTerm = this.term();
    this.zero(4);
    return { lastIndex, lastTerm };
  }

  #append(from: ReplicaId, to: ReplicaId, term: number): AppendRequest {
    const prevIndex = this.u64();
    const commit = this.u64();
    const prevTerm = this.term();
    const entries = this.#entries(prevIndex, prevTerm, term, this.u32());
    return { type: 'append', from, to, term, prevIndex, prevTerm, commit, entries };
  }

  #pullResponse(from: ReplicaId, to: ReplicaId, term: number): PullResponse {
    const prevIndex = this.u64();
    const lastIndex = this.u64();
    const prevTerm = this.term();
    const lastTerm = this.term();
    const count = this.u32();
    this.zero(4);
    const entries = this.#entries(prevIndex, prevTerm, term, count);
    return { type: 'pullResponse', from, to, term, prevIndex, prevTerm, entries, lastIndex, lastTerm };
  }

  #entries(prevIndex: number, prevTerm: number, term: number, count: number): Entry[] {
    if (prevTerm > term) throw corrupt('an append in it follows an entry of a later term');
    if (count * ENTRY_HEADER_BYTES > this.remaining) throw corrupt(`it states ${count} entries in ${this.remaining} bytes`);
    const entries: Entry[] = [];
    let previousTerm = prevTerm;
    for (let i = 1; i <= count; i++) {
      const entry = this.#entry();
      if (entry.index !== prevIndex + i || entry.term < previousTerm || entry.term > term) {
        throw corrupt('the entries of an append in it do not follow each other');
      }
      previousTerm = entry.term;
      entries.push(entry);
    }
    return entries;
  }

  #entry(): Entry {
    const entry = decodeEntry(this.#frame, this.#at);
    this.#take(ENTRY_HEADER_BYTES + entry.payload.length);
    return entry;
  }

  #take(bytes: number): number {
    const at = this.#at;
    if (bytes > this.remaining) throw corrupt(`it ends ${bytes - this.remaining} bytes early`);
    this.#at = at + bytes;
    return at;
  }
}

function corrupt(what: string): FlotillaError {
  return new FlotillaError(
    'CORRUPT_MESSAGE',
    `dropped a frame from a peer: ${what}. If this repeats, check that all brokers run the same version.`,
  );
}

/**
 * Kafka's varints (org.apache.kafka.common.utils.ByteUtils): zigzag, then 7 bits a byte, low bits first, as in protocol buffers.
 * `varint` is 32 bits in at most 5 bytes, `varlong` 64 bits in at most 10; here a varlong must be a safe integer, which every
 * timestamp and offset is.
 */
import { FlotillaError } from '../base/errors.ts';

const MAX_VARINT_BYTES = 5;
const MAX_VARLONG_BYTES = 10;

export function varintSize(value: number): number {
  const zigzag = ((value << 1) ^ (value >> 31)) >>> 0;
  if (zigzag < 0x80) return 1;
  if (zigzag < 0x4000) return 2;
  if (zigzag < 0x200000) return 3;
  return zigzag < 0x10000000 ? 4 : 5;
}

/** Writes `value`, a 32-bit signed integer; returns the position after it. */
export function writeVarint(bytes: Uint8Array, at: number, value: number): number {
  let zigzag = ((value << 1) ^ (value >> 31)) >>> 0;
  let position = at;
  while (zigzag >= 0x80) {
    bytes[position++] = zigzag | 0x80;
    zigzag >>>= 7;
  }
  bytes[position++] = zigzag;
  return position;
}

export function varlongSize(value: number): number {
  if (fitsVarint(value)) return varintSize(value);
  let zigzag = zigzagOf(value);
  let size = 1;
  for (; zigzag >= 0x80n; zigzag >>= 7n) size++;
  return size;
}

/** Writes `value`, a safe integer; returns the position after it. */
export function writeVarlong(bytes: Uint8Array, at: number, value: number): number {
  if (fitsVarint(value)) return writeVarint(bytes, at, value);
  let zigzag = zigzagOf(value);
  let position = at;
  for (; zigzag >= 0x80n; zigzag >>= 7n) bytes[position++] = Number(zigzag & 0x7fn) | 0x80;
  bytes[position++] = Number(zigzag);
  return position;
}

function fitsVarint(value: number): boolean {
  return value === (value | 0);
}

/** A bigint only beyond 32 bits: the zigzag of a safe integer may need 54. */
function zigzagOf(value: number): bigint {
  return value < 0 ? BigInt(value) * -2n - 1n : BigInt(value) * 2n;
}

/** Reads forward through bytes that nobody vouches for: every read is bounded and throws INVALID_RECORD past the end. */
export class ByteReader {
  readonly bytes: Uint8Array;
  readonly end: number;
  position: number;

  constructor(bytes: Uint8Array, position: number, end: number) {
    this.bytes = bytes;
    this.position = position;
    this.end = end;
  }

  byte(): number {
    if (this.position >= this.end) throw truncated();
    return this.bytes[this.position++] as number;
  }

  varint(): number {
    const first = this.byte();
    if (first < 0x80) return (first >>> 1) ^ -(first & 1);
    let zigzag = first & 0x7f;
    for (let i = 1; i < MAX_VARINT_BYTES; i++) {
      const byte = this.byte();
      zigzag |= (byte & 0x7f) << (7 * i);
      if (byte < 0x80) {
        if (i === MAX_VARINT_BYTES - 1 && byte > 0x0f) break;
        return (zigzag >>> 1) ^ -(zigzag & 1);
      }
    }
    throw new FlotillaError('INVALID_RECORD', 'A number in a record is longer than 32 bits.');
  }

  varlong(): number {
    const start = this.position;
    const first = this.byte();
    if (first < 0x80) return (first >>> 1) ^ -(first & 1);
    let low = first & 0x7f;
    for (let i = 1; i < 4; i++) {
      const byte = this.byte();
      low |= (byte & 0x7f) << (7 * i);
      if (byte < 0x80) return (low >>> 1) ^ -(low & 1);
    }
    this.position = start;
    return this.longVarlong();
  }

  /** Beyond 28 bits: rare, so a bigint does no harm. */
  private longVarlong(): number {
    let zigzag = 0n;
    for (let i = 0; i < MAX_VARLONG_BYTES; i++) {
      const byte = this.byte();
      zigzag |= BigInt(byte & 0x7f) << BigInt(7 * i);
      if (byte < 0x80) {
        const value = Number((zigzag >> 1n) ^ -(zigzag & 1n));
        if (!Number.isSafeInteger(value)) break;
        return value;
      }
    }
    throw new FlotillaError('INVALID_RECORD', 'A number in a record is beyond 2^53.');
  }

  /** The next `length` bytes as a view. */
  take(length: number): Uint8Array {
    const start = this.position;
    if (length < 0 || length > this.end - start) throw truncated();
    this.position = start + length;
    return new Uint8Array(this.bytes.buffer, this.bytes.byteOffset + start, length);
  }
}

function truncated(): FlotillaError {
  return new FlotillaError('INVALID_RECORD', 'A record ends past its batch: the producer that built it is at fault.');
}

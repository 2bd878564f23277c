/**
 * The bytes of a replicated state machine's commands. One entry's payload is the records of one operation, back to back:
 *
 *   u16 type, u8 version, u32 length, body of `length` bytes
 *
 * Fixed integers are big-endian. In bodies: `varint` is LEB128 of an unsigned integer up to 2^53 - 1; `string` is a varint
 * of its UTF-8 bytes, then those; `uuid` is 16 bytes (32 lower-case hex digits in memory).
 */

import { assert, must } from '../base/assert.ts';
import { hex } from '../base/bytes.ts';

/** A record as it stands in an entry. */
export interface RawRecord {
  readonly type: number;
  readonly version: number;
  readonly body: Uint8Array;
}

/** One kind of record or image of a state machine, to bytes and back. Decoding is total: bad bytes throw, they never pass. */
export interface RecordCodec<R> {
  encode(record: R): RawRecord;
  /** Throws {@link UnknownRecordError} for a type or version that this build does not know. */
  decode(raw: RawRecord): R;
}

/** A committed record that this build can't read. The replica stops: skipping it would make this replica's state differ from the others'. */
export class UnknownRecordError extends Error {
  override readonly name = 'UnknownRecordError';
  constructor(type: number, version: number) {
    super(
      `unknown record type ${type} version ${version}: this broker is older than the cluster's feature level; upgrade it and start it again`,
    );
  }
}

/** Bytes that end early or don't parse: damage, or a defect of the writer. */
export class MalformedRecordError extends Error {
  override readonly name = 'MalformedRecordError';
}

const HEADER_BYTES = 7;
const textEncoder = new TextEncoder();
const textDecoder = new TextDecoder('utf-8', { fatal: true });

/** The payload of one operation's entry. */
export function encodeRecords<R>(codec: RecordCodec<R>, records: readonly R[]): Uint8Array {
  const writer = new ByteWriter();
  for (const record of records) {
    const { type, version, body } = codec.encode(record);
    writer.u16(type).u8(version).u32(body.length).bytes(body);
  }
  return writer.finish();
}

export function decodeRecords<R>(codec: RecordCodec<R>, payload: Uint8Array): R[] {
  const reader = new ByteReader(payload);
  const records: R[] = [];
  while (reader.remaining > 0) {
    if (reader.remaining < HEADER_BYTES) throw new MalformedRecordError(`${reader.remaining} bytes are too few for a record's header`);
    const type = reader.u16();
    const version = reader.u8();
    records.push(codec.decode({ type, version, body: reader.bytes(reader.u32()) }));
  }
  return records;
}

/** Appends to a growing buffer. */
export class ByteWriter {
  #buffer = new Uint8Array(256);
  #length = 0;

  u8(value: number): this {
    this.#reserve(1);
    this.#buffer[this.#length++] = value;
    return this;
  }

  u16(value: number): this {
    return this.u8(value >>> 8).u8(value);
  }

  u32(value: number): this {
    return this.u16(value >>> 16).u16(value);
  }

  varint(value: number): this {
    assert(Number.isSafeInteger(value) && value >= 0, 'a varint is an unsigned safe integer', value);
    let rest = value;
    while (rest >= 0x80) {
      this.u8((rest % 0x80) | 0x80);
      rest = Math.floor(rest / 0x80);
    }
    return this.u8(rest);
  }

  string(text: string): this {
    const bytes = textEncoder.encode(text);
    return this.varint(bytes.length).bytes(bytes);
  }

  uuid(hex: string): this {
    assert(hex.length === 32, 'a UUID is 32 hex digits', hex);
    for (let i = 0; i < 32; i += 2) this.u8(Number.parseInt(hex.slice(i, i + 2), 16));
    return this;
  }

  /** A map in key order, so that equal maps have equal bytes. */
  strings(map: ReadonlyMap<string, string>): this {
    this.varint(map.size);
    for (const key of [...map.keys()].sort()) this.string(key).string(must(map.get(key), 'key of the map', key));
    return this;
  }

  bytes(bytes: Uint8Array): this {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  finish(): Uint8Array {
    return this.#buffer.slice(0, this.#length);
  }

  #reserve(more: number): void {
    const needed = this.#length + more;
    if (needed <= this.#buffer.length) return;
    const larger = new Uint8Array(Math.max(needed, this.#buffer.length * 2));
    larger.set(this.#buffer);
    this.#buffer = larger;
  }
}

/** Reads what {@link ByteWriter} wrote; throws {@link MalformedRecordError} past the end. */
export class ByteReader {
  readonly #buffer: Uint8Array;
  #at = 0;

  constructor(buffer: Uint8Array) {
    this.#buffer = buffer;
  }

  get remaining(): number {
    return this.#buffer.length - this.#at;
  }

  u8(): number {
    const byte = this.#buffer[this.#at];
    if (byte === undefined) throw new MalformedRecordError(`ends after ${this.#buffer.length} bytes`);
    this.#at++;
    return byte;
  }

  u16(): number {
    return this.u8() * 0x100 + this.u8();
  }

  u32(): number {
    return this.u16() * 0x10000 + this.u16();
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (let read = 0; read < 8; read++) {
      const byte = this.u8();
      value += (byte & 0x7f) * scale;
      if (!Number.isSafeInteger(value)) break;
      if (byte < 0x80) return value;
      scale *= 0x80;
    }
    throw new MalformedRecordError('a varint above 2^53 - 1');
  }

  string(): string {
    try {
      return textDecoder.decode(this.bytes(this.varint()));
    } catch (error) {
      if (error instanceof MalformedRecordError) throw error;
      throw new MalformedRecordError('a string that is not UTF-8');
    }
  }

  uuid(): string {
    return hex(this.bytes(16));
  }

  strings(): Map<string, string> {
    const map = new Map<string, string>();
    for (let left = this.count(2); left > 0; left--) map.set(this.string(), this.string());
    return map;
  }

  /** A number of items that take at least `itemBytes` each: checked against what is left, so that damage can't ask for endless memory. */
  count(itemBytes: number): number {
    const count = this.varint();
    if (count * itemBytes > this.remaining) throw new MalformedRecordError(`${count} items in ${this.remaining} bytes`);
    return count;
  }

  bytes(length: number): Uint8Array {
    if (length > this.remaining) throw new MalformedRecordError(`${length} bytes wanted, ${this.remaining} left`);
    this.#at += length;
    return this.#buffer.subarray(this.#at - length, this.#at);
  }

  end(): void {
    if (this.remaining > 0) throw new MalformedRecordError(`${this.remaining} bytes after the end`);
  }
}

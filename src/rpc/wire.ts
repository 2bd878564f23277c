/** Protocol buffers' wire format (https://protobuf.dev/programming-guides/encoding), as far as the messages written by hand need it. */

export const VARINT = 0;
export const LENGTH_DELIMITED = 2;
/** No tag: {@link FieldReader.tag} at the end of a message. */
export const END = -1;

/** A tag (fields up to 15) and a length up to 2^32. */
const ITEM_PREFIX_BYTES = 6;
const TWO_TO_THE_32 = 2 ** 32;
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);

/**
 * Writes messages whose one repeated field, number 1, holds items of small fields and at most one payload. The small fields of all items
 * stand in one buffer; payloads stay where they are.
 */
export class ItemWriter {
  readonly parts: Uint8Array[] = [];
  private readonly bytes: Uint8Array;
  private position = 0;
  private fieldsAt = 0;

  /** `itemBytes` bounds the small fields of one item. */
  constructor(items: number, itemBytes: number) {
    this.bytes = new Uint8Array(items * (itemBytes + ITEM_PREFIX_BYTES));
  }

  begin(): void {
    this.fieldsAt = this.position + ITEM_PREFIX_BYTES;
    this.position = this.fieldsAt;
  }

  uint32(field: number, value: number): void {
    if (value === 0) return;
    this.bytes[this.position++] = (field << 3) | VARINT;
    this.varint(value >>> 0);
  }

  /** Enumerations too. */
  int32(field: number, value: number): void {
    if (value === 0) return;
    this.bytes[this.position++] = (field << 3) | VARINT;
    if (value > 0) this.varint(value);
    else this.large(BigInt(value));
  }

  int64(field: number, value: bigint): void {
    if (value === 0n) return;
    this.bytes[this.position++] = (field << 3) | VARINT;
    if (value > 0n && value <= MAX_SAFE) this.varint(Number(value));
    else this.large(value);
  }

  /** Short bytes, copied. */
  bytesField(field: number, value: Uint8Array): void {
    if (value.length === 0) return;
    this.bytes[this.position++] = (field << 3) | LENGTH_DELIMITED;
    this.varint(value.length);
    this.bytes.set(value, this.position);
    this.position += value.length;
  }

  /** Ends the item. The payload, when it has one, is its last field. */
  end(payloadField: number, payload: Uint8Array | undefined): void {
    if (payload !== undefined && payload.length > 0) {
      this.bytes[this.position++] = (payloadField << 3) | LENGTH_DELIMITED;
      this.varint(payload.length);
    }
    const end = this.position;
    const length = end - this.fieldsAt + (payload?.length ?? 0);
    const start = this.fieldsAt - 1 - varintSize(length);
    this.bytes[start] = (1 << 3) | LENGTH_DELIMITED;
    this.position = start + 1;
    this.varint(length);
    this.position = end;
    this.parts.push(this.bytes.subarray(start, end));
    if (payload !== undefined && payload.length > 0) this.parts.push(payload);
  }

  private varint(value: number): void {
    let rest = value;
    for (; rest >= 0x80; rest = rest < TWO_TO_THE_32 ? rest >>> 7 : Math.floor(rest / 128))
      this.bytes[this.position++] = (rest % 128) | 0x80;
    this.bytes[this.position++] = rest;
  }

  /** Negative numbers take ten bytes: two's complement of 64 bits. */
  private large(value: bigint): void {
    let rest = BigInt.asUintN(64, value);
    for (; rest >= 0x80n; rest >>= 7n) this.bytes[this.position++] = Number(rest & 0x7fn) | 0x80;
    this.bytes[this.position++] = Number(rest);
  }
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 128)) size++;
  return size;
}

/**
 * Reads fields forward. What it does not understand or what is cut off makes it `unsure`, and the caller leaves the message to protobuf-es,
 * which knows every case and every error.
 */
export class FieldReader {
  isUnsure = false;
  private readonly bytes: Uint8Array;
  private position = 0;
  private end: number;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.end = bytes.length;
  }

  /** The next tag, or {@link END}. */
  tag(): number {
    return this.position < this.end ? this.uint32() : END;
  }

  /** Enters an item; returns what {@link leave} needs. */
  enter(): number {
    const outer = this.end;
    const length = this.uint32();
    if (length > outer - this.position) this.isUnsure = true;
    else this.end = this.position + length;
    return outer;
  }

  leave(outer: number): void {
    this.end = outer;
  }

  uint32(): number {
    const value = this.varint();
    if (value >= TWO_TO_THE_32) this.isUnsure = true;
    return value;
  }

  int32(): number {
    return Number(BigInt.asIntN(32, this.int64()));
  }

  /** A small enumeration's or epoch's number without a detour over bigint. */
  smallInt32(): number {
    const first = this.bytes[this.position] ?? 0x80;
    if (first < 0x80 && this.position < this.end) {
      this.position++;
      return first;
    }
    return this.int32();
  }

  int64(): bigint {
    const start = this.position;
    const value = this.varint();
    if (value <= Number.MAX_SAFE_INTEGER) return BigInt(value);
    this.position = start;
    let exact = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.byte();
      exact |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asIntN(64, exact);
    }
    this.isUnsure = true;
    return 0n;
  }

  /** A view. */
  bytesField(): Uint8Array {
    const length = this.uint32();
    const start = this.position;
    if (length > this.end - start) {
      this.isUnsure = true;
      return new Uint8Array();
    }
    this.position += length;
    return new Uint8Array(this.bytes.buffer, this.bytes.byteOffset + start, length);
  }

  /** Rounded above 2^53. */
  private varint(): number {
    let value = 0;
    for (let factor = 1; factor < 2 ** 70; factor *= 128) {
      const byte = this.byte();
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    this.isUnsure = true;
    return 0;
  }

  private byte(): number {
    if (this.position < this.end) return this.bytes[this.position++] as number;
    this.isUnsure = true;
    return 0;
  }
}

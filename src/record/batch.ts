/**
 * Kafka's RecordBatch v2 (KIP-98; protocol guide, "Record Batch"), which is what producers build, logs store and consumers read,
 * byte for byte. Big-endian:
 *
 *   0  i64  baseOffset            stamped by the leader
 *   8  i32  batchLength           bytes after this field
 *  12  i32  partitionLeaderEpoch  stamped by the leader
 *  16  i8   magic                 2
 *  17  u32  crc                   CRC32C of everything from attributes to the end, so that stamping leaves it alone
 *  21  i16  attributes            0-2 compression, 3 timestamp type (1: LogAppendTime), 4 transactional, 5 control
 *  23  i32  lastOffsetDelta
 *  27  i64  baseTimestamp
 *  35  i64  maxTimestamp
 *  43  i64  producerId            -1: none
 *  51  i16  producerEpoch
 *  53  i32  baseSequence
 *  57  i32  recordCount
 *  61  the records, compressed as a whole when attributes say so
 *
 * A record: varint length of the rest, i8 attributes (0), varlong timestamp delta, varint offset delta, varint key length (-1: null),
 * key, varint value length (-1: null), value, varint header count, and for each header: varint key length, key (UTF-8), varint value
 * length (-1: null), value.
 */
import { FlotillaError, messageOf } from '../base/errors.ts';
import type { CompressionTable } from './compression.ts';
import { type BatchHeader, CompressionCodec, type CompressionName, type Crc32c, type Record, type RecordHeader } from './types.ts';
import { readUtf8 } from './utf8.ts';
import { ByteReader } from './varint.ts';

export const BATCH_HEADER_BYTES = 61;
/** baseOffset and batchLength: what batchLength does not count. */
export const BATCH_OVERHEAD_BYTES = 12;
export const BATCH_MAGIC = 2;
/** Where the CRC's cover starts. */
export const BATCH_CRC_START = 21;

export const BatchField = {
  baseOffset: 0,
  batchLength: 8,
  leaderEpoch: 12,
  magic: 16,
  crc: 17,
  attributes: 21,
  lastOffsetDelta: 23,
  baseTimestamp: 27,
  maxTimestamp: 35,
  producerId: 43,
  producerEpoch: 51,
  baseSequence: 53,
  recordCount: 57,
} as const;

export const BatchAttribute = { compressionMask: 0x07, logAppendTime: 0x08, transactional: 0x10, control: 0x20 } as const;

/** The seven one-byte fields of an empty record: what a record count can be checked against before anything is allocated. */
const MIN_RECORD_BYTES = 7;
/** Key length and value length. */
const MIN_HEADER_BYTES = 2;

const compressionNames = Object.keys(CompressionCodec) as readonly CompressionName[];
const noHeaders: readonly RecordHeader[] = Object.freeze([]);

/**
 * The header of the batch at `at`. Checks only that it is there and of magic 2.
 * @throws FlotillaError CORRUPT_MESSAGE
 */
export function readBatchHeader(bytes: Uint8Array, at = 0): BatchHeader {
  if (bytes.length - at < BATCH_HEADER_BYTES) throw corrupt(`a batch header takes 61 bytes, ${bytes.length - at} are left`);
  const magic = bytes[at + BatchField.magic];
  if (magic !== BATCH_MAGIC) throw corrupt(`magic is ${magic}; only record batches of version 2 are supported`);
  const attributes = readInt16(bytes, at + BatchField.attributes);
  return {
    baseOffset: readInt64(bytes, at + BatchField.baseOffset),
    batchLength: readInt32(bytes, at + BatchField.batchLength),
    leaderEpoch: readInt32(bytes, at + BatchField.leaderEpoch),
    crc: readInt32(bytes, at + BatchField.crc) >>> 0,
    attributes,
    compression: compressionNames[attributes & BatchAttribute.compressionMask],
    timestampType: attributes & BatchAttribute.logAppendTime ? 'LogAppendTime' : 'CreateTime',
    isTransactional: (attributes & BatchAttribute.transactional) !== 0,
    isControl: (attributes & BatchAttribute.control) !== 0,
    lastOffsetDelta: readInt32(bytes, at + BatchField.lastOffsetDelta),
    baseTimestamp: readInt64(bytes, at + BatchField.baseTimestamp),
    maxTimestamp: readInt64(bytes, at + BatchField.maxTimestamp),
    producerId: readInt64(bytes, at + BatchField.producerId),
    producerEpoch: readInt16(bytes, at + BatchField.producerEpoch),
    baseSequence: readInt32(bytes, at + BatchField.baseSequence),
    recordCount: readInt32(bytes, at + BatchField.recordCount),
  };
}

/**
 * Bytes of the whole batch at `at`, at least {@link BATCH_HEADER_BYTES}; they may go past the end of `bytes`.
 * @throws FlotillaError CORRUPT_MESSAGE when the length is not there or can't be one.
 */
export function batchSize(bytes: Uint8Array, at = 0): number {
  if (bytes.length - at < BATCH_OVERHEAD_BYTES) throw corrupt(`${bytes.length - at} bytes are left, too few for a batch`);
  const size = readInt32(bytes, at + BatchField.batchLength) + BATCH_OVERHEAD_BYTES;
  if (size < BATCH_HEADER_BYTES) throw corrupt(`a batch states a size of ${size} bytes, less than its header`);
  return size;
}

/** A batch's own CRC32C as its header states it. */
export function statedCrc(batch: Uint8Array): number {
  return readInt32(batch, BatchField.crc) >>> 0;
}

/**
 * Checks what a producer sent before it goes into a log: exactly one whole batch, its checksum, and a header that can be true.
 * The records themselves are not walked. Whether its timestamps are acceptable is the broker's affair.
 * @throws FlotillaError CORRUPT_MESSAGE, MESSAGE_TOO_LARGE (over `maxBytes`), UNSUPPORTED_COMPRESSION_TYPE, INVALID_RECORD
 */
export function validateBatch(bytes: Uint8Array, options: { readonly maxBytes: number; readonly crc32c: Crc32c }): BatchHeader {
  const { maxBytes, crc32c } = options;
  if (bytes.length > maxBytes) {
    throw new FlotillaError(
      'MESSAGE_TOO_LARGE',
      `The record batch has ${bytes.length} bytes; the topic takes at most ${maxBytes} (max.message.bytes). Send smaller batches or raise the limit.`,
    );
  }
  const size = batchSize(bytes);
  if (size !== bytes.length) throw corrupt(`the batch states ${size} bytes, ${bytes.length} came`);
  const header = readBatchHeader(bytes);
  checkCrc(bytes, header, crc32c);
  if (header.compression === undefined) throw unknownCodec(header.attributes);
  const wrong = wrongInHeader(header);
  if (wrong !== undefined) throw invalid(wrong);
  return header;
}

function wrongInHeader(header: BatchHeader): string | undefined {
  const { recordCount, lastOffsetDelta, producerId, producerEpoch, baseSequence } = header;
  if (recordCount <= 0) return `its record count is ${recordCount}`;
  if (lastOffsetDelta !== recordCount - 1) return `${recordCount} records can't end at offset delta ${lastOffsetDelta}`;
  const payload = header.batchLength + BATCH_OVERHEAD_BYTES - BATCH_HEADER_BYTES;
  if (header.compression === 'none' && recordCount * MIN_RECORD_BYTES > payload)
    return `${recordCount} records don't fit in ${payload} bytes`;
  if (producerId < -1 || !Number.isSafeInteger(producerId)) return `its producer id is ${producerId}`;
  if (producerId >= 0 && (producerEpoch < 0 || baseSequence < 0)) {
    return `producer ${producerId} states epoch ${producerEpoch} and sequence ${baseSequence}`;
  }
  if (header.isTransactional && producerId < 0) return 'it is transactional without a producer id';
  if (!Number.isSafeInteger(header.baseTimestamp) || !Number.isSafeInteger(header.maxTimestamp)) return 'its timestamps are beyond 2^53';
  return undefined;
}

/** Writes the leader's offset and epoch into the batch, in place. Both are outside the CRC. */
export function stampBatch(bytes: Uint8Array, baseOffset: number, leaderEpoch: number): void {
  writeInt64(bytes, BatchField.baseOffset, baseOffset);
  writeInt32(bytes, BatchField.leaderEpoch, leaderEpoch);
}

/** Turns the batch's time into the broker's (message.timestamp.type=LogAppendTime) in place, and sums it anew. */
export function stampLogAppendTime(bytes: Uint8Array, timeMs: number, crc32c: Crc32c): void {
  bytes[BatchField.attributes + 1] = (bytes[BatchField.attributes + 1] as number) | BatchAttribute.logAppendTime;
  writeInt64(bytes, BatchField.maxTimestamp, timeMs);
  stampCrc(bytes, crc32c);
}

/** Writes another producer session into a built batch, in place, and sums it anew: for a retry under a raised epoch. */
export function stampProducer(bytes: Uint8Array, producerId: number, epoch: number, baseSequence: number, crc32c: Crc32c): void {
  writeInt64(bytes, BatchField.producerId, producerId);
  bytes[BatchField.producerEpoch] = epoch >> 8;
  bytes[BatchField.producerEpoch + 1] = epoch;
  writeInt32(bytes, BatchField.baseSequence, baseSequence);
  stampCrc(bytes, crc32c);
}

function stampCrc(bytes: Uint8Array, crc32c: Crc32c): void {
  writeInt32(bytes, BatchField.crc, crc32c(bytes.subarray(BATCH_CRC_START)));
}

/**
 * Batches that stand back to back, as views.
 * @throws FlotillaError CORRUPT_MESSAGE when the last one is cut off.
 */
export function splitBatches(bytes: Uint8Array): Uint8Array[] {
  const batches: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = batchSize(bytes, at);
    if (size > bytes.length - at) throw corrupt(`a batch of ${size} bytes is cut off after ${bytes.length - at}`);
    batches.push(bytes.subarray(at, at + size));
    at += size;
  }
  return batches;
}

export interface DecodeOptions {
  readonly compression: CompressionTable;
  /** Upper bound of what the records may take decompressed. */
  readonly maxBytes: number;
  /** Given: the checksum is verified first. */
  readonly crc32c?: Crc32c | undefined;
}

/**
 * The records of one batch, keys and values as views into `bytes` (into the decompressed bytes where it was compressed).
 * Compacted batches, whose offsets have gaps, are fine. `header`: where it was read already.
 * @throws FlotillaError CORRUPT_MESSAGE, INVALID_RECORD, UNSUPPORTED_COMPRESSION_TYPE, MESSAGE_TOO_LARGE (over `maxBytes` decompressed)
 */
export function decodeBatch(bytes: Uint8Array, options: DecodeOptions, header: BatchHeader = readBatchHeader(bytes)): Record[] {
  return decodeRecordsOf(bytes, options, header).records;
}

/** As {@link decodeBatch}, with the bytes that the records stand in, decompressed. */
export function decodeRecordsOf(
  bytes: Uint8Array,
  options: DecodeOptions,
  header: BatchHeader,
): { readonly payload: Uint8Array; readonly records: Record[] } {
  const size = batchSize(bytes);
  if (size > bytes.length) throw corrupt(`the batch states ${size} bytes, ${bytes.length} came`);
  if (options.crc32c !== undefined) checkCrc(bytes.subarray(0, size), header, options.crc32c);
  if (header.compression === undefined) throw unknownCodec(header.attributes);
  const stored = bytes.subarray(BATCH_HEADER_BYTES, size);
  const payload = header.compression === 'none' ? stored : decompress(stored, header.compression, options);
  return { payload, records: decodeRecords(new ByteReader(payload, 0, payload.length), header) };
}

/** @throws FlotillaError CORRUPT_MESSAGE when the batch is not what its checksum says. */
export function checkCrc(batch: Uint8Array, header: BatchHeader, crc32c: Crc32c): void {
  const crc = crc32c(batch.subarray(BATCH_CRC_START));
  if (crc !== header.crc) throw corrupt(`its CRC32C is ${crc}, its header states ${header.crc}`);
}

function decompress(payload: Uint8Array, name: CompressionName, options: DecodeOptions): Uint8Array {
  const codec = options.compression.get(name);
  try {
    return codec.decompress(payload, options.maxBytes);
  } catch (error) {
    if (error instanceof FlotillaError) throw error;
    throw new FlotillaError('CORRUPT_MESSAGE', `The record batch does not decompress as ${name}: ${messageOf(error)}`, { cause: error });
  }
}

function decodeRecords(reader: ByteReader, header: BatchHeader): Record[] {
  const { recordCount, lastOffsetDelta } = header;
  if (recordCount < 0 || recordCount * MIN_RECORD_BYTES > reader.end - reader.position) {
    throw invalid(`${recordCount} records don't fit in ${reader.end - reader.position} bytes`);
  }
  const records: Record[] = new Array(recordCount);
  let previousDelta = -1;
  for (let i = 0; i < recordCount; i++) {
    const record = decodeRecord(reader, header);
    const delta = record.offset - header.baseOffset;
    if (delta <= previousDelta || delta > lastOffsetDelta) throw invalid(`offset delta ${delta} follows ${previousDelta}`);
    previousDelta = delta;
    records[i] = record;
  }
  if (reader.position !== reader.end) throw invalid(`${reader.end - reader.position} bytes follow the last record`);
  return records;
}

function decodeRecord(reader: ByteReader, header: BatchHeader): Record {
  const length = reader.varint();
  const end = reader.position + length;
  reader.byte();
  const timestampDelta = reader.varlong();
  const offsetDelta = reader.varint();
  const keyLength = reader.varint();
  const key = keyLength === -1 ? null : reader.take(keyLength);
  const valueLength = reader.varint();
  const value = valueLength === -1 ? null : reader.take(valueLength);
  const headerCount = reader.varint();
  const headers = headerCount === 0 ? noHeaders : decodeHeaders(reader, headerCount);
  if (reader.position !== end) throw invalid(`a record states ${length} bytes and has ${reader.position - end + length}`);
  const timestamp = header.timestampType === 'CreateTime' ? header.baseTimestamp + timestampDelta : header.maxTimestamp;
  return { key, value, headers, timestamp, offset: header.baseOffset + offsetDelta };
}

function decodeHeaders(reader: ByteReader, count: number): RecordHeader[] {
  if (count < 0 || count * MIN_HEADER_BYTES > reader.end - reader.position) throw invalid(`a record states ${count} headers`);
  const headers: RecordHeader[] = new Array(count);
  for (let i = 0; i < count; i++) {
    const key = readUtf8(reader.take(reader.varint()));
    const length = reader.varint();
    headers[i] = { key, value: length === -1 ? null : reader.take(length) };
  }
  return headers;
}

function corrupt(what: string): FlotillaError {
  return new FlotillaError('CORRUPT_MESSAGE', `The record batch is damaged: ${what}.`);
}

function invalid(what: string): FlotillaError {
  return new FlotillaError('INVALID_RECORD', `The record batch is invalid: ${what}. The producer that built it is at fault.`);
}

function unknownCodec(attributes: number): FlotillaError {
  const codec = attributes & BatchAttribute.compressionMask;
  return new FlotillaError(
    'UNSUPPORTED_COMPRESSION_TYPE',
    `Compression type ${codec} is unknown; use one of ${compressionNames.join(', ')}.`,
  );
}

/** Exact below 2^53; beyond, rounded, which every check of ours refuses. */
function readInt64(bytes: Uint8Array, at: number): number {
  return readInt32(bytes, at) * 2 ** 32 + (readInt32(bytes, at + 4) >>> 0);
}

function readInt16(bytes: Uint8Array, at: number): number {
  return (((bytes[at] as number) << 24) >> 16) | (bytes[at + 1] as number);
}

function readInt32(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 24) | ((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number);
}

export function writeInt32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** A safe integer, negative ones too. */
export function writeInt64(bytes: Uint8Array, at: number, value: number): void {
  writeInt32(bytes, at, Math.floor(value / 2 ** 32));
  writeInt32(bytes, at + 4, value >>> 0);
}

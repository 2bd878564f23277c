/** Makes and reads entries; the layout is specified in entry.ts. */
import { assert } from '../../base/assert.ts';
import { FlotillaError } from '../../base/errors.ts';
import { type Chain, type ChainResult, chainAfter } from './chain.ts';
import { crc32 } from './crc32.ts';
import { ENTRY_HEADER_BYTES, ENTRY_VERSION, type Entry, EntryKind } from './entry.ts';
import type { LogPosition, Proposal } from './types.ts';

export interface EntryFields extends Pick<Entry, 'index' | 'term' | 'kind' | 'nextOffset' | 'recordCount' | 'payloadChecksum' | 'payload'> {
  /** The entry (or log position) before this one. */
  readonly previous: Chain;
}

const LAST_KIND = Math.max(...Object.values(EntryKind));
const WORD = 0x1_0000_0000;
const chain: ChainResult = { chainHigh: 0, chainLow: 0 };

/** Bytes of an entry in the log, on disk and on the wire. */
export function entrySize(entry: Entry): number {
  return ENTRY_HEADER_BYTES + entry.payload.length;
}

/** Makes an entry: its chain from the one before, its header encoded. The payload is taken, not copied, and must not change any more. */
/** A leader's next entry. */
export function entryOf(proposal: Proposal, term: number, previous: LogPosition): Entry {
  const { kind, payload, recordCount, payloadChecksum } = proposal;
  const { index, nextOffset } = previous;
  return makeEntry({
    index: index + 1,
    nextOffset: nextOffset + recordCount,
    term,
    kind,
    recordCount,
    payloadChecksum,
    payload,
    previous,
  });
}

export function makeEntry(fields: EntryFields): Entry {
  const { index, term, kind, nextOffset, recordCount, payloadChecksum, payload } = fields;
  assert(
    index > 0 && Number.isSafeInteger(index) && Number.isSafeInteger(nextOffset) && nextOffset >= recordCount,
    'entry position',
    index,
  );
  assert(term > 0 && term < 2 ** 31, 'a term is a leader epoch, below 2^31', term);
  chainAfter(fields.previous, index, term, kind, payloadChecksum, chain);
  const { chainHigh, chainLow } = chain;
  const header = new Uint8Array(ENTRY_HEADER_BYTES);
  putUint32(header, 4, payload.length);
  putUint64(header, 8, index);
  putUint32(header, 16, term);
  header[20] = kind;
  header[21] = ENTRY_VERSION;
  putUint64(header, 24, nextOffset);
  putUint32(header, 32, payloadChecksum);
  putUint32(header, 36, recordCount);
  putUint32(header, 40, chainHigh);
  putUint32(header, 44, chainLow);
  putUint32(header, 0, crc32(header, 4));
  return { index, term, kind, nextOffset, recordCount, payloadChecksum, chainHigh, chainLow, header, payload };
}

/**
 * Reads the entry at `at`; header and payload are views of `bytes`. The header is checked against its checksum, the payload is not: that is
 * CRC32C, and storage's and the transport's to verify. Throws CORRUPT_MESSAGE, or UNSUPPORTED_VERSION for what a newer release wrote.
 */
export function decodeEntry(bytes: Uint8Array, at: number): Entry {
  const payloadAt = at + ENTRY_HEADER_BYTES;
  if (payloadAt > bytes.length) throw corrupt(`entry header cut off at byte ${at} of ${bytes.length}`);
  if (readUint32(bytes, at) !== crc32(bytes, at + 4, payloadAt)) throw corrupt(`entry header checksum does not match at byte ${at}`);
  const version = bytes[at + 21];
  const kind = bytes[at + 20] as number;
  if (version !== ENTRY_VERSION || kind > LAST_KIND) {
    throw new FlotillaError(
      'UNSUPPORTED_VERSION',
      `entry of version ${version}, kind ${kind}: written by a newer release; upgrade this broker`,
    );
  }
  const end = payloadAt + readUint32(bytes, at + 4);
  if (end > bytes.length) throw corrupt(`entry payload cut off: ends at byte ${end} of ${bytes.length}`);
  return {
    index: readUint64(bytes, at + 8),
    term: readUint32(bytes, at + 16),
    kind: kind as EntryKind,
    nextOffset: readUint64(bytes, at + 24),
    recordCount: readUint32(bytes, at + 36),
    payloadChecksum: readUint32(bytes, at + 32),
    chainHigh: readUint32(bytes, at + 40),
    chainLow: readUint32(bytes, at + 44),
    header: bytes.subarray(at, payloadAt),
    payload: bytes.subarray(payloadAt, end),
  };
}

export function putUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** Writes a safe integer as u64. */
export function putUint64(bytes: Uint8Array, at: number, value: number): void {
  putUint32(bytes, at, Math.floor(value / WORD));
  putUint32(bytes, at + 4, value % WORD);
}

export function readUint32(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) << 24) | ((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number)) >>> 0
  );
}

/** Reads a u64 that must be a safe integer; throws CORRUPT_MESSAGE otherwise. */
export function readUint64(bytes: Uint8Array, at: number): number {
  const value = readUint32(bytes, at) * WORD + readUint32(bytes, at + 4);
  if (!Number.isSafeInteger(value)) throw corrupt(`a number at byte ${at} is beyond 2^53`);
  return value;
}

function corrupt(message: string): FlotillaError {
  return new FlotillaError('CORRUPT_MESSAGE', message);
}

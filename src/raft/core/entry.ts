/**
 * A raft entry, byte for byte the same in the write-ahead log, between brokers and in memory: encoded once by the leader,
 * written unchanged by followers.
 *
 * Layout (big-endian), {@link ENTRY_HEADER_BYTES} bytes and then the payload:
 *
 *   0  u32  headerCrc        crc32 (IEEE) of bytes 4 … 47
 *   4  u32  payloadLength
 *   8  u64  index
 *  16  u32  term             below 2^31: it is the leader epoch of the records in it
 *  20  u8   kind             {@link EntryKind}
 *  21  u8   version          1
 *  22  u16  reserved, 0
 *  24  u64  nextOffset       the record offset after this entry; Raft's own entries repeat the one before
 *  32  u32  payloadChecksum  a batch's own CRC32C as its header states it; crc32 of the payload for other kinds
 *  36  u32  recordCount      offsets taken by this entry
 *  40  u64  chain            {@link chainAfter} over all entries up to this one: two logs with the same chain are the same
 */
export const ENTRY_HEADER_BYTES = 48;
export const ENTRY_VERSION = 1;

/** Entry kinds. New ones only above a finalized feature level. */
export const EntryKind = {
  /** A record batch (RecordBatch v2 bytes), or one command of a replicated state machine. */
  batch: 0,
  /** The entry a new leader commits first. Empty. */
  noop: 1,
  /** A configuration: see raft/core/configuration.ts. */
  config: 2,
  setLogStart: 3,
  tombstoneFloor: 4,
  producerExpiry: 5,
  checkpoint: 6,
} as const;
export type EntryKind = (typeof EntryKind)[keyof typeof EntryKind];

export interface Entry {
  readonly index: number;
  readonly term: number;
  readonly kind: EntryKind;
  /** The record offset after this entry. The entry's own records start at `nextOffset - recordCount`. */
  readonly nextOffset: number;
  readonly recordCount: number;
  readonly payloadChecksum: number;
  /** 64 bits as two unsigned halves, so that no bigint is made per entry. */
  readonly chainHigh: number;
  readonly chainLow: number;
  /** The 48 header bytes as on disk and wire. */
  readonly header: Uint8Array;
  /** Never changed once the entry exists: it is in flight to a disk and to peers. */
  readonly payload: Uint8Array;
}

/** Records as people see them, and Kafka's RecordBatch v2 header. The codec is batch.ts; the builder is builder.ts. */
export interface RecordHeader {
  readonly key: string;
  readonly value: Uint8Array | null;
}

export interface Record {
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers: readonly RecordHeader[];
  /** Milliseconds since the epoch. */
  readonly timestamp: number;
  readonly offset: number;
}

/** Kafka's attribute values. */
export const CompressionCodec = { none: 0, gzip: 1, snappy: 2, lz4: 3, zstd: 4 } as const;
export type CompressionName = keyof typeof CompressionCodec;

export interface BatchHeader {
  readonly baseOffset: number;
  /** Bytes after the length field: the whole batch is batchLength + 12. */
  readonly batchLength: number;
  readonly leaderEpoch: number;
  readonly crc: number;
  readonly attributes: number;
  readonly compression: CompressionName | undefined;
  readonly timestampType: 'CreateTime' | 'LogAppendTime';
  readonly isTransactional: boolean;
  readonly isControl: boolean;
  readonly lastOffsetDelta: number;
  readonly baseTimestamp: number;
  readonly maxTimestamp: number;
  /** -1: none */
  readonly producerId: number;
  readonly producerEpoch: number;
  readonly baseSequence: number;
  readonly recordCount: number;
}

/** Synchronous both ways, so that it runs the same in simulation; `decompress` stops with an error beyond `maxBytes` (decompression bombs). */
export interface Compression {
  readonly name: CompressionName;
  compress(bytes: Uint8Array): Uint8Array;
  decompress(bytes: Uint8Array, maxBytes: number): Uint8Array;
}

/** CRC32C over all the parts in turn: native in the broker, JavaScript in the client. */
export type Crc32c = (bytes: Uint8Array, seed?: number) => number;

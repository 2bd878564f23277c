import { FlotillaError } from '../base/errors.ts';
import { partitionForKey } from '../record/partitioner.ts';
import type { RecordHeader } from '../record/types.ts';

/** A key, value or header value. Strings are sent as UTF-8. Don't change a Uint8Array before its record is acknowledged. */
export type Data = string | Uint8Array | null;

/** A record to send. */
export interface ProducerRecord {
  /** Records with the same key go to the same partition. Default: none. */
  readonly key?: Data | undefined;
  /** `null` is a tombstone: in a compacted topic it deletes the key. */
  readonly value: Data;
  readonly headers?: Readonly<{ [key: string]: Data }> | readonly { readonly key: string; readonly value: Data }[] | undefined;
  /** Milliseconds since the epoch; default: now. */
  readonly timestamp?: number | undefined;
  /** Default: the partitioner's choice. */
  readonly partition?: number | undefined;
}

/**
 * Chooses a partition, 0 to `partitions` - 1.
 * @param key the key's bytes; null: no key
 */
export type Partitioner = (topic: string, key: Uint8Array | null, partitions: number) => number;

/** A record, ready for a batch. */
export interface EncodedRecord {
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers: readonly RecordHeader[];
  readonly timestamp: number | undefined;
  readonly partition: number | undefined;
}

const encoder = new TextEncoder();
const noHeaders: readonly RecordHeader[] = [];
const SLAB_BYTES = 64 * 1024;
/** Strings up to this many UTF-16 units share a slab. */
const SLAB_STRING = 4 * 1024;
let slab = new Uint8Array(SLAB_BYTES);
let slabUsed = 0;

/** The bytes of a key or value; small strings are cut from a shared slab, since one allocation for each is what would cost most. */
export function bytesOf(data: Data | undefined): Uint8Array | null {
  if (typeof data === 'string') {
    if (data.length > SLAB_STRING) return encoder.encode(data);
    if (slabUsed + data.length * 3 > SLAB_BYTES) {
      slab = new Uint8Array(SLAB_BYTES);
      slabUsed = 0;
    }
    const start = slabUsed;
    slabUsed += encoder.encodeInto(data, slab.subarray(start)).written;
    return slab.subarray(start, slabUsed);
  }
  if (data === null || data === undefined) return null;
  if (data instanceof Uint8Array) return data;
  throw new FlotillaError('INVALID_RECORD', `keys, values and header values are strings, Uint8Arrays or null, not ${typeof data}`);
}

export function headersOf(headers: ProducerRecord['headers']): readonly RecordHeader[] {
  if (headers === undefined) return noHeaders;
  if (isList(headers)) return headers.map(({ key, value }) => ({ key, value: bytesOf(value) }));
  return Object.entries(headers).map(([key, value]) => ({ key, value: bytesOf(value) }));
}

function isList(headers: NonNullable<ProducerRecord['headers']>): headers is readonly { key: string; value: Data }[] {
  return Array.isArray(headers);
}

/** How many bytes of records without a key go to one partition before the next (KIP-480's sticky partitioner, by bytes as KIP-794 has it). */
export const STICKY_BYTES = 16 * 1024;

/** Kafka's murmur2 for records with a key; without one, a partition keeps {@link STICKY_BYTES}, then the next takes over. */
export class DefaultPartitioner {
  readonly #sticky = new Map<string, { partition: number; bytes: number }>();
  readonly #start: number;

  /** @param start any number: the partition that records without a key start with, spread among producers */
  constructor(start: number) {
    this.#start = start;
  }

  partition(topic: string, key: Uint8Array | null, bytes: number, partitions: number): number {
    if (key !== null) return partitionForKey(key, partitions);
    let sticky = this.#sticky.get(topic);
    if (sticky === undefined) {
      sticky = { partition: this.#start % partitions, bytes: 0 };
      this.#sticky.set(topic, sticky);
    }
    if (sticky.bytes >= STICKY_BYTES) {
      sticky.partition = (sticky.partition + 1) % partitions;
      sticky.bytes = 0;
    }
    sticky.bytes += bytes;
    return sticky.partition % partitions;
  }
}

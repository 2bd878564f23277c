/**
 * The two passes of compaction over runs of batches (docs/adr/0007): first the newest offset of each key is noted, then what has a newer one is left out. What
 * stays is a function of the records alone.
 */

import { concat } from '../base/bytes.ts';
import type { Cleaning, CleaningOptions, Compute, Noted } from '../base/compute.ts';
import { FlotillaError } from '../base/errors.ts';
import { checkCrc, decodeBatch, readBatchHeader, splitBatches } from './batch.ts';
import { cleanBatch } from './clean.ts';
import type { CompressionTable } from './compression.ts';
import { OffsetMap } from './offset-map.ts';
import type { BatchHeader, Crc32c, Record } from './types.ts';

/** What a batch may take decompressed, to be looked into: by compaction, for its keys, and for a record's time. */
export const MAX_LOOKED_INTO_BYTES = 16 << 20;

export interface CleaningCodecs {
  readonly compression: CompressionTable;
  readonly crc32c: Crc32c;
}

export class LogCleaning {
  readonly #codecs: CleaningCodecs;
  readonly #tombstoneFloor: number;
  readonly #newest: OffsetMap;

  constructor(codecs: CleaningCodecs, { mapBytes, tombstoneFloor }: CleaningOptions) {
    this.#codecs = codecs;
    this.#tombstoneFloor = tombstoneFloor;
    this.#newest = new OffsetMap(mapBytes);
  }

  /** See {@link Cleaning.note}. */
  note(batches: Uint8Array): Noted {
    let unreadable = 0;
    for (const batch of splitBatches(batches)) {
      const header = this.#headerOf(batch);
      if (header.isControl) continue;
      const records = readable(() => decodeBatch(batch, this.#options, header));
      if (records === undefined) unreadable++;
      for (const { key, offset } of records ?? []) {
        if (key !== null && !this.#newest.put(key, offset)) return { full: true, unreadable };
      }
    }
    return { full: false, unreadable };
  }

  /** See {@link Cleaning.clean}. */
  clean(batches: Uint8Array): Uint8Array {
    const left: Uint8Array[] = [];
    let changed = false;
    for (const batch of splitBatches(batches)) {
      const kept = this.#cleaned(batch);
      if (kept !== undefined) left.push(kept);
      changed ||= kept !== batch;
    }
    return changed ? concat(left) : batches;
  }

  #cleaned(batch: Uint8Array): Uint8Array | undefined {
    const { isControl } = this.#headerOf(batch);
    // Markers stay until there is an index of aborted transactions.
    if (isControl) return batch;
    const cleaned = readable(() => ({ batch: cleanBatch(batch, this.#isKept, this.#options) }));
    return cleaned === undefined ? batch : cleaned.batch;
  }

  /** A record without a key, of a time before the topic was compacted, is nobody's newest: it goes, as in Kafka. */
  readonly #isKept = ({ key, value, offset }: Record): boolean => {
    if (key === null) return false;
    const newest = this.#newest.get(key);
    if (newest !== undefined && newest > offset) return false;
    return value !== null || offset >= this.#tombstoneFloor;
  };

  /** Of a batch that is what it was when it was written. */
  #headerOf(batch: Uint8Array): BatchHeader {
    const header = readBatchHeader(batch);
    checkCrc(batch, header, this.#codecs.crc32c);
    return header;
  }

  get #options() {
    return { ...this.#codecs, maxBytes: MAX_LOOKED_INTO_BYTES };
  }
}

/** Undefined: what the producer sent can't be read here. Its checksum is right, so that is no damage of ours. */
function readable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof FlotillaError) return undefined;
    throw error;
  }
}

/** For simulations and tests: in the caller's own thread. */
export function inlineCompute(codecs: CleaningCodecs): Compute {
  return {
    beginCleaning: (options) => {
      const cleaning = new LogCleaning(codecs, options);
      return {
        note: async (batches) => cleaning.note(batches),
        clean: async (batches) => cleaning.clean(batches),
        end: () => {},
      } satisfies Cleaning;
    },
    close: async () => {},
  };
}

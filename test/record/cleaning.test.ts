import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { concat } from '../../src/base/bytes.ts';
import { nodeCompressions } from '../../src/platform/compression.ts';
import { nativeCompressions } from '../../src/platform/compression-native.ts';
import { BatchAttribute, decodeBatch, readBatchHeader, splitBatches, stampBatch } from '../../src/record/batch.ts';
import { BatchBuilder } from '../../src/record/builder.ts';
import { inlineCompute, LogCleaning } from '../../src/record/cleaning.ts';
import { CompressionTable } from '../../src/record/compression.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import type { Compression, Record } from '../../src/record/types.ts';

const all = [...nodeCompressions, ...nativeCompressions];
const codecs = { compression: new CompressionTable(all), crc32c };
const text = new TextEncoder();

type Write = { readonly key: string | null; readonly value: string | null };

function batchOf(writes: readonly Write[], baseOffset: number, compression?: Compression): Uint8Array {
  const builder = new BatchBuilder({ crc32c, compression });
  const bytes = (of: string | null) => (of === null ? null : text.encode(of));
  for (const { key, value } of writes) builder.append(bytes(key), bytes(value), [], 1_000);
  const batch = builder.build();
  stampBatch(batch, baseOffset, 1);
  return batch;
}

const recordsOf = (batches: Uint8Array): Record[] =>
  splitBatches(batches).flatMap((batch) => decodeBatch(batch, { ...codecs, maxBytes: 1 << 24 }));
const keyOf = ({ key }: Record) => new TextDecoder().decode(key ?? undefined);

const write = fc.record({ key: fc.constantFrom('a', 'b', 'c', 'd', 'e'), value: fc.option(fc.string(), { nil: null, freq: 3 }) });
const batches = fc.array(
  fc.record({ writes: fc.array(write, { minLength: 1, maxLength: 6 }), codec: fc.constantFrom(undefined, ...all), gap: fc.nat(2) }),
  { minLength: 1, maxLength: 12 },
);

describe('cleaning', () => {
  it('keeps the newest record of each key, where it was, and tombstones from their floor on', () => {
    fc.assert(
      fc.property(batches, fc.nat(60), fc.nat(12), fc.integer({ min: 2, max: 8 }), (written, floor, notedCount, keysThatFit) => {
        let offset = 0;
        const stored = written.map(({ writes, codec, gap }) => {
          const batch = batchOf(writes, offset + gap, codec);
          offset += gap + writes.length;
          return batch;
        });
        const cleaning = new LogCleaning(codecs, { mapBytes: keysThatFit * 24, tombstoneFloor: floor });
        const newest = new Map<string, number>();
        for (const batch of stored.slice(0, notedCount)) {
          const { full } = cleaning.note(batch);
          for (const record of recordsOf(batch)) {
            const key = keyOf(record);
            if (newest.has(key) || newest.size < Math.floor(keysThatFit * 0.9)) newest.set(key, record.offset);
            else {
              expect(full).toBe(true);
              break;
            }
          }
          if (full) break;
        }
        const expected = recordsOf(concat(stored)).filter((record) => {
          const { offset: at, value } = record;
          return at >= (newest.get(keyOf(record)) ?? 0) && (value !== null || at >= floor);
        });
        const left = cleaning.clean(concat(stored));
        expect(recordsOf(left)).toEqual(expected);
        // Again, nothing changes.
        expect(cleaning.clean(left)).toBe(left);
      }),
      { numRuns: 300, seed: 11 },
    );
  });

  it('leaves nothing of a run that is all old', () => {
    const cleaning = new LogCleaning(codecs, { mapBytes: 1_000, tombstoneFloor: 0 });
    cleaning.note(batchOf([{ key: 'a', value: 'new' }], 10));
    expect(cleaning.clean(batchOf([{ key: 'a', value: 'old' }], 3)).length).toBe(0);
  });

  it('drops records without a key, which nobody could ever replace', () => {
    const cleaning = new LogCleaning(codecs, { mapBytes: 1_000, tombstoneFloor: 0 });
    const left = cleaning.clean(
      batchOf(
        [
          { key: null, value: 'x' },
          { key: '', value: 'y' },
        ],
        3,
      ),
    );
    expect(recordsOf(left).map(({ offset }) => offset)).toEqual([4]);
  });

  it('leaves control batches alone', () => {
    const batch = batchOf([{ key: 'a', value: null }], 3);
    batch[22] = (batch[22] ?? 0) | BatchAttribute.control;
    const view = new DataView(batch.buffer, batch.byteOffset);
    view.setUint32(17, crc32c(batch.subarray(21)));
    expect(readBatchHeader(batch).isControl).toBe(true);
    const cleaning = new LogCleaning(codecs, { mapBytes: 1_000, tombstoneFloor: 100 });
    cleaning.note(batch);
    cleaning.note(batchOf([{ key: 'a', value: 'new' }], 10));
    expect(cleaning.clean(batch)).toBe(batch);
  });

  it('keeps batches that it has no codec for as they are, and says how many', () => {
    const [codec] = nativeCompressions;
    const batch = batchOf([{ key: 'a', value: 'old' }], 3, codec);
    const poor = { compression: new CompressionTable(), crc32c };
    const cleaning = new LogCleaning(poor, { mapBytes: 1_000, tombstoneFloor: 0 });
    expect(cleaning.note(concat([batch, batchOf([{ key: 'a', value: 'new' }], 10)]))).toEqual({ full: false, unreadable: 1 });
    expect(cleaning.clean(batch)).toBe(batch);
  });

  it('makes nothing of damaged bytes', async () => {
    const batch = batchOf([{ key: 'a', value: 'old' }], 3);
    batch[70] = (batch[70] ?? 0) ^ 1;
    const cleaning = inlineCompute(codecs).beginCleaning({ mapBytes: 1_000, tombstoneFloor: 0 });
    await expect(cleaning.note(batch)).rejects.toThrow(/CRC32C/);
    await expect(cleaning.clean(batch)).rejects.toThrow(/CRC32C/);
  });
});

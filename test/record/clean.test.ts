import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { nodeCompressions } from '../../src/platform/compression.ts';
import { nativeCompressions } from '../../src/platform/compression-native.ts';
import { decodeBatch, readBatchHeader, stampBatch, stampLogAppendTime, statedCrc } from '../../src/record/batch.ts';
import { BatchBuilder } from '../../src/record/builder.ts';
import { cleanBatch } from '../../src/record/clean.ts';
import { CompressionTable } from '../../src/record/compression.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import type { Compression } from '../../src/record/types.ts';

const codecs: readonly (Compression | undefined)[] = [undefined, ...nodeCompressions, ...nativeCompressions];
const options = { compression: new CompressionTable([...nodeCompressions, ...nativeCompressions]), maxBytes: 1 << 20, crc32c };

const bytes = fc.option(fc.uint8Array({ maxLength: 30 }), { nil: null });
const record = fc.record({
  key: bytes,
  value: bytes,
  headers: fc.array(fc.record({ key: fc.string({ maxLength: 5 }), value: bytes }), { maxLength: 2 }),
  timestamp: fc.integer({ min: 0, max: 2 ** 45 }),
  keep: fc.boolean(),
});

describe('a batch without some of its records', () => {
  it.each(codecs)('holds the others as they were: %s', (compression) => {
    fc.assert(
      fc.property(fc.array(record, { minLength: 1, maxLength: 20 }), fc.nat(2 ** 40), fc.boolean(), (records, baseOffset, appendTime) => {
        const builder = new BatchBuilder({ crc32c, compression });
        for (const { key, value, headers, timestamp } of records) builder.append(key, value, headers, timestamp);
        builder.setProducer(7, 3, 100);
        const batch = builder.build();
        stampBatch(batch, baseOffset, 5);
        if (appendTime) stampLogAppendTime(batch, 1_700_000_000_000, crc32c);
        const kept = decodeBatch(batch, options).filter(({ offset }) => records[offset - baseOffset]?.keep);
        const cleaned = cleanBatch(batch, ({ offset }) => records[offset - baseOffset]?.keep === true, options);
        const whole = kept.length === records.length;
        expect(cleaned === batch).toBe(whole);
        expect(cleaned === undefined).toBe(kept.length === 0);
        if (whole || kept.length === 0) return;
        const left = cleaned as Uint8Array;
        expect(decodeBatch(left, options)).toEqual(kept);
        const before = readBatchHeader(batch);
        expect(readBatchHeader(left)).toEqual({
          ...before,
          batchLength: left.length - 12,
          crc: statedCrc(left),
          recordCount: kept.length,
          maxTimestamp: Math.max(...kept.map(({ timestamp }) => timestamp)),
        });
      }),
      { numRuns: 100, seed: 3 },
    );
  });

  it('is never made of one that is damaged', () => {
    const builder = new BatchBuilder({ crc32c });
    for (let i = 0; i < 3; i++) builder.append(null, Uint8Array.of(i), [], i);
    const batch = builder.build();
    batch[70] = (batch[70] ?? 0) ^ 1;
    expect(() => cleanBatch(batch, ({ offset }) => offset > 0, options)).toThrow(/CRC32C/);
  });
});

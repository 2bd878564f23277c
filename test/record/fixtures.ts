import fc from 'fast-check';
import { nodeCompressions } from '../../src/platform/compression.ts';
import { nativeCompressions } from '../../src/platform/compression-native.ts';
import { BatchBuilder, type BatchBuilderOptions } from '../../src/record/builder.ts';
import { CompressionTable } from '../../src/record/compression.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import type { RecordHeader } from '../../src/record/types.ts';

export const compression = new CompressionTable([...nodeCompressions, ...nativeCompressions]);
export const MAX_BYTES = 1024 * 1024;

export interface PlainRecord {
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers: readonly RecordHeader[];
  readonly timestamp: number;
}

export function buildBatch(records: readonly PlainRecord[], options: Partial<BatchBuilderOptions> = {}): Uint8Array {
  const builder = new BatchBuilder({ crc32c, ...options });
  for (const { key, value, headers, timestamp } of records) builder.append(key, value, headers, timestamp);
  return builder.build();
}

const bytes = (maxLength: number) => fc.option(fc.uint8Array({ maxLength }), { nil: null });

export const plainRecord: fc.Arbitrary<PlainRecord> = fc.record({
  key: bytes(40),
  value: bytes(300),
  headers: fc.array(fc.record({ key: fc.string({ unit: 'grapheme', maxLength: 10 }), value: bytes(20) }), { maxLength: 3 }),
  timestamp: fc.oneof(fc.integer({ min: 1_700_000_000_000, max: 1_700_000_100_000 }), fc.maxSafeNat()),
});

export const text = (string: string): Uint8Array => Uint8Array.from(Buffer.from(string));

export function sampleBatch(options: Partial<BatchBuilderOptions> = {}): Uint8Array {
  return buildBatch(
    [
      {
        key: text('user-1'),
        value: text('first value, first value'),
        headers: [{ key: 'trace', value: text('abc') }],
        timestamp: 1_700_000_000_000,
      },
      { key: null, value: text('second'), headers: [], timestamp: 1_700_000_000_005 },
      { key: text('user-2'), value: null, headers: [{ key: 'ü', value: null }], timestamp: 1_699_999_999_000 },
    ],
    options,
  );
}

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FlotillaError } from '../../src/base/errors.ts';
import { nativeCrc32c } from '../../src/platform/crc32c.ts';
import {
  batchSize,
  decodeBatch,
  readBatchHeader,
  splitBatches,
  stampBatch,
  stampLogAppendTime,
  stampProducer,
  statedCrc,
  validateBatch,
} from '../../src/record/batch.ts';
import { BatchBuilder, recordSizeBound } from '../../src/record/builder.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import { buildBatch, compression, MAX_BYTES, plainRecord, sampleBatch, text } from './fixtures.ts';

const limits = { maxBytes: MAX_BYTES, crc32c };
const decoding = { compression, maxBytes: MAX_BYTES };

function counts(view: DataView, recordCount: number, lastOffsetDelta: number): void {
  view.setInt32(57, recordCount);
  view.setInt32(23, lastOffsetDelta);
}

function codeOf(task: () => unknown): string {
  try {
    task();
  } catch (error) {
    if (error instanceof FlotillaError) return error.code;
    throw error;
  }
  return 'no error';
}

/** Changes a header field and makes the checksum right again: what a faulty producer would send. */
function forged(batch: Uint8Array, change: (view: DataView) => void): Uint8Array {
  const copy = batch.slice();
  const view = new DataView(copy.buffer);
  change(view);
  view.setUint32(17, crc32c(copy.subarray(21)));
  return copy;
}

describe('a batch built and read', () => {
  test('has the same records, in every codec', () => {
    fc.assert(
      fc.property(
        fc.array(plainRecord, { minLength: 1, maxLength: 20 }),
        fc.constantFrom('none', 'gzip', 'snappy', 'lz4', 'zstd'),
        (records, name) => {
          const codec = name === 'none' ? undefined : compression.get(name as 'gzip');
          const batch = buildBatch(records, { compression: codec });
          const header = validateBatch(batch, { maxBytes: MAX_BYTES, crc32c: nativeCrc32c });
          expect(header.compression).toBe(name);
          expect(header.recordCount).toBe(records.length);
          expect(header.maxTimestamp).toBe(Math.max(...records.map(({ timestamp }) => timestamp)));
          stampBatch(batch, 1_000_000_000_000, 7);
          const decoded = decodeBatch(batch, { ...decoding, crc32c });
          expect(decoded.map(({ offset }) => offset)).toEqual(records.map((_record, i) => 1_000_000_000_000 + i));
          expect(decoded.map(({ key, value, headers, timestamp }) => ({ key, value, headers, timestamp }))).toEqual(
            records.map(({ key, value, headers, timestamp }) => ({
              key: key === null ? null : new Uint8Array(key),
              value: value === null ? null : new Uint8Array(value),
              headers: headers.map((header) => ({ ...header, key: header.key.toWellFormed() })),
              timestamp,
            })),
          );
        },
      ),
      { numRuns: 150 },
    );
  });

  test('keeps its size within what was estimated', () => {
    fc.assert(
      fc.property(fc.array(plainRecord, { minLength: 1, maxLength: 10 }), (records) => {
        const builder = new BatchBuilder({ crc32c });
        for (const record of records) {
          const before = builder.sizeBytes;
          builder.append(record.key, record.value, record.headers, record.timestamp);
          expect(builder.sizeBytes - before).toBeLessThanOrEqual(recordSizeBound(record.key, record.value, record.headers));
        }
        expect(builder.count).toBe(records.length);
        expect(builder.sizeBytes).toBe(builder.build().length);
      }),
    );
  });

  test('is byte for byte what the specification says', () => {
    const batch = buildBatch([{ key: text('k'), value: text('v'), headers: [], timestamp: 1000 }]);
    const expected = [
      '0000000000000000 0000003a ffffffff 02 cccccccc 0000 00000000 00000000000003e8 00000000000003e8',
      'ffffffffffffffff ffff ffffffff 00000001 10 00 00 00 02 6b 02 76 00',
    ].join('');
    const hex = Buffer.from(batch).toString('hex');
    expect(`${hex.slice(0, 34)}cccccccc${hex.slice(42)}`).toBe(expected.replaceAll(' ', ''));
    expect(statedCrc(batch)).toBe(nativeCrc32c(batch.subarray(21)));
  });

  test('values are views where nothing was compressed', () => {
    const batch = sampleBatch();
    const [first] = decodeBatch(batch, decoding);
    expect(first?.value?.buffer).toBe(batch.buffer);
  });

  test('the builder is used again and keeps nothing', () => {
    const builder = new BatchBuilder({ crc32c });
    builder.append(null, new Uint8Array(100_000).fill(1), [], 5);
    builder.setProducer(9, 1, 4);
    const first = builder.build();
    const kept = first.slice();
    builder.append(null, text('small'), [], 77);
    const second = builder.build();
    expect(first).toEqual(kept);
    expect(readBatchHeader(first)).toMatchObject({ producerId: 9, producerEpoch: 1, baseSequence: 4, baseTimestamp: 5 });
    expect(readBatchHeader(second)).toMatchObject({
      producerId: -1,
      producerEpoch: -1,
      baseSequence: -1,
      baseTimestamp: 77,
      recordCount: 1,
    });
  });
});

describe('stamping', () => {
  test('offset and epoch are outside the checksum', () => {
    const batch = sampleBatch();
    stampBatch(batch, 2 ** 52 + 3, 2 ** 31 - 1);
    expect(validateBatch(batch, limits)).toMatchObject({ baseOffset: 2 ** 52 + 3, leaderEpoch: 2 ** 31 - 1 });
  });

  test('log append time replaces the time of every record', () => {
    const batch = sampleBatch();
    stampLogAppendTime(batch, 1_800_000_000_000, nativeCrc32c);
    expect(validateBatch(batch, limits)).toMatchObject({ timestampType: 'LogAppendTime', maxTimestamp: 1_800_000_000_000 });
    expect(decodeBatch(batch, decoding).map(({ timestamp }) => timestamp)).toEqual(Array(3).fill(1_800_000_000_000));
  });

  test('another producer session', () => {
    const batch = sampleBatch();
    stampProducer(batch, 2 ** 40 + 1, 300, 2 ** 31 - 1, crc32c);
    expect(validateBatch(batch, limits)).toMatchObject({ producerId: 2 ** 40 + 1, producerEpoch: 300, baseSequence: 2 ** 31 - 1 });
  });
});

describe('a damaged batch', () => {
  test('cut anywhere, is refused', () => {
    const batch = sampleBatch();
    for (let length = 0; length < batch.length; length++) {
      const cut = batch.slice(0, length);
      expect(
        codeOf(() => validateBatch(cut, limits)),
        `${length}`,
      ).toBe('CORRUPT_MESSAGE');
      expect(
        codeOf(() => decodeBatch(cut, decoding)),
        `${length}`,
      ).toBe('CORRUPT_MESSAGE');
    }
    expect(codeOf(() => validateBatch(Uint8Array.of(...batch, 0), limits))).toBe('CORRUPT_MESSAGE');
    expect(codeOf(() => validateBatch(Uint8Array.of(...batch, ...batch), limits))).toBe('CORRUPT_MESSAGE');
  });

  test.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const)('with any byte changed under its checksum, is refused: %s', (name) => {
    const batch = sampleBatch({ compression: name === 'none' ? undefined : compression.get(name) });
    for (let at = 8; at < batch.length; at++) {
      if (at >= 12 && at < 16) continue;
      for (const flip of [0x01, 0x80, 0xff]) {
        const damaged = batch.slice();
        damaged[at] = (damaged[at] as number) ^ flip;
        expect(
          codeOf(() => validateBatch(damaged, limits)),
          `${at}`,
        ).toBe('CORRUPT_MESSAGE');
        expect(
          codeOf(() => decodeBatch(damaged, { ...decoding, crc32c })),
          `${at}`,
        ).toBe('CORRUPT_MESSAGE');
      }
    }
  });

  test.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const)(
    'forged with a right checksum, gives records or a typed error: %s',
    (name) => {
      const batch = sampleBatch({ compression: name === 'none' ? undefined : compression.get(name) });
      for (let at = 21; at < batch.length; at++) {
        for (const value of [0x00, 0x01, 0x7f, 0x80, 0xff]) {
          const code = codeOf(() =>
            decodeBatch(
              forged(batch, (view) => view.setUint8(at, value)),
              decoding,
            ),
          );
          expect(['no error', 'INVALID_RECORD', 'CORRUPT_MESSAGE', 'UNSUPPORTED_COMPRESSION_TYPE', 'MESSAGE_TOO_LARGE']).toContain(code);
        }
      }
    },
  );

  test('garbage gives a typed error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(codeOf(() => validateBatch(bytes, limits))).toBe('CORRUPT_MESSAGE');
        const framed = forged(Uint8Array.of(...sampleBatch().subarray(0, 61), ...bytes), (view) => view.setInt32(8, bytes.length + 49));
        expect(['INVALID_RECORD', 'CORRUPT_MESSAGE', 'MESSAGE_TOO_LARGE']).toContain(codeOf(() => decodeBatch(framed, decoding)));
        for (const codec of [1, 2, 3, 4]) {
          const compressed = forged(framed, (view) => view.setInt16(21, codec));
          expect(['INVALID_RECORD', 'CORRUPT_MESSAGE', 'MESSAGE_TOO_LARGE']).toContain(codeOf(() => decodeBatch(compressed, decoding)));
        }
      }),
    );
  });

  test('over the limit is MESSAGE_TOO_LARGE', () => {
    const batch = sampleBatch();
    expect(codeOf(() => validateBatch(batch, { ...limits, maxBytes: batch.length - 1 }))).toBe('MESSAGE_TOO_LARGE');
    expect(codeOf(() => validateBatch(batch, { ...limits, maxBytes: batch.length }))).toBe('no error');
  });

  const forgeries: [string, string, (view: DataView) => void][] = [
    ['a record count that its offsets deny', 'INVALID_RECORD', (view) => view.setInt32(57, 4)],
    ['an end that its record count denies', 'INVALID_RECORD', (view) => view.setInt32(23, 9)],
    ['no records', 'INVALID_RECORD', (view) => counts(view, 0, -1)],
    ['negative bounds', 'INVALID_RECORD', (view) => counts(view, -1, -2)],
    ['two billion records', 'INVALID_RECORD', (view) => counts(view, 2 ** 31 - 1, 2 ** 31 - 2)],
    ['codec 5', 'UNSUPPORTED_COMPRESSION_TYPE', (view) => view.setInt16(21, 5)],
    ['codec 7', 'UNSUPPORTED_COMPRESSION_TYPE', (view) => view.setInt16(21, 7)],
    ['magic 1', 'CORRUPT_MESSAGE', (view) => view.setInt8(16, 1)],
    ['a producer without an epoch', 'INVALID_RECORD', (view) => view.setBigInt64(43, 5n)],
    ['producer id -2', 'INVALID_RECORD', (view) => view.setBigInt64(43, -2n)],
    ['a transaction of nobody', 'INVALID_RECORD', (view) => view.setInt16(21, 0x10)],
    ['a time beyond 2^53', 'INVALID_RECORD', (view) => view.setBigInt64(35, 2n ** 60n)],
  ];
  test.each(forgeries)('with %s is %s', (_name, code, change) => {
    expect(codeOf(() => validateBatch(forged(sampleBatch(), change), limits))).toBe(code);
  });
});

describe('decompression', () => {
  const bomb = new Uint8Array(8 * 1024 * 1024);
  test.each(['gzip', 'snappy', 'lz4', 'zstd'] as const)('of a %s bomb stops at the limit', (name) => {
    const batch = buildBatch([{ key: null, value: bomb, headers: [], timestamp: 0 }], { compression: compression.get(name) });
    expect(batch.length).toBeLessThan(MAX_BYTES);
    expect(codeOf(() => decodeBatch(batch, decoding))).toBe('MESSAGE_TOO_LARGE');
    expect(decodeBatch(batch, { ...decoding, maxBytes: 9 * 1024 * 1024 })[0]?.value).toHaveLength(bomb.length);
  });

  test('a missing codec is named with its package', () => {
    const batch = sampleBatch({ compression: compression.get('lz4') });
    const none = new (compression.constructor as new () => typeof compression)();
    expect(() => decodeBatch(batch, { ...decoding, compression: none })).toThrow(/npm install lz4-napi/);
  });
});

describe('batches back to back', () => {
  test('are split', () => {
    const batches = [sampleBatch(), sampleBatch({ compression: compression.get('gzip') }), sampleBatch()];
    const joined = Uint8Array.from(batches.flatMap((batch) => [...batch]));
    expect(splitBatches(joined)).toEqual(batches);
    expect(batchSize(joined, batches[0]?.length)).toBe(batches[1]?.length);
    expect(splitBatches(new Uint8Array())).toEqual([]);
    for (let cut = 1; cut < 80; cut++) expect(codeOf(() => splitBatches(joined.slice(0, -cut)))).toBe('CORRUPT_MESSAGE');
  });

  test('a length of nothing does not loop', () => {
    expect(codeOf(() => splitBatches(new Uint8Array(100)))).toBe('CORRUPT_MESSAGE');
    expect(codeOf(() => splitBatches(new Uint8Array(100).fill(0xff)))).toBe('CORRUPT_MESSAGE');
  });

  test('compacted batches keep their offsets', () => {
    // Offsets 0 and 2 are left of three.
    const batch = buildBatch([
      { key: text('a'), value: text('1'), headers: [], timestamp: 0 },
      { key: text('b'), value: text('2'), headers: [], timestamp: 0 },
    ]);
    const second = batch.length - 9;
    const compacted = forged(batch, (view) => {
      view.setInt32(23, 2);
      view.setUint8(second + 3, 4);
    });
    expect(decodeBatch(compacted, decoding).map(({ offset }) => offset)).toEqual([0, 2]);
    expect(codeOf(() => validateBatch(compacted, limits))).toBe('INVALID_RECORD');
  });
});

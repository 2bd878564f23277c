/**
 * Segments of Apache Kafka 4 (`00000000000000000000.log` of a partition), as its console producer filled them: tab between key and value, NULL for null,
 * `linger.ms=200`; `kafka-headers` with `parse.headers`, the others with `--compression-codec` by their names. Its RecordBatch v2 is ours.
 */
import { describe, expect, test } from 'vitest';
import { decodeBatch, readBatchHeader, splitBatches, stampBatch, validateBatch } from '../../src/record/batch.ts';
import { BatchBuilder } from '../../src/record/builder.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import type { Record } from '../../src/record/types.ts';
import { compression } from '../record/fixtures.ts';
import { readGolden, toText } from './files.ts';

const MAX_BYTES = 1 << 20;
const textOf = (bytes: Uint8Array | null) => bytes && Buffer.from(bytes).toString();
const readable = ({ key, value, headers, offset }: Record) => ({
  offset,
  key: textOf(key),
  value: textOf(value),
  headers: headers.map((header) => [header.key, textOf(header.value)]),
});
const decode = (batch: Uint8Array) => decodeBatch(batch, { compression, maxBytes: MAX_BYTES, crc32c });

/** The same records through our own builder, from the same producer, stamped by the same leader. */
function rebuilt(batch: Uint8Array): Uint8Array {
  const header = readBatchHeader(batch);
  const codec = header.compression === 'none' ? undefined : compression.get(header.compression ?? 'none');
  const builder = new BatchBuilder({ crc32c, compression: codec });
  for (const { key, value, headers, timestamp } of decode(batch)) builder.append(key, value, headers, timestamp);
  builder.setProducer(header.producerId, header.producerEpoch, header.baseSequence);
  const bytes = builder.build();
  stampBatch(bytes, header.baseOffset, header.leaderEpoch);
  return bytes;
}

const repeated = Array.from({ length: 20 }, (_, at) => ({
  key: `k${at + 1}`,
  value: `the same words again and again, the same words again and again ${at + 1}`,
}));
const records = [
  { key: 'key-1', value: 'value 1' },
  { key: 'key-2', value: 'value 2, a bit longer' },
  { key: null, value: 'without a key' },
  { key: 'key-3', value: null },
  { key: 'ключ', value: 'значение ünïcödé' },
  ...repeated,
].map((record, offset) => ({ offset, ...record, headers: [] }));

describe.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'])('a segment of Kafka, compression %s', (name) => {
  const batches = splitBatches(readGolden(`kafka-${name}`));

  test('is valid and says what was sent', () => {
    for (const batch of batches) {
      const header = validateBatch(batch, { maxBytes: MAX_BYTES, crc32c });
      expect(header.compression).toBe(name);
      expect(header.producerId).toBeGreaterThanOrEqual(0);
    }
    expect(batches.flatMap(decode).map(readable)).toEqual(records);
  });

  test('comes out the same when it is built by us: all of it, or, where codecs differ, what they decompress to', () => {
    for (const batch of batches) {
      const ours = rebuilt(batch);
      if (name === 'none') expect(toText(ours)).toBe(toText(batch));
      else expect(decode(ours)).toEqual(decode(batch));
    }
  });
});

test('a segment of Kafka with headers comes out the same', () => {
  const batches = splitBatches(readGolden('kafka-headers'));
  expect(batches.flatMap(decode).map(readable)).toEqual([
    {
      offset: 0,
      key: 'key-1',
      value: 'value 1',
      headers: [
        ['h1', 'v1'],
        ['h2', 'two'],
      ],
    },
    { offset: 1, key: 'key-2', value: 'value 2', headers: [['h1', 'v1']] },
    { offset: 2, key: 'key-3', value: 'no headers', headers: [] },
  ]);
  for (const batch of batches) expect(toText(rebuilt(batch))).toBe(toText(batch));
});

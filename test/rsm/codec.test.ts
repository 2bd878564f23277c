import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  ByteReader,
  ByteWriter,
  decodeRecords,
  encodeRecords,
  MalformedRecordError,
  type RawRecord,
  type RecordCodec,
} from '../../src/rsm/codec.ts';

const raw: RecordCodec<RawRecord> = { encode: (record) => record, decode: (record) => record };

describe('record codec', () => {
  test('integers, strings and maps survive the round trip', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.string({ unit: 'grapheme' }), fc.dictionary(fc.string(), fc.string()), (number, text, dictionary) => {
        const map = new Map(Object.entries(dictionary));
        const reader = new ByteReader(
          new ByteWriter()
            .varint(number)
            .string(text)
            .strings(map)
            .u32(number % 2 ** 32)
            .finish(),
        );
        expect([reader.varint(), reader.string(), reader.strings(), reader.u32()]).toEqual([number, text, map, number % 2 ** 32]);
        reader.end();
      }),
    );
  });

  test('records survive the round trip, and every cut is noticed or falls between two records', () => {
    const record = fc.record({ type: fc.nat(0xffff), version: fc.nat(0xff), body: fc.uint8Array({ maxLength: 20 }) });
    fc.assert(
      fc.property(fc.array(record, { maxLength: 5 }), fc.nat(), (records, cut) => {
        const bytes = encodeRecords(raw, records);
        expect(decodeRecords(raw, bytes)).toEqual(records);
        const length = cut % (bytes.length + 1);
        try {
          const decoded = decodeRecords(raw, bytes.subarray(0, length));
          expect(encodeRecords(raw, decoded)).toHaveLength(length);
        } catch (error) {
          expect(error).toBeInstanceOf(MalformedRecordError);
        }
      }),
    );
  });

  test('a damaged count does not ask for endless memory', () => {
    expect(() => new ByteReader(new ByteWriter().varint(Number.MAX_SAFE_INTEGER).finish()).count(1)).toThrow(MalformedRecordError);
    expect(() => new ByteReader(new Uint8Array(9).fill(0xff)).varint()).toThrow(MalformedRecordError);
  });
});

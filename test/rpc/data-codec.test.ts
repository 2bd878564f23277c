import { create, type DescMessage, fromBinary, type Message, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FetchResponseSchema, ProduceRequestSchema, ProduceResponseSchema } from '../../src/gen/flotilla/v1/data_pb.ts';
import { PeerFrameSchema } from '../../src/gen/flotilla/v1/raft_pb.ts';
import { codecFor } from '../../src/rpc/grpc-codec.ts';

const uint32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const int32 = fc.oneof(fc.constantFrom(0, -1), fc.integer());
const int64 = fc.oneof(
  fc.constantFrom(0n, -1n, 2n ** 53n - 1n),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  fc.maxSafeNat().map(BigInt),
);
const payload = fc.uint8Array({ maxLength: 300 });
const rarely = <T>(arbitrary: fc.Arbitrary<T>, otherwise: T) =>
  fc.oneof({ weight: 9, arbitrary: fc.constant(otherwise) }, { weight: 1, arbitrary });
const error = rarely<{ code: number; message: string } | undefined>(fc.record({ code: fc.integer(), message: fc.string() }), undefined);

const produceRequest = fc.record({
  batches: fc.array(
    fc.record({
      correlation: uint32,
      topicId: fc.oneof(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.uint8Array({ maxLength: 40 })),
      partition: uint32,
      currentLeaderEpoch: int32,
      acks: fc.oneof(fc.integer({ min: 0, max: 3 }), int32),
      timeoutMs: uint32,
      recordBatch: payload,
      records: rarely(fc.array(fc.record({ key: payload, value: payload })), []),
      topic: rarely(fc.string(), ''),
      transactionalId: rarely(fc.string(), ''),
    }),
    { maxLength: 5 },
  ),
});

const produceResponse = fc.record({
  results: fc.array(
    fc.record({ correlation: uint32, baseOffset: int64, leaderEpoch: int32, logAppendTimeMs: int64, logStartOffset: int64, error }),
    { maxLength: 5 },
  ),
});

const fetchResponse = fc.record({
  results: fc.array(
    fc.record({
      partitionHandle: uint32,
      generation: uint32,
      recordBatches: payload,
      nextOffset: int64,
      highWatermark: int64,
      lastStableOffset: int64,
      logStartOffset: int64,
      leaderEpoch: int32,
      aborted: rarely(fc.array(fc.record({ producerId: int64, firstOffset: int64 })), []),
      error,
    }),
    { maxLength: 5 },
  ),
});

const peerFrame = fc.record({ payload });

const messages: [string, DescMessage, fc.Arbitrary<Record<string, unknown>>][] = [
  ['ProduceRequest', ProduceRequestSchema, produceRequest],
  ['ProduceResponse', ProduceResponseSchema, produceResponse],
  ['FetchResponse', FetchResponseSchema, fetchResponse],
  ['PeerFrame', PeerFrameSchema, peerFrame],
];

/** What gRPC would put on the wire. */
function wired(schema: DescMessage, message: Message): Uint8Array {
  const serialized = codecFor(schema).serialize(message);
  expect(serialized.length).toBe(serialized.byteLength);
  const bytes = Buffer.alloc(serialized.length + 5);
  serialized.copy(bytes, 5);
  return new Uint8Array(bytes.buffer, bytes.byteOffset + 5, serialized.length);
}

describe.each(messages)('%s by hand', (_name, schema, arbitrary) => {
  test('writes and reads what protobuf-es does', () => {
    fc.assert(
      fc.property(arbitrary, (init) => {
        const message = create(schema, init);
        const bytes = wired(schema, message);
        expect(fromBinary(schema, bytes)).toEqual(message);
        const read = codecFor(schema).deserialize(toBinary(schema, message));
        expect(read).toEqual(message);
        // So that nothing tells them apart.
        expect(Object.keys(read)).toEqual(Object.keys(message));
      }),
    );
  });

  test('reads damaged bytes as protobuf-es does: the same message, or an error', () => {
    const outcome = (read: () => Message): unknown => {
      try {
        return read();
      } catch {
        return 'an error';
      }
    };
    fc.assert(
      fc.property(arbitrary, fc.nat(), fc.nat(255), fc.nat(), (init, at, value, cut) => {
        const bytes = toBinary(schema, create(schema, init));
        if (bytes.length === 0) return;
        const damaged = bytes.slice(0, bytes.length - (cut % 3 === 0 ? cut % bytes.length : 0));
        damaged[at % damaged.length] = value;
        const expected = outcome(() => fromBinary(schema, damaged));
        const read = outcome(() => codecFor(schema).deserialize(damaged));
        expect(read).toEqual(expected);
      }),
      { numRuns: 1000 },
    );
  });
});

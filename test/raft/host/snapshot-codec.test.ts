import fc from 'fast-check';
import { expect, test } from 'vitest';
import { concat } from '../../../src/base/bytes.ts';
import { FlotillaError } from '../../../src/base/errors.ts';
import type { GroupKey, ReplicaId } from '../../../src/base/ids.ts';
import { decodeSnapshotMessage, encodeSnapshotMessage, type SnapshotMessage } from '../../../src/raft/snapshot-codec.ts';

const uint53 = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const uint32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const envelope = {
  group: fc.uint8Array({ minLength: 24, maxLength: 24 }).map((bytes) => String.fromCharCode(...bytes) as GroupKey),
  from: uint53 as fc.Arbitrary<ReplicaId>,
  to: uint53 as fc.Arbitrary<ReplicaId>,
  id: uint53,
};
const file = fc.record({ name: fc.string({ maxLength: 50 }), length: uint53 });
const message: fc.Arbitrary<SnapshotMessage> = fc.oneof(
  fc.record({
    type: fc.constant('offer' as const),
    ...envelope,
    lastIndex: uint53,
    lastTerm: uint32,
    files: fc.array(file, { maxLength: 20 }),
  }),
  fc.record({
    type: fc.constant('pull' as const),
    ...envelope,
    file: uint32,
    position: uint53,
    length: uint32,
    checksum: fc.option(uint32, { nil: undefined }),
  }),
  fc
    .record({
      ...envelope,
      file: uint32,
      position: uint53,
      length: uint32,
      checksum: uint32,
      bytes: fc.option(fc.uint8Array({ maxLength: 200 }), { nil: undefined }),
    })
    .map((chunk) => ({ type: 'chunk' as const, ...chunk, length: chunk.bytes?.length ?? chunk.length })),
  fc.record({ type: fc.constant('done' as const), ...envelope, failed: fc.boolean() }),
  fc.record({ type: fc.constant('gone' as const), ...envelope }),
);

test('a message of a snapshot is read as it was written', () => {
  fc.assert(
    fc.property(message, (sent) => {
      expect(decodeSnapshotMessage(concat(encodeSnapshotMessage(sent)))).toEqual(sent);
    }),
  );
});

test('what is none of these is refused, whatever it is', () => {
  fc.assert(
    fc.property(message, fc.nat(), fc.nat(255), fc.integer({ min: -30, max: 3 }), (sent, at, byte, more) => {
      const bytes = concat(encodeSnapshotMessage(sent)).slice();
      bytes[at % bytes.length] = byte;
      const cut = more < 0 ? bytes.subarray(0, Math.max(0, bytes.length + more)) : concat([bytes, new Uint8Array(more)]);
      try {
        decodeSnapshotMessage(cut);
      } catch (error) {
        expect(error).toBeInstanceOf(FlotillaError);
      }
    }),
  );
});

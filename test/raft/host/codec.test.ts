import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { concat } from '../../../src/base/bytes.ts';
import { FlotillaError } from '../../../src/base/errors.ts';
import type { GroupKey, ReplicaId } from '../../../src/base/ids.ts';
import { decodeFrame, encodedBytes, encodeFrames as encodeParts, type GroupMessage, MAX_FRAME_BYTES } from '../../../src/raft/codec.ts';
import type { Entry } from '../../../src/raft/core/entry.ts';
import type { Message } from '../../../src/raft/core/types.ts';
import { decodeHeartbeat, encodeHeartbeat } from '../../../src/raft/heartbeat-codec.ts';
import { groupKey } from './cluster.ts';
import { entriesAfter } from './entries.ts';

const index = fc.oneof(
  fc.nat(1000),
  fc.maxSafeNat().map((n) => Math.floor(n / 2)),
);
const term = fc.oneof(fc.nat(10), fc.nat(2 ** 31 - 1));
const replicaId = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }).map((id) => id as ReplicaId);
const group = fc.uint8Array({ minLength: 24, maxLength: 24 }).map((bytes) => String.fromCharCode(...bytes) as GroupKey);
const envelope = { from: replicaId, to: replicaId, term };

const append = fc
  .record({ ...envelope, prevIndex: index, commit: index, payloads: fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 5 }) })
  .map(({ payloads, ...rest }): Message => {
    const atTerm = Math.max(1, rest.term);
    return { type: 'append', ...rest, term: atTerm, prevTerm: atTerm - 1, entries: entriesAfter(rest.prevIndex, atTerm, payloads) };
  });
const uint32 = fc.nat(2 ** 32 - 1);
const check = fc.option(fc.record({ index, chainHigh: uint32, chainLow: uint32 }), { nil: undefined });
const heartbeat = fc.record({
  type: fc.constant('heartbeat' as const),
  ...envelope,
  commit: index,
  readContext: index,
  quiesce: fc.boolean(),
  check,
  verdict: fc.boolean(),
  over: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
});
const heartbeatResponse = fc.record({
  type: fc.constant('heartbeatResponse' as const),
  ...envelope,
  readContext: index,
  awake: fc.boolean(),
  check,
});
const message: fc.Arbitrary<Message> = fc.oneof(
  append,
  heartbeat,
  heartbeatResponse,
  fc.record({
    type: fc.constant('appendResponse' as const),
    ...envelope,
    rejected: fc.boolean(),
    matchIndex: index,
    rejectedIndex: index,
    hintIndex: index,
    hintTerm: term,
    probation: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  }),
  fc.record({
    type: fc.constant('vote' as const),
    ...envelope,
    pre: fc.boolean(),
    lastIndex: index,
    lastTerm: term,
    transfer: fc.boolean(),
  }),
  fc.record({
    type: fc.constant('voteResponse' as const),
    ...envelope,
    pre: fc.boolean(),
    granted: fc.boolean(),
    lastIndex: index,
    lastTerm: term,
  }),
  fc.record({ type: fc.constant('pull' as const), ...envelope, prevIndex: index, prevTerm: term }),
  fc
    .record({
      ...envelope,
      prevIndex: index,
      lastIndex: index,
      lastTerm: term,
      payloads: fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 5 }),
    })
    .map(({ payloads, ...rest }): Message => {
      const atTerm = Math.max(1, rest.term);
      return { type: 'pullResponse', ...rest, term: atTerm, prevTerm: atTerm - 1, entries: entriesAfter(rest.prevIndex, atTerm, payloads) };
    }),
  fc.record({ type: fc.constant('timeoutNow' as const), ...envelope }),
);
const messages = fc.array(fc.record({ group, message }), { maxLength: 12 });

const encodeFrames = (...args: Parameters<typeof encodeParts>) => encodeParts(...args).map(concat);

/** Any outcome but a typed error or a value is a crash. */
function typedErrorOrValue(decode: () => unknown): void {
  try {
    decode();
  } catch (error) {
    if (!(error instanceof FlotillaError)) throw error;
  }
}

describe('raft frames', () => {
  test('what is encoded is decoded, in order, over however many frames', () => {
    fc.assert(
      fc.property(messages, fc.integer({ min: 1, max: 2000 }), (all, maxBytes) => {
        const frames = encodeFrames(all, maxBytes);
        expect(frames.flatMap((frame) => decodeFrame(frame))).toEqual(all);
        for (const frame of frames) {
          const single = decodeFrame(frame).length === 1;
          expect(frame.length <= maxBytes || single).toBe(true);
        }
      }),
    );
  });

  test('an entry is byte for byte its header and payload', () => {
    const entries = entriesAfter(4, 2, [Uint8Array.of(1, 2, 3), Uint8Array.of()]);
    const item: GroupMessage = {
      group: groupKey(1),
      message: { type: 'append', from: 1 as ReplicaId, to: 2 as ReplicaId, term: 2, prevIndex: 4, prevTerm: 2, commit: 3, entries },
    };
    const [frame] = encodeFrames([item]);
    const bytes = entries.flatMap(({ header, payload }) => [...header, ...payload]);
    expect([...frame!.subarray(-bytes.length)]).toEqual(bytes);
    expect(frame!.length).toBe(8 + encodedBytes(item.message));
  });

  test('a message above the bound has a frame of its own', () => {
    const [big, small] = [MAX_FRAME_BYTES, 10].map((size): GroupMessage => {
      const entries = entriesAfter(0, 1, [new Uint8Array(size)]);
      return {
        group: groupKey(0),
        message: { type: 'append', from: 1 as ReplicaId, to: 2 as ReplicaId, term: 1, prevIndex: 0, prevTerm: 0, commit: 0, entries },
      };
    });
    expect(encodeFrames([small!, big!, small!]).map((frame) => decodeFrame(frame).length)).toEqual([1, 1, 1]);
  });

  test('garbage is a typed error', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => typedErrorOrValue(() => decodeFrame(bytes))));
    expect(() => decodeFrame(new Uint8Array(0))).toThrow(FlotillaError);
  });

  test('a damaged, cut or prolonged frame is a typed error or another valid frame', () => {
    fc.assert(
      fc.property(messages, fc.nat(), fc.nat(255), (all, at, value) => {
        for (const frame of encodeFrames(all)) {
          const damaged = frame.slice();
          damaged[at % damaged.length] = value;
          typedErrorOrValue(() => decodeFrame(damaged));
          expect(() => decodeFrame(frame.subarray(0, at % frame.length))).toThrow(FlotillaError);
          expect(() => decodeFrame(Uint8Array.of(...frame, 0))).toThrow(FlotillaError);
        }
      }),
    );
  });

  test('entries that do not follow each other are refused', () => {
    const [first, second, third] = entriesAfter(0, 1, [Uint8Array.of(1), Uint8Array.of(2), Uint8Array.of(3)]);
    const frame = (prevIndex: number, entries: Entry[], atTerm = 1) =>
      encodeFrames([
        {
          group: groupKey(0),
          message: { type: 'append', from: 1 as ReplicaId, to: 2 as ReplicaId, term: atTerm, prevIndex, prevTerm: 0, commit: 0, entries },
        },
      ])[0]!;
    expect(decodeFrame(frame(0, [first!, second!, third!]))).toHaveLength(1);
    expect(() => decodeFrame(frame(0, [first!, third!]))).toThrow(/do not follow/);
    expect(() => decodeFrame(frame(1, [first!]))).toThrow(/do not follow/);
    expect(() => decodeFrame(frame(0, [first!], 0))).toThrow(/do not follow/);
  });
});

describe('heartbeat frames', () => {
  const heartbeats = fc.record({
    incarnation: fc.maxSafeNat(),
    seq: fc.maxSafeNat(),
    diskFresh: fc.boolean(),
    loopFresh: fc.boolean(),
    hasRoom: fc.boolean(),
    wake: fc.boolean(),
    quiesced: fc.record({ count: uint32, hash: uint32 }),
    messages: fc.array(fc.record({ group, message: fc.oneof(heartbeat, heartbeatResponse) }), { maxLength: 8 }),
  });

  test('what is encoded is decoded', () => {
    fc.assert(
      fc.property(heartbeats, (node) => {
        expect(decodeHeartbeat(encodeHeartbeat(node))).toEqual(node);
      }),
    );
  });

  test('garbage, and messages of the raft lane, are typed errors', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => typedErrorOrValue(() => decodeHeartbeat(bytes))));
    const vote: GroupMessage = { group: groupKey(0), message: { type: 'timeoutNow', from: 1 as ReplicaId, to: 2 as ReplicaId, term: 1 } };
    const frame = encodeHeartbeat({
      incarnation: 1,
      seq: 1,
      diskFresh: true,
      loopFresh: true,
      hasRoom: true,
      wake: false,
      quiesced: { count: 0, hash: 0 },
      messages: [vote],
    });
    expect(() => decodeHeartbeat(frame)).toThrow(FlotillaError);
  });
});

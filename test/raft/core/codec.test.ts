import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { BrokerId, DirectoryId, ReplicaId } from '../../../src/base/ids.ts';
import { CHAIN_START } from '../../../src/raft/core/chain.ts';
import { decodeConfiguration, encodeConfiguration } from '../../../src/raft/core/configuration.ts';
import { crc32 } from '../../../src/raft/core/crc32.ts';
import { ENTRY_HEADER_BYTES, type Entry, EntryKind } from '../../../src/raft/core/entry.ts';
import { decodeEntry, entrySize, makeEntry } from '../../../src/raft/core/entry-codec.ts';

const ascii = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));
const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
const stored = (entry: Entry) => Uint8Array.from([...entry.header, ...entry.payload]);

const fields = fc.record({
  index: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  term: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
  kind: fc.constantFrom(...Object.values(EntryKind)),
  nextOffset: fc.integer({ min: 2 ** 32, max: Number.MAX_SAFE_INTEGER }),
  recordCount: fc.nat(),
  payloadChecksum: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  payload: fc.uint8Array({ maxLength: 100 }),
});

describe('entry codec', () => {
  test('crc32 is the IEEE one, and sums in parts', () => {
    expect(crc32(ascii('123456789'))).toBe(0xcbf43926);
    expect(crc32(ascii('6789'), 0, 4, crc32(ascii('12345')))).toBe(0xcbf43926);
  });

  test('an entry survives the round trip, as views of the bytes', () => {
    fc.assert(
      fc.property(fields, fc.nat(20), (given, at) => {
        const entry = makeEntry({ ...given, previous: CHAIN_START });
        const bytes = Uint8Array.from([...new Uint8Array(at), ...stored(entry)]);
        const decoded = decodeEntry(bytes, at);
        expect(decoded).toEqual(entry);
        expect(decoded.payload.buffer).toBe(bytes.buffer);
        expect(entrySize(decoded)).toBe(bytes.length - at);
      }),
    );
  });

  test('a flipped bit of the header, and a cut, are found', () => {
    const bytes = stored(makeEntry({ ...GOLDEN, previous: CHAIN_START }));
    for (let bit = 0; bit < ENTRY_HEADER_BYTES * 8; bit++) {
      const damaged = bytes.slice();
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      expect(() => decodeEntry(damaged, 0)).toThrow(/checksum/);
    }
    for (let length = 0; length < bytes.length; length++) expect(() => decodeEntry(bytes.subarray(0, length), 0)).toThrow(/cut off/);
  });

  test('golden: these bytes are on disks for ever', () => {
    const first = makeEntry({ ...GOLDEN, previous: CHAIN_START });
    const second = makeEntry({
      ...GOLDEN,
      index: 2 ** 40 + 1,
      term: 7,
      kind: EntryKind.noop,
      payload: ascii(''),
      recordCount: 0,
      payloadChecksum: 0,
      previous: first,
    });
    expect(hex(stored(first))).toMatchInlineSnapshot(
      `"7fd1481100000003000001000000000000000006000100000000000200000000deadbeef0000000388ffd1698f814af6616263"`,
    );
    expect(hex(stored(second))).toMatchInlineSnapshot(
      `"7790c2a0000000000000010000000001000000070101000000000002000000000000000000000000a7f8f0a8842b8f0d"`,
    );
  });

  test('the chain tells apart entries that differ in any field of it', () => {
    const chains = new Set<string>();
    const add = (change: object) => {
      const { chainHigh, chainLow } = makeEntry({ ...GOLDEN, previous: CHAIN_START, ...change });
      chains.add(`${chainHigh}:${chainLow}`);
    };
    for (let i = 1; i <= 1000; i++) {
      add({ index: 2 ** 33 + i });
      add({ term: 10 + i });
      add({ payloadChecksum: i });
      add({ previous: { chainHigh: i, chainLow: 0 } });
      add({ previous: { chainHigh: 0, chainLow: i } });
    }
    expect(chains.size).toBe(5000);
  });
});

const GOLDEN = {
  index: 2 ** 40,
  term: 6,
  kind: EntryKind.batch,
  nextOffset: 2 ** 33,
  recordCount: 3,
  payloadChecksum: 0xdeadbeef,
  payload: ascii('abc'),
};

describe('configuration codec', () => {
  const member = fc.record({
    replicaId: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }).map((id) => id as ReplicaId),
    brokerId: fc.integer({ min: 1, max: 2 ** 31 - 1 }).map((id) => id as BrokerId),
    directoryId: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => hex(bytes) as DirectoryId),
  });
  const members = fc.array(member, { maxLength: 5 });

  test('a configuration survives the round trip', () => {
    fc.assert(
      fc.property(
        fc.record({ voters: fc.array(member, { minLength: 1, maxLength: 5 }), outgoing: members, learners: members }),
        (given) => {
          expect(decodeConfiguration(encodeConfiguration(given))).toEqual(given);
        },
      ),
    );
  });

  test('what is no configuration is refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        fc.pre(!(bytes[0] === 1 && bytes.length === 4 + 28 * ((bytes[1] ?? 0) + (bytes[2] ?? 0) + (bytes[3] ?? 0)) && bytes[1] !== 0));
        expect(() => decodeConfiguration(bytes)).toThrow();
      }),
    );
  });
});

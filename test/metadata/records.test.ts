import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { BrokerId, ClusterId, ReplicaId, TopicId } from '../../src/base/ids.ts';
import { applyRecords, emptyImage } from '../../src/metadata/apply.ts';
import { decodeImage, encodeImage } from '../../src/metadata/checkpoint.ts';
import { type MetadataRecord, metadataCodec } from '../../src/metadata/records.ts';
import { decodeRecords, encodeRecords, UnknownRecordError } from '../../src/rsm/codec.ts';
import { brokerRecord, formed, history, replica, topicRecord, uuid } from './arbitrary.ts';

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
const topicId = uuid<TopicId>(0xabc);
const d = (n: number): string => uuid(0xd0 + n);

/** What stands in logs: a line here changes only with a new version of the record. */
const golden: [MetadataRecord, string][] = [
  [{ type: 'featureLevel', level: 1 }, '0001000000000101'],
  [{ type: 'clusterFormed', clusterId: uuid<ClusterId>(0xc1), nextReplicaId: 4 }, `00020000000011${uuid(0xc1)}04`],
  [brokerRecord(2, 300, 'r'), `0003000000003602${d(2)}ac02010172010865787465726e616c0a686f7374323a393039320a686f7374323a39313932`],
  [{ type: 'fenceBroker', brokerId: 7 as BrokerId }, '0004000000000107'],
  [{ type: 'unfenceBroker', brokerId: 7 as BrokerId }, '0005000000000107'],
  [
    topicRecord(emptyImage, 0xabc, [
      [0, 1],
      [2, 0],
    ]),
    `0006000000006a${topicId}0a746f7069632d32373438010c726574656e74696f6e2e6d73043237343801` +
      `0301${d(1)}02${d(2)}03${d(3)}02020001020200`,
  ],
  [{ type: 'deleteTopic', topicId }, `00070000000010${topicId}`],
  [{ type: 'partitionLeader', topicId, partition: 5, leader: 2 as BrokerId, leaderEpoch: 130 }, `00080000000014${topicId}05028201`],
  [{ type: 'topicConfig', topicId, key: 'k', value: 'v' }, `00090000000015${topicId}016b010176`],
  [{ type: 'topicConfig', topicId, key: 'k', value: undefined }, `00090000000013${topicId}016b00`],
  [{ type: 'allocateReplicaIds', nextReplicaId: 9 }, '000a000000000109'],
  [{ type: 'allocateProducerIds', nextProducerId: 2 ** 40 }, '000b0000000006808080808020'],
  [
    { type: 'setTarget', topicId, partition: 5, epoch: 2, replicas: [replica(300, 1), replica(7, 2)], leaving: [replica(6, 3)] },
    `000c000000004b${topicId}050202ac0201${d(1)}0702${d(2)}010603${d(3)}`,
  ],
  [{ type: 'clearTarget', topicId, partition: 5 }, `000d0000000011${topicId}05`],
  [
    { type: 'replicasCommitted', topicId, partition: 5, term: 3, index: 200, replicas: [replica(7, 2)] },
    `000e0000000027${topicId}0503c801010702${d(2)}`,
  ],
  [{ type: 'replicaFailed', topicId, partition: 5, replicaId: 300 as ReplicaId }, `000f0000000013${topicId}05ac02`],
];

describe('metadata records', () => {
  test.each(golden)('%o is these bytes', (record, bytes) => {
    expect(hex(encodeRecords(metadataCodec, [record]))).toBe(bytes);
    expect(decodeRecords(metadataCodec, encodeRecords(metadataCodec, [record]))).toEqual([record]);
  });

  test('an unknown type or version is refused', () => {
    expect(() => metadataCodec.decode({ type: 16, version: 0, body: new Uint8Array() })).toThrow(UnknownRecordError);
    expect(() => metadataCodec.decode({ type: 4, version: 1, body: new Uint8Array([7]) })).toThrow(UnknownRecordError);
    expect(() => metadataCodec.decode({ type: 4, version: 0, body: new Uint8Array([7, 7]) })).toThrow(/after the end/);
  });

  test('any history survives the round trip', () => {
    fc.assert(
      fc.property(history, (log) => {
        for (const records of log) expect(decodeRecords(metadataCodec, encodeRecords(metadataCodec, records))).toEqual(records);
      }),
      { numRuns: 50 },
    );
  });
});

describe('checkpoint', () => {
  test('has these bytes', () => {
    const { image } = applyRecords(emptyImage, 3, [
      { type: 'featureLevel', level: 1 },
      formed[1]!,
      brokerRecord(1),
      { ...topicRecord(emptyImage, 1, [[0]]), firstReplicaId: 4 } as MetadataRecord,
    ]);
    expect(hex(encodeImage(image))).toBe(
      `010301${uuid(0xc1)}0105010101${d(1)}0100010865787465726e616c0a686f7374313a393039320a686f7374313a3931393200` +
        `01${uuid(1)}07746f7069632d31010c726574656e74696f6e2e6d73013101` +
        `01${d(1)}0100000001` +
        '0400',
    );
  });

  test('of any history decodes to the same image', () => {
    fc.assert(
      fc.property(history, (log) => {
        let image = emptyImage;
        log.forEach((records, i) => {
          image = applyRecords(image, i + 1, records).image;
        });
        const decoded = decodeImage(encodeImage(image));
        expect(encodeImage(decoded)).toEqual(encodeImage(image));
        expect([...decoded.topics].sort()).toEqual([...image.topics].sort());
        expect([...decoded.topicIds].sort()).toEqual([...image.topicIds].sort());
        expect(decoded.brokers).toEqual(image.brokers);
      }),
      { numRuns: 50 },
    );
  });

  test('of another format, or cut short, is refused', () => {
    expect(() => decodeImage(new Uint8Array([9]))).toThrow(/upgrade/);
    const bytes = encodeImage(applyRecords(emptyImage, 1, formed).image);
    for (let length = 0; length < bytes.length; length++) expect(() => decodeImage(bytes.subarray(0, length))).toThrow();
  });
});

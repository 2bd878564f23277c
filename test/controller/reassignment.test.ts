import { describe, expect, test } from 'vitest';
import type { BrokerId, TopicId } from '../../src/base/ids.ts';
import { MAX_REASSIGNMENTS, reassignRecords } from '../../src/controller/reassignment.ts';
import type { CommittedConfiguration } from '../../src/controller/types.ts';
import { namedReplicas } from '../../src/metadata/image.ts';
import { brokerRecord, uuid } from '../metadata/arbitrary.ts';
import { Quorum, topic, topicId } from './quorum.ts';

describe('a reassignment', () => {
  test('keeps replicas that stay, and gives new ones ids that nobody had', () => {
    const quorum = new Quorum();
    const { nextReplicaId } = quorum.image;
    quorum.move(4, 2, 5);
    expect(quorum.target).toEqual([
      [nextReplicaId, 4],
      [5, 2],
      [nextReplicaId + 1, 5],
    ]);
    expect([quorum.leaving, quorum.image.nextReplicaId]).toEqual([[], nextReplicaId + 2]);
    expect(quorum.partition.replicas.map(({ brokerId }) => brokerId)).toEqual([1, 2, 3]);
  });

  test('of several partitions is all or nothing', () => {
    const quorum = new Quorum([[0], [1]]);
    const change = (partition: number, ...brokers: number[]) => ({ topic, partition, brokers: brokers as BrokerId[] });
    expect(() => reassignRecords(quorum.image, [change(0, 4), change(1, 9)])).toThrow(/broker 9/);
    quorum.apply(reassignRecords(quorum.image, [change(0, 4, 5), change(1, 4, 5)]));
    const ids = quorum.image.topics.get(topicId)!.partitions.flatMap(({ target }) => target!.replicas.map(({ replicaId }) => replicaId));
    expect(new Set(ids).size).toBe(4);
  });

  test.each([
    ['INVALID_REPLICA_ASSIGNMENT', /at least one/, []],
    ['INVALID_REPLICA_ASSIGNMENT', /broker 2 twice/, [2, 1, 2]],
    ['INVALID_REPLICA_ASSIGNMENT', /broker 9, which is not registered; 1, 2, 3, 4, 5 are/, [1, 9]],
  ])('is refused with %s %s', (code, message, brokers) => {
    const quorum = new Quorum();
    expect(() => quorum.move(...brokers)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  test('is refused for what is not there, for a broker that is down, and below the feature level', () => {
    const quorum = new Quorum();
    const refused = (name: string, partition: number, code: string, image = quorum.image) =>
      expect(() => reassignRecords(image, [{ topic: name, partition, brokers: [1 as BrokerId] }])).toThrow(
        expect.objectContaining({ code }),
      );
    refused('nowhere', 0, 'UNKNOWN_TOPIC_OR_PARTITION');
    refused(topic, 1, 'UNKNOWN_TOPIC_OR_PARTITION');
    refused(topic, 0, 'UNSUPPORTED_VERSION', { ...quorum.image, featureLevel: 1 });
    const same = { topic, partition: 0, brokers: [1 as BrokerId] };
    expect(() => reassignRecords(quorum.image, [same, same])).toThrow(/named twice/);
    expect(() =>
      reassignRecords(
        quorum.image,
        Array.from({ length: MAX_REASSIGNMENTS + 1 }, () => same),
      ),
    ).toThrow(/split/);
    quorum.apply([
      { type: 'fenceBroker', brokerId: 4 as BrokerId },
      { type: 'fenceBroker', brokerId: 3 as BrokerId },
    ]);
    expect(() => quorum.move(1, 2, 4)).toThrow(/broker 4, which is down/);
    quorum.move(2, 3);
    expect(quorum.target).toEqual([
      [5, 2],
      [6, 3],
    ]);
  });

  test('asked for again changes nothing; another is refused until that is cancelled', () => {
    const quorum = new Quorum();
    expect(quorum.move(1, 2, 3)).toEqual([]);
    quorum.move(1, 2, 4);
    const added = quorum.target![2]![0];
    expect(quorum.move(1, 2, 4)).toEqual([]);
    expect(() => quorum.move(1, 2, 5)).toThrow(expect.objectContaining({ code: 'REASSIGNMENT_IN_PROGRESS' }));
    quorum.cancel();
    expect([quorum.target, quorum.leaving]).toEqual([
      [
        [4, 1],
        [5, 2],
        [6, 3],
      ],
      [added],
    ]);
    expect(quorum.cancel()).toEqual([]);
    // What is being taken back is in nobody's way, and what may have become a member stays until it is known not to be.
    quorum.move(1, 2, 5);
    expect(quorum.leaving).toEqual([added]);
    expect(() => new Quorum().cancel()).toThrow(expect.objectContaining({ code: 'NO_REASSIGNMENT_IN_PROGRESS' }));
  });

  test('that brings back a broker that is leaving brings back its replica', () => {
    const quorum = new Quorum();
    quorum.move(1, 2, 4);
    const [, , added] = quorum.target!;
    quorum.cancel();
    quorum.move(1, 2, 4);
    expect(quorum.target![2]).toEqual(added);
  });
});

describe('a report', () => {
  function moving() {
    const quorum = new Quorum();
    quorum.lead(1, 3);
    quorum.move(1, 2, 4);
    return { quorum, voters: quorum.partition.target!.replicas };
  }

  test('of the target clears it, and the replica that was left out is named no more', () => {
    const { quorum, voters } = moving();
    quorum.report(1, [quorum.committed(3, 20, voters)]);
    expect(quorum.partition).toMatchObject({ replicas: voters, target: undefined, configuration: { term: 3, index: 20 } });
    expect(namedReplicas(quorum.partition).map(({ brokerId }) => brokerId)).toEqual([1, 2, 4]);
  });

  test('counts only from the leader of the present term, about the present target', () => {
    const { quorum, voters } = moving();
    const ignored = (brokerId: number, report: CommittedConfiguration) => expect(quorum.report(brokerId, [report])).toEqual([]);
    ignored(2, quorum.committed(3, 20, voters));
    ignored(1, quorum.committed(2, 20, voters));
    ignored(1, quorum.committed(4, 20, voters));
    ignored(1, quorum.committed(3, 20, voters, { targetEpoch: 0 }));
    ignored(1, quorum.committed(3, 20, voters, { topicId: uuid<TopicId>(77) }));
    const late = quorum.committed(3, 20, voters);
    quorum.cancel();
    ignored(1, late);
    quorum.lead(2, 4);
    ignored(1, quorum.committed(3, 20, voters));
  });

  test('on the way moves the voters, and the target stays', () => {
    const { quorum, voters } = moving();
    quorum.report(1, [quorum.committed(3, 20, voters.slice(0, 2))]);
    expect([quorum.partition.replicas.length, quorum.target?.length]).toEqual([2, 3]);
    quorum.report(1, [quorum.committed(3, 19, voters)]);
    expect(quorum.target).toHaveLength(3);
    quorum.report(1, [quorum.committed(3, 22, voters)]);
    expect(quorum.target).toBeUndefined();
  });

  test('of a cancelled move that never began clears it', () => {
    const quorum = new Quorum();
    quorum.lead(1, 1);
    quorum.move(4);
    quorum.cancel();
    quorum.report(1, [quorum.committed(1, 0, quorum.partition.replicas)]);
    expect(quorum.target).toBeUndefined();
  });
});

describe('a lost replica', () => {
  test('gets a successor on its broker when its disk is another', () => {
    const quorum = new Quorum();
    expect(quorum.repair()).toEqual({ records: 0, stuck: 0 });
    quorum.wipe(2);
    expect(quorum.repair()).toEqual({ records: 1, stuck: 0 });
    const { target } = quorum.partition;
    expect(target!.replicas.map(({ brokerId }) => brokerId)).toEqual([1, 2, 3]);
    expect(target!.replicas[1]).toMatchObject({ replicaId: 7, directoryId: quorum.image.brokers.get(2 as BrokerId)!.directoryId });
    expect(quorum.repair()).toEqual({ records: 0, stuck: 0 });
  });

  test('gets one when its broker gave it up, and only that broker can', () => {
    const quorum = new Quorum();
    expect(quorum.report(1, [], [5])).toEqual([]);
    expect(quorum.report(2, [], [5, 99])).toHaveLength(1);
    expect(quorum.report(2, [], [5])).toEqual([]);
    quorum.repair();
    expect(quorum.target).toEqual([
      [4, 1],
      [7, 2],
      [6, 3],
    ]);
  });

  test('is replaced only while a majority of the voters is whole and live', () => {
    const quorum = new Quorum();
    quorum.wipe(1);
    quorum.apply([{ type: 'fenceBroker', brokerId: 2 as BrokerId }]);
    expect(quorum.repair()).toEqual({ records: 0, stuck: 1 });
    quorum.apply([{ type: 'unfenceBroker', brokerId: 2 as BrokerId }]);
    quorum.fail(2);
    expect(quorum.repair()).toEqual({ records: 0, stuck: 1 });
    expect(quorum.target).toBeUndefined();
  });

  test('that is the only one is never replaced', () => {
    const quorum = new Quorum([[0]]);
    quorum.wipe(1);
    expect(quorum.repair()).toEqual({ records: 0, stuck: 1 });
    const pair = new Quorum([[0, 1]]);
    pair.fail(1);
    expect(pair.repair()).toEqual({ records: 0, stuck: 1 });
  });

  test('waits for its broker', () => {
    const quorum = new Quorum();
    quorum.fail(3);
    quorum.apply([{ type: 'fenceBroker', brokerId: 3 as BrokerId }]);
    expect(quorum.repair()).toEqual({ records: 0, stuck: 1 });
    quorum.apply([{ type: 'unfenceBroker', brokerId: 3 as BrokerId }]);
    expect(quorum.repair()).toEqual({ records: 1, stuck: 0 });
  });

  test('one after the other: the second only when the first has its successor', () => {
    const quorum = new Quorum();
    quorum.lead(1, 1);
    quorum.wipe(2);
    quorum.repair();
    quorum.wipe(3);
    expect(quorum.repair()).toEqual({ records: 0, stuck: 1 });
    quorum.report(1, [quorum.committed(1, 30, quorum.partition.target!.replicas)]);
    expect(quorum.repair()).toEqual({ records: 1, stuck: 0 });
  });

  test('is replaced in a target as well, and what a target drops is not replaced', () => {
    const quorum = new Quorum();
    quorum.move(1, 2, 4);
    const [, , added] = quorum.target!;
    quorum.wipe(4);
    quorum.wipe(3);
    expect(quorum.repair()).toEqual({ records: 1, stuck: 0 });
    expect(quorum.target!.map(([, brokerId]) => brokerId)).toEqual([1, 2, 4]);
    expect(quorum.target![2]).not.toEqual(added);
    expect(quorum.leaving).toEqual([added![0]]);
  });

  test('is there again when its disk is, as long as it is still named', () => {
    const quorum = new Quorum();
    quorum.wipe(2);
    quorum.repair();
    quorum.apply([brokerRecord(2)]);
    quorum.repair();
    expect(quorum.target).toEqual([
      [4, 1],
      [5, 2],
      [6, 3],
    ]);
  });

  test('does not stand in the way of an operator who moves the partition elsewhere', () => {
    const quorum = new Quorum();
    quorum.wipe(2);
    quorum.repair();
    quorum.move(1, 4, 3);
    expect(quorum.target!.map(([, brokerId]) => brokerId)).toEqual([1, 4, 3]);
    expect(quorum.leaving).toEqual([7]);
  });
});

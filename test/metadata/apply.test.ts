import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { InvariantError } from '../../src/base/assert.ts';
import type { BrokerId, DirectoryId, ReplicaId, TopicId } from '../../src/base/ids.ts';
import { applyRecords, difference, emptyImage } from '../../src/metadata/apply.ts';
import { encodeImage } from '../../src/metadata/checkpoint.ts';
import { type MetadataDelta, type MetadataImage, namedReplicas, type PartitionImage } from '../../src/metadata/image.ts';
import { PersistentMap } from '../../src/metadata/persistent-map.ts';
import { brokerRecord, formed, history, replica, topicRecord, uuid } from './arbitrary.ts';

const base = applyRecords(emptyImage, 1, formed).image;
const topicId = uuid<TopicId>(1);

function leader(partition: number, broker: number, leaderEpoch: number) {
  return { type: 'partitionLeader', topicId, partition, leader: broker as BrokerId, leaderEpoch } as const;
}

function partitionOf(image: MetadataImage): PartitionImage {
  return image.topics.get(topicId)!.partitions[0]!;
}

function setTarget(epoch: number, replicas: ReturnType<typeof replica>[], leaving: ReturnType<typeof replica>[] = []) {
  return { type: 'setTarget', topicId, partition: 0, epoch, replicas, leaving } as const;
}

function committedRecord(term: number, index: number, replicas: ReturnType<typeof replica>[]) {
  return { type: 'replicasCommitted', topicId, partition: 0, term, index, replicas } as const;
}

describe('applyRecords', () => {
  test('a created topic has its replicas numbered in order and no leader yet', () => {
    const { image, createdTopics, changedLeaders } = applyRecords(base, 2, [
      topicRecord(base, 1, [
        [0, 1],
        [1, 2],
      ]),
    ]);
    expect(createdTopics).toHaveLength(1);
    expect(changedLeaders).toEqual([]);
    expect(
      image.topics.get(topicId)?.partitions.map(({ replicas, leader }) => [leader, ...replicas.map((r) => [r.replicaId, r.brokerId])]),
    ).toEqual([
      [undefined, [4, 1], [5, 2]],
      [undefined, [6, 2], [7, 3]],
    ]);
    expect([image.nextReplicaId, image.index, image.topicIds.get('topic-1')]).toEqual([8, 2, topicId]);
    expect(base.topics.size).toBe(0);
  });

  test('leaders are monotone in the epoch', () => {
    const { image } = applyRecords(base, 2, [topicRecord(base, 1, [[0, 1, 2]])]);
    const first = applyRecords(image, 3, [leader(0, 1, 1)]);
    expect(first.changedLeaders.map(({ partition }) => [partition.leader, partition.leaderEpoch])).toEqual([[1, 1]]);
    for (const late of [leader(0, 2, 1), leader(0, 3, 0)]) {
      const after = applyRecords(first.image, 4, [late]);
      expect(after.changedLeaders).toEqual([]);
      expect(after.image.topics.get(topicId)).toBe(first.image.topics.get(topicId));
    }
    expect(applyRecords(first.image, 4, [leader(0, 2, 3)]).image.topics.get(topicId)?.partitions[0]).toMatchObject({
      leader: 2,
      leaderEpoch: 3,
    });
  });

  test('a wiped disk is a new directory; replicas stay bound to the old one', () => {
    const { image } = applyRecords(base, 2, [topicRecord(base, 1, [[0]])]);
    const wiped = applyRecords(image, 3, [{ ...brokerRecord(1, 2), directoryId: uuid<DirectoryId>(0xeee) } as never]);
    expect(wiped.changedBrokers).toHaveLength(1);
    expect(wiped.image.brokers.get(1 as BrokerId)?.directoryId).toBe(uuid(0xeee));
    expect(wiped.image.topics.get(topicId)?.partitions[0]?.replicas[0]?.directoryId).toBe(uuid(0xd1));
  });

  test('a deleted topic is gone with its name; its replica ids are not given out again', () => {
    const { image } = applyRecords(base, 2, [topicRecord(base, 1, [[0]])]);
    const deleted = applyRecords(image, 3, [{ type: 'deleteTopic', topicId }]);
    expect(deleted.deletedTopics).toEqual([image.topics.get(topicId)]);
    expect([deleted.image.topics.size, deleted.image.topicIds.size, deleted.image.nextReplicaId]).toEqual([0, 0, 5]);
    const both = applyRecords(base, 2, [topicRecord(base, 1, [[0]]), leader(0, 1, 1), { type: 'deleteTopic', topicId }]);
    expect([both.createdTopics, both.deletedTopics, both.changedLeaders]).toEqual([[], [], []]);
  });

  test('replicas move towards a target, and what may be a member stays named until it is known to be none', () => {
    const { image } = applyRecords(base, 2, [topicRecord(base, 1, [[0, 1, 2]])]);
    const [one, two, three] = [replica(4, 1), replica(5, 2), replica(6, 3)];
    const four = replica(7, 4);
    const names = (of: MetadataImage) => namedReplicas(partitionOf(of)).map(({ replicaId }) => replicaId);
    const moving = applyRecords(image, 3, [setTarget(1, [one, two, four])]);
    expect(moving.changedReplicas.map(({ partition }) => partition.target?.replicas)).toEqual([[one, two, four]]);
    expect([names(moving.image).sort(), moving.image.nextReplicaId]).toEqual([[4, 5, 6, 7], 8]);
    const back = applyRecords(moving.image, 4, [setTarget(2, [one, two, three], [four])]);
    expect(names(back.image).sort()).toEqual([4, 5, 6, 7]);
    const reported = applyRecords(back.image, 5, [
      committedRecord(1, 9, [one, two, three]),
      { type: 'clearTarget', topicId, partition: 0 },
    ]);
    expect(names(reported.image)).toEqual([4, 5, 6]);
    expect(partitionOf(reported.image)).toMatchObject({ configuration: { term: 1, index: 9 }, targetEpoch: 2, target: undefined });
  });

  test('a report of replicas that is not newer changes nothing', () => {
    const { image } = applyRecords(base, 2, [topicRecord(base, 1, [[0, 1]])]);
    const reported = applyRecords(image, 3, [committedRecord(3, 9, [replica(5, 2)])]);
    for (const late of [
      committedRecord(3, 9, [replica(4, 1)]),
      committedRecord(5, 8, [replica(4, 1)]),
      committedRecord(2, 10, [replica(4, 1)]),
    ]) {
      const after = applyRecords(reported.image, 4, [late]);
      expect(after.changedReplicas).toEqual([]);
      expect(partitionOf(after.image)).toBe(partitionOf(reported.image));
    }
  });

  test('a failed replica is marked once, and forgotten with the replica', () => {
    const { image } = applyRecords(base, 2, [topicRecord(base, 1, [[0, 1]])]);
    const failed = (replicaId: number) => ({ type: 'replicaFailed', topicId, partition: 0, replicaId: replicaId as ReplicaId }) as const;
    const marked = applyRecords(image, 3, [failed(5), failed(5), failed(99)]).image;
    expect(partitionOf(marked).failed).toEqual([5]);
    const replaced = applyRecords(marked, 4, [
      setTarget(1, [replica(4, 1), replica(6, 2)]),
      committedRecord(1, 7, [replica(4, 1), replica(6, 2)]),
    ]);
    expect(partitionOf(replaced.image).failed).toEqual([]);
  });

  test('a replica id is given out once, and targets are counted', () => {
    const { image } = applyRecords(base, 2, [topicRecord(base, 1, [[0, 1]]), { type: 'allocateReplicaIds', nextReplicaId: 7 }]);
    expect(() => applyRecords(image, 3, [setTarget(1, [replica(6, 3)])])).toThrow(/given out once/);
    expect(() => applyRecords(image, 3, [setTarget(2, [replica(4, 1)])])).toThrow(/counted/);
  });

  test('records that can not be are refused loudly', () => {
    expect(() => applyRecords(base, 2, [leader(0, 1, 1)])).toThrow(InvariantError);
    expect(() => applyRecords(base, 2, [{ type: 'fenceBroker', brokerId: 9 as BrokerId }])).toThrow(InvariantError);
    expect(() => applyRecords(base, 2, [{ ...topicRecord(base, 1, [[0]]), firstReplicaId: 2 } as never])).toThrow(InvariantError);
    const { image } = applyRecords(base, 2, [topicRecord(base, 1, [[0]])]);
    expect(() => applyRecords(image, 3, [topicRecord(image, 1, [[0]])])).toThrow(InvariantError);
  });

  test('what an entry does not change is shared', () => {
    let image: MetadataImage = base;
    for (let n = 1; n <= 50; n++)
      image = applyRecords(image, n + 1, [
        topicRecord(image, n, [
          [0, 1, 2],
          [1, 2, 0],
        ]),
      ]).image;
    const next = applyRecords(image, 52, [leader(1, 2, 1)]).image;
    expect(next.brokers).toBe(image.brokers);
    expect(next.topicIds).toBe(image.topicIds);
    for (const [id, topic] of image.topics) if (id !== topicId) expect(next.topics.get(id)).toBe(topic);
    expect(next.topics.get(topicId)?.partitions[0]).toBe(image.topics.get(topicId)?.partitions[0]);
    expect(next.topics.get(topicId)?.partitions[1]).not.toBe(image.topics.get(topicId)?.partitions[1]);
  });

  test('replays give the same image, entry by entry or at once', () => {
    fc.assert(
      fc.property(history, (log) => {
        const replay = (): MetadataImage => log.reduce((image, records, i) => applyRecords(image, i + 1, records).image, emptyImage);
        const bytes = encodeImage(replay());
        expect(encodeImage(replay())).toEqual(bytes);
        expect(encodeImage(applyRecords(emptyImage, log.length, log.flat()).image)).toEqual(bytes);
      }),
      { numRuns: 50 },
    );
  });

  test('deltas add up to the difference between first and last image', () => {
    fc.assert(
      fc.property(history, (log) => {
        let image = emptyImage;
        const followed = new Follower();
        log.forEach((records, i) => {
          const delta = applyRecords(image, i + 1, records);
          followed.take(delta);
          image = delta.image;
        });
        const atOnce = new Follower();
        atOnce.take(difference(emptyImage, image));
        expect(followed.state()).toEqual(atOnce.state());
      }),
      { numRuns: 50 },
    );
  });
});

/** A broker that knows only deltas. */
class Follower {
  readonly #topics = new Set<string>();
  readonly #leaders = new Map<string, string>();
  readonly #brokers = new Map<number, string>();
  readonly #replicas = new Map<string, string>();

  take(delta: MetadataDelta): void {
    for (const { topicId } of delta.deletedTopics) {
      expect(this.#topics.delete(topicId)).toBe(true);
      for (const of of [this.#leaders, this.#replicas]) for (const key of of.keys()) if (key.startsWith(topicId)) of.delete(key);
    }
    for (const topic of delta.createdTopics) {
      expect(this.#topics.has(topic.topicId)).toBe(false);
      this.#topics.add(topic.topicId);
      for (const partition of topic.partitions) this.#move(topic.topicId, partition);
    }
    for (const { topic, partition } of delta.changedReplicas) this.#move(topic.topicId, partition);
    for (const { topic, partition } of delta.changedLeaders) {
      this.#leaders.set(`${topic.topicId}-${partition.partition}`, `${partition.leader} ${partition.leaderEpoch}`);
    }
    for (const { brokerId, incarnation, fenced } of delta.changedBrokers) this.#brokers.set(brokerId, `${incarnation} ${fenced}`);
  }
  state() {
    const sorted = (map: ReadonlyMap<unknown, string>) => [...map].sort();
    return {
      topics: [...this.#topics].sort(),
      leaders: sorted(this.#leaders),
      brokers: sorted(this.#brokers),
      replicas: sorted(this.#replicas),
    };
  }

  #move(of: TopicId, { partition, replicas, configuration, targetEpoch, target, failed }: PartitionImage): void {
    this.#replicas.set(`${of}-${partition}`, JSON.stringify([replicas, configuration, targetEpoch, target, failed]));
  }
}

describe('PersistentMap', () => {
  test('is a map', () => {
    const key = fc.string({ maxLength: 2 });
    const step = fc.tuple(key, fc.option(fc.nat(), { nil: undefined }));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const model = new Map<string, number>();
        let map = PersistentMap.empty<string, number>();
        for (const [k, value] of steps) {
          const before = [...map];
          const next = value === undefined ? map.without(k) : map.with(k, value);
          expect([...map]).toEqual(before);
          map = next;
          if (value === undefined) model.delete(k);
          else model.set(k, value);
          expect(map.get(k)).toBe(model.get(k));
        }
        expect([map.size, [...map].sort()]).toEqual([model.size, [...model].sort()]);
        const rebuilt = PersistentMap.from([...model].reverse());
        expect([...rebuilt]).toEqual([...map]);
      }),
    );
  });

  test('holds keys whose hashes collide', () => {
    // FNV-1a maps both to one value, found by a search.
    const [a, b] = ['topic-kkxuinr5b', 'topic-1x000d929rh'];
    const map = PersistentMap.empty<string, number>().with(a, 1).with(b, 2).with('other', 3).with(b, 4);
    expect([map.get(a), map.get(b), map.size]).toEqual([1, 4, 3]);
    expect([...map.without(a)].map(([, value]) => value).sort()).toEqual([3, 4]);
    expect(map.without(a).without(b).without('other').size).toBe(0);
    expect(map.without('absent')).toBe(map);
  });
});

/**
 * Image and records to the next image and what changed. Pure. What did not change is shared, so an entry costs what it
 * changes (and one array of pointers a touched topic), not the size of the cluster.
 */
import { assert, must, unreachable } from '../base/assert.ts';
import type { BrokerId, ClusterId, ReplicaId, TopicId } from '../base/ids.ts';
import type { BrokerRegistration, MetadataDelta, MetadataImage, PartitionImage, TopicImage } from './image.ts';
import { asCreated, committed, failed, sameReplicas, targeted, withoutTarget } from './partition-replicas.ts';
import { PersistentMap } from './persistent-map.ts';
import type { CreateTopicRecord, MetadataRecord, PartitionLeaderRecord, SetTargetRecord } from './records.ts';

export const emptyImage: MetadataImage = {
  index: 0,
  clusterId: undefined,
  featureLevel: 0,
  brokers: new Map(),
  topics: PersistentMap.empty(),
  topicIds: PersistentMap.empty(),
  nextReplicaId: 1,
  nextProducerId: 1,
};

/** The image after the records of the entry at `index`; an entry without metadata records has none. */
export function applyRecords(image: MetadataImage, index: number, records: readonly MetadataRecord[]): MetadataDelta {
  const draft = new Draft(image);
  for (const record of records) draft.apply(record);
  return draft.finish(index);
}

/** What lies between two images, the second one newer: for a checkpoint that replaces an image, and for a subscriber's first call. */
export function difference(before: MetadataImage, after: MetadataImage): MetadataDelta {
  const createdTopics: TopicImage[] = [];
  const changedConfigs: TopicImage[] = [];
  const changedLeaders: { topic: TopicImage; partition: PartitionImage }[] = [];
  const changedReplicas: { topic: TopicImage; partition: PartitionImage }[] = [];
  for (const topic of after.topics.values()) {
    const earlier = before.topics.get(topic.topicId);
    if (earlier === undefined) createdTopics.push(topic);
    else if (earlier !== topic && !sameConfigs(earlier.configs, topic.configs)) changedConfigs.push(topic);
    if (earlier === topic) continue;
    for (const partition of topic.partitions) {
      const was = earlier?.partitions[partition.partition];
      if (partition.leader !== was?.leader || partition.leaderEpoch !== (was?.leaderEpoch ?? 0)) changedLeaders.push({ topic, partition });
      if (was !== undefined && !sameReplicas(was, partition)) changedReplicas.push({ topic, partition });
    }
  }
  return {
    image: after,
    createdTopics,
    deletedTopics: [...before.topics.values()].filter((topic) => !after.topics.has(topic.topicId)),
    changedConfigs,
    changedLeaders,
    changedReplicas,
    changedBrokers: [...after.brokers.values()].filter((broker) => !sameBroker(before.brokers.get(broker.brokerId), broker)),
  };
}

function sameConfigs(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean {
  return a === b || (a.size === b.size && [...a].every(([key, value]) => b.get(key) === value));
}

function sameBroker(a: BrokerRegistration | undefined, b: BrokerRegistration): boolean {
  if (a === undefined) return false;
  const same = a.directoryId === b.directoryId && a.incarnation === b.incarnation && a.rack === b.rack && a.fenced === b.fenced;
  return a === b || (same && a.peerAddress === b.peerAddress && sameConfigs(a.listeners, b.listeners));
}

/** The next image while the records of one entry are applied. Each touched topic's partitions are copied once. */
class Draft {
  readonly #before: MetadataImage;
  #clusterId: ClusterId | undefined;
  #featureLevel: number;
  #brokers: ReadonlyMap<BrokerId, BrokerRegistration>;
  #topics: PersistentMap<TopicId, TopicImage>;
  #topicIds: PersistentMap<string, TopicId>;
  #nextReplicaId: number;
  #nextProducerId: number;
  /** Copies of partitions that this entry changes. */
  readonly #partitions = new Map<TopicId, PartitionImage[]>();
  readonly #created = new Set<TopicId>();
  readonly #deleted: TopicImage[] = [];
  readonly #configured = new Set<TopicId>();
  readonly #ledPartitions = new Map<TopicId, Set<number>>();
  readonly #movedPartitions = new Map<TopicId, Set<number>>();
  readonly #changedBrokers = new Set<BrokerId>();

  constructor(image: MetadataImage) {
    this.#before = image;
    this.#clusterId = image.clusterId;
    this.#featureLevel = image.featureLevel;
    this.#brokers = image.brokers;
    this.#topics = PersistentMap.from(image.topics);
    this.#topicIds = PersistentMap.from(image.topicIds);
    this.#nextReplicaId = image.nextReplicaId;
    this.#nextProducerId = image.nextProducerId;
  }

  apply(record: MetadataRecord): void {
    switch (record.type) {
      case 'featureLevel':
        assert(record.level >= this.#featureLevel, 'the feature level never falls', record);
        this.#featureLevel = record.level;
        return;
      case 'clusterFormed':
        assert(this.#clusterId === undefined || this.#clusterId === record.clusterId, 'a cluster has one id', record);
        this.#clusterId = record.clusterId;
        this.#nextReplicaId = Math.max(this.#nextReplicaId, record.nextReplicaId);
        return;
      case 'registerBroker': {
        const { type: _type, ...registration } = record;
        this.#setBroker({ ...registration, fenced: false });
        return;
      }
      case 'fenceBroker':
        this.#setFenced(record.brokerId, true);
        return;
      case 'unfenceBroker':
        this.#setFenced(record.brokerId, false);
        return;
      case 'createTopic':
        this.#createTopic(record);
        return;
      case 'deleteTopic':
        this.#deleteTopic(record.topicId);
        return;
      case 'partitionLeader':
        this.#recordLeader(record);
        return;
      case 'setTarget':
        this.#setTarget(record);
        return;
      case 'clearTarget':
        this.#changeReplicas(record.topicId, record.partition, withoutTarget);
        return;
      case 'replicasCommitted':
        this.#changeReplicas(record.topicId, record.partition, (partition) => committed(partition, record));
        return;
      case 'replicaFailed':
        this.#changeReplicas(record.topicId, record.partition, (partition) => failed(partition, record.replicaId));
        return;
      case 'topicConfig':
        this.#setConfig(record.topicId, record.key, record.value);
        return;
      case 'allocateReplicaIds':
        this.#nextReplicaId = Math.max(this.#nextReplicaId, record.nextReplicaId);
        return;
      case 'allocateProducerIds':
        this.#nextProducerId = Math.max(this.#nextProducerId, record.nextProducerId);
        return;
      default:
        unreachable(record);
    }
  }

  finish(index: number): MetadataDelta {
    for (const [topicId, partitions] of this.#partitions) {
      this.#topics = this.#topics.with(topicId, { ...this.#topic(topicId), partitions });
    }
    const image: MetadataImage = {
      index,
      clusterId: this.#clusterId,
      featureLevel: this.#featureLevel,
      brokers: this.#brokers,
      topics: this.#topics,
      topicIds: this.#topicIds,
      nextReplicaId: this.#nextReplicaId,
      nextProducerId: this.#nextProducerId,
    };
    return {
      image,
      createdTopics: [...this.#created].map((topicId) => this.#topic(topicId)),
      deletedTopics: this.#deleted,
      changedConfigs: [...this.#configured].filter((topicId) => !this.#created.has(topicId)).map((topicId) => this.#topic(topicId)),
      changedLeaders: this.#changed(this.#ledPartitions),
      changedReplicas: this.#changed(this.#movedPartitions).filter(({ topic }) => !this.#created.has(topic.topicId)),
      changedBrokers: [...this.#changedBrokers].map((brokerId) => must(this.#brokers.get(brokerId), 'changed broker', brokerId)),
    };
  }

  #changed(changed: ReadonlyMap<TopicId, ReadonlySet<number>>): { topic: TopicImage; partition: PartitionImage }[] {
    return [...changed].flatMap(([topicId, partitions]) => {
      const topic = this.#topic(topicId);
      return [...partitions].map((partition) => ({ topic, partition: must(topic.partitions[partition], 'changed partition', partition) }));
    });
  }

  #topic(topicId: TopicId): TopicImage {
    return must(this.#topics.get(topicId), 'topic of a record', topicId);
  }

  #setBroker(registration: BrokerRegistration): void {
    this.#brokers = new Map(this.#brokers).set(registration.brokerId, registration);
    this.#changedBrokers.add(registration.brokerId);
  }

  #setFenced(brokerId: BrokerId, fenced: boolean): void {
    const registration = must(this.#brokers.get(brokerId), 'broker of a record', brokerId);
    if (registration.fenced !== fenced) this.#setBroker({ ...registration, fenced });
  }

  #createTopic(record: CreateTopicRecord): void {
    const { topicId, name, configs, disks } = record;
    assert(!this.#topics.has(topicId) && !this.#topicIds.has(name), 'a topic is created once', name);
    assert(record.firstReplicaId === this.#nextReplicaId, 'replica ids are given out in order', {
      record: record.firstReplicaId,
      next: this.#nextReplicaId,
    });
    let replicaId = record.firstReplicaId;
    const partitions = record.partitions.map((replicas, partition) =>
      asCreated(
        partition,
        replicas.map((disk) => {
          const { brokerId, directoryId } = must(disks[disk], 'disk of a replica', disk);
          return { replicaId: replicaId++ as ReplicaId, brokerId, directoryId };
        }),
      ),
    );
    this.#nextReplicaId = replicaId;
    this.#topics = this.#topics.with(topicId, { topicId, name, configs, partitions });
    this.#topicIds = this.#topicIds.with(name, topicId);
    this.#created.add(topicId);
  }

  #deleteTopic(topicId: TopicId): void {
    const topic = this.#topic(topicId);
    this.#topics = this.#topics.without(topicId);
    this.#topicIds = this.#topicIds.without(topic.name);
    this.#partitions.delete(topicId);
    this.#ledPartitions.delete(topicId);
    this.#movedPartitions.delete(topicId);
    this.#configured.delete(topicId);
    // A topic that came and went within one entry was never there for anyone else.
    if (!this.#created.delete(topicId)) this.#deleted.push(must(this.#before.topics.get(topicId), 'topic before', topicId));
  }

  #recordLeader({ topicId, partition, leader, leaderEpoch }: PartitionLeaderRecord): void {
    const current = this.#partition(topicId, partition);
    const newer = leaderEpoch > current.leaderEpoch || (leaderEpoch === current.leaderEpoch && current.leader === undefined);
    if (!newer) return;
    this.#setPartition(topicId, { ...current, leader, leaderEpoch });
    const led = this.#ledPartitions.get(topicId) ?? new Set();
    this.#ledPartitions.set(topicId, led.add(partition));
  }

  #setTarget(record: SetTargetRecord): void {
    const { topicId, partition } = record;
    this.#changeReplicas(topicId, partition, (current) => targeted(current, record, this.#nextReplicaId));
    this.#nextReplicaId = Math.max(this.#nextReplicaId, ...record.replicas.map(({ replicaId }) => replicaId + 1));
  }

  #changeReplicas(topicId: TopicId, partition: number, change: (partition: PartitionImage) => PartitionImage): void {
    const current = this.#partition(topicId, partition);
    const changed = change(current);
    if (changed === current) return;
    this.#setPartition(topicId, changed);
    const moved = this.#movedPartitions.get(topicId) ?? new Set();
    this.#movedPartitions.set(topicId, moved.add(partition));
  }

  #partition(topicId: TopicId, partition: number): PartitionImage {
    return must((this.#partitions.get(topicId) ?? this.#topic(topicId).partitions)[partition], 'partition of a record', partition);
  }

  #setPartition(topicId: TopicId, image: PartitionImage): void {
    let partitions = this.#partitions.get(topicId);
    if (partitions === undefined) {
      partitions = [...this.#topic(topicId).partitions];
      this.#partitions.set(topicId, partitions);
    }
    partitions[image.partition] = image;
  }

  #setConfig(topicId: TopicId, key: string, value: string | undefined): void {
    const topic = this.#topic(topicId);
    const configs = new Map(topic.configs);
    if (value === undefined) configs.delete(key);
    else configs.set(key, value);
    this.#topics = this.#topics.with(topicId, { ...topic, configs });
    this.#configured.add(topicId);
  }
}

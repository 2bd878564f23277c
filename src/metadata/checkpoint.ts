/**
 * A whole image in bytes: for the StateStore, and for brokers that follow from further back than the log reaches.
 *
 *   u8 format (1), varint index, u8 formed, [uuid clusterId], varint featureLevel, varint nextReplicaId, varint nextProducerId,
 *   varint brokers, for each by id: a registerBroker record's body, u8 fenced
 *   varint topics, for each by id: uuid topicId, string name, strings configs, varint d, d × (varint brokerId, uuid directoryId),
 *     varint partitions, for each: varint groupGeneration, varint leader (0: none), varint leaderEpoch,
 *       varint replicas, for each: varint replicaId, varint index into the d disks
 *
 * Sorted throughout, so that equal images are equal bytes: replicas compare their states by it.
 */
import { must } from '../base/assert.ts';
import type { BrokerId, ClusterId, DirectoryId, ReplicaId, TopicId } from '../base/ids.ts';
import { ByteReader, ByteWriter, MalformedRecordError } from '../rsm/codec.ts';
import type { BrokerRegistration, MetadataImage, PartitionImage, ReplicaAssignment, TopicImage } from './image.ts';
import { PersistentMap } from './persistent-map.ts';
import { readOptional, writeOptional } from './records.ts';

const FORMAT = 1;

export function encodeImage(image: MetadataImage): Uint8Array {
  const w = new ByteWriter().u8(FORMAT).varint(image.index);
  w.u8(image.clusterId === undefined ? 0 : 1);
  if (image.clusterId !== undefined) w.uuid(image.clusterId);
  w.varint(image.featureLevel).varint(image.nextReplicaId).varint(image.nextProducerId);
  w.varint(image.brokers.size);
  for (const broker of [...image.brokers.values()].sort((a, b) => a.brokerId - b.brokerId)) writeBroker(w, broker);
  w.varint(image.topics.size);
  for (const topicId of [...image.topics.keys()].sort()) writeTopic(w, must(image.topics.get(topicId), 'topic', topicId));
  return w.finish();
}

export function decodeImage(bytes: Uint8Array): MetadataImage {
  const r = new ByteReader(bytes);
  const format = r.u8();
  if (format !== FORMAT)
    throw new MalformedRecordError(`metadata checkpoint format ${format}: this broker is older than it, upgrade the broker`);
  const index = r.varint();
  const clusterId = r.u8() === 0 ? undefined : (r.uuid() as ClusterId);
  const featureLevel = r.varint();
  const nextReplicaId = r.varint();
  const nextProducerId = r.varint();
  const brokers = new Map<BrokerId, BrokerRegistration>();
  for (let left = r.count(20); left > 0; left--) {
    const broker = readBroker(r);
    brokers.set(broker.brokerId, broker);
  }
  let topics = PersistentMap.empty<TopicId, TopicImage>();
  let topicIds = PersistentMap.empty<string, TopicId>();
  for (let left = r.count(20); left > 0; left--) {
    const topic = readTopic(r);
    topics = topics.with(topic.topicId, topic);
    topicIds = topicIds.with(topic.name, topic.topicId);
  }
  r.end();
  return { index, clusterId, featureLevel, brokers, topics, topicIds, nextReplicaId, nextProducerId };
}

function writeBroker(w: ByteWriter, broker: BrokerRegistration): void {
  w.varint(broker.brokerId).uuid(broker.directoryId).varint(broker.incarnation);
  writeOptional(w, broker.rack);
  w.strings(broker.listeners)
    .string(broker.peerAddress)
    .u8(broker.fenced ? 1 : 0);
}

function readBroker(r: ByteReader): BrokerRegistration {
  return {
    brokerId: r.varint() as BrokerId,
    directoryId: r.uuid() as DirectoryId,
    incarnation: r.varint(),
    rack: readOptional(r),
    listeners: r.strings(),
    peerAddress: r.string(),
    fenced: r.u8() === 1,
  };
}

function writeTopic(w: ByteWriter, topic: TopicImage): void {
  w.uuid(topic.topicId).string(topic.name).strings(topic.configs);
  const disks = new DiskTable();
  for (const { replicas } of topic.partitions) for (const replica of replicas) disks.add(replica);
  w.varint(disks.list.length);
  for (const { brokerId, directoryId } of disks.list) w.varint(brokerId).uuid(directoryId);
  w.varint(topic.partitions.length);
  for (const { groupGeneration, leader, leaderEpoch, replicas } of topic.partitions) {
    w.varint(groupGeneration)
      .varint(leader ?? 0)
      .varint(leaderEpoch)
      .varint(replicas.length);
    for (const replica of replicas) w.varint(replica.replicaId).varint(disks.indexOf(replica));
  }
}

type Disk = Omit<ReplicaAssignment, 'replicaId'>;

/** The disks of a topic, each once. Two maps instead of a key made of both: this is asked twice a replica. */
class DiskTable {
  readonly list: Disk[] = [];
  readonly #indexes = new Map<BrokerId, Map<DirectoryId, number>>();

  add(disk: Disk): void {
    let directories = this.#indexes.get(disk.brokerId);
    if (directories === undefined) {
      directories = new Map();
      this.#indexes.set(disk.brokerId, directories);
    }
    if (directories.has(disk.directoryId)) return;
    directories.set(disk.directoryId, this.list.length);
    this.list.push(disk);
  }

  indexOf(disk: Disk): number {
    return must(this.#indexes.get(disk.brokerId)?.get(disk.directoryId), 'disk of a replica', disk);
  }
}

function readTopic(r: ByteReader): TopicImage {
  const topicId = r.uuid() as TopicId;
  const name = r.string();
  const configs = r.strings();
  const disks = Array.from({ length: r.count(17) }, () => ({ brokerId: r.varint() as BrokerId, directoryId: r.uuid() as DirectoryId }));
  const partitions = Array.from({ length: r.count(4) }, (_, partition) => readPartition(r, partition, disks));
  return { topicId, name, configs, partitions };
}

function readPartition(r: ByteReader, partition: number, disks: readonly Disk[]): PartitionImage {
  const groupGeneration = r.varint();
  const leader = r.varint();
  const leaderEpoch = r.varint();
  const replicas = Array.from({ length: r.count(2) }, () => {
    const replicaId = r.varint() as ReplicaId;
    const disk = disks[r.varint()];
    if (disk === undefined) throw new MalformedRecordError(`replica ${replicaId} is on a disk that is not listed`);
    return { replicaId, ...disk };
  });
  return { partition, groupGeneration, replicas, leader: leader === 0 ? undefined : (leader as BrokerId), leaderEpoch };
}

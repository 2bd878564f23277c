/**
 * A whole image in bytes: for the StateStore, and for brokers that follow from further back than the log reaches.
 *
 *   u8 format (2; 1 below feature level 2), varint index, u8 formed, [uuid clusterId], varint featureLevel, varint nextReplicaId, varint nextProducerId,
 *   varint brokers, for each by id: a registerBroker record's body, u8 fenced
 *   varint topics, for each by id: uuid topicId, string name, strings configs, varint d, d × (varint brokerId, uuid directoryId),
 *     varint partitions, for each: varint groupGeneration, varint leader (0: none), varint leaderEpoch,
 *       replicas, and from format 2 on: varint term and varint index of the replicas' configuration, varint targetEpoch, u8 target,
 *       [replicas of the target, replicas leaving], varint failed, for each: varint replicaId
 *   `replicas`: varint how many, for each: varint replicaId, varint index into the d disks
 *
 * Sorted throughout, so that equal images are equal bytes: replicas compare their states by it.
 */
import { must } from '../base/assert.ts';
import type { BrokerId, ClusterId, DirectoryId, ReplicaId, TopicId } from '../base/ids.ts';
import { ByteReader, ByteWriter, MalformedRecordError } from '../rsm/codec.ts';
import {
  type BrokerRegistration,
  type MetadataImage,
  namedReplicas,
  type PartitionImage,
  type ReplicaAssignment,
  type ReplicaTarget,
  type TopicImage,
} from './image.ts';
import { asCreated } from './partition-replicas.ts';
import { PersistentMap } from './persistent-map.ts';
import { MOVING_REPLICAS_LEVEL, readOptional, writeOptional } from './records.ts';

/** Replicas do not move yet. */
const FIRST_FORMAT = 1;
const FORMAT = 2;

export function encodeImage(image: MetadataImage): Uint8Array {
  // Brokers of the release before read format 1 alone, and there may be some until the feature level is raised.
  const format = image.featureLevel < MOVING_REPLICAS_LEVEL ? FIRST_FORMAT : FORMAT;
  const w = new ByteWriter().u8(format).varint(image.index);
  w.u8(image.clusterId === undefined ? 0 : 1);
  if (image.clusterId !== undefined) w.uuid(image.clusterId);
  w.varint(image.featureLevel).varint(image.nextReplicaId).varint(image.nextProducerId);
  w.varint(image.brokers.size);
  for (const broker of [...image.brokers.values()].sort((a, b) => a.brokerId - b.brokerId)) writeBroker(w, broker);
  w.varint(image.topics.size);
  for (const topicId of [...image.topics.keys()].sort()) writeTopic(w, must(image.topics.get(topicId), 'topic', topicId), format);
  return w.finish();
}

export function decodeImage(bytes: Uint8Array): MetadataImage {
  const r = new ByteReader(bytes);
  const format = r.u8();
  if (format !== FIRST_FORMAT && format !== FORMAT)
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
    const topic = readTopic(r, format);
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

function writeTopic(w: ByteWriter, topic: TopicImage, format: number): void {
  w.uuid(topic.topicId).string(topic.name).strings(topic.configs);
  const disks = new DiskTable();
  for (const partition of topic.partitions) for (const replica of namedReplicas(partition)) disks.add(replica);
  w.varint(disks.list.length);
  for (const { brokerId, directoryId } of disks.list) w.varint(brokerId).uuid(directoryId);
  w.varint(topic.partitions.length);
  for (const partition of topic.partitions) {
    const { groupGeneration, leader, leaderEpoch, replicas } = partition;
    w.varint(groupGeneration)
      .varint(leader ?? 0)
      .varint(leaderEpoch);
    writeReplicas(w, replicas, disks);
    if (format !== FIRST_FORMAT) writeMoves(w, partition, disks);
  }
}

function writeMoves(w: ByteWriter, { configuration, targetEpoch, target, failed }: PartitionImage, disks: DiskTable): void {
  w.varint(configuration.term).varint(configuration.index).varint(targetEpoch);
  w.u8(target === undefined ? 0 : 1);
  if (target !== undefined) {
    writeReplicas(w, target.replicas, disks);
    writeReplicas(w, target.leaving, disks);
  }
  w.varint(failed.length);
  for (const replicaId of failed) w.varint(replicaId);
}

function writeReplicas(w: ByteWriter, replicas: readonly ReplicaAssignment[], disks: DiskTable): void {
  w.varint(replicas.length);
  for (const replica of replicas) w.varint(replica.replicaId).varint(disks.indexOf(replica));
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

function readTopic(r: ByteReader, format: number): TopicImage {
  const topicId = r.uuid() as TopicId;
  const name = r.string();
  const configs = r.strings();
  const disks = Array.from({ length: r.count(17) }, () => ({ brokerId: r.varint() as BrokerId, directoryId: r.uuid() as DirectoryId }));
  const partitions = Array.from({ length: r.count(4) }, (_, partition) => readPartition(r, partition, disks, format));
  return { topicId, name, configs, partitions };
}

function readPartition(r: ByteReader, partition: number, disks: readonly Disk[], format: number): PartitionImage {
  const groupGeneration = r.varint();
  const broker = r.varint();
  const leader = broker === 0 ? undefined : (broker as BrokerId);
  const leaderEpoch = r.varint();
  const image = { ...asCreated(partition, readReplicas(r, disks)), groupGeneration, leader, leaderEpoch };
  return format === FIRST_FORMAT ? image : { ...image, ...readMoves(r, disks) };
}

function readMoves(r: ByteReader, disks: readonly Disk[]): Pick<PartitionImage, 'configuration' | 'targetEpoch' | 'target' | 'failed'> {
  const configuration = { term: r.varint(), index: r.varint() };
  const targetEpoch = r.varint();
  const target: ReplicaTarget | undefined =
    r.u8() === 0 ? undefined : { replicas: readReplicas(r, disks), leaving: readReplicas(r, disks) };
  const failed = Array.from({ length: r.count(1) }, () => r.varint() as ReplicaId);
  return { configuration, targetEpoch, target, failed };
}

function readReplicas(r: ByteReader, disks: readonly Disk[]): ReplicaAssignment[] {
  return Array.from({ length: r.count(2) }, () => {
    const replicaId = r.varint() as ReplicaId;
    const disk = disks[r.varint()];
    if (disk === undefined) throw new MalformedRecordError(`replica ${replicaId} is on a disk that is not listed`);
    return { replicaId, ...disk };
  });
}

/** Random histories of a cluster: records that a controller could have written. */
import fc from 'fast-check';
import type { BrokerId, ClusterId, DirectoryId, ReplicaId, TopicId } from '../../src/base/ids.ts';
import { applyRecords, emptyImage } from '../../src/metadata/apply.ts';
import { type MetadataImage, namedReplicas, type PartitionImage } from '../../src/metadata/image.ts';
import type { MetadataRecord } from '../../src/metadata/records.ts';

export function uuid<T extends string>(number: number): T {
  return number.toString(16).padStart(32, '0') as T;
}

export function brokerRecord(brokerId: number, incarnation = 1, rack?: string): MetadataRecord {
  return {
    type: 'registerBroker',
    brokerId: brokerId as BrokerId,
    directoryId: uuid<DirectoryId>(0xd0 + brokerId),
    incarnation,
    rack,
    listeners: new Map([['external', `host${brokerId}:9092`]]),
    peerAddress: `host${brokerId}:9192`,
  };
}

export function topicRecord(image: MetadataImage, number: number, partitions: readonly (readonly number[])[]): MetadataRecord {
  const disks = [1, 2, 3].map((id) => ({ brokerId: id as BrokerId, directoryId: uuid<DirectoryId>(0xd0 + id) }));
  return {
    type: 'createTopic',
    topicId: uuid<TopicId>(number),
    name: `topic-${number}`,
    configs: new Map([['retention.ms', String(number)]]),
    firstReplicaId: image.nextReplicaId,
    disks,
    partitions,
  };
}

export const formed: readonly MetadataRecord[] = [
  { type: 'featureLevel', level: 2 },
  { type: 'clusterFormed', clusterId: uuid<ClusterId>(0xc1), nextReplicaId: 4 },
  brokerRecord(1),
  brokerRecord(2, 1, 'rack-b'),
  brokerRecord(3),
];

/** A replica of the partition, or a new one. */
export function replica(replicaId: number, brokerId: number) {
  return { replicaId: replicaId as ReplicaId, brokerId: brokerId as BrokerId, directoryId: uuid<DirectoryId>(0xd0 + brokerId) };
}

function moveFor(image: MetadataImage, topicId: TopicId, of: PartitionImage, { kind, a, b, c }: Choice): MetadataRecord {
  const { partition } = of;
  const named = namedReplicas(of);
  if (kind === 12) {
    const kept = named.slice(a % named.length);
    const replicas = [...kept, ...Array.from({ length: b % 3 }, (_, at) => replica(image.nextReplicaId + at, at + 1))];
    return { type: 'setTarget', topicId, partition, epoch: of.targetEpoch + 1, replicas, leaving: named.slice(0, a % named.length) };
  }
  if (kind === 13) return { type: 'clearTarget', topicId, partition };
  if (kind === 14)
    return { type: 'replicasCommitted', topicId, partition, term: b % 5, index: c % 50, replicas: named.slice(a % named.length) };
  return { type: 'replicaFailed', topicId, partition, replicaId: (named[a % (named.length + 1)]?.replicaId ?? 1) as ReplicaId };
}

type Choice = { readonly kind: number; readonly a: number; readonly b: number; readonly c: number };

/** The next record for a random choice, one that fits the image. */
function recordFor(image: MetadataImage, choice: Choice): MetadataRecord {
  const { kind, a, b, c } = choice;
  const topics = [...image.topics.keys()].sort();
  const topicId = topics[a % Math.max(1, topics.length)];
  const broker = ((b % 3) + 1) as BrokerId;
  if (topicId === undefined || kind === 0) {
    const number = [...Array(1000).keys()].find((n) => !image.topicIds.has(`topic-${n}`)) ?? 0;
    const partitions = Array.from({ length: (a % 4) + 1 }, (_, p) => Array.from({ length: (b % 3) + 1 }, (_, r) => (p + r) % 3));
    return topicRecord(image, number + 1000 * (image.nextReplicaId % 7), partitions);
  }
  const partition = b % (image.topics.get(topicId)?.partitions.length ?? 1);
  if (kind === 1) return { type: 'deleteTopic', topicId };
  if (kind === 2) return { type: 'topicConfig', topicId, key: `key-${b % 3}`, value: c % 3 === 0 ? undefined : String(c) };
  if (kind === 3) return { type: 'fenceBroker', brokerId: broker };
  if (kind === 4) return { type: 'unfenceBroker', brokerId: broker };
  if (kind === 5) return brokerRecord(broker, c + 1);
  if (kind === 6) return { type: 'allocateProducerIds', nextProducerId: image.nextProducerId + (c % 100) };
  const of = image.topics.get(topicId)?.partitions[partition];
  if (of !== undefined && kind >= 12) return moveFor(image, topicId, of, choice);
  return { type: 'partitionLeader', topicId, partition, leader: broker, leaderEpoch: c % 20 };
}

const choice = fc.record({ kind: fc.nat(15), a: fc.nat(1000), b: fc.nat(1000), c: fc.nat(1000) });

/** Entries of a metadata log, each with its records. */
export const history: fc.Arbitrary<MetadataRecord[][]> = fc.array(fc.array(choice, { maxLength: 6 }), { maxLength: 20 }).map((entries) => {
  let image = applyRecords(emptyImage, 1, formed).image;
  const log: MetadataRecord[][] = [[...formed]];
  for (const choices of entries) {
    const records: MetadataRecord[] = [];
    let draft = image;
    for (const one of choices) {
      const record = recordFor(draft, one);
      if (record.type === 'createTopic' && (draft.topicIds.has(record.name) || draft.topics.has(record.topicId))) continue;
      records.push(record);
      draft = applyRecords(draft, 0, [record]).image;
    }
    log.push(records);
    image = applyRecords(image, log.length, records).image;
  }
  return log;
});

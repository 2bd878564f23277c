/** The operations on topics: functions of the newest image, run by the runtime on the leading controller. */
import { must } from '../base/assert.ts';
import { FlotillaError } from '../base/errors.ts';
import type { BrokerId, TopicId } from '../base/ids.ts';
import type { BrokerRegistration, MetadataImage, TopicImage } from '../metadata/image.ts';
import type { CreateTopicRecord, MetadataRecord } from '../metadata/records.ts';
import { type PlacementBroker, placeReplicas } from './placement.ts';
import { checkPartitions, checkReplicas } from './policy.ts';
import type { AlterTopicConfigs, CreateTopic } from './types.ts';

export interface TopicDraw {
  readonly topicId: TopicId;
  /** For placement. Drawn outside the operation, which itself is a function of the image. */
  readonly seed: number;
}

/** Throws TOPIC_ALREADY_EXISTS, INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR. */
export function createTopicRecord(image: MetadataImage, request: CreateTopic, draw: TopicDraw): CreateTopicRecord {
  if (image.topicIds.has(request.name)) throw new FlotillaError('TOPIC_ALREADY_EXISTS', `topic '${request.name}' already exists`);
  checkPartitions(request.partitions);
  const live = [...image.brokers.values()].filter((broker) => !broker.fenced);
  checkReplicas(request.replicas, live.length);
  const placed = placeReplicas(withLoads(image, live), request.partitions, request.replicas, draw.seed);
  const indexOf = new Map(live.map((broker, index) => [broker.brokerId, index]));
  return {
    type: 'createTopic',
    topicId: draw.topicId,
    name: request.name,
    configs: request.configs,
    firstReplicaId: image.nextReplicaId,
    disks: live.map(({ brokerId, directoryId }) => ({ brokerId, directoryId })),
    partitions: placed.map((brokers) => brokers.map((brokerId) => must(indexOf.get(brokerId), 'placed on a live broker', brokerId))),
  };
}

/** Throws UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID. */
export function findTopic(image: MetadataImage, request: { readonly name: string; readonly topicId: TopicId | undefined }): TopicImage {
  const { name, topicId } = request;
  if (topicId === undefined) {
    const named = image.topicIds.get(name);
    const topic = named === undefined ? undefined : image.topics.get(named);
    if (topic === undefined) throw new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', `there is no topic '${name}'`);
    return topic;
  }
  const topic = image.topics.get(topicId);
  if (topic === undefined || (name !== '' && topic.name !== name)) {
    throw new FlotillaError(
      'UNKNOWN_TOPIC_ID',
      `there is no topic ${name === '' ? '' : `'${name}' `}with id ${topicId}; it may have been deleted and created again`,
    );
  }
  return topic;
}

/** What a topic sets after a change, and the records of what differs. Throws UNKNOWN_TOPIC_OR_PARTITION. */
export function alterConfigs(
  image: MetadataImage,
  { name, set, remove }: AlterTopicConfigs,
): { readonly configs: ReadonlyMap<string, string>; readonly records: MetadataRecord[] } {
  const { topicId, configs: before } = findTopic(image, { name, topicId: undefined });
  const configs = new Map(before);
  for (const key of remove) configs.delete(key);
  for (const [key, value] of set) configs.set(key, value);
  const changed = [...new Set([...before.keys(), ...configs.keys()])].filter((key) => before.get(key) !== configs.get(key));
  return { configs, records: changed.map((key) => ({ type: 'topicConfig', topicId, key, value: configs.get(key) })) };
}

/** What of a broker's report about leaders is news: newer epochs only, of topics and brokers that exist. */
export function leaderRecords(
  image: MetadataImage,
  reports: readonly { readonly topicId: TopicId; readonly partition: number; readonly leader: BrokerId; readonly leaderEpoch: number }[],
): MetadataRecord[] {
  const records: MetadataRecord[] = [];
  for (const { topicId, partition, leader, leaderEpoch } of reports) {
    const known = image.topics.get(topicId)?.partitions[partition];
    if (known === undefined || !image.brokers.has(leader)) continue;
    if (leaderEpoch < known.leaderEpoch || (leaderEpoch === known.leaderEpoch && known.leader !== undefined)) continue;
    records.push({ type: 'partitionLeader', topicId, partition, leader, leaderEpoch });
  }
  return records;
}

/** What each broker holds already. One pass over all partitions, so that topics of few partitions end up even as well. */
function withLoads(image: MetadataImage, brokers: readonly BrokerRegistration[]): PlacementBroker[] {
  const loads = new Map<BrokerId, { replicas: number; leaders: number }>(
    brokers.map(({ brokerId }) => [brokerId, { replicas: 0, leaders: 0 }]),
  );
  for (const topic of image.topics.values()) {
    for (const { replicas, target } of topic.partitions) {
      (target?.replicas ?? replicas).forEach(({ brokerId }, position) => {
        const load = loads.get(brokerId);
        if (load === undefined) return;
        load.replicas++;
        if (position === 0) load.leaders++;
      });
    }
  }
  return brokers.map(({ brokerId, rack }) => ({ brokerId, rack, ...must(loads.get(brokerId), 'load', brokerId) }));
}

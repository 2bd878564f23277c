/** Topics and brokers of the metadata image, as clients are told of them. */
import { create } from '@bufbuild/protobuf';
import { PartitionMetadataSchema, type TopicMetadata, TopicMetadataSchema } from '../gen/flotilla/v1/admin_pb.ts';
import { type BrokerNode, BrokerNodeSchema, type ConfigEntry, ConfigEntrySchema } from '../gen/flotilla/v1/common_pb.ts';
import type { MetadataImage, TopicImage } from '../metadata/image.ts';
import { topicIdToBytes } from './wire.ts';

export function topicMetadata(topic: TopicImage): TopicMetadata {
  return create(TopicMetadataSchema, {
    name: topic.name,
    topicId: topicIdToBytes(topic.topicId),
    partitions: topic.partitions.map(({ partition, leader, leaderEpoch, replicas }) =>
      create(PartitionMetadataSchema, { partition, leader: leader ?? 0, leaderEpoch, replicas: replicas.map(({ brokerId }) => brokerId) }),
    ),
    configs: configEntries(topic),
  });
}

export function configEntries(topic: TopicImage): ConfigEntry[] {
  return [...topic.configs].map(([key, value]) => create(ConfigEntrySchema, { key, value }));
}

/** Brokers with their addresses on the listener that the question came in on; one that has no such listener has no address. */
export function brokerNodes(image: MetadataImage, listener: string, controllerId: number): BrokerNode[] {
  return [...image.brokers.values()].map(({ brokerId, listeners, rack, fenced, directoryId }) =>
    create(BrokerNodeSchema, {
      brokerId,
      address: listeners.get(listener) ?? '',
      rack: rack ?? '',
      alive: !fenced,
      directoryId,
      controller: brokerId === controllerId,
    }),
  );
}

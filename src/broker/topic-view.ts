/** Topics and brokers of the metadata image, as clients are told of them. */

import { create } from '@bufbuild/protobuf';
import { topicIdToBytes } from '../base/ids.ts';
import { PartitionMetadataSchema, type TopicMetadata, TopicMetadataSchema } from '../gen/flotilla/v1/admin_pb.ts';
import { type BrokerNode, BrokerNodeSchema, type ConfigEntry, ConfigEntrySchema } from '../gen/flotilla/v1/common_pb.ts';
import type { MetadataImage, TopicImage } from '../metadata/image.ts';
import type { Partitions } from './partitions.ts';

/** The topic as the image has it, with the newer leaders that this broker's own replicas know: the image hears of those through the controller. */
export function topicMetadata(topic: TopicImage, partitions: Partitions): TopicMetadata {
  return create(TopicMetadataSchema, {
    name: topic.name,
    topicId: topicIdToBytes(topic.topicId),
    partitions: topic.partitions.map((image) => {
      const { leader, leaderEpoch } = partitions.newerLeader(topic.topicId, image) ?? image;
      const replicas = image.replicas.map(({ brokerId }) => brokerId);
      return create(PartitionMetadataSchema, { partition: image.partition, leader: leader ?? 0, leaderEpoch, replicas });
    }),
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

/**
 * What the cluster knows of itself: an immutable image, made by applying the records of the metadata log (records.ts) in order.
 * Every broker holds one and follows it by deltas. After Kafka's MetadataImage / MetadataDelta.
 */
import type { BrokerId, ClusterId, DirectoryId, ReplicaId, TopicId } from '../base/ids.ts';

export interface MetadataImage {
  /** The index of the last applied entry of the metadata log; 0: nothing yet. */
  readonly index: number;
  readonly clusterId: ClusterId | undefined;
  readonly featureLevel: number;
  readonly brokers: ReadonlyMap<BrokerId, BrokerRegistration>;
  readonly topics: ReadonlyMap<TopicId, TopicImage>;
  readonly topicIds: ReadonlyMap<string, TopicId>;
  readonly nextReplicaId: number;
  readonly nextProducerId: number;
}

export interface BrokerRegistration {
  readonly brokerId: BrokerId;
  readonly directoryId: DirectoryId;
  readonly incarnation: number;
  readonly rack: string | undefined;
  /** Advertised address by listener name. */
  readonly listeners: ReadonlyMap<string, string>;
  readonly peerAddress: string;
  /** The controller lost its heartbeats. */
  readonly fenced: boolean;
}

export interface TopicImage {
  readonly topicId: TopicId;
  readonly name: string;
  readonly configs: ReadonlyMap<string, string>;
  /** By partition number. */
  readonly partitions: readonly PartitionImage[];
}

export interface PartitionImage {
  readonly partition: number;
  readonly groupGeneration: number;
  /** The voters as last reported, the preferred leader first. The truth about voters is the partition's own Raft log. */
  readonly replicas: readonly ReplicaAssignment[];
  /** The committed configuration that `replicas` are from: the index of its entry, the term of the leader that reported it. 0 and 0: from the topic's creation. */
  readonly configuration: { readonly term: number; readonly index: number };
  /** Counts the targets that were set, so that a report says which of them it is about. */
  readonly targetEpoch: number;
  /** Who is to hold the partition, where that is to change. */
  readonly target: ReplicaTarget | undefined;
  /** Of the replicas named here, those that their brokers gave up for good. */
  readonly failed: readonly ReplicaId[];
  /** As last reported, monotone in leaderEpoch. */
  readonly leader: BrokerId | undefined;
  readonly leaderEpoch: number;
}

export interface ReplicaTarget {
  /** The preferred leader first. */
  readonly replicas: readonly ReplicaAssignment[];
  /** Of targets before this one: the partition's leader may have made them members, so they stay until it has reported a configuration for this target. */
  readonly leaving: readonly ReplicaAssignment[];
}

export interface ReplicaAssignment {
  readonly replicaId: ReplicaId;
  readonly brokerId: BrokerId;
  readonly directoryId: DirectoryId;
}

/** What one committed entry of the metadata log changed. */
export interface MetadataDelta {
  readonly image: MetadataImage;
  readonly createdTopics: readonly TopicImage[];
  readonly deletedTopics: readonly TopicImage[];
  readonly changedConfigs: readonly TopicImage[];
  /** Partitions whose leader or epoch changed. */
  readonly changedLeaders: readonly { readonly topic: TopicImage; readonly partition: PartitionImage }[];
  /** Partitions of topics that were there before, whose replicas, target or failed replicas changed. */
  readonly changedReplicas: readonly { readonly topic: TopicImage; readonly partition: PartitionImage }[];
  readonly changedBrokers: readonly BrokerRegistration[];
}

/** All replicas that are, or may yet be, members of the partition's group: only what is not named here may be deleted. */
export function namedReplicas({ replicas, target }: Pick<PartitionImage, 'replicas' | 'target'>): readonly ReplicaAssignment[] {
  if (target === undefined) return replicas;
  const named = new Map([...replicas, ...target.leaving, ...target.replicas].map((replica) => [replica.replicaId, replica]));
  return [...named.values()];
}

/** A broker's own copy of the image, whoever feeds it: the local controller replica, or a stream from one. */
export interface MetadataView {
  readonly image: MetadataImage;
  /** Called for each delta in log order, and once at once with everything that is there. Returns the unsubscribe. */
  subscribe(subscriber: (delta: MetadataDelta) => void): () => void;
  /** Resolves when the image has reached the index. */
  reached(index: number, signal: AbortSignal): Promise<void>;
}

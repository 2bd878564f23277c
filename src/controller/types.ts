/** What the metadata quorum does for others. Every broker has one: local when it leads group 0, else a stub that asks the leader. */
import type { BrokerId, DirectoryId, ReplicaId, TopicId } from '../base/ids.ts';
import type { ReplicaAssignment } from '../metadata/image.ts';

export interface Controller {
  /** Errors: INVALID_TOPIC_EXCEPTION, TOPIC_ALREADY_EXISTS, INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR, INVALID_CONFIG, NOT_CONTROLLER, REQUEST_TIMED_OUT. */
  createTopic(request: CreateTopic, signal: AbortSignal): Promise<{ readonly topicId: TopicId; readonly index: number }>;
  deleteTopic(
    request: { readonly name: string; readonly topicId: TopicId | undefined },
    signal: AbortSignal,
  ): Promise<{ topicId: TopicId; index: number }>;
  /** Resolves with all that the topic sets then. Errors: UNKNOWN_TOPIC_OR_PARTITION, INVALID_CONFIG. */
  alterTopicConfigs(
    change: AlterTopicConfigs,
    signal: AbortSignal,
  ): Promise<{ readonly configs: ReadonlyMap<string, string>; readonly index: number }>;
  allocateProducerIds(count: number, signal: AbortSignal): Promise<{ readonly first: number; readonly count: number }>;
  registerBroker(registration: RegisterBroker, signal: AbortSignal): Promise<void>;
  heartbeat(heartbeat: BrokerHeartbeat, signal: AbortSignal): Promise<void>;
  /** Sets where partitions are to be, all or none; see reassignment.ts for errors. Resolves once that is decided. */
  reassign(changes: readonly Reassignment[], signal: AbortSignal): Promise<{ readonly index: number }>;
  /** May come again and late: what is not news is ignored. Errors: BROKER_ID_NOT_REGISTERED. */
  reportReplicas(report: ReplicaReport, signal: AbortSignal): Promise<{ readonly index: number }>;
}

export interface Reassignment {
  readonly topic: string;
  readonly partition: number;
  /** Who is to hold it, the preferred leader first. Undefined: what is under way is taken back. */
  readonly brokers: readonly BrokerId[] | undefined;
}

export interface ReplicaReport {
  readonly brokerId: BrokerId;
  readonly incarnation: number;
  readonly committed: readonly CommittedConfiguration[];
  /** Replicas of this broker that can't be brought back. */
  readonly failed: readonly { readonly topicId: TopicId; readonly partition: number; readonly replicaId: ReplicaId }[];
}

/** The newest configuration in the log of a partition's leader: committed, not joint, without learners. So no other replica is a member. */
export interface CommittedConfiguration {
  readonly topicId: TopicId;
  readonly partition: number;
  readonly leaderEpoch: number;
  /** Of its entry; 0: from the group's creation. */
  readonly index: number;
  /** The target that the leader knows. */
  readonly targetEpoch: number;
  readonly voters: readonly ReplicaAssignment[];
}

export interface CreateTopic {
  readonly name: string;
  /** 1 to 100,000 (named bound); 0: default num.partitions */
  readonly partitions: number;
  /** 0: default.replication.factor */
  readonly replicas: number;
  readonly configs: ReadonlyMap<string, string>;
  readonly validateOnly: boolean;
}

export interface AlterTopicConfigs {
  readonly name: string;
  readonly set: ReadonlyMap<string, string>;
  readonly remove: readonly string[];
  readonly validateOnly: boolean;
}

export interface RegisterBroker {
  readonly brokerId: BrokerId;
  readonly directoryId: DirectoryId;
  readonly incarnation: number;
  readonly rack: string | undefined;
  readonly listeners: ReadonlyMap<string, string>;
  readonly peerAddress: string;
}

export interface BrokerHeartbeat {
  readonly brokerId: BrokerId;
  readonly incarnation: number;
  readonly leaders: readonly {
    readonly topicId: TopicId;
    readonly partition: number;
    readonly leader: BrokerId;
    readonly leaderEpoch: number;
  }[];
  readonly stopping: boolean;
  readonly metadataIndex: number;
}

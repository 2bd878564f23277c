/** What the metadata quorum does for others. Every broker has one: local when it leads group 0, else a stub that asks the leader. */
import type { BrokerId, DirectoryId, TopicId } from '../base/ids.ts';

export interface Controller {
  /** Errors: INVALID_TOPIC_EXCEPTION, TOPIC_ALREADY_EXISTS, INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR, INVALID_CONFIG, NOT_CONTROLLER, REQUEST_TIMED_OUT. */
  createTopic(request: CreateTopic, signal: AbortSignal): Promise<{ readonly topicId: TopicId; readonly index: number }>;
  deleteTopic(
    request: { readonly name: string; readonly topicId: TopicId | undefined },
    signal: AbortSignal,
  ): Promise<{ topicId: TopicId; index: number }>;
  allocateProducerIds(count: number, signal: AbortSignal): Promise<{ readonly first: number; readonly count: number }>;
  registerBroker(registration: RegisterBroker, signal: AbortSignal): Promise<void>;
  heartbeat(heartbeat: BrokerHeartbeat, signal: AbortSignal): Promise<void>;
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

/**
 * What the commands need of the SDK, no more: real commands get it from `src/client`, tests give a fake.
 */
import type { BrokerScrub, ConsumerRecord, RaftGroupDescription } from '../client/index.ts';
import type { CompressionName, RecordHeader } from '../record/types.ts';

export type Acks = 'none' | 'leader' | 'quorum';

/** Where a consumer begins in every partition it reads. */
export type StartingPoint = 'beginning' | 'end' | { readonly offset: number } | { readonly timestamp: number };

export interface OutgoingRecord {
  readonly key?: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers?: readonly RecordHeader[];
  readonly partition?: number;
}

export type IncomingRecord = ConsumerRecord;

export type RaftGroup = RaftGroupDescription;

export interface ProducerSettings {
  readonly acks?: Acks;
  readonly compression?: CompressionName;
  readonly idempotent?: boolean;
  /** Bytes. */
  readonly batchBytes?: number;
}

export interface ClusterProducer extends AsyncDisposable {
  /** Resolves when the record is acknowledged as `acks` asks. */
  send(topic: string, record: OutgoingRecord): Promise<{ readonly partition: number; readonly offset: number }>;
  close(): Promise<void>;
}

export interface ClusterConsumer extends AsyncDisposable, AsyncIterable<IncomingRecord> {
  close(): Promise<void>;
}

export interface ConsumerSettings {
  readonly topic: string;
  /** All partitions when not given. */
  readonly partitions?: readonly number[];
  readonly from: StartingPoint;
  /** 'end': records end with what was there when it began. */
  readonly until?: 'end' | undefined;
  readonly signal: AbortSignal;
}

export interface TopicSummary {
  readonly name: string;
  readonly partitions: readonly {
    readonly partition: number;
    readonly leader: number;
    readonly leaderEpoch: number;
    readonly replicas: readonly number[];
  }[];
}

export interface PartitionDescription {
  readonly partition: number;
  /** 0: none known. */
  readonly leader: number;
  readonly leaderEpoch: number;
  /** Broker ids, the preferred leader first. */
  readonly replicas: readonly number[];
  readonly inSync: readonly number[];
  readonly logStartOffset: number;
  readonly highWatermark: number;
  readonly sizeBytes: number;
  /** Set when the leader could not be asked. */
  readonly error?: string | undefined;
}

export interface TopicDescription {
  readonly name: string;
  readonly topicId: string;
  readonly partitions: readonly PartitionDescription[];
  readonly configs: Readonly<Record<string, string>>;
}

export interface BrokerDescription {
  readonly id: number;
  readonly address: string;
  readonly rack: string | undefined;
  readonly alive: boolean;
  readonly controller: boolean;
}

export interface ClusterDescription {
  readonly clusterId: string;
  /** The broker that leads the metadata quorum; 0: none known. */
  readonly controller: number;
  readonly controllerEpoch: number;
  readonly voters: readonly number[];
  readonly brokers: readonly BrokerDescription[];
  readonly topics: readonly TopicSummary[];
}

export interface ClusterAdmin {
  createTopic(request: NewTopic, signal: AbortSignal): Promise<void>;
  deleteTopic(name: string, signal: AbortSignal): Promise<void>;
  /** Resolves with all that the topic sets then. */
  alterTopicConfigs(
    name: string,
    change: { readonly set: Readonly<Record<string, string>>; readonly remove: readonly string[] },
    signal: AbortSignal,
  ): Promise<Readonly<Record<string, string>>>;
  /** Resolves with where the logs start then, in the order asked for. */
  deleteRecords(
    topic: string,
    partitions: readonly { readonly partition: number; readonly before: number | 'end' }[],
    signal: AbortSignal,
  ): Promise<readonly number[]>;
  listTopics(signal: AbortSignal): Promise<readonly TopicSummary[]>;
  describeTopic(name: string, signal: AbortSignal): Promise<TopicDescription>;
  describeCluster(signal: AbortSignal): Promise<ClusterDescription>;
  /** The offset after the last committed record of each partition, in the order asked for. */
  endOffsets(topic: string, partitions: readonly number[], signal: AbortSignal): Promise<readonly number[]>;
  /** Where reading from the point begins in each partition: never below the log's start. */
  startOffsets(topic: string, partitions: readonly number[], from: StartingPoint, signal: AbortSignal): Promise<readonly number[]>;
  /** Those of all topics and of the metadata log, or of one topic. */
  listRaftGroups(topic: string | undefined, signal: AbortSignal): AsyncIterable<RaftGroup>;
  describeRaftGroup(name: string, signal: AbortSignal): Promise<RaftGroup>;
  /** How far each broker's search for rot is. `now`: each begins a pass, unless one is under way. */
  scrub(now: boolean, signal: AbortSignal): Promise<readonly BrokerScrub[]>;
}

export interface NewTopic {
  readonly name: string;
  /** 0: the cluster's default. */
  readonly partitions: number;
  /** 0: the cluster's default. */
  readonly replicas: number;
  readonly configs: Readonly<Record<string, string>>;
}

export interface ClusterClient extends AsyncDisposable {
  readonly admin: ClusterAdmin;
  producer(settings: ProducerSettings): ClusterProducer;
  consumer(settings: ConsumerSettings): ClusterConsumer;
  close(): Promise<void>;
}

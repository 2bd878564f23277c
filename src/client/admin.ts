import { create } from '@bufbuild/protobuf';
import { hex } from '../base/bytes.ts';
import { type ErrorCode, ErrorCodes, FlotillaError } from '../base/errors.ts';
import {
  Admin as AdminService,
  AlterTopicConfigsRequestSchema,
  CreateTopicRequestSchema,
  DeleteRecordsRequestSchema,
  DeleteTopicRequestSchema,
  DescribeClusterRequestSchema,
  DescribeTopicRequestSchema,
  ListReassignmentsRequestSchema,
  MetadataRequestSchema,
  ReassignPartitionsRequestSchema,
  type TopicMetadata,
  TransferLeaderRequestSchema,
} from '../gen/flotilla/v1/admin_pb.ts';
import type { BrokerNode, ConfigEntry } from '../gen/flotilla/v1/common_pb.ts';
import { type CallOptions, type Cluster, callAny, fromWire } from './cluster.ts';
import { EARLIEST, type Isolation, LATEST, listOffsets } from './offsets.ts';
import { describeRaftGroup, listRaftGroups, type RaftGroupFilter } from './raft-groups.ts';
import type { RaftGroupDescription } from './raft-wire.ts';
import { type BrokerScrub, scrub } from './scrub.ts';

export interface TopicSpec {
  /** 1 to 249 letters, digits, '.', '_' and '-'. */
  readonly name: string;
  /** Default: the cluster's num.partitions. */
  readonly partitions?: number | undefined;
  /** Default: the cluster's default.replication.factor. */
  readonly replicas?: number | undefined;
  /** Kafka's topic configuration keys, such as `retention.ms`. */
  readonly configs?: Readonly<{ [key: string]: string }> | undefined;
  /** Checks everything, creates nothing. Default: false. */
  readonly validateOnly?: boolean | undefined;
}

export interface TopicConfigChange {
  /** Kafka's topic configuration keys. */
  readonly set?: Readonly<{ [key: string]: string }> | undefined;
  /** Back to the brokers' defaults; one that is not set is no error. */
  readonly remove?: readonly string[] | undefined;
  /** Checks everything, changes nothing. Default: false. */
  readonly validateOnly?: boolean | undefined;
}

export interface TopicPartitionInfo {
  readonly partition: number;
  /** The leader's broker id; undefined: none known. */
  readonly leader: number | undefined;
  readonly leaderEpoch: number;
  /** Broker ids, the preferred leader first. */
  readonly replicas: readonly number[];
}

export interface TopicInfo {
  readonly name: string;
  /** 32 hex digits */
  readonly topicId: string;
  readonly partitions: readonly TopicPartitionInfo[];
  readonly configs: Readonly<{ [key: string]: string }>;
}

export interface TopicDescription extends Omit<TopicInfo, 'partitions'> {
  readonly partitions: readonly PartitionInfo[];
}

export interface PartitionInfo extends TopicPartitionInfo {
  readonly logStartOffset: number;
  readonly highWatermark: number;
  readonly sizeBytes: number;
  /** Broker ids whose log is within reach of the leader's. */
  readonly inSync: readonly number[];
  /** Set when the leader could not be asked: offsets and sizes are then not known. */
  readonly error: FlotillaError | undefined;
}

export interface BrokerInfo {
  readonly brokerId: number;
  /** host:port */
  readonly address: string;
  readonly rack: string | undefined;
  /** Its heartbeats reach the controller. */
  readonly alive: boolean;
  readonly controller: boolean;
}

export interface ClusterInfo {
  /** 32 hex digits */
  readonly clusterId: string;
  /** Undefined: no controller is known at the moment. */
  readonly controllerId: number | undefined;
  readonly brokers: readonly BrokerInfo[];
}

export interface ClusterDescription extends ClusterInfo {
  readonly controllerEpoch: number;
  /** Broker ids of the metadata quorum. */
  readonly voters: readonly number[];
  readonly topics: readonly TopicInfo[];
}

/** Where a partition's replicas are to go. */
export interface PartitionReassignment {
  readonly topic: string;
  readonly partition: number;
  /** Broker ids, the preferred leader first, as many as there are to be replicas. */
  readonly brokers: readonly number[];
}

/** A partition whose replicas are under way. */
export interface OngoingReassignment {
  readonly topic: string;
  readonly partition: number;
  /** Broker ids of the voters as last reported by the partition's leader, the preferred leader first. */
  readonly replicas: readonly number[];
  /** Broker ids of who is to hold it. The same brokers: one of them gets a new replica in the place of one that it lost, or a move is taken back. */
  readonly target: readonly number[];
}

/**
 * What operates a cluster. Any broker answers. Each call takes `signal` and `timeoutMs` (default 30,000), tries again while an error is
 * retriable, and throws a FlotillaError: its own codes below, and REQUEST_TIMED_OUT, ABORTED, CLOSED.
 */
export class Admin {
  readonly #cluster: Cluster;

  /** @internal use {@link Client.admin} */
  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  /**
   * Creates a topic.
   * @throws TOPIC_ALREADY_EXISTS (also when an earlier try of this call was carried out and its answer lost), INVALID_TOPIC_EXCEPTION,
   *   INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR, INVALID_CONFIG
   */
  async createTopic(spec: TopicSpec, options?: CallOptions): Promise<TopicInfo> {
    const configs = Object.entries(spec.configs ?? {}).map(([key, value]) => ({ key, value }));
    const { name, validateOnly = false } = spec;
    const partitions = countOf(spec.partitions, 'INVALID_PARTITIONS', 'partitions');
    const replicas = countOf(spec.replicas, 'INVALID_REPLICATION_FACTOR', 'replicas (the replication factor)');
    const answer = await callAny(
      this.#cluster,
      AdminService.method.createTopic,
      (timeoutMs) => create(CreateTopicRequestSchema, { name, partitions, replicas, configs, validateOnly, timeoutMs }),
      ({ error }) => error,
      options,
    );
    if (answer.topic) return topicInfo(answer.topic);
    return { name, topicId: '', partitions: [], configs: spec.configs ?? {} };
  }

  /** Deletes a topic and all its records. @throws UNKNOWN_TOPIC_OR_PARTITION */
  async deleteTopic(name: string, options?: CallOptions): Promise<void> {
    await callAny(
      this.#cluster,
      AdminService.method.deleteTopic,
      (timeoutMs) => create(DeleteTopicRequestSchema, { name, timeoutMs }),
      ({ error }) => finalAnswer(error),
      options,
    );
  }

  /**
   * Sets and removes settings of a topic, all or none; what is removed is the brokers' default again. Brokers obey from then on. Resolves with all that
   * the topic sets then. Kafka: IncrementalAlterConfigs (KIP-339).
   * @throws UNKNOWN_TOPIC_OR_PARTITION, INVALID_CONFIG
   */
  async alterTopicConfigs(name: string, change: TopicConfigChange, options?: CallOptions): Promise<Readonly<{ [key: string]: string }>> {
    const set = Object.entries(change.set ?? {}).map(([key, value]) => ({ key, value }));
    const { remove = [], validateOnly = false } = change;
    const answer = await callAny(
      this.#cluster,
      AdminService.method.alterTopicConfigs,
      (timeoutMs) => create(AlterTopicConfigsRequestSchema, { name, set, remove: [...remove], validateOnly, timeoutMs }),
      ({ error }) => finalAnswer(error),
      options,
    );
    return configsOf(answer.configs);
  }

  /**
   * Deletes the records of partitions below an offset, for good: each log starts there once this resolves, on all replicas. 'end': all that are
   * committed. Resolves with where the logs start, in the order asked for; one that started higher already stays as it is. When it throws, some of the
   * partitions may have been done. Kafka: DeleteRecords (KIP-107).
   * @throws UNKNOWN_TOPIC_OR_PARTITION, OFFSET_OUT_OF_RANGE (above the high watermark)
   */
  deleteRecords(
    partitions: readonly { readonly topic: string; readonly partition: number; readonly before: number | 'end' }[],
    options?: CallOptions,
  ): Promise<number[]> {
    return Promise.all(
      partitions.map(async ({ topic, partition, before }) => {
        const beforeOffset = before === 'end' ? -1n : offsetToWire(before);
        const answer = await callAny(
          this.#cluster,
          AdminService.method.deleteRecords,
          (timeoutMs) => create(DeleteRecordsRequestSchema, { topic, partition, beforeOffset, timeoutMs }),
          ({ error }) => finalAnswer(error),
          options,
        );
        return Number(answer.logStartOffset);
      }),
    );
  }

  /** All topics. */
  async listTopics(options?: CallOptions): Promise<TopicInfo[]> {
    const answer = await this.#metadata([], options);
    return answer.topics.filter(({ error }) => error === undefined).map(topicInfo);
  }

  /** A topic with the offsets and sizes of its partitions, asked of their leaders. @throws UNKNOWN_TOPIC_OR_PARTITION */
  async describeTopic(name: string, options?: CallOptions): Promise<TopicDescription> {
    const answer = await callAny(
      this.#cluster,
      AdminService.method.describeTopic,
      (timeoutMs) => create(DescribeTopicRequestSchema, { name, timeoutMs }),
      ({ error }) => finalAnswer(error),
      options,
    );
    const partitions = answer.partitions.map((each) => ({
      partition: each.partition,
      leader: idOf(each.leader),
      leaderEpoch: each.leaderEpoch,
      replicas: each.replicas,
      logStartOffset: Number(each.logStartOffset),
      highWatermark: Number(each.highWatermark),
      sizeBytes: Number(each.sizeBytes),
      inSync: each.inSync,
      error: each.error && fromWire(each.error),
    }));
    return { name: answer.name, topicId: hex(answer.topicId), partitions, configs: configsOf(answer.configs) };
  }

  async describeCluster(options?: CallOptions): Promise<ClusterDescription> {
    const answer = await callAny(
      this.#cluster,
      AdminService.method.describeCluster,
      (timeoutMs) => create(DescribeClusterRequestSchema, { timeoutMs }),
      ({ error }) => error,
      options,
    );
    return {
      clusterId: answer.clusterId,
      controllerId: idOf(answer.controllerId),
      controllerEpoch: Number(answer.controllerEpoch),
      brokers: answer.brokers.map(brokerInfo),
      voters: answer.voters,
      topics: answer.topics.map(topicInfo),
    };
  }

  /** The cluster's brokers and controller, as one broker knows them. */
  async metadata(options?: CallOptions): Promise<ClusterInfo> {
    const { clusterId, controllerId, brokers } = await this.#metadata(['__none'], options);
    return { clusterId, controllerId: idOf(controllerId), brokers: brokers.map(brokerInfo) };
  }

  /**
   * Offsets of partitions, asked of their leaders: 'beginning', 'end' (the high watermark; linearizable) or the first record at or after a
   * time in milliseconds since the epoch (-1: there is none). One offset a query, in their order.
   * @throws UNKNOWN_TOPIC_OR_PARTITION
   */
  listOffsets(
    queries: readonly {
      readonly topic: string;
      readonly partition: number;
      readonly at: 'beginning' | 'end' | { readonly time: number };
    }[],
    options?: CallOptions & { readonly isolation?: Isolation | undefined },
  ): Promise<number[]> {
    const asked = queries.map(({ topic, partition, at }) => {
      const timestamp = at === 'beginning' ? EARLIEST : at === 'end' ? LATEST : at.time;
      return { topic, partition, timestamp };
    });
    return listOffsets(this.#cluster, asked, options ?? {});
  }

  /** Moves a partition's leadership to another of its voters. @throws UNKNOWN_TOPIC_OR_PARTITION, INVALID_REQUEST (not a voter) */
  async transferLeader(topic: string, partition: number, toBroker: number, options?: CallOptions): Promise<void> {
    await callAny(
      this.#cluster,
      AdminService.method.transferLeader,
      (timeoutMs) => create(TransferLeaderRequestSchema, { topic, partition, toBroker, timeoutMs }),
      ({ error }) => finalAnswer(error),
      options,
    );
  }

  /**
   * Moves replicas of partitions to other brokers, or changes how many there are; all partitions of the call, or none. Resolves once it is decided:
   * {@link listReassignments} tells what is under way. Records are produced and read meanwhile, and as many copies as before hold them. What is there,
   * or on its way, already is no error. Kafka: AlterPartitionReassignments (KIP-455).
   * @throws UNKNOWN_TOPIC_OR_PARTITION, INVALID_REPLICA_ASSIGNMENT (a broker that is unknown, down or named twice; none), REASSIGNMENT_IN_PROGRESS (to
   *   other brokers: cancel it, or wait), UNSUPPORTED_VERSION, INVALID_REQUEST (a partition named twice, more than 1000)
   */
  reassignPartitions(partitions: readonly PartitionReassignment[], options?: CallOptions): Promise<void> {
    return this.#reassign(
      partitions.map(({ topic, partition, brokers }) => ({ topic, partition, brokers: [...brokers], cancel: false })),
      options,
    );
  }

  /** Takes moves back: each partition returns to the voters that it has. @throws NO_REASSIGNMENT_IN_PROGRESS, UNKNOWN_TOPIC_OR_PARTITION */
  cancelReassignments(partitions: readonly { readonly topic: string; readonly partition: number }[], options?: CallOptions): Promise<void> {
    return this.#reassign(
      partitions.map(({ topic, partition }) => ({ topic, partition, brokers: [], cancel: true })),
      options,
    );
  }

  /** The partitions whose replicas are under way, of these topics or of all, as one broker knows them. @throws UNKNOWN_TOPIC_OR_PARTITION */
  async listReassignments(topics: readonly string[] = [], options?: CallOptions): Promise<OngoingReassignment[]> {
    const answer = await callAny(
      this.#cluster,
      AdminService.method.listReassignments,
      () => create(ListReassignmentsRequestSchema, { topics: [...topics] }),
      ({ error }) => finalAnswer(error),
      options,
    );
    return answer.partitions.map(({ topic, partition, replicas, target }) => ({ topic, partition, replicas, target }));
  }

  async #reassign(
    partitions: readonly { topic: string; partition: number; brokers: number[]; cancel: boolean }[],
    options: CallOptions | undefined,
  ): Promise<void> {
    await callAny(
      this.#cluster,
      AdminService.method.reassignPartitions,
      (timeoutMs) => create(ReassignPartitionsRequestSchema, { partitions: [...partitions], timeoutMs }),
      ({ error }) => finalAnswer(error),
      options,
    );
  }

  /**
   * A Raft group as each of its replicas sees it: all brokers are asked at once, and those that don't answer are named.
   * @param group `TOPIC/PARTITION`, or `metadata` for the log of the metadata quorum
   * @throws INVALID_REQUEST (no such name), UNKNOWN_TOPIC_OR_PARTITION
   */
  describeRaftGroup(group: string, options?: CallOptions): Promise<RaftGroupDescription> {
    return describeRaftGroup(this.#cluster, group, options);
  }

  /**
   * All Raft groups, or those of a topic, in the order of their names: read from every broker in pages of 250 replicas, as far as they are asked for.
   * `timeoutMs` is for the first answer; a page has 5,000, and then its broker counts as silent.
   * @throws UNKNOWN_TOPIC_OR_PARTITION
   */
  listRaftGroups(filter: RaftGroupFilter = {}, options?: CallOptions): AsyncIterable<RaftGroupDescription> {
    return listRaftGroups(this.#cluster, filter, options);
  }

  /**
   * What each broker's search for rot in its own segments found; one that does not answer is named with its error. `now`: each begins a pass at once, unless
   * one is under way; ask again to see how far it is.
   */
  scrub(what: { readonly now: boolean }, options?: CallOptions): Promise<BrokerScrub[]> {
    return scrub(this.#cluster, what.now, options);
  }

  #metadata(topics: string[], options: CallOptions | undefined) {
    const request = () => create(MetadataRequestSchema, { topics });
    return callAny(this.#cluster, AdminService.method.metadata, request, () => undefined, options);
  }
}

/** On the wire, 0 is the cluster's default, and no number beyond 32 bits fits; how many are too many is the cluster's affair. */
function countOf(count: number | undefined, code: ErrorCode, what: string): number {
  if (count === undefined) return 0;
  if (Number.isInteger(count) && count >= 1 && count < 2 ** 31) return count;
  throw new FlotillaError(code, `${count} ${what}: give a whole number from 1 on, or leave it out for the cluster's default`);
}

function offsetToWire(offset: number): bigint {
  if (Number.isSafeInteger(offset) && offset >= 0) return BigInt(offset);
  throw new FlotillaError('OFFSET_OUT_OF_RANGE', `${offset} is no offset: give a whole number from 0 on, or 'end'`);
}

/** To a person who names a topic, "unknown" is the answer and no reason to wait; nor is a move of replicas, which takes as long as it takes. */
function finalAnswer<E extends { code: number; message: string }>(error: E | undefined): E | undefined {
  const final = FINAL.find((code) => error?.code === ErrorCodes[code].code);
  if (error && final) throw new FinalAnswer(final, error.message);
  return error;
}

const FINAL = ['UNKNOWN_TOPIC_OR_PARTITION', 'REASSIGNMENT_IN_PROGRESS'] as const;

class FinalAnswer extends FlotillaError {
  override readonly retriable = false;
}

function topicInfo(topic: TopicMetadata): TopicInfo {
  const partitions = topic.partitions.map(({ partition, leader, leaderEpoch, replicas }) => ({
    partition,
    leader: idOf(leader),
    leaderEpoch,
    replicas,
  }));
  return { name: topic.name, topicId: hex(topic.topicId), partitions, configs: configsOf(topic.configs) };
}

function brokerInfo({ brokerId, address, rack, alive, controller }: BrokerNode): BrokerInfo {
  return { brokerId, address, rack: rack === '' ? undefined : rack, alive, controller };
}

function configsOf(entries: readonly ConfigEntry[]): Readonly<{ [key: string]: string }> {
  return Object.fromEntries(entries.map(({ key, value }) => [key, value]));
}

function idOf(brokerId: number): number | undefined {
  return brokerId === 0 ? undefined : brokerId;
}

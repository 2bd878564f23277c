/** The Admin service: what clients and people ask of the cluster. Any broker answers; what only the controller or a leader can do goes there. */
import { create } from '@bufbuild/protobuf';
import { FlotillaError } from '../base/errors.ts';
import { type BrokerId, type TopicId, topicIdFromBytes, topicIdToBytes } from '../base/ids.ts';
import type { Controller } from '../controller/types.ts';
import type { ControllerHint } from '../controller/wire.ts';
import {
  Admin,
  type AllocateProducerIdRequest,
  AllocateProducerIdResponseSchema,
  type AlterTopicConfigsRequest,
  AlterTopicConfigsResponseSchema,
  type CreateTopicRequest,
  CreateTopicResponseSchema,
  type DeleteTopicRequest,
  DeleteTopicResponseSchema,
  DescribeClusterResponseSchema,
  type ListReassignmentsRequest,
  ListReassignmentsResponseSchema,
  type MetadataRequest,
  MetadataResponseSchema,
  OngoingReassignmentSchema,
  type ReassignPartitionsRequest,
  ReassignPartitionsResponseSchema,
  TopicMetadataSchema,
} from '../gen/flotilla/v1/admin_pb.ts';
import { ConfigEntrySchema, LeaderHintSchema, type Error as WireError } from '../gen/flotilla/v1/common_pb.ts';
import type { MetadataImage } from '../metadata/image.ts';
import { type CallContext, type UnaryHandler, unaryHandler } from '../rpc/types.ts';
import { validateTopicConfig } from './config.ts';
import { answerError, type BrokerContext } from './context.ts';
import { within } from './deadline.ts';
import { deleteRecordsHandler } from './delete-records.ts';
import { describeTopicHandler } from './describe-topic.ts';
import { until } from './image-wait.ts';
import type { Leaders } from './leaders.ts';
import { describeReplicasHandler, type ReplicaSource } from './raft-groups.ts';
import { brokerNodes, topicMetadata } from './topic-view.ts';
import { transferLeaderHandler } from './transfer-leader.ts';

/** The version of the API that this broker speaks. */
export const API_VERSION = 1;

/** Producer ids in one call. */
export const MAX_PRODUCER_IDS = 1000;

export interface AdminOptions {
  readonly context: BrokerContext;
  /** Goes to the quorum's leader, wherever that is. */
  readonly controller: Controller;
  /** This broker's own part of the quorum, for what another broker forwarded; undefined: it has none. */
  readonly local: Controller | undefined;
  /** Who leads the quorum; undefined: not known here. */
  readonly hint: () => ControllerHint | undefined;
  readonly leaders: Leaders;
  /** This broker's replicas. */
  readonly host: ReplicaSource;
}

export function adminHandlers(options: AdminOptions): [string, UnaryHandler][] {
  const admin = new AdminService(options);
  return [
    unaryHandler(Admin.method.metadata, async (request, call) => admin.metadata(request, call)),
    unaryHandler(Admin.method.createTopic, (request, call) => admin.createTopic(request, call)),
    unaryHandler(Admin.method.deleteTopic, (request, call) => admin.deleteTopic(request, call)),
    unaryHandler(Admin.method.alterTopicConfigs, (request, call) => admin.alterTopicConfigs(request, call)),
    unaryHandler(Admin.method.allocateProducerId, (request, call) => admin.allocateProducerId(request, call)),
    unaryHandler(Admin.method.reassignPartitions, (request, call) => admin.reassignPartitions(request, call)),
    unaryHandler(Admin.method.listReassignments, async (request, call) => admin.listReassignments(request, call)),
    unaryHandler(Admin.method.describeCluster, async (_request, call) => admin.describeCluster(call)),
    describeTopicHandler(options.context, options.leaders),
    transferLeaderHandler(options.context, options.leaders),
    deleteRecordsHandler(options.context, options.leaders),
    describeReplicasHandler(options.context, options.host),
  ];
}

class AdminService {
  readonly #context: BrokerContext;
  readonly #options: AdminOptions;

  constructor(options: AdminOptions) {
    this.#context = options.context;
    this.#options = options;
  }

  metadata(request: MetadataRequest, call: CallContext) {
    const { image } = this.#context.metadata;
    const controllerId = this.#options.hint()?.brokerId ?? 0;
    return create(MetadataResponseSchema, {
      clusterId: image.clusterId ?? '',
      brokers: brokerNodes(image, call.listener, controllerId),
      topics:
        request.topics.length === 0
          ? [...image.topics.values()].map((topic) => topicMetadata(topic, this.#context.partitions))
          : request.topics.map((name) => this.#namedTopic(name, call)),
      controllerId,
      apiVersion: API_VERSION,
      metadataIndex: BigInt(image.index),
    });
  }

  describeCluster(call: CallContext) {
    const { image } = this.#context.metadata;
    const hint = this.#options.hint();
    const controllerId = hint?.brokerId ?? 0;
    return create(DescribeClusterResponseSchema, {
      clusterId: image.clusterId ?? '',
      controllerId,
      controllerEpoch: BigInt(hint?.leaderEpoch ?? 0),
      brokers: brokerNodes(image, call.listener, controllerId),
      topics: [...image.topics.values()].map((topic) => topicMetadata(topic, this.#context.partitions)),
      voters: this.#context.config.voters.map(({ brokerId }) => brokerId),
    });
  }

  /** Answers once every partition has a leader that this broker knows of; when that takes too long, with the topic and REQUEST_TIMED_OUT. */
  async createTopic(request: CreateTopicRequest, call: CallContext) {
    const response = create(CreateTopicResponseSchema);
    try {
      const configs = new Map(request.configs.map(({ key, value }) => [key, value]));
      validateTopicConfig(configs, this.#context.config.topicDefaults);
      const { name, partitions, replicas, validateOnly } = request;
      await this.#within(request.timeoutMs, call, `creating topic ${name}`, async (signal) => {
        const { topicId, index } = await this.#controller(request.forwarded).createTopic(
          { name, partitions, replicas, configs, validateOnly },
          signal,
        );
        response.topic = create(TopicMetadataSchema, { name, topicId: topicIdToBytes(topicId) });
        response.metadataIndex = BigInt(index);
        // A broker that forwarded the call waits itself.
        if (validateOnly || request.forwarded) return;
        await this.#context.metadata.reached(index, signal);
        await until(this.#context.metadata, (image) => hasLeaders(image, topicId), signal);
        response.topic = this.#namedTopic(name, call);
      });
    } catch (error) {
      response.error = this.#answer(error, call);
    }
    return response;
  }

  async deleteTopic(request: DeleteTopicRequest, call: CallContext) {
    const response = create(DeleteTopicResponseSchema);
    try {
      const wanted = request.topicId.length === 0 ? undefined : topicIdFromBytes(request.topicId);
      await this.#within(request.timeoutMs, call, `deleting topic ${request.name}`, async (signal) => {
        const { topicId, index } = await this.#controller(request.forwarded).deleteTopic({ name: request.name, topicId: wanted }, signal);
        response.topicId = topicIdToBytes(topicId);
        response.metadataIndex = BigInt(index);
        if (!request.forwarded) await this.#context.metadata.reached(index, signal);
      });
    } catch (error) {
      response.error = this.#answer(error, call);
    }
    return response;
  }

  /** Answers once this broker obeys; the others follow the same log. */
  async alterTopicConfigs(request: AlterTopicConfigsRequest, call: CallContext) {
    const response = create(AlterTopicConfigsResponseSchema);
    try {
      const { name, remove, validateOnly } = request;
      const set = new Map(request.set.map(({ key, value }) => [key, value]));
      await this.#within(request.timeoutMs, call, `changing topic ${name}`, async (signal) => {
        const { configs, index } = await this.#controller(request.forwarded).alterTopicConfigs({ name, set, remove, validateOnly }, signal);
        response.configs = Array.from(configs, ([key, value]) => create(ConfigEntrySchema, { key, value }));
        response.metadataIndex = BigInt(index);
        if (!request.forwarded) await this.#context.metadata.reached(index, signal);
      });
    } catch (error) {
      response.error = this.#answer(error, call);
    }
    return response;
  }

  async allocateProducerId(request: AllocateProducerIdRequest, call: CallContext) {
    const response = create(AllocateProducerIdResponseSchema);
    try {
      const wanted = Math.min(Math.max(request.count, 1), MAX_PRODUCER_IDS);
      const { first, count } = await this.#within(request.timeoutMs, call, 'allocating producer ids', (signal) =>
        this.#controller(request.forwarded).allocateProducerIds(wanted, signal),
      );
      response.firstProducerId = BigInt(first);
      response.count = count;
    } catch (error) {
      response.error = this.#answer(error, call);
    }
    return response;
  }

  /** Answers once this broker knows of it, so that a question to it that follows sees what is under way. */
  async reassignPartitions(request: ReassignPartitionsRequest, call: CallContext) {
    const response = create(ReassignPartitionsResponseSchema);
    try {
      const changes = request.partitions.map(({ topic, partition, brokers, cancel }) => ({
        topic,
        partition,
        brokers: cancel ? undefined : (brokers as BrokerId[]),
      }));
      await this.#within(request.timeoutMs, call, 'reassigning partitions', async (signal) => {
        const { index } = await this.#controller(request.forwarded).reassign(changes, signal);
        response.metadataIndex = BigInt(index);
        if (!request.forwarded) await this.#context.metadata.reached(index, signal);
      });
    } catch (error) {
      response.error = this.#answer(error, call);
    }
    return response;
  }

  listReassignments({ topics }: ListReassignmentsRequest, call: CallContext) {
    const { image } = this.#context.metadata;
    try {
      const asked = topics.length === 0 ? [...image.topics.keys()] : topics.map((name) => this.#context.partitions.topicIdOf(name));
      return create(ListReassignmentsResponseSchema, { partitions: asked.flatMap((topicId) => ongoing(image, topicId)) });
    } catch (error) {
      return create(ListReassignmentsResponseSchema, { error: answerError(this.#context, call.listener, error) });
    }
  }

  #namedTopic(name: string, call: CallContext) {
    const { image } = this.#context.metadata;
    const topicId = image.topicIds.get(name);
    const topic = topicId === undefined ? undefined : image.topics.get(topicId);
    if (topic !== undefined) return topicMetadata(topic, this.#context.partitions);
    const error = new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', `There is no topic ${name}. Create it first.`);
    return create(TopicMetadataSchema, { name, error: answerError(this.#context, call.listener, error) });
  }

  /** NOT_CONTROLLER carries where the controller is. */
  #answer(error: unknown, call: CallContext): WireError {
    const wire = answerError(this.#context, call.listener, error);
    const hint = this.#options.hint();
    if (error instanceof FlotillaError && error.code === 'NOT_CONTROLLER' && hint !== undefined)
      wire.leader = create(LeaderHintSchema, hint);
    return wire;
  }

  /** What was forwarded once is not forwarded again: the quorum's leader may have changed meanwhile, and the sender asks anew. */
  #controller(forwarded: boolean): Controller {
    if (!forwarded) return this.#options.controller;
    if (this.#options.local === undefined) throw new FlotillaError('NOT_CONTROLLER', 'This broker has no part in the metadata quorum.');
    return this.#options.local;
  }

  #within<T>(timeoutMs: number, call: CallContext, what: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { environment, config } = this.#context;
    return within(environment, timeoutMs === 0 ? config.requestTimeoutMs : timeoutMs, call.signal, what, work);
  }
}

function ongoing(image: MetadataImage, topicId: TopicId) {
  const topic = image.topics.get(topicId);
  return (topic?.partitions ?? []).flatMap(({ partition, replicas, target }) => {
    if (topic === undefined || target === undefined) return [];
    const [now, then] = [replicas, target.replicas].map((all) => all.map(({ brokerId }) => brokerId));
    return [create(OngoingReassignmentSchema, { topic: topic.name, partition, replicas: now ?? [], target: then ?? [] })];
  });
}

function hasLeaders(image: MetadataImage, topicId: TopicId): boolean {
  const topic = image.topics.get(topicId);
  // A topic that is gone again will never have leaders.
  return topic === undefined || topic.partitions.every(({ leader }) => leader !== undefined);
}

/** What only a partition's leader knows or can do: its offsets, and handing leadership over. Another broker is asked once, and does not ask on. */
import { create } from '@bufbuild/protobuf';
import { FlotillaError } from '../base/errors.ts';
import { type BrokerId, type TopicId, topicIdToBytes } from '../base/ids.ts';
import {
  Admin,
  type DescribeTopicRequest,
  DescribeTopicRequestSchema,
  type DescribeTopicResponse,
  DescribeTopicResponseSchema,
  type PartitionDescription,
  PartitionDescriptionSchema,
  type SegmentDescription,
  SegmentDescriptionSchema,
  type TransferLeaderRequest,
  TransferLeaderRequestSchema,
  TransferLeaderResponseSchema,
} from '../gen/flotilla/v1/admin_pb.ts';
import type { Error as WireError } from '../gen/flotilla/v1/common_pb.ts';
import type { PartitionImage, TopicImage } from '../metadata/image.ts';
import { type CallContext, type CallOptions, type Connect, type RpcChannel, type UnaryHandler, unaryHandler } from '../rpc/types.ts';
import { answerError, type BrokerContext } from './context.ts';
import { within } from './deadline.ts';
import type { Partition } from './partition.ts';
import { type MeasuredSegment, measuredSegments, type SegmentSize } from './topic-retention.ts';
import { configEntries } from './topic-view.ts';
import { fromWireError } from './wire.ts';

/** Marks a call of one broker to another on behalf of a client. */
export const FORWARDED_HEADER = 'flotilla-forwarded';

/** Channels to the brokers that were asked, one each. */
export class Leaders {
  readonly #connect: Connect;
  readonly #channels = new Map<string, RpcChannel>();

  constructor(connect: Connect) {
    this.#connect = connect;
  }

  /** Errors: BROKER_NOT_AVAILABLE. */
  channel(context: BrokerContext, broker: BrokerId): RpcChannel {
    const address = context.metadata.image.brokers.get(broker)?.peerAddress;
    if (address === undefined) throw new FlotillaError('BROKER_NOT_AVAILABLE', `Broker ${broker} is not registered. Try again.`);
    let channel = this.#channels.get(address);
    if (channel === undefined) {
      channel = this.#connect(address);
      this.#channels.set(address, channel);
    }
    return channel;
  }

  close(): void {
    for (const channel of this.#channels.values()) channel.close();
    this.#channels.clear();
  }
}

export function describeTopicHandler(context: BrokerContext, leaders: Leaders): [string, UnaryHandler] {
  return unaryHandler(Admin.method.describeTopic, async (request, call) => {
    try {
      return await describeTopic(context, leaders, request, call);
    } catch (error) {
      return create(DescribeTopicResponseSchema, { name: request.name, error: answerError(context, call.listener, error) });
    }
  });
}

export function transferLeaderHandler(context: BrokerContext, leaders: Leaders): [string, UnaryHandler] {
  return unaryHandler(Admin.method.transferLeader, async (request, call) => {
    const response = create(TransferLeaderResponseSchema);
    try {
      await transferLeadership(context, leaders, transferOf(context, request, call));
    } catch (error) {
      response.error = answerError(context, call.listener, error);
    }
    return response;
  });
}

/** What all its leaders say of a topic, as far as they answer. Errors: UNKNOWN_TOPIC_OR_PARTITION. */
async function describeTopic(
  context: BrokerContext,
  leaders: Leaders,
  request: DescribeTopicRequest,
  call: Pick<CallContext, 'listener' | 'headers' | 'signal'>,
): Promise<DescribeTopicResponse> {
  const topicId = context.partitions.topicIdOf(request.name);
  const topic = context.metadata.image.topics.get(topicId);
  if (topic === undefined) throw new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', `There is no topic ${request.name}.`);
  const partitions: PartitionDescription[] = [];
  for (const image of topic.partitions) partitions.push(await describeHere(context, topic, image, request, call));
  const response = create(DescribeTopicResponseSchema, {
    name: topic.name,
    topicId: topicIdToBytes(topicId),
    configs: configEntries(topic),
    partitions,
  });
  if (call.headers[FORWARDED_HEADER] !== undefined) return response;

  const timeoutMs = request.timeoutMs === 0 ? context.config.requestTimeoutMs : request.timeoutMs;
  const elsewhere = new Set<number>();
  for (const { error, leader } of partitions)
    if (error !== undefined && leader !== 0 && leader !== context.config.nodeId) elsewhere.add(leader);
  await Promise.all(
    [...elsewhere].map(async (broker) => {
      const answers = await askDescription(context, leaders, broker as BrokerId, { ...request, timeoutMs }, call);
      partitions.forEach((known, at) => {
        const answer = answers[at];
        if (known.leader === broker && answer !== undefined) partitions[at] = answer;
      });
    }),
  );
  response.partitions = partitions;
  return response;
}

/** What this broker can say: everything as the leader, else what the metadata says and an error. */
async function describeHere(
  context: BrokerContext,
  topic: TopicImage,
  image: PartitionImage,
  { includeSegments }: DescribeTopicRequest,
  call: Pick<CallContext, 'listener'>,
): Promise<PartitionDescription> {
  const description = create(PartitionDescriptionSchema, {
    partition: image.partition,
    leader: image.leader ?? 0,
    leaderEpoch: image.leaderEpoch,
    replicas: image.replicas.map(({ brokerId }) => brokerId),
    logStartOffset: -1n,
    highWatermark: -1n,
  });
  try {
    const partition = context.partitions.find(topic.topicId, image.partition);
    const status = partition.status();
    description.leader = context.config.nodeId;
    description.leaderEpoch = status.leaderEpoch;
    description.logStartOffset = BigInt(status.logStartOffset);
    description.highWatermark = BigInt(status.highWatermark);
    description.sizeBytes = BigInt(status.sizeBytes);
    description.inSync = [...status.inSync];
    if (includeSegments) {
      for await (const segment of measuredSegments(partition.replica.log)) description.segments.push(await segmentToWire(segment));
    }
  } catch (error) {
    description.error = answerError(context, call.listener, error);
  }
  return description;
}

/** The other broker's answer by partition; none when it can't be asked: what is known here stands, with its error. */
async function askDescription(
  context: BrokerContext,
  leaders: Leaders,
  broker: BrokerId,
  request: DescribeTopicRequest,
  { signal }: Pick<CallContext, 'signal'>,
): Promise<readonly PartitionDescription[]> {
  const { name, timeoutMs } = request;
  try {
    const answer = await forward(context, { what: `describing ${name}`, timeoutMs, signal }, (options) =>
      leaders.channel(context, broker).unary(Admin.method.describeTopic, request, options),
    );
    return answer.partitions;
  } catch {
    return [];
  }
}

async function segmentToWire({ nextOffset, sizeBytes, maxTimestamp }: MeasuredSegment): Promise<SegmentDescription> {
  return create(SegmentDescriptionSchema, {
    nextOffset: BigInt(nextOffset),
    sizeBytes: BigInt(sizeBytes),
    maxTimestampMs: BigInt(await maxTimestamp()),
  });
}

/** The segments of a topic, by partition, of the leaders that can be asked. Errors: UNKNOWN_TOPIC_OR_PARTITION. */
export async function segmentsOfTopic(
  context: BrokerContext,
  leaders: Leaders,
  topic: string,
  signal: AbortSignal,
): Promise<ReadonlyMap<number, readonly SegmentSize[]>> {
  const request = create(DescribeTopicRequestSchema, { name: topic, includeSegments: true });
  const { partitions } = await describeTopic(context, leaders, request, {
    listener: context.config.interBrokerListener,
    headers: {},
    signal,
  });
  return new Map(partitions.map(({ partition, segments }) => [partition, segments.map(segmentFromWire)]));
}

function segmentFromWire({ nextOffset, sizeBytes, maxTimestampMs }: SegmentDescription): SegmentSize {
  return { nextOffset: Number(nextOffset), sizeBytes: Number(sizeBytes), maxTimestampMs: Number(maxTimestampMs) };
}

export interface Transfer {
  readonly topicId: TopicId;
  readonly partition: number;
  readonly to: BrokerId;
  readonly timeoutMs: number;
  /** Another broker asks: answer, or refuse. */
  readonly forwarded: boolean;
  readonly signal: AbortSignal | undefined;
}

function transferOf(context: BrokerContext, request: TransferLeaderRequest, call: CallContext): Transfer {
  return {
    topicId: context.partitions.topicIdOf(request.topic),
    partition: request.partition,
    to: request.toBroker as BrokerId,
    timeoutMs: request.timeoutMs === 0 ? context.config.requestTimeoutMs : request.timeoutMs,
    forwarded: call.headers[FORWARDED_HEADER] !== undefined,
    signal: call.signal,
  };
}

/** Where a partition is led: here, or by a broker that this channel goes to. */
export type Leader = { readonly topic: string } & (
  | { readonly here: Partition; readonly there: undefined }
  | { readonly here: undefined; readonly there: RpcChannel }
);

/**
 * The leader of a partition. What another broker forwarded is answered here or refused: it asks anew.
 * Errors: UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, BROKER_NOT_AVAILABLE.
 */
export function findLeader(
  context: BrokerContext,
  leaders: Leaders,
  { topicId, partition, forwarded }: { readonly topicId: TopicId; readonly partition: number; readonly forwarded: boolean },
): Leader {
  const topic = context.metadata.image.topics.get(topicId);
  const image = topic?.partitions[partition];
  if (topic === undefined || image === undefined) {
    throw new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', `Topic ${topic?.name ?? topicId} has no partition ${partition}.`);
  }
  const local = openHere(context, topicId, partition);
  if (local?.isLeader) return { topic: topic.name, here: local, there: undefined };
  const leader = local?.replica.leadership.leader?.brokerId ?? image.leader;
  if (leader === undefined || leader === context.config.nodeId || forwarded) {
    throw new FlotillaError('NOT_LEADER_OR_FOLLOWER', `Nobody is known to lead ${topic.name}-${partition} just now. Try again.`);
  }
  return { topic: topic.name, here: undefined, there: leaders.channel(context, leader) };
}

/** Has another broker do what this one was asked to. Errors: those that it answers with, REQUEST_TIMED_OUT, ABORTED, NETWORK_EXCEPTION. */
export async function forward<A extends { readonly error?: WireError | undefined }>(
  { config, environment }: BrokerContext,
  { what, timeoutMs, signal: parent }: { readonly what: string; readonly timeoutMs: number; readonly signal: AbortSignal | undefined },
  call: (options: CallOptions) => Promise<A>,
): Promise<A> {
  const headers = { [FORWARDED_HEADER]: String(config.nodeId) };
  const answer = await within(environment, timeoutMs, parent, what, (signal) => call({ timeoutMs, signal, headers }));
  if (answer.error !== undefined) throw fromWireError(answer.error);
  return answer;
}

/** Has the partition's leader hand over to another voter. Errors: UNKNOWN_TOPIC_OR_PARTITION, INVALID_REQUEST, NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT. */
export async function transferLeadership(context: BrokerContext, leaders: Leaders, transfer: Transfer): Promise<void> {
  const { partition, to, timeoutMs, signal } = transfer;
  const { topic, here, there } = findLeader(context, leaders, transfer);
  if (here !== undefined) return transferFrom(context, here, transfer);
  const request = create(TransferLeaderRequestSchema, { topic, partition, toBroker: to, timeoutMs });
  await forward(context, { what: `transferring ${topic}-${partition}`, timeoutMs, signal }, (options) =>
    there.unary(Admin.method.transferLeader, request, options),
  );
}

async function transferFrom(context: BrokerContext, partition: Partition, { to, timeoutMs, signal: parent }: Transfer): Promise<void> {
  if (to === context.config.nodeId) return;
  const { voters } = partition.replica.configuration;
  const target = voters.find(({ brokerId }) => brokerId === to);
  const name = `${partition.topic}-${partition.partition}`;
  if (target === undefined) {
    const known = voters.map(({ brokerId }) => brokerId).join(', ');
    throw new FlotillaError('INVALID_REQUEST', `Broker ${to} has no replica of ${name}. Choose one of ${known}.`);
  }
  await within(context.environment, timeoutMs, parent, `transferring ${name} to broker ${to}`, (signal) =>
    partition.replica.transferLeadership(target.replicaId, signal),
  );
}

function openHere(context: BrokerContext, topicId: TopicId, partition: number): Partition | undefined {
  try {
    return context.partitions.find(topicId, partition);
  } catch {
    return undefined;
  }
}

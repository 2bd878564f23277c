/** DescribeTopic of the Admin service: a topic's partitions, as their leaders say. */
import { create } from '@bufbuild/protobuf';
import { FlotillaError } from '../base/errors.ts';
import { type BrokerId, topicIdToBytes } from '../base/ids.ts';
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
} from '../gen/flotilla/v1/admin_pb.ts';
import type { PartitionImage, TopicImage } from '../metadata/image.ts';
import { type CallContext, type UnaryHandler, unaryHandler } from '../rpc/types.ts';
import { answerError, type BrokerContext } from './context.ts';
import { FORWARDED_HEADER, forward, type Leaders } from './leaders.ts';
import { type MeasuredSegment, measuredSegments, type SegmentSize } from './topic-retention.ts';
import { configEntries } from './topic-view.ts';

export function describeTopicHandler(context: BrokerContext, leaders: Leaders): [string, UnaryHandler] {
  return unaryHandler(Admin.method.describeTopic, async (request, call) => {
    try {
      return await describeTopic(context, leaders, request, call);
    } catch (error) {
      return create(DescribeTopicResponseSchema, { name: request.name, error: answerError(context, call.listener, error) });
    }
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

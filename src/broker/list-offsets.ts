/** Data.ListOffsets: the first, the last, or the offset for a time, asked of the leaders. */

import { create } from '@bufbuild/protobuf';
import { FlotillaError } from '../base/errors.ts';
import { topicIdFromBytes } from '../base/ids.ts';
import {
  Data,
  type ListOffsetsPartition,
  type ListOffsetsRequest,
  type ListOffsetsResponse,
  ListOffsetsResponseSchema,
  type ListOffsetsResult,
  ListOffsetsResultSchema,
} from '../gen/flotilla/v1/data_pb.ts';
import { type CallContext, type UnaryHandler, unaryHandler } from '../rpc/types.ts';
import { answerError, type BrokerContext } from './context.ts';
import { within } from './deadline.ts';

/** Partitions that one call may ask for. */
export const MAX_LIST_OFFSETS_PARTITIONS = 10_000;

export function listOffsetsHandler(context: BrokerContext): [string, UnaryHandler] {
  return unaryHandler(Data.method.listOffsets, (request, call) => listOffsets(context, request, call));
}

async function listOffsets(context: BrokerContext, request: ListOffsetsRequest, call: CallContext): Promise<ListOffsetsResponse> {
  if (request.partitions.length > MAX_LIST_OFFSETS_PARTITIONS) {
    throw new FlotillaError('INVALID_REQUEST', `A call asks for at most ${MAX_LIST_OFFSETS_PARTITIONS} partitions. Make several.`);
  }
  const timeoutMs = request.timeoutMs === 0 ? context.config.requestTimeoutMs : request.timeoutMs;
  const results = await Promise.all(request.partitions.map((partition) => listOne(context, partition, timeoutMs, call)));
  return create(ListOffsetsResponseSchema, { results });
}

async function listOne(
  context: BrokerContext,
  asked: ListOffsetsPartition,
  timeoutMs: number,
  call: CallContext,
): Promise<ListOffsetsResult> {
  const result = create(ListOffsetsResultSchema, { topicId: asked.topicId, partition: asked.partition, offset: -1n });
  try {
    const partition = context.partitions.find(topicIdFromBytes(asked.topicId), asked.partition);
    const deadlineMs = context.environment.monotonicMs() + timeoutMs;
    const what = `the offsets of ${partition.topic}-${partition.partition}`;
    const { offset, leaderEpoch } = await within(context.environment, timeoutMs, call.signal, what, (signal) =>
      partition.listOffsets(Number(asked.timestamp), deadlineMs, signal),
    );
    result.offset = BigInt(offset ?? -1);
    result.leaderEpoch = leaderEpoch;
  } catch (error) {
    result.error = answerError(context, call.listener, error);
  }
  return result;
}

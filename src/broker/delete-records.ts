/** DeleteRecords of the Admin service: the start of a partition's log moves up, by its leader's decision. */
import { create } from '@bufbuild/protobuf';
import { Admin, type DeleteRecordsRequest, DeleteRecordsResponseSchema } from '../gen/flotilla/v1/admin_pb.ts';
import { type CallContext, type UnaryHandler, unaryHandler } from '../rpc/types.ts';
import { answerError, type BrokerContext } from './context.ts';
import { FORWARDED_HEADER, findLeader, forward, type Leaders } from './leaders.ts';

export function deleteRecordsHandler(context: BrokerContext, leaders: Leaders): [string, UnaryHandler] {
  return unaryHandler(Admin.method.deleteRecords, async (request, call) => {
    const response = create(DeleteRecordsResponseSchema, { logStartOffset: -1n });
    try {
      response.logStartOffset = await deleteRecords(context, leaders, request, call);
    } catch (error) {
      response.error = answerError(context, call.listener, error);
    }
    return response;
  });
}

/** Resolves with where the log starts then. Errors: those of findLeader and of Partition.startAt. */
async function deleteRecords(context: BrokerContext, leaders: Leaders, request: DeleteRecordsRequest, call: CallContext): Promise<bigint> {
  const { config, environment, partitions } = context;
  const { partition, beforeOffset } = request;
  const topicId = partitions.topicIdOf(request.topic);
  const timeoutMs = request.timeoutMs === 0 ? config.requestTimeoutMs : request.timeoutMs;
  const forwarded = call.headers[FORWARDED_HEADER] !== undefined;
  const { topic, here, there } = findLeader(context, leaders, { topicId, partition, forwarded });
  if (here !== undefined) return BigInt(await here.startAt(Number(beforeOffset), environment.monotonicMs() + timeoutMs));
  const what = `deleting records of ${topic}-${partition}`;
  const answer = await forward(context, { what, timeoutMs, signal: call.signal }, (options) =>
    there.unary(Admin.method.deleteRecords, { ...request, timeoutMs }, options),
  );
  return answer.logStartOffset;
}

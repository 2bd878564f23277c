/** DeleteRecords of the Admin service: the start of a partition's log moves up, by its leader's decision. */
import { create } from '@bufbuild/protobuf';
import { Admin, type DeleteRecordsRequest, DeleteRecordsResponseSchema } from '../gen/flotilla/v1/admin_pb.ts';
import { type CallContext, type UnaryHandler, unaryHandler } from '../rpc/types.ts';
import { answerError, type BrokerContext } from './context.ts';
import { within } from './deadline.ts';
import { FORWARDED_HEADER, findLeader, type Leaders } from './leaders.ts';
import { fromWireError } from './wire.ts';

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
  const topicId = partitions.topicIdOf(request.topic);
  const timeoutMs = request.timeoutMs === 0 ? config.requestTimeoutMs : request.timeoutMs;
  const forwarded = call.headers[FORWARDED_HEADER] !== undefined;
  const { name, here, there } = findLeader(context, leaders, { topicId, partition: request.partition, forwarded });
  if (here !== undefined) return BigInt(await here.startAt(Number(request.beforeOffset), environment.monotonicMs() + timeoutMs));
  const headers = { [FORWARDED_HEADER]: String(config.nodeId) };
  const answer = await within(environment, timeoutMs, call.signal, `deleting records of ${name}`, (signal) =>
    there.unary(Admin.method.deleteRecords, { ...request, timeoutMs }, { timeoutMs, signal, headers }),
  );
  if (answer.error !== undefined) throw fromWireError(answer.error);
  return answer.logStartOffset;
}

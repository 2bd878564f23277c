/** TransferLeader of the Admin service, and what the controller has transferred: a partition's leader hands over. */
import { create } from '@bufbuild/protobuf';
import { FlotillaError } from '../base/errors.ts';
import type { BrokerId, TopicId } from '../base/ids.ts';
import {
  Admin,
  type TransferLeaderRequest,
  TransferLeaderRequestSchema,
  TransferLeaderResponseSchema,
} from '../gen/flotilla/v1/admin_pb.ts';
import { type CallContext, type UnaryHandler, unaryHandler } from '../rpc/types.ts';
import { answerError, type BrokerContext } from './context.ts';
import { within } from './deadline.ts';
import { FORWARDED_HEADER, findLeader, forward, type Leaders } from './leaders.ts';
import type { Partition } from './partition.ts';

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

/** What only a partition's leader knows or can do. Where it leads, this broker does it; else it asks the leader once, and that one does not ask on. */
import { FlotillaError } from '../base/errors.ts';
import type { BrokerId, TopicId } from '../base/ids.ts';
import type { Error as WireError } from '../gen/flotilla/v1/common_pb.ts';
import type { CallOptions, Connect, RpcChannel } from '../rpc/types.ts';
import type { BrokerContext } from './context.ts';
import { within } from './deadline.ts';
import type { Partition } from './partition.ts';
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

function openHere(context: BrokerContext, topicId: TopicId, partition: number): Partition | undefined {
  try {
    return context.partitions.find(topicId, partition);
  } catch {
    return undefined;
  }
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

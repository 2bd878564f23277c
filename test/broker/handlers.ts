import { silentLogger } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import type { TopicId } from '../../src/base/ids.ts';
import { loadConfig } from '../../src/broker/config.ts';
import type { BrokerContext } from '../../src/broker/context.ts';
import { ProduceLoad } from '../../src/broker/old-reads.ts';
import type { Partition } from '../../src/broker/partition.ts';
import type { Partitions } from '../../src/broker/partitions.ts';
import { MetadataStore } from '../../src/metadata/view.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import type { CallContext, RpcStream, StreamHandler, StreamReceiver } from '../../src/rpc/types.ts';
import { topicId } from './fake-replica.ts';
import type { ManualEnvironment } from './manual-environment.ts';

export const call: CallContext = { listener: 'PLAINTEXT', headers: {}, peer: 'test', signal: new AbortController().signal };

/** Handlers' context over partitions 0, 1, … of one topic, `orders`. */
export function contextOf(
  partitions: readonly Partition[],
  environment: ManualEnvironment,
  set: readonly string[] = [],
): BrokerContext & { fatals: Error[] } {
  const fatals: Error[] = [];
  const find = (id: TopicId, partition: number): Partition => {
    if (id !== topicId) throw new FlotillaError('UNKNOWN_TOPIC_ID', 'unknown');
    const found = partitions[partition];
    if (found === undefined) throw new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', 'unknown');
    return found;
  };
  const topicIdOf = (name: string): TopicId => {
    if (name !== 'orders') throw new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', `There is no topic ${name}.`);
    return topicId;
  };
  return {
    config: loadConfig({ set: ['node.id=1', ...set] }),
    partitions: { find, topicIdOf, opening: () => undefined } as unknown as Partitions,
    metadata: new MetadataStore(),
    environment,
    produceLoad: new ProduceLoad(),
    crc32c,
    log: silentLogger,
    fatal: (error) => fatals.push(error),
    fatals,
  };
}

/** One stream to a handler, and what it answered. */
export class TestStream<I, O> implements RpcStream<O> {
  readonly sent: O[] = [];
  /** Of each message: tells the handler that its bytes are on their way. */
  readonly tellSent: ((() => void) | undefined)[] = [];
  readonly receiver: StreamReceiver<I>;
  writable = true;
  ended = false;

  constructor([, handler]: [string, StreamHandler]) {
    this.receiver = (handler.open as unknown as (responder: RpcStream<O>, context: CallContext) => StreamReceiver<I>)(this, call);
  }

  send(message: O, sent?: () => void): boolean {
    this.sent.push(message);
    this.tellSent.push(sent);
    return this.writable;
  }

  end(): void {
    this.ended = true;
  }

  cancel(): void {
    this.ended = true;
  }
}

import { loadConfig, type TopicConfig } from '../../src/broker/config.ts';
import { Partition } from '../../src/broker/partition.ts';
import { nodeCompressions } from '../../src/platform/compression.ts';
import { BatchBuilder } from '../../src/record/builder.ts';
import { CompressionTable } from '../../src/record/compression.ts';
import { crc32c } from '../../src/record/crc32c.ts';
import { type FakeReplica, topicId } from './fake-replica.ts';
import type { ManualEnvironment } from './manual-environment.ts';

export const defaults: TopicConfig = loadConfig({ set: ['node.id=1'] }).topicDefaults;

/** A batch of `count` records, as a producer builds it. */
export function batch(
  count: number,
  options: { producer?: [id: number, epoch: number, sequence: number]; timestamp?: number; value?: string } = {},
): Uint8Array {
  const builder = new BatchBuilder({ crc32c });
  for (let i = 0; i < count; i++) builder.append(null, new TextEncoder().encode(options.value ?? 'v'), [], options.timestamp ?? 1_000_000);
  if (options.producer !== undefined) builder.setProducer(...options.producer);
  return builder.build();
}

export async function openPartition(
  fake: FakeReplica,
  environment: ManualEnvironment,
  config: Partial<TopicConfig> = {},
): Promise<Partition> {
  const partition = new Partition(fake.replica, {
    topicId,
    topic: 'orders',
    partition: 0,
    config: { ...defaults, ...config },
    environment,
    crc32c,
    compression: new CompressionTable(nodeCompressions),
  });
  fake.owner = partition.state;
  await partition.state.restore();
  return partition;
}

/** How a promise stands after everything that is due has run. */
export async function outcome(promise: Promise<unknown>): Promise<unknown> {
  const pending = Symbol('pending');
  promise.catch(() => undefined);
  await new Promise((resolve) => setImmediate(resolve));
  return Promise.race([promise, Promise.resolve(pending)]).then(
    (value) => (value === pending ? 'pending' : value),
    (error: { code?: string }) => error.code ?? error,
  );
}

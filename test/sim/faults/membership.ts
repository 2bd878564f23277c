import { create } from '@bufbuild/protobuf';
import {
  Admin,
  MetadataRequestSchema,
  ReassignPartitionsRequestSchema,
  type TopicMetadata,
} from '../../../src/gen/flotilla/v1/admin_pb.ts';
import { hostOf } from '../cluster.ts';
import type { SeededRandom } from '../random.ts';
import { VirtualEnvironment } from '../virtual-environment.ts';
import type { Fault, Occurrence } from './fault.ts';

const CALL_MS = 5_000;

/** What an operator does to the replicas of a topic while everything else breaks. */
export const membershipFaults: readonly Fault[] = [
  {
    name: 'membership',
    about: 'a topic’s replicas move to other brokers, or back from where they are going',
    inflict: (occurrence) => {
      // Nothing need come of it: the broker that is asked may be down, or the brokers that are named.
      move(occurrence).catch(() => {});
    },
  },
];

async function move({ cluster, random, bite }: Occurrence): Promise<void> {
  const environment = new VirtualEnvironment(cluster.time, random.fork());
  const asked = random.pick(cluster.machines).id;
  const channel = cluster.network.connectFrom('operator', environment)(`${hostOf(asked)}:9000`);
  try {
    const { topics } = await channel.unary(Admin.method.metadata, create(MetadataRequestSchema), { timeoutMs: CALL_MS });
    if (topics.length === 0) return;
    const topic = random.pick(topics);
    const cancel = random.chance(0.2);
    const partitions = topic.partitions
      .filter(() => random.chance(0.7))
      .map(({ partition, replicas }) => ({
        topic: topic.name,
        partition,
        brokers: cancel ? [] : others(cluster.machines, replicas, random),
        cancel,
      }));
    const request = create(ReassignPartitionsRequestSchema, { partitions, timeoutMs: CALL_MS });
    const { error } = await channel.unary(Admin.method.reassignPartitions, request, { timeoutMs: CALL_MS });
    if (error === undefined && partitions.length > 0) bite();
  } finally {
    channel.close();
  }
}

/** As many brokers as before, so that every group bears as many losses as before. */
function others(
  machines: Occurrence['cluster']['machines'],
  replicas: TopicMetadata['partitions'][number]['replicas'],
  random: SeededRandom,
): number[] {
  const rest = machines.map(({ id }) => id);
  return replicas.map(() => rest.splice(random.below(rest.length), 1)[0] as number);
}

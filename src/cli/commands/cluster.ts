/** `flotilla cluster describe`. */
import type { ClusterDescription, TopicSummary } from '../client.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';

export type Health = 'healthy' | 'under-replicated' | 'leaderless';

export async function describeCluster(session: Session): Promise<void> {
  await using client = await session.connect();
  const cluster = await client.admin.describeCluster(session.signal);
  const partitions = cluster.topics.flatMap((topic) => topic.partitions.map((partition) => ({ topic: topic.name, ...partition })));
  if (session.json) {
    return void (await session.out.json({
      ...cluster,
      topics: cluster.topics.map((topic) => ({
        ...topic,
        partitions: topic.partitions.map((partition) => ({ ...partition, health: health(cluster, partition) })),
      })),
    }));
  }
  const controller = cluster.controller === 0 ? 'nobody' : `broker ${cluster.controller} in epoch ${cluster.controllerEpoch}`;
  await session.out.line(`cluster ${cluster.clusterId}; ${controller} leads the metadata quorum of ${cluster.voters.join(', ')}\n`);
  const brokers = cluster.brokers.map(({ id, address, rack, alive }) => [
    id,
    address,
    rack ?? '-',
    alive ? 'alive' : 'dead',
    partitions.filter(({ leader }) => leader === id).length,
    partitions.filter(({ replicas }) => replicas.includes(id)).length,
  ]);
  await session.out.line(table(['BROKER', 'ADDRESS', 'RACK', 'STATE', 'LEADS', 'REPLICAS'], brokers, session.colour));
  if (partitions.length === 0) return;
  const rows = partitions.map((partition) => [
    partition.topic,
    partition.partition,
    partition.leader === 0 ? 'none' : partition.leader,
    partition.leaderEpoch,
    partition.replicas.join(','),
    health(cluster, partition),
  ]);
  await session.out.line(`\n${table(['TOPIC', 'PARTITION', 'LEADER', 'EPOCH', 'REPLICAS', 'HEALTH'], rows, session.colour)}`);
}

export function health(cluster: Pick<ClusterDescription, 'brokers'>, partition: TopicSummary['partitions'][number]): Health {
  const alive = new Set(cluster.brokers.filter((broker) => broker.alive).map(({ id }) => id));
  if (!alive.has(partition.leader)) return 'leaderless';
  return partition.replicas.every((id) => alive.has(id)) ? 'healthy' : 'under-replicated';
}

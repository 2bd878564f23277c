/** What must be so once all is healed: all replicas of a group are there, and hold the same. */
import { encodeGroupKey, formatGroupKey, type GroupKey, METADATA_GROUP, type ReplicaId } from '../../src/base/ids.ts';
import type { Broker } from '../../src/broker/broker.ts';
import { membersOf } from '../../src/raft/core/configuration.ts';
import type { Replica } from '../../src/raft/types.ts';
import type { SimCluster } from './cluster.ts';
import { Violation } from './invariants.ts';

const PAGE_BYTES = 1 << 20;

/** Whether all replicas of each group have committed the same entries, by count, and a group has all its replicas or, deleted, none. */
export function converged(cluster: SimCluster): boolean {
  const commits = new Map<GroupKey, number>();
  const missing = new Map<GroupKey, number>();
  for (const { broker } of cluster.machines) {
    for (const { group, commitIndex, log, configuration } of broker?.replicas ?? []) {
      const other = commits.get(group);
      if (log.lastIndex !== commitIndex || (other !== undefined && other !== commitIndex)) return false;
      commits.set(group, commitIndex);
      missing.set(group, (missing.get(group) ?? configuration.voters.length) - 1);
    }
  }
  return commits.size > 0 && [...missing.values()].every((count) => count === 0);
}

/** Whether every member of each group that the controller knows, by the group's newest configuration, is open, and each group can bear to lose one. */
export function allWhole(cluster: SimCluster): boolean {
  const open = new Set<ReplicaId>();
  const newest = new Map<GroupKey, Replica>();
  let controller: Broker | undefined;
  for (const { id, broker } of cluster.machines) {
    if (broker === undefined || !cluster.isUp(id)) return false;
    for (const replica of broker.replicas) {
      if (replica.group === METADATA_GROUP) {
        if (replica.leadership.ready) controller = broker;
        continue;
      }
      open.add(replica.replicaId);
      const known = newest.get(replica.group);
      if (known === undefined || known.configurationIndex < replica.configurationIndex) newest.set(replica.group, replica);
    }
  }
  const topics = [...(controller?.metadata?.topics.values() ?? [])];
  return (
    controller !== undefined &&
    topics.every(({ topicId, partitions }) =>
      partitions.every(({ partition, groupGeneration, target }) => {
        const configuration = newest.get(encodeGroupKey({ topicId, partition, groupGeneration }))?.configuration;
        return (
          target === undefined &&
          configuration?.outgoing.length === 0 &&
          configuration.voters.length >= 3 &&
          membersOf(configuration).every(({ replicaId }) => open.has(replicaId))
        );
      }),
    )
  );
}

/** All committed entries of all replicas are the same, by their chain hashes, and readers start at the same offset. */
export async function compareLogs(cluster: SimCluster): Promise<void> {
  const chains = new Map<string, string>();
  compareStarts(cluster);
  for (const { id, broker } of cluster.machines) {
    for (const { group, log } of broker?.replicas ?? []) {
      for (let next = log.firstReplicableIndex; next <= log.lastIndex; ) {
        const page = await log.readEntries(next, PAGE_BYTES).catch((error: unknown) => {
          // Retention and compaction go on meanwhile.
          if (next >= log.firstReplicableIndex) throw error;
        });
        if (page === undefined) {
          next = log.firstReplicableIndex;
          continue;
        }
        for (const { index, term, chainHigh, chainLow, nextOffset } of page) {
          if (index !== next++) throw new Violation(`${formatGroupKey(group)} on broker ${id}: entry ${index} where ${next - 1} belongs`);
          const place = `${group}@${index}`;
          const identity = `${term}/${nextOffset}/${chainHigh}.${chainLow}`;
          const other = chains.get(place);
          if (other === undefined) chains.set(place, identity);
          else if (other !== identity) {
            throw new Violation(`${formatGroupKey(group)} on broker ${id}: entry ${index} is ${identity}, elsewhere ${other}`);
          }
        }
        if (page.length === 0) throw new Violation(`${formatGroupKey(group)} on broker ${id}: no entry ${next} of ${log.lastIndex}`);
      }
    }
  }
}

/** At one moment: retention goes on. */
function compareStarts(cluster: SimCluster): void {
  const starts = new Map<GroupKey, number>();
  for (const { id, broker } of cluster.machines) {
    for (const { group, log } of broker?.replicas ?? []) {
      const start = starts.get(group) ?? log.logStartOffset;
      starts.set(group, start);
      if (log.logStartOffset === start) continue;
      throw new Violation(`${formatGroupKey(group)} on broker ${id} starts at offset ${log.logStartOffset}, elsewhere at ${start}`);
    }
  }
}

/** For a person: where each replica stands. */
export function describe(cluster: SimCluster): string {
  const lines: string[] = [];
  for (const { id, broker } of cluster.machines) {
    lines.push(`broker ${id}: ${cluster.isUp(id) ? 'up' : 'down'}`);
    for (const { group, commitIndex, lastIndex, durableIndex, leadership } of broker?.replicas ?? []) {
      const { role, term, ready, leader } = leadership;
      lines.push(
        `  ${formatGroupKey(group)}: ${role}${ready ? ' (ready)' : ''} term ${term} leader ${leader?.brokerId} commit ${commitIndex} durable ${durableIndex} last ${lastIndex}`,
      );
    }
  }
  return lines.join('\n');
}

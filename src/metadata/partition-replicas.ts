/** What records do to the replicas of a partition: each a function from the partition to the next, or to itself where nothing changes. */
import { assert } from '../base/assert.ts';
import type { ReplicaId } from '../base/ids.ts';
import { namedReplicas, type PartitionImage, type ReplicaAssignment } from './image.ts';
import type { ReplicasCommittedRecord, SetTargetRecord } from './records.ts';

const NO_CONFIGURATION = { term: 0, index: 0 };
const NONE_FAILED: readonly ReplicaId[] = [];

export function asCreated(partition: number, replicas: readonly ReplicaAssignment[]): PartitionImage {
  return {
    partition,
    groupGeneration: 0,
    replicas,
    configuration: NO_CONFIGURATION,
    targetEpoch: 0,
    target: undefined,
    failed: NONE_FAILED,
    leader: undefined,
    leaderEpoch: 0,
  };
}

export function targeted(partition: PartitionImage, { epoch, replicas, leaving }: SetTargetRecord, nextReplicaId: number): PartitionImage {
  assert(epoch === partition.targetEpoch + 1, 'targets are counted', { epoch, before: partition.targetEpoch });
  const named = new Set(namedReplicas(partition).map(({ replicaId }) => replicaId));
  for (const { replicaId } of replicas) {
    assert(named.has(replicaId) || replicaId >= nextReplicaId, 'a replica id is given out once', { replicaId, nextReplicaId });
  }
  return pruned({ ...partition, targetEpoch: epoch, target: { replicas, leaving } });
}

export function withoutTarget(partition: PartitionImage): PartitionImage {
  return partition.target === undefined ? partition : pruned({ ...partition, target: undefined });
}

/** Monotone: a report that comes late changes nothing. */
export function committed(partition: PartitionImage, { term, index, replicas }: ReplicasCommittedRecord): PartitionImage {
  const { configuration } = partition;
  if (index <= configuration.index || term < configuration.term) return partition;
  return pruned({ ...partition, replicas, configuration: { term, index } });
}

export function failed(partition: PartitionImage, replicaId: ReplicaId): PartitionImage {
  if (partition.failed.includes(replicaId) || !isNamed(partition, replicaId)) return partition;
  return { ...partition, failed: [...partition.failed, replicaId] };
}

export function sameReplicas(a: PartitionImage, b: PartitionImage): boolean {
  if (a === b) return true;
  return (
    a.targetEpoch === b.targetEpoch &&
    (a.target === undefined) === (b.target === undefined) &&
    a.configuration.index === b.configuration.index &&
    a.configuration.term === b.configuration.term &&
    a.failed.length === b.failed.length &&
    a.failed.every((replicaId, at) => b.failed[at] === replicaId)
  );
}

/** Without failures of replicas that are not named any more. */
function pruned(partition: PartitionImage): PartitionImage {
  if (partition.failed.length === 0) return partition;
  return { ...partition, failed: partition.failed.filter((replicaId) => isNamed(partition, replicaId)) };
}

function isNamed(partition: PartitionImage, replicaId: ReplicaId): boolean {
  return namedReplicas(partition).some((replica) => replica.replicaId === replicaId);
}

/**
 * Replicas that are lost for good get successors, each a new replica on the same broker: their disk was replaced by an empty one, or their broker can't
 * prove their log whole, or they diverged. Looks at the whole image, so nothing is forgotten when the controller changes.
 *
 * Never beyond what the rest of a group can bear: a voter is replaced only while a majority of the voters is whole and on live brokers. With less the
 * group could not change its members anyway, and what the others hold may be the only copy.
 */
import type { MetadataImage, PartitionImage, ReplicaAssignment } from '../metadata/image.ts';
import { type MetadataRecord, MOVING_REPLICAS_LEVEL } from '../metadata/records.ts';
import { heldOn, isLost, ReplicaIds, targetRecord } from './reassignment.ts';

/** Partitions that one entry repairs; the others follow with the next. */
export const REPAIRS_PER_ENTRY = 1000;

export interface Repairs {
  readonly records: readonly MetadataRecord[];
  /** Partitions with a lost replica that can't be replaced now. */
  readonly stuck: number;
}

export function replaceLost(image: MetadataImage): Repairs {
  const records: MetadataRecord[] = [];
  let stuck = 0;
  if (image.featureLevel < MOVING_REPLICAS_LEVEL) return { records, stuck };
  const ids = new ReplicaIds(image);
  for (const topic of image.topics.values()) {
    for (const partition of topic.partitions) {
      const wanted = partition.target?.replicas ?? partition.replicas;
      if (!wanted.some((replica) => isLost(image, partition, replica))) continue;
      if (records.length >= REPAIRS_PER_ENTRY) return { records, stuck };
      const replicas = bearable(image, partition) ? wanted.map((replica) => successor(image, partition, replica, ids)) : wanted;
      if (replicas.every((replica, at) => replica === wanted[at])) stuck++;
      else records.push(targetRecord(topic, partition, replicas));
    }
  }
  return { records, stuck };
}

function bearable(image: MetadataImage, partition: PartitionImage): boolean {
  const { replicas } = partition;
  const whole = replicas.filter((replica) => !isLost(image, partition, replica) && image.brokers.get(replica.brokerId)?.fenced === false);
  return whole.length > replicas.length / 2;
}

/** The replica itself where it is not lost, or its broker is not there to hold another. A directory that is back brings its replica back, if that is still named. */
function successor(image: MetadataImage, partition: PartitionImage, replica: ReplicaAssignment, ids: ReplicaIds): ReplicaAssignment {
  const broker = image.brokers.get(replica.brokerId);
  if (broker === undefined || broker.fenced || !isLost(image, partition, replica)) return replica;
  const { brokerId, directoryId } = broker;
  return heldOn(image, partition, brokerId) ?? { replicaId: ids.take(), brokerId, directoryId };
}

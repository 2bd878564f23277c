/**
 * Which replicas partitions are to have: functions of the newest image, run by the runtime on the leading controller. A decision is a *target*; the
 * partition's leader changes the members of its group until they are that, and reports what has committed.
 *
 * A replica may be deleted once the image does not name it any more, so what a leader may still make a member must stay named. Hence:
 * a leader acts only while its image shows it as the leader of its own term; a report counts only from the leader of the image's term, about the
 * newest target. Then every leader after it acts on an image that has that target, and nobody brings back what it left out.
 */
import { FlotillaError } from '../base/errors.ts';
import type { BrokerId, ReplicaId } from '../base/ids.ts';
import { type MetadataImage, namedReplicas, type PartitionImage, type ReplicaAssignment, type TopicImage } from '../metadata/image.ts';
import { type MetadataRecord, MOVING_REPLICAS_LEVEL, type SetTargetRecord } from '../metadata/records.ts';
import { findTopic } from './topics.ts';
import type { CommittedConfiguration, Reassignment, ReplicaReport } from './types.ts';

/** Partitions in one call. */
export const MAX_REASSIGNMENTS = 1000;
/** Brokers that one partition may be put on. */
const MAX_REPLICAS = 255;

/** Gives out the replica ids of one entry. */
export class ReplicaIds {
  #next: number;

  constructor(image: MetadataImage) {
    this.#next = image.nextReplicaId;
  }

  take(): ReplicaId {
    return this.#next++ as ReplicaId;
  }
}

/**
 * The targets that the call asks for; none where a partition is there, or on its way, already.
 * Throws UNKNOWN_TOPIC_OR_PARTITION, INVALID_REPLICA_ASSIGNMENT, REASSIGNMENT_IN_PROGRESS, NO_REASSIGNMENT_IN_PROGRESS, INVALID_REQUEST,
 * UNSUPPORTED_VERSION.
 */
export function reassignRecords(image: MetadataImage, changes: readonly Reassignment[]): MetadataRecord[] {
  if (image.featureLevel < MOVING_REPLICAS_LEVEL) {
    throw new FlotillaError(
      'UNSUPPORTED_VERSION',
      `replicas move from feature level ${MOVING_REPLICAS_LEVEL} on, this cluster is at ${image.featureLevel}: upgrade all brokers first`,
    );
  }
  if (changes.length > MAX_REASSIGNMENTS) {
    throw new FlotillaError('INVALID_REQUEST', `${changes.length} partitions in a call, at most ${MAX_REASSIGNMENTS} are taken: split it`);
  }
  const ids = new ReplicaIds(image);
  const seen = new Set<string>();
  return changes.flatMap(({ topic: name, partition: number, brokers }) => {
    const topic = findTopic(image, { name, topicId: undefined });
    const partition = topic.partitions[number];
    const what = `${name}-${number}`;
    if (partition === undefined) {
      throw new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', `there is no ${what}: the topic has ${topic.partitions.length} partitions`);
    }
    if (seen.has(what)) throw new FlotillaError('INVALID_REQUEST', `${what} is named twice`);
    seen.add(what);
    return brokers === undefined ? cancelled(topic, partition) : moved(image, topic, partition, brokers, ids);
  });
}

/** What of a broker's report is news. */
export function reportRecords(image: MetadataImage, { brokerId, committed, failed }: ReplicaReport): MetadataRecord[] {
  if (image.featureLevel < MOVING_REPLICAS_LEVEL) return [];
  const records: MetadataRecord[] = [];
  for (const report of committed) records.push(...committedRecords(image, brokerId, report));
  for (const { topicId, partition, replicaId } of failed) {
    const known = image.topics.get(topicId)?.partitions[partition];
    if (known === undefined || known.failed.includes(replicaId)) continue;
    const own = namedReplicas(known).find((replica) => replica.replicaId === replicaId)?.brokerId === brokerId;
    if (own) records.push({ type: 'replicaFailed', topicId, partition, replicaId });
  }
  return records;
}

/** The record that gives a partition another target. What is named and neither a voter nor wanted any more leaves. */
export function targetRecord(topic: TopicImage, partition: PartitionImage, replicas: readonly ReplicaAssignment[]): SetTargetRecord {
  const stays = new Set([...replicas, ...partition.replicas].map(({ replicaId }) => replicaId));
  return {
    type: 'setTarget',
    topicId: topic.topicId,
    partition: partition.partition,
    epoch: partition.targetEpoch + 1,
    replicas,
    leaving: namedReplicas(partition).filter(({ replicaId }) => !stays.has(replicaId)),
  };
}

function committedRecords(image: MetadataImage, brokerId: BrokerId, report: CommittedConfiguration): MetadataRecord[] {
  const { topicId, partition, leaderEpoch, index, targetEpoch, voters } = report;
  const known = image.topics.get(topicId)?.partitions[partition];
  if (known?.target === undefined || known.targetEpoch !== targetEpoch) return [];
  if (known.leader !== brokerId || known.leaderEpoch !== leaderEpoch || index < known.configuration.index) return [];
  const records: MetadataRecord[] = [];
  if (index > known.configuration.index) {
    records.push({ type: 'replicasCommitted', topicId, partition, term: leaderEpoch, index, replicas: voters });
  }
  if (sameOrder(voters, known.target.replicas)) records.push({ type: 'clearTarget', topicId, partition });
  return records;
}

/** Back to the present voters. A leader reports before the target goes, as the voters may have changed and nobody knows it here yet. */
function cancelled(topic: TopicImage, partition: PartitionImage): MetadataRecord[] {
  if (partition.target === undefined) {
    throw new FlotillaError('NO_REASSIGNMENT_IN_PROGRESS', `nothing is under way at ${topic.name}-${partition.partition}`);
  }
  return sameOrder(partition.target.replicas, partition.replicas) ? [] : [targetRecord(topic, partition, partition.replicas)];
}

function moved(
  image: MetadataImage,
  topic: TopicImage,
  partition: PartitionImage,
  brokers: readonly BrokerId[],
  ids: ReplicaIds,
): MetadataRecord[] {
  const what = `${topic.name}-${partition.partition}`;
  checkBrokers(what, brokers);
  const assigned = partition.target?.replicas ?? partition.replicas;
  if (sameBrokers(assigned, brokers) && !assigned.some((replica) => isLost(image, partition, replica))) return [];
  // A replica that is being replaced where it is, or a move that is being taken back, is in nobody's way.
  const present = new Set(partition.replicas.map(({ brokerId }) => brokerId));
  const foreign = partition.target?.replicas.some(({ brokerId }) => !present.has(brokerId)) ?? false;
  if (partition.target !== undefined && (foreign || partition.target.replicas.length !== partition.replicas.length)) {
    throw new FlotillaError(
      'REASSIGNMENT_IN_PROGRESS',
      `${what} is on its way to brokers ${partition.target.replicas.map(({ brokerId }) => brokerId).join(', ')}: cancel that first, or wait for it`,
    );
  }
  return [
    targetRecord(
      topic,
      partition,
      brokers.map((brokerId) => replicaOn(image, partition, brokerId, ids, what)),
    ),
  ];
}

function checkBrokers(what: string, brokers: readonly BrokerId[]): void {
  const refuse = (why: string): never => {
    throw new FlotillaError('INVALID_REPLICA_ASSIGNMENT', `${what} ${why}`);
  };
  if (brokers.length === 0) refuse('needs at least one broker');
  if (brokers.length > MAX_REPLICAS) refuse(`can be on ${MAX_REPLICAS} brokers, not on ${brokers.length}`);
  const twice = brokers.find((brokerId, at) => brokers.indexOf(brokerId) !== at);
  if (twice !== undefined) refuse(`can't be on broker ${twice} twice`);
}

/** The replica that the broker has and holds, else a new one. */
function replicaOn(image: MetadataImage, partition: PartitionImage, brokerId: BrokerId, ids: ReplicaIds, what: string): ReplicaAssignment {
  const broker = image.brokers.get(brokerId);
  if (broker === undefined) {
    const known = [...image.brokers.keys()].sort((a, b) => a - b).join(', ');
    throw new FlotillaError('INVALID_REPLICA_ASSIGNMENT', `${what} can't be on broker ${brokerId}, which is not registered; ${known} are`);
  }
  const held = heldOn(image, partition, brokerId);
  if (held !== undefined) return held;
  if (broker.fenced) {
    throw new FlotillaError('INVALID_REPLICA_ASSIGNMENT', `${what} can't come to broker ${brokerId}, which is down: start it first`);
  }
  return { replicaId: ids.take(), brokerId, directoryId: broker.directoryId };
}

/** True when its directory is gone, or its broker gave it up. */
export function isLost(image: MetadataImage, { failed }: PartitionImage, { replicaId, brokerId, directoryId }: ReplicaAssignment): boolean {
  return image.brokers.get(brokerId)?.directoryId !== directoryId || (failed.length > 0 && failed.includes(replicaId));
}

/** The newest replica that the broker has on its present directory and has not given up. */
export function heldOn(image: MetadataImage, partition: PartitionImage, brokerId: BrokerId): ReplicaAssignment | undefined {
  let held: ReplicaAssignment | undefined;
  for (const replica of namedReplicas(partition)) {
    if (replica.brokerId !== brokerId || isLost(image, partition, replica)) continue;
    if (held === undefined || held.replicaId < replica.replicaId) held = replica;
  }
  return held;
}

function sameOrder(a: readonly ReplicaAssignment[], b: readonly ReplicaAssignment[]): boolean {
  return a.length === b.length && a.every(({ replicaId }, at) => b[at]?.replicaId === replicaId);
}

function sameBrokers(replicas: readonly ReplicaAssignment[], brokers: readonly BrokerId[]): boolean {
  return replicas.length === brokers.length && replicas.every(({ brokerId }, at) => brokers[at] === brokerId);
}

import type { BrokerId, ReplicaId, TopicId } from '../../src/base/ids.ts';
import { reassignRecords, reportRecords } from '../../src/controller/reassignment.ts';
import { replaceLost } from '../../src/controller/repair.ts';
import type { CommittedConfiguration } from '../../src/controller/types.ts';
import { applyRecords, emptyImage } from '../../src/metadata/apply.ts';
import { type MetadataImage, namedReplicas, type PartitionImage, type ReplicaAssignment } from '../../src/metadata/image.ts';
import type { MetadataRecord } from '../../src/metadata/records.ts';
import { brokerRecord, formed, topicRecord, uuid } from '../metadata/arbitrary.ts';

export const topicId = uuid<TopicId>(1);
export const topic = 'topic-1';

/** Five brokers, and topic-1 whose partition 0 is on brokers 1 to 3 as replicas 4 to 6. */
export class Quorum {
  image: MetadataImage;

  constructor(partitions: readonly (readonly number[])[] = [[0, 1, 2]]) {
    this.image = applyRecords(emptyImage, 1, [...formed, brokerRecord(4), brokerRecord(5)]).image;
    this.apply([topicRecord(this.image, 1, partitions)]);
  }

  apply(records: readonly MetadataRecord[]): readonly MetadataRecord[] {
    this.image = applyRecords(this.image, this.image.index + 1, records).image;
    return records;
  }

  move(...brokers: number[]) {
    return this.apply(reassignRecords(this.image, [{ topic, partition: 0, brokers: brokers as BrokerId[] }]));
  }

  cancel() {
    return this.apply(reassignRecords(this.image, [{ topic, partition: 0, brokers: undefined }]));
  }

  repair() {
    const { records, stuck } = replaceLost(this.image);
    this.apply(records);
    return { records: records.length, stuck };
  }

  wipe(brokerId: number): void {
    const directoryId = uuid(0xff00 + this.image.index);
    this.apply([{ ...brokerRecord(brokerId), directoryId } as MetadataRecord]);
  }

  fail(brokerId: number): void {
    const replica = namedReplicas(this.partition).find((each) => each.brokerId === brokerId)!;
    this.report(brokerId, [], [replica.replicaId]);
  }

  lead(leader: number, leaderEpoch: number): void {
    this.apply([{ type: 'partitionLeader', topicId, partition: 0, leader: leader as BrokerId, leaderEpoch }]);
  }

  report(brokerId: number, committed: readonly CommittedConfiguration[], failed: readonly number[] = []) {
    const of = failed.map((replicaId) => ({ topicId, partition: 0, replicaId: replicaId as ReplicaId }));
    return this.apply(reportRecords(this.image, { brokerId: brokerId as BrokerId, incarnation: 1, committed, failed: of }));
  }

  /** What the leader of `leaderEpoch` says that has committed. */
  committed(leaderEpoch: number, index: number, voters: readonly ReplicaAssignment[], more: Partial<CommittedConfiguration> = {}) {
    const { targetEpoch } = this.partition;
    return { topicId, partition: 0, leaderEpoch, index, targetEpoch, voters, ...more };
  }

  get partition(): PartitionImage {
    return this.image.topics.get(topicId)!.partitions[0]!;
  }

  get target(): (readonly [number, number])[] | undefined {
    return this.partition.target?.replicas.map(({ replicaId, brokerId }) => [replicaId, brokerId] as const);
  }

  get leaving(): number[] | undefined {
    return this.partition.target?.leaving.map(({ replicaId }) => replicaId);
  }
}

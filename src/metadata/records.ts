/**
 * The records of the metadata log, and their bytes. Framing, integers and strings: src/rsm/codec.ts. All are version 0.
 *
 *   type  record                 body
 *    1    featureLevel           varint level. The first record of a metadata log.
 *    2    clusterFormed          uuid clusterId, varint nextReplicaId (above the voters of the metadata quorum)
 *    3    registerBroker         varint brokerId, uuid directoryId, varint incarnation, u8 hasRack, [string rack], strings listeners,
 *                                string peerAddress. A broker that registers is not fenced.
 *    4    fenceBroker            varint brokerId
 *    5    unfenceBroker          varint brokerId
 *    6    createTopic            uuid topicId, string name, strings configs, varint firstReplicaId, varint d, d × (varint brokerId, uuid directoryId),
 *                                varint partitions, for each: varint replicas, for each: varint index into the d disks.
 *                                Replica ids count up from firstReplicaId in this order; it is the image's nextReplicaId.
 *    7    deleteTopic            uuid topicId
 *    8    partitionLeader        uuid topicId, varint partition, varint leader, varint leaderEpoch. Without effect unless leaderEpoch is higher than
 *                                the image's, or the same with no leader known.
 *    9    topicConfig            uuid topicId, string key, u8 present, [string value]
 *   10    allocateReplicaIds     varint nextReplicaId
 *   11    allocateProducerIds    varint nextProducerId
 *   12    setTarget              uuid topicId, varint partition, varint epoch (one more than the last of this partition), replicas, replicas leaving.
 *                                Replicas that the partition does not name yet have ids from the image's nextReplicaId on.
 *   13    clearTarget            uuid topicId, varint partition
 *   14    replicasCommitted      uuid topicId, varint partition, varint term, varint index, replicas. Without effect unless the index is higher than the
 *                                image's and the term is not lower.
 *   15    replicaFailed          uuid topicId, varint partition, varint replicaId
 *
 * `replicas`: varint how many, for each varint replicaId, varint brokerId, uuid directoryId. Types 12 to 15 are written from feature level 2 on.
 *
 * A change of a body is a new version, written only above the feature level that brings it.
 */
import { must } from '../base/assert.ts';
import type { BrokerId, ClusterId, DirectoryId, ReplicaId, TopicId } from '../base/ids.ts';
import {
  ByteReader,
  ByteWriter,
  decodeRecords,
  MalformedRecordError,
  type RawRecord,
  type RecordCodec,
  UnknownRecordError,
} from '../rsm/codec.ts';
import type { ReplicaAssignment } from './image.ts';

export type MetadataRecord =
  | { readonly type: 'featureLevel'; readonly level: number }
  | { readonly type: 'clusterFormed'; readonly clusterId: ClusterId; readonly nextReplicaId: number }
  | RegisterBrokerRecord
  | { readonly type: 'fenceBroker'; readonly brokerId: BrokerId }
  | { readonly type: 'unfenceBroker'; readonly brokerId: BrokerId }
  | CreateTopicRecord
  | { readonly type: 'deleteTopic'; readonly topicId: TopicId }
  | PartitionLeaderRecord
  | { readonly type: 'topicConfig'; readonly topicId: TopicId; readonly key: string; readonly value: string | undefined }
  | { readonly type: 'allocateReplicaIds'; readonly nextReplicaId: number }
  | { readonly type: 'allocateProducerIds'; readonly nextProducerId: number }
  | SetTargetRecord
  | { readonly type: 'clearTarget'; readonly topicId: TopicId; readonly partition: number }
  | ReplicasCommittedRecord
  | { readonly type: 'replicaFailed'; readonly topicId: TopicId; readonly partition: number; readonly replicaId: ReplicaId };

export interface RegisterBrokerRecord {
  readonly type: 'registerBroker';
  readonly brokerId: BrokerId;
  readonly directoryId: DirectoryId;
  readonly incarnation: number;
  readonly rack: string | undefined;
  readonly listeners: ReadonlyMap<string, string>;
  readonly peerAddress: string;
}

export interface CreateTopicRecord {
  readonly type: 'createTopic';
  readonly topicId: TopicId;
  readonly name: string;
  readonly configs: ReadonlyMap<string, string>;
  readonly firstReplicaId: number;
  /** The disks that hold replicas. */
  readonly disks: readonly { readonly brokerId: BrokerId; readonly directoryId: DirectoryId }[];
  /** For each partition its replicas, the preferred leader first, as indexes into `disks`. */
  readonly partitions: readonly (readonly number[])[];
}

export interface PartitionLeaderRecord {
  readonly type: 'partitionLeader';
  readonly topicId: TopicId;
  readonly partition: number;
  readonly leader: BrokerId;
  readonly leaderEpoch: number;
}

export interface SetTargetRecord {
  readonly type: 'setTarget';
  readonly topicId: TopicId;
  readonly partition: number;
  readonly epoch: number;
  readonly replicas: readonly ReplicaAssignment[];
  readonly leaving: readonly ReplicaAssignment[];
}

export interface ReplicasCommittedRecord {
  readonly type: 'replicasCommitted';
  readonly topicId: TopicId;
  readonly partition: number;
  /** Of the leader that reported it. */
  readonly term: number;
  /** Of the configuration's entry in the partition's log. */
  readonly index: number;
  readonly replicas: readonly ReplicaAssignment[];
}

/** From this level on replicas move: records 12 to 15, and format 2 of the image. */
export const MOVING_REPLICAS_LEVEL = 2;
/** The feature level that a new cluster starts at, and the highest that this build reads. */
export const FEATURE_LEVEL = MOVING_REPLICAS_LEVEL;

interface BodyCodec<R extends MetadataRecord> {
  readonly number: number;
  readonly write: (writer: ByteWriter, record: R) => void;
  readonly read: (reader: ByteReader) => R;
}

type BodyCodecs = { readonly [T in MetadataRecord['type']]: BodyCodec<Extract<MetadataRecord, { type: T }>> };

const bodies: BodyCodecs = {
  featureLevel: {
    number: 1,
    write: (w, r) => w.varint(r.level),
    read: (r) => ({ type: 'featureLevel', level: r.varint() }),
  },
  clusterFormed: {
    number: 2,
    write: (w, r) => w.uuid(r.clusterId).varint(r.nextReplicaId),
    read: (r) => ({ type: 'clusterFormed', clusterId: r.uuid() as ClusterId, nextReplicaId: r.varint() }),
  },
  registerBroker: { number: 3, write: writeRegisterBroker, read: readRegisterBroker },
  fenceBroker: {
    number: 4,
    write: (w, r) => w.varint(r.brokerId),
    read: (r) => ({ type: 'fenceBroker', brokerId: r.varint() as BrokerId }),
  },
  unfenceBroker: {
    number: 5,
    write: (w, r) => w.varint(r.brokerId),
    read: (r) => ({ type: 'unfenceBroker', brokerId: r.varint() as BrokerId }),
  },
  createTopic: { number: 6, write: writeCreateTopic, read: readCreateTopic },
  deleteTopic: {
    number: 7,
    write: (w, r) => w.uuid(r.topicId),
    read: (r) => ({ type: 'deleteTopic', topicId: r.uuid() as TopicId }),
  },
  partitionLeader: {
    number: 8,
    write: (w, r) => w.uuid(r.topicId).varint(r.partition).varint(r.leader).varint(r.leaderEpoch),
    read: (r) => ({
      type: 'partitionLeader',
      topicId: r.uuid() as TopicId,
      partition: r.varint(),
      leader: r.varint() as BrokerId,
      leaderEpoch: r.varint(),
    }),
  },
  topicConfig: {
    number: 9,
    write: (w, r) => writeOptional(w.uuid(r.topicId).string(r.key), r.value),
    read: (r) => ({ type: 'topicConfig', topicId: r.uuid() as TopicId, key: r.string(), value: readOptional(r) }),
  },
  allocateReplicaIds: {
    number: 10,
    write: (w, r) => w.varint(r.nextReplicaId),
    read: (r) => ({ type: 'allocateReplicaIds', nextReplicaId: r.varint() }),
  },
  allocateProducerIds: {
    number: 11,
    write: (w, r) => w.varint(r.nextProducerId),
    read: (r) => ({ type: 'allocateProducerIds', nextProducerId: r.varint() }),
  },
  setTarget: {
    number: 12,
    write: (w, r) => {
      writeReplicas(w.uuid(r.topicId).varint(r.partition).varint(r.epoch), r.replicas);
      writeReplicas(w, r.leaving);
    },
    read: (r) => ({
      type: 'setTarget',
      topicId: r.uuid() as TopicId,
      partition: r.varint(),
      epoch: r.varint(),
      replicas: readReplicas(r),
      leaving: readReplicas(r),
    }),
  },
  clearTarget: {
    number: 13,
    write: (w, r) => w.uuid(r.topicId).varint(r.partition),
    read: (r) => ({ type: 'clearTarget', topicId: r.uuid() as TopicId, partition: r.varint() }),
  },
  replicasCommitted: {
    number: 14,
    write: (w, r) => writeReplicas(w.uuid(r.topicId).varint(r.partition).varint(r.term).varint(r.index), r.replicas),
    read: (r) => ({
      type: 'replicasCommitted',
      topicId: r.uuid() as TopicId,
      partition: r.varint(),
      term: r.varint(),
      index: r.varint(),
      replicas: readReplicas(r),
    }),
  },
  replicaFailed: {
    number: 15,
    write: (w, r) => w.uuid(r.topicId).varint(r.partition).varint(r.replicaId),
    read: (r) => ({
      type: 'replicaFailed',
      topicId: r.uuid() as TopicId,
      partition: r.varint(),
      replicaId: r.varint() as ReplicaId,
    }),
  },
};

const VERSION = 0;
const bodyByNumber = new Map<number, BodyCodec<MetadataRecord>>(
  Object.values(bodies).map((body) => [body.number, body as BodyCodec<MetadataRecord>]),
);

export const metadataCodec: RecordCodec<MetadataRecord> = {
  encode(record: MetadataRecord): RawRecord {
    const body = bodies[record.type] as BodyCodec<MetadataRecord>;
    const writer = new ByteWriter();
    body.write(writer, record);
    return { type: body.number, version: VERSION, body: writer.finish() };
  },
  decode({ type, version, body }: RawRecord): MetadataRecord {
    const codec = bodyByNumber.get(type);
    if (codec === undefined || version !== VERSION) throw new UnknownRecordError(type, version);
    const reader = new ByteReader(body);
    const record = codec.read(reader);
    reader.end();
    return record;
  },
};

export function writeOptional(writer: ByteWriter, text: string | undefined): void {
  writer.u8(text === undefined ? 0 : 1);
  if (text !== undefined) writer.string(text);
}

export function readOptional(reader: ByteReader): string | undefined {
  return reader.u8() === 0 ? undefined : reader.string();
}

function writeRegisterBroker(w: ByteWriter, r: RegisterBrokerRecord): void {
  w.varint(r.brokerId).uuid(r.directoryId).varint(r.incarnation);
  writeOptional(w, r.rack);
  w.strings(r.listeners).string(r.peerAddress);
}

function readRegisterBroker(r: ByteReader): RegisterBrokerRecord {
  return {
    type: 'registerBroker',
    brokerId: r.varint() as BrokerId,
    directoryId: r.uuid() as DirectoryId,
    incarnation: r.varint(),
    rack: readOptional(r),
    listeners: r.strings(),
    peerAddress: r.string(),
  };
}

function writeCreateTopic(w: ByteWriter, r: CreateTopicRecord): void {
  w.uuid(r.topicId).string(r.name).strings(r.configs).varint(r.firstReplicaId);
  w.varint(r.disks.length);
  for (const { brokerId, directoryId } of r.disks) w.varint(brokerId).uuid(directoryId);
  w.varint(r.partitions.length);
  for (const replicas of r.partitions) {
    w.varint(replicas.length);
    for (const disk of replicas) w.varint(disk);
  }
}

function readCreateTopic(r: ByteReader): CreateTopicRecord {
  const topicId = r.uuid() as TopicId;
  const name = r.string();
  const configs = r.strings();
  const firstReplicaId = r.varint();
  const disks = Array.from({ length: r.count(17) }, () => ({ brokerId: r.varint() as BrokerId, directoryId: r.uuid() as DirectoryId }));
  const partitions = Array.from({ length: r.count(1) }, () => Array.from({ length: r.count(1) }, () => diskIndex(r, disks.length)));
  return { type: 'createTopic', topicId, name, configs, firstReplicaId, disks, partitions };
}

function diskIndex(r: ByteReader, disks: number): number {
  const index = r.varint();
  if (index >= disks) throw new MalformedRecordError(`replica on disk ${index} of ${disks}`);
  return index;
}

function writeReplicas(w: ByteWriter, replicas: readonly ReplicaAssignment[]): void {
  w.varint(replicas.length);
  for (const { replicaId, brokerId, directoryId } of replicas) w.varint(replicaId).varint(brokerId).uuid(directoryId);
}

function readReplicas(r: ByteReader): ReplicaAssignment[] {
  return Array.from({ length: r.count(18) }, () => ({
    replicaId: r.varint() as ReplicaId,
    brokerId: r.varint() as BrokerId,
    directoryId: r.uuid() as DirectoryId,
  }));
}

/** What a committed entry of the metadata log says. */
export function readMetadataEntry(payload: Uint8Array): MetadataRecord[] {
  return decodeRecords(metadataCodec, payload);
}

/** The type's number on disk, for people who read a log. */
export function recordNumber(type: MetadataRecord['type']): number {
  return must(bodies[type], 'record type', type).number;
}

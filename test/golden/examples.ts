/** What the golden files say: one example of each thing that has a format (formats.ts). */
import type { BrokerId, ClusterId, DirectoryId, ReplicaId, TopicId } from '../../src/base/ids.ts';
import { ProducerState } from '../../src/broker/producer-state.ts';
import { metadataMachine } from '../../src/metadata/machine.ts';
import type { MetadataRecord } from '../../src/metadata/records.ts';
import { encodeConfiguration } from '../../src/raft/core/configuration.ts';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import type { Configuration, Message } from '../../src/raft/core/types.ts';
import type { SnapshotMessage } from '../../src/raft/snapshot-codec.ts';
import { stampBatch } from '../../src/record/batch.ts';
import { BatchBuilder } from '../../src/record/builder.ts';
import { formatDirectory, initDirectory, nextIncarnation } from '../../src/storage/directory.ts';
import { RowKind } from '../../src/storage/wal-frame.ts';
import { text } from '../record/fixtures.ts';
import { SimDisk } from '../sim/disk.ts';
import { checksums, groupKey, nextEntry, seeded, TestEnvironment } from '../storage/fixture.ts';

const { crc32, crc32c } = checksums;

const topicId = 'a'.repeat(32) as TopicId;
const directory = (brokerId: number) => `${brokerId}`.repeat(32) as DirectoryId;
export const group = groupKey(3);

export function batch(): Uint8Array {
  const builder = new BatchBuilder({ crc32c });
  builder.append(text('key'), text('value'), [{ key: 'header', value: text('h') }], 1_700_000_000_000);
  builder.append(null, null, [], 1_700_000_000_007);
  builder.append(
    text(''),
    text('ünïcödé'),
    [
      { key: 'null', value: null },
      { key: '', value: text('') },
    ],
    1_699_999_999_999,
  );
  builder.setProducer(4711, 2, 40);
  const bytes = builder.build();
  stampBatch(bytes, 1_000_000_000_000, 7);
  return bytes;
}

export const configuration: Configuration = {
  voters: [1, 2, 3].map((id) => ({ replicaId: id as ReplicaId, brokerId: (id + 10) as BrokerId, directoryId: directory(id) })),
  outgoing: [],
  learners: [{ replicaId: 4 as ReplicaId, brokerId: 14 as BrokerId, directoryId: directory(4) }],
};

/** A leader's first entries: the empty one, a configuration, a batch. */
function entries(): Entry[] {
  const noop = nextEntry(undefined, { kind: EntryKind.noop, term: 5 });
  const config = nextEntry(noop, { kind: EntryKind.config, payload: encodeConfiguration(configuration) });
  return [noop, config, nextEntry(config, { records: 3, bytes: 80 })];
}

export const log = entries();

export const frame = {
  firstOfFile: true,
  generation: 9,
  oldestGeneration: 8,
  lsn: 2 ** 33,
  durableUpTo: 2 ** 33 - 1,
  previousChecksum: 0xfeedface,
  nonce: 0x12345678,
};
export const rows = [
  { group, kind: RowKind.hardState, damaged: false, term: 5, index: 2, extra: 17, sequence: 100, entries: undefined },
  { group, kind: RowKind.truncate, damaged: false, term: 5, index: 0, extra: 0, sequence: 101, entries: undefined },
  { group, kind: RowKind.entries, damaged: false, term: 5, index: 1, extra: 3, sequence: 102, entries: log },
  { group: groupKey(4), kind: RowKind.synced, damaged: true, term: 0, index: 2 ** 40, extra: 0, sequence: 7, entries: undefined },
];

const envelope = { term: 5, from: 1 as ReplicaId, to: 2 as ReplicaId };
export const messages = [
  { type: 'append', ...envelope, prevIndex: 0, prevTerm: 0, commit: 2, entries: log },
  { type: 'appendResponse', ...envelope, matchIndex: 3, rejected: true, rejectedIndex: 9, hintIndex: 4, hintTerm: 3, probation: 0 },
  { type: 'vote', ...envelope, pre: true, transfer: false, lastIndex: 3, lastTerm: 5 },
  { type: 'voteResponse', ...envelope, pre: true, granted: false, lastIndex: 3, lastTerm: 5 },
  { type: 'pull', ...envelope, prevIndex: 2, prevTerm: 5 },
  { type: 'pullResponse', ...envelope, prevIndex: 0, prevTerm: 0, entries: log, lastIndex: 3, lastTerm: 5 },
  { type: 'timeoutNow', ...envelope },
] as readonly Message[];
/** As they were before there were pulls. */
export const messagesV1: readonly Message[] = [
  ...messages.slice(0, 3),
  { type: 'voteResponse', ...envelope, pre: false, granted: true, lastIndex: 0, lastTerm: 0 },
  { type: 'timeoutNow', ...envelope },
];
export const beats = [
  { type: 'heartbeat', ...envelope, commit: 3, readContext: 8, quiesce: false, check: undefined, verdict: false, over: 0 },
  { type: 'heartbeatResponse', ...envelope, readContext: 8, awake: false, check: undefined },
] as readonly Message[];
const check = { index: 3, chainHigh: 0xfedcba98, chainLow: 0x76543210 };
const beatsOfV2 = [
  ...beats,
  { type: 'heartbeat', ...envelope, commit: 3, readContext: 0, quiesce: true, check, verdict: true, over: 0 },
  { type: 'heartbeatResponse', ...envelope, readContext: 0, awake: true, check },
] as readonly Message[];
export const heartbeatOfV2 = {
  ...{ incarnation: 6, seq: 99, diskFresh: true, loopFresh: true, hasRoom: true, wake: true },
  quiesced: { count: 700, hash: 0x89abcdef },
  messages: beatsOfV2.map((message) => ({ group, message })),
};

const disks = [1, 2, 3].map((id) => ({ brokerId: id as BrokerId, directoryId: directory(id) }));
export const records: readonly MetadataRecord[] = [
  { type: 'featureLevel', level: 1 },
  { type: 'clusterFormed', clusterId: 'c'.repeat(32) as ClusterId, nextReplicaId: 4 },
  ...disks.map(
    ({ brokerId, directoryId }): MetadataRecord => ({
      type: 'registerBroker',
      brokerId,
      directoryId,
      incarnation: 2,
      rack: brokerId === 1 ? undefined : `rack-${brokerId}`,
      listeners: new Map([['PLAINTEXT', `127.0.0.1:910${brokerId}`]]),
      peerAddress: `127.0.0.1:910${brokerId}`,
    }),
  ),
  {
    type: 'createTopic',
    topicId,
    name: 'orders',
    configs: new Map([['min.insync.replicas', '2']]),
    firstReplicaId: 4,
    disks,
    partitions: [
      [0, 1, 2],
      [1, 2, 0],
    ],
  },
  {
    type: 'createTopic',
    topicId: 'b'.repeat(32) as TopicId,
    name: 'gone',
    configs: new Map(),
    firstReplicaId: 10,
    disks: disks.slice(0, 1),
    partitions: [[0]],
  },
  { type: 'deleteTopic', topicId: 'b'.repeat(32) as TopicId },
  { type: 'partitionLeader', topicId, partition: 1, leader: 2 as BrokerId, leaderEpoch: 300 },
  { type: 'topicConfig', topicId, key: 'segment.bytes', value: '1048576' },
  { type: 'topicConfig', topicId, key: 'min.insync.replicas', value: undefined },
  { type: 'fenceBroker', brokerId: 3 as BrokerId },
  { type: 'unfenceBroker', brokerId: 3 as BrokerId },
  { type: 'fenceBroker', brokerId: 1 as BrokerId },
  { type: 'allocateReplicaIds', nextReplicaId: 20 },
  { type: 'allocateProducerIds', nextProducerId: 2 ** 40 },
];
export const image = metadataMachine.apply(metadataMachine.empty, 70, records).state;
const replicasOf = (...ids: readonly (readonly [replicaId: number, brokerId: number])[]) =>
  ids.map(([replicaId, brokerId]) => ({
    replicaId: replicaId as ReplicaId,
    brokerId: brokerId as BrokerId,
    directoryId: directory(brokerId),
  }));
/** Replicas that move: from feature level 2 on. */
export const moves: readonly MetadataRecord[] = [
  { type: 'featureLevel', level: 2 },
  { type: 'setTarget', topicId, partition: 0, epoch: 1, replicas: replicasOf([4, 1], [20, 4]), leaving: [] },
  { type: 'setTarget', topicId, partition: 0, epoch: 2, replicas: replicasOf([4, 1], [5, 2], [300, 5]), leaving: replicasOf([20, 4]) },
  { type: 'replicasCommitted', topicId, partition: 0, term: 7, index: 1000, replicas: replicasOf([4, 1], [20, 4]) },
  { type: 'replicaFailed', topicId, partition: 0, replicaId: 20 as ReplicaId },
  { type: 'setTarget', topicId, partition: 1, epoch: 1, replicas: replicasOf([301, 3]), leaving: [] },
  { type: 'replicasCommitted', topicId, partition: 1, term: 301, index: 12, replicas: replicasOf([301, 3]) },
  { type: 'clearTarget', topicId, partition: 1 },
];
export const movedImage = metadataMachine.apply(image, 71, moves).state;

export function producers(): ProducerState {
  const state = new ProducerState(0);
  for (const [producerId, sequence] of [
    [4711, 0],
    [4712, 0],
    [4711, 3],
  ] as const) {
    const baseOffset = sequence * 2 + (producerId - 4711);
    const nextOffset = baseOffset + 3;
    state.append({ producerId, epoch: 1, firstSequence: sequence, lastSequence: sequence + 2, baseOffset, nextOffset, index: 0 });
  }
  return state;
}

export const snapshot = {
  group: `${'a'.repeat(32)}-3.0`,
  lastIndex: 41,
  lastTerm: 5,
  nextOffset: 1000,
  logStartOffset: 100,
  firstIndex: 8,
  firstReplicableIndex: 12,
  tombstoneFloor: 90,
  chain: '0123456789abcdef',
  terms: [
    { term: 1, index: 1 },
    { term: 5, index: 30 },
  ],
  configuration: { index: 2, payload: Buffer.from(encodeConfiguration(configuration)).toString('hex') },
  state: text('state of the owner'),
};

const snapshotEnvelope = { group, from: 7 as ReplicaId, to: 9 as ReplicaId, id: 2 ** 40 + 3 };
export const snapshotMessages: readonly SnapshotMessage[] = [
  {
    type: 'offer',
    ...snapshotEnvelope,
    lastIndex: 41,
    lastTerm: 5,
    files: [
      { name: '00000000000000001000-00000000000000000042.snapshot', length: 300 },
      { name: '00000000000000000100-00000000000000000012.log', length: 2 ** 33 },
    ],
  },
  { type: 'pull', ...snapshotEnvelope, file: 1, position: 2 ** 32, length: 5, checksum: 0x01020304 },
  { type: 'pull', ...snapshotEnvelope, file: 0, position: 0, length: 300, checksum: undefined },
  { type: 'chunk', ...snapshotEnvelope, file: 1, position: 2 ** 32, length: 5, checksum: 0x05060708, bytes: text('chunk') },
  { type: 'chunk', ...snapshotEnvelope, file: 1, position: 0, length: 512, checksum: 0x05060708, bytes: undefined },
  { type: 'done', ...snapshotEnvelope, failed: true },
  { type: 'gone', ...snapshotEnvelope },
];

export async function directoryFile(): Promise<Uint8Array> {
  const disk = new SimDisk(new TestEnvironment(), seeded(1));
  const access = { disk, path: 'data', crc32 };
  let words = 0;
  await initDirectory(access, { brokerId: 11 as BrokerId, random: { uint32: () => 0x11111111 * ++words } });
  await formatDirectory(access, { clusterId: 'c'.repeat(32) as ClusterId, controllerVoters: configuration.voters });
  await nextIncarnation(access);
  const file = await disk.open('data/directory.json', { create: false });
  return file.read(0, 4096);
}

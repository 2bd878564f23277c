/** One example of each format that stands on disks and wires: how today's code writes it, and how it reads it. */
import { concat } from '../../src/base/bytes.ts';
import type { BrokerId, ClusterId, DirectoryId, ReplicaId, TopicId } from '../../src/base/ids.ts';
import { ProducerState } from '../../src/broker/producer-state.ts';
import { decodeImage, encodeImage } from '../../src/metadata/checkpoint.ts';
import type { MetadataImage } from '../../src/metadata/image.ts';
import { metadataMachine } from '../../src/metadata/machine.ts';
import { type MetadataRecord, metadataCodec } from '../../src/metadata/records.ts';
import { decodeFrame, encodeFrames, type GroupMessage } from '../../src/raft/codec.ts';
import { decodeConfiguration, encodeConfiguration } from '../../src/raft/core/configuration.ts';
import { type Entry, EntryKind } from '../../src/raft/core/entry.ts';
import { decodeEntry } from '../../src/raft/core/entry-codec.ts';
import type { Configuration, Message } from '../../src/raft/core/types.ts';
import { decodeHeartbeat, encodeHeartbeat } from '../../src/raft/heartbeat-codec.ts';
import { decodeSnapshotMessage, encodeSnapshotMessage, type SnapshotMessage } from '../../src/raft/snapshot-codec.ts';
import { decodeBatch, readBatchHeader, stampBatch, validateBatch } from '../../src/record/batch.ts';
import { BatchBuilder } from '../../src/record/builder.ts';
import { decodeCheckpoint, encodeCheckpoint } from '../../src/rsm/checkpoint.ts';
import { decodeRecords, encodeRecords } from '../../src/rsm/codec.ts';
import { formatDirectory, initDirectory, nextIncarnation, readDirectory } from '../../src/storage/directory.ts';
import { decodeLogStart, encodeLogStart } from '../../src/storage/log-start.ts';
import { decodeReplicaFile, encodeReplicaFile } from '../../src/storage/replica-file.ts';
import { type IndexRow, putIndexRow, putSparseRow, readIndexRow } from '../../src/storage/segment-index.ts';
import { decodeSnapshot, encodeSnapshot } from '../../src/storage/segment-snapshot.ts';
import { decodeTombstoneFloor, encodeTombstoneFloor } from '../../src/storage/tombstone-floor.ts';
import { FrameBuffer, frameIntact, RowKind, readHeader, readRows } from '../../src/storage/wal-frame.ts';
import { compression, text } from '../record/fixtures.ts';
import { SimDisk } from '../sim/disk.ts';
import { batchPayload, checksums, groupKey, nextEntry, seeded, TestEnvironment } from '../storage/fixture.ts';

const { crc32, crc32c } = checksums;

export interface Format {
  readonly name: string;
  /** Left out: nobody writes it any more. */
  readonly write?: () => Uint8Array | Promise<Uint8Array>;
  /** What the bytes say, or undefined (or an error) when they are not intact. */
  readonly read: (bytes: Uint8Array) => unknown;
  /** What was written, as `read` should say it. */
  readonly says: unknown;
  /** Bytes that no checksum and no check of the format covers; 'all': what carries them has the checksum. */
  readonly uncovered: 'all' | readonly (readonly [number, number])[];
}

const topicId = 'a'.repeat(32) as TopicId;
const directory = (brokerId: number) => `${brokerId}`.repeat(32) as DirectoryId;
const group = groupKey(3);

function batch(): Uint8Array {
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

const configuration: Configuration = {
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

const log = entries();
const lines = (all: readonly Entry[]) =>
  all.map(({ header: _, payload, ...rest }) => ({ ...rest, payload: Buffer.from(payload).toString('hex') }));

function readEntries(bytes: Uint8Array): unknown {
  const read: Entry[] = [];
  for (let at = 0; at < bytes.length; ) {
    const entry = decodeEntry(bytes, at);
    read.push(entry);
    at += entry.header.length + entry.payload.length;
  }
  return lines(read);
}

const frame = {
  firstOfFile: true,
  generation: 9,
  oldestGeneration: 8,
  lsn: 2 ** 33,
  durableUpTo: 2 ** 33 - 1,
  previousChecksum: 0xfeedface,
  nonce: 0x12345678,
};
const rows = [
  { group, kind: RowKind.hardState, damaged: false, term: 5, index: 2, extra: 17, sequence: 100, entries: undefined },
  { group, kind: RowKind.truncate, damaged: false, term: 5, index: 0, extra: 0, sequence: 101, entries: undefined },
  { group, kind: RowKind.entries, damaged: false, term: 5, index: 1, extra: 3, sequence: 102, entries: log },
  { group: groupKey(4), kind: RowKind.synced, damaged: true, term: 0, index: 2 ** 40, extra: 0, sequence: 7, entries: undefined },
];

function readIndexRows(bytes: Uint8Array, count: number): unknown {
  const rows = Array.from({ length: count }, (_, at) => readIndexRow(bytes, at * 72, crc32));
  if (rows.includes(undefined)) return undefined;
  return rows.map((row) => [
    row?.index,
    row?.term,
    row?.kind,
    row?.nextOffset,
    row?.recordCount,
    row?.file,
    row?.position,
    row?.maxTimestamp,
    row?.isRunning,
  ]);
}

function readFrame(bytes: Uint8Array): unknown {
  const header = readHeader(bytes, 0, crc32);
  if (header === undefined || !frameIntact(bytes, 0, header, crc32)) return undefined;
  const { firstOfFile, generation, oldestGeneration, lsn, durableUpTo, previousChecksum, nonce } = header;
  const read = (readRows(bytes, 64, header, crc32) ?? []).map(({ position, bytes: length, ...row }) => {
    return { ...row, entries: length === 0 ? undefined : readEntries(bytes.subarray(position, position + length)) };
  });
  return { header: { firstOfFile, generation, oldestGeneration, lsn, durableUpTo, previousChecksum, nonce }, rows: read };
}

const envelope = { term: 5, from: 1 as ReplicaId, to: 2 as ReplicaId };
const messages = [
  { type: 'append', ...envelope, prevIndex: 0, prevTerm: 0, commit: 2, entries: log },
  { type: 'appendResponse', ...envelope, matchIndex: 3, rejected: true, rejectedIndex: 9, hintIndex: 4, hintTerm: 3, probation: 0 },
  { type: 'vote', ...envelope, pre: true, transfer: false, lastIndex: 3, lastTerm: 5 },
  { type: 'voteResponse', ...envelope, pre: true, granted: false, lastIndex: 3, lastTerm: 5 },
  { type: 'pull', ...envelope, prevIndex: 2, prevTerm: 5 },
  { type: 'pullResponse', ...envelope, prevIndex: 0, prevTerm: 0, entries: log, lastIndex: 3, lastTerm: 5 },
  { type: 'timeoutNow', ...envelope },
] as readonly Message[];
/** As they were before there were pulls. */
const messagesV1: readonly Message[] = [
  ...messages.slice(0, 3),
  { type: 'voteResponse', ...envelope, pre: false, granted: true, lastIndex: 0, lastTerm: 0 },
  { type: 'timeoutNow', ...envelope },
];
const beats = [
  { type: 'heartbeat', ...envelope, commit: 3, readContext: 8, quiesce: false, check: undefined, verdict: false, over: 0 },
  { type: 'heartbeatResponse', ...envelope, readContext: 8, awake: false, check: undefined },
] as readonly Message[];
const check = { index: 3, chainHigh: 0xfedcba98, chainLow: 0x76543210 };
const beatsOfV2 = [
  ...beats,
  { type: 'heartbeat', ...envelope, commit: 3, readContext: 0, quiesce: true, check, verdict: true, over: 0 },
  { type: 'heartbeatResponse', ...envelope, readContext: 0, awake: true, check },
] as readonly Message[];
const heartbeatOfV2 = {
  ...{ incarnation: 6, seq: 99, diskFresh: true, loopFresh: true, hasRoom: true, wake: true },
  quiesced: { count: 700, hash: 0x89abcdef },
  messages: beatsOfV2.map((message) => ({ group, message })),
};
const grouped = (all: readonly Message[]): GroupMessage[] => all.map((message) => ({ group, message }));
const plain = (all: readonly GroupMessage[]) =>
  all.map(({ group: of, message }) => ({
    group: of,
    message: message.type === 'append' || message.type === 'pullResponse' ? { ...message, entries: lines(message.entries) } : message,
  }));

const disks = [1, 2, 3].map((id) => ({ brokerId: id as BrokerId, directoryId: directory(id) }));
const records: readonly MetadataRecord[] = [
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
const image = metadataMachine.apply(metadataMachine.empty, 70, records).state;
const replicasOf = (...ids: readonly (readonly [replicaId: number, brokerId: number])[]) =>
  ids.map(([replicaId, brokerId]) => ({
    replicaId: replicaId as ReplicaId,
    brokerId: brokerId as BrokerId,
    directoryId: directory(brokerId),
  }));
/** Replicas that move: from feature level 2 on. */
const moves: readonly MetadataRecord[] = [
  { type: 'featureLevel', level: 2 },
  { type: 'setTarget', topicId, partition: 0, epoch: 1, replicas: replicasOf([4, 1], [20, 4]), leaving: [] },
  { type: 'setTarget', topicId, partition: 0, epoch: 2, replicas: replicasOf([4, 1], [5, 2], [300, 5]), leaving: replicasOf([20, 4]) },
  { type: 'replicasCommitted', topicId, partition: 0, term: 7, index: 1000, replicas: replicasOf([4, 1], [20, 4]) },
  { type: 'replicaFailed', topicId, partition: 0, replicaId: 20 as ReplicaId },
  { type: 'setTarget', topicId, partition: 1, epoch: 1, replicas: replicasOf([301, 3]), leaving: [] },
  { type: 'replicasCommitted', topicId, partition: 1, term: 301, index: 12, replicas: replicasOf([301, 3]) },
  { type: 'clearTarget', topicId, partition: 1 },
];
const movedImage = metadataMachine.apply(image, 71, moves).state;
const imageText = ({ index, clusterId, featureLevel, brokers, topics, nextReplicaId, nextProducerId }: MetadataImage) => {
  return { index, clusterId, featureLevel, brokers: [...brokers.values()], topics: [...topics.values()], nextReplicaId, nextProducerId };
};

function producers(): ProducerState {
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

const snapshot = {
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
const snapshotMessages: readonly SnapshotMessage[] = [
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

async function directoryFile(): Promise<Uint8Array> {
  const disk = new SimDisk(new TestEnvironment(), seeded(1));
  const access = { disk, path: 'data', crc32 };
  let words = 0;
  await initDirectory(access, { brokerId: 11 as BrokerId, random: { uint32: () => 0x11111111 * ++words } });
  await formatDirectory(access, { clusterId: 'c'.repeat(32) as ClusterId, controllerVoters: configuration.voters });
  await nextIncarnation(access);
  const file = await disk.open('data/directory.json', { create: false });
  return file.read(0, 4096);
}

async function readDirectoryFile(bytes: Uint8Array): Promise<unknown> {
  const disk = new SimDisk(new TestEnvironment(), seeded(1));
  await disk.makeDirectory('data');
  const file = await disk.open('data/directory.json', { create: true });
  await file.write(0, [bytes]);
  return readDirectory({ disk, path: 'data', crc32 });
}

export const formats: readonly Format[] = [
  {
    name: 'record-batch-v2',
    write: batch,
    read: (bytes) => {
      validateBatch(bytes, { maxBytes: 1 << 20, crc32c });
      const { producerId, producerEpoch, baseSequence, leaderEpoch } = readBatchHeader(bytes);
      const read = decodeBatch(bytes, { compression, maxBytes: 1 << 20 });
      return {
        producerId,
        producerEpoch,
        baseSequence,
        leaderEpoch,
        offsets: read.map(({ offset }) => offset),
        values: read.map(({ value }) => value && Buffer.from(value).toString()),
      };
    },
    says: {
      producerId: 4711,
      producerEpoch: 2,
      baseSequence: 40,
      leaderEpoch: 7,
      offsets: [1_000_000_000_000, 1_000_000_000_001, 1_000_000_000_002],
      values: ['value', null, 'ünïcödé'],
    },
    // What the leader stamps: covered by the segment's and the log's own checksums.
    uncovered: [
      [0, 8],
      [12, 16],
    ],
  },
  // Headers alone: payloads have checksums of their own, which storage verifies.
  {
    name: 'entries-v1',
    write: () => concat(log.flatMap(({ header, payload }) => [header, payload])),
    read: readEntries,
    says: lines(log),
    uncovered: 'all',
  },
  { name: 'entry-header-v1', write: () => log[0]?.header as Uint8Array, read: readEntries, says: lines(log.slice(0, 1)), uncovered: [] },
  {
    name: 'configuration-v1',
    write: () => encodeConfiguration(configuration),
    read: decodeConfiguration,
    says: configuration,
    uncovered: 'all',
  },
  {
    name: 'wal-frame-v1',
    write: () => new FrameBuffer(crc32).encode(frame, rows).bytes.slice(),
    read: readFrame,
    says: { header: frame, rows: rows.map(({ entries: of, ...row }) => ({ ...row, entries: of && lines(of) })) },
    // Behind the body: zeros, and the second copy of what stands in front.
    uncovered: [[64 + 4 * 64 + 3 * 48 + 116 + 80, 4096]],
  },
  {
    name: 'segment-index-v3',
    write: () => {
      const was = new Uint8Array(3 * 72);
      for (const [at, entry] of log.entries()) putIndexRow(was, at * 72, entry, { position: 0, timestampBefore: -1 }, crc32);
      const [, config, batch] = [0, 72, 144].map((at) => readIndexRow(was, at, crc32) as IndexRow) as [IndexRow, IndexRow, IndexRow];
      const left = batchPayload(0, 3, 70, 900);
      const bytes = new Uint8Array(3 * 72);
      const timestampBefore = putSparseRow(bytes, 0, batch, left, { position: 0, timestampBefore: -1 }, crc32);
      putSparseRow(bytes, 72, batch, new Uint8Array(0), { position: 70, timestampBefore }, crc32);
      putSparseRow(bytes, 144, config, new Uint8Array(0), { position: 70, timestampBefore: -1 }, crc32);
      return bytes;
    },
    read: (bytes) => readIndexRows(bytes, 3),
    says: [
      [3, 5, 0, 3, 3, 0, 0, 900, true],
      [3, 5, 0, 3, 3, 2, 70, 900, true],
      [2, 5, 2, 0, 0, 2, 70, -1, true],
    ],
    uncovered: [],
  },
  {
    name: 'segment-index-v2',
    write: () => {
      const bytes = new Uint8Array(4 * 72);
      let timestampBefore = -1;
      // One without a timestamp comes last: its row has that of the batch before.
      for (const [at, entry] of [...log, ...log.slice(1, 2)].entries()) {
        timestampBefore = putIndexRow(bytes, at * 72, entry, { position: at * 10, timestampBefore }, crc32);
      }
      return bytes;
    },
    read: (bytes) => readIndexRows(bytes, 4),
    says: [
      [1, 5, 1, 0, 0, 1, 0, -1, true],
      [2, 5, 2, 0, 0, 1, 10, -1, true],
      [3, 5, 0, 3, 3, 0, 20, 1003, true],
      [2, 5, 2, 0, 0, 1, 30, 1003, true],
    ],
    uncovered: [],
  },
  {
    name: 'segment-index-v1',
    read: (bytes) => readIndexRows(bytes, 3),
    says: [
      [1, 5, 1, 0, 0, 1, 0, -1, false],
      [2, 5, 2, 0, 0, 1, 10, -1, false],
      [3, 5, 0, 3, 3, 0, 20, 1003, false],
    ],
    uncovered: [],
  },
  {
    name: 'segment-snapshot-v3',
    write: () => encodeSnapshot(snapshot, crc32),
    read: (bytes) => decodeSnapshot(bytes, crc32),
    says: snapshot,
    // Reserved bits of the flags.
    uncovered: [[6, 8]],
  },
  {
    name: 'segment-snapshot-v2',
    read: (bytes) => decodeSnapshot(bytes, crc32),
    says: { ...snapshot, firstIndex: snapshot.firstReplicableIndex, tombstoneFloor: 0 },
    // Reserved bits of the flags.
    uncovered: [[6, 8]],
  },
  {
    name: 'segment-snapshot-v1',
    read: (bytes) => decodeSnapshot(bytes, crc32),
    says: { ...snapshot, group: undefined, chain: undefined, logStartOffset: 0, firstIndex: 1, firstReplicableIndex: 1, tombstoneFloor: 0 },
    // Reserved bits of the flags.
    uncovered: [[6, 8]],
  },
  {
    name: 'snapshot-frames-v1',
    write: () => concat(snapshotMessages.flatMap((message) => encodeSnapshotMessage(message))),
    read: (bytes) => {
      let at = 0;
      return snapshotMessages.map((message) => {
        const { length } = concat(encodeSnapshotMessage(message));
        at += length;
        return decodeSnapshotMessage(bytes.slice(at - length, at));
      });
    },
    says: snapshotMessages,
    // A chunk has a checksum of its own, which who stages it verifies.
    uncovered: 'all',
  },
  {
    name: 'replica-file-v1',
    write: () => encodeReplicaFile(4711 as ReplicaId, crc32),
    read: (bytes) => decodeReplicaFile(bytes, crc32),
    says: 4711,
    uncovered: [],
  },
  // Payloads of entries, which have the checksum.
  { name: 'log-start-v1', write: () => encodeLogStart(2 ** 33 + 1), read: decodeLogStart, says: 2 ** 33 + 1, uncovered: 'all' },
  {
    name: 'tombstone-floor-v1',
    write: () => encodeTombstoneFloor(2 ** 33 + 2),
    read: decodeTombstoneFloor,
    says: 2 ** 33 + 2,
    uncovered: 'all',
  },
  {
    name: 'producer-state-v1',
    write: () => producers().encode(9),
    read: (bytes) => Buffer.from(ProducerState.decode(bytes, 9).encode(9)).toString('hex'),
    says: Buffer.from(producers().encode(9)).toString('hex'),
    uncovered: 'all',
  },
  {
    name: 'directory-v1',
    write: directoryFile,
    read: readDirectoryFile,
    says: {
      version: 1,
      directoryId: '1111111122224222b333333344444444',
      brokerId: 11,
      clusterId: 'c'.repeat(32),
      controllerVoters: configuration.voters,
      incarnation: 1,
    },
    uncovered: [],
  },
  {
    name: 'raft-frame-v1',
    read: (bytes) => plain(decodeFrame(bytes)),
    says: plain(grouped(messagesV1)),
    uncovered: 'all',
  },
  {
    name: 'raft-frame-v2',
    write: () => concat(encodeFrames(grouped(messages)).flat()),
    read: (bytes) => plain(decodeFrame(bytes)),
    says: plain(grouped(messages)),
    uncovered: 'all',
  },
  {
    name: 'heartbeat-frame-v1',
    read: decodeHeartbeat,
    says: {
      incarnation: 6,
      seq: 99,
      diskFresh: true,
      loopFresh: true,
      hasRoom: true,
      wake: false,
      quiesced: { count: 0, hash: 0 },
      messages: grouped(beats),
    },
    uncovered: 'all',
  },
  {
    name: 'heartbeat-frame-v2',
    write: () => encodeHeartbeat(heartbeatOfV2),
    read: decodeHeartbeat,
    says: heartbeatOfV2,
    uncovered: 'all',
  },
  {
    name: 'metadata-records-v0',
    write: () => encodeRecords(metadataCodec, records),
    read: (bytes) => decodeRecords(metadataCodec, bytes),
    says: records,
    uncovered: 'all',
  },
  {
    name: 'metadata-moves-v0',
    write: () => encodeRecords(metadataCodec, moves),
    read: (bytes) => decodeRecords(metadataCodec, bytes),
    says: moves,
    uncovered: 'all',
  },
  {
    name: 'metadata-image-v2',
    write: () => encodeImage(movedImage),
    read: (bytes) => imageText(decodeImage(bytes)),
    says: imageText(movedImage),
    uncovered: 'all',
  },
  {
    name: 'metadata-image-v1',
    write: () => encodeImage(image),
    read: (bytes) => imageText(decodeImage(bytes)),
    says: imageText(image),
    uncovered: 'all',
  },
  {
    name: 'checkpoint-v1',
    write: () => encodeCheckpoint(70, text('a state')),
    read: (bytes) => {
      const { index, state } = decodeCheckpoint(bytes);
      return { index, state: Buffer.from(state).toString() };
    },
    says: { index: 70, state: 'a state' },
    uncovered: 'all',
  },
];

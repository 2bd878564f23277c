/** Each format that stands on disks and wires: how today's code writes an example of it, and how it reads it. */
import { concat } from '../../src/base/bytes.ts';
import type { ReplicaId } from '../../src/base/ids.ts';
import { ProducerState } from '../../src/broker/producer-state.ts';
import { decodeImage, encodeImage } from '../../src/metadata/checkpoint.ts';
import type { MetadataImage } from '../../src/metadata/image.ts';
import { metadataCodec } from '../../src/metadata/records.ts';
import { decodeFrame, encodeFrames, type GroupMessage } from '../../src/raft/codec.ts';
import { decodeConfiguration, encodeConfiguration } from '../../src/raft/core/configuration.ts';
import type { Entry } from '../../src/raft/core/entry.ts';
import { decodeEntry } from '../../src/raft/core/entry-codec.ts';
import type { Message } from '../../src/raft/core/types.ts';
import { decodeHeartbeat, encodeHeartbeat } from '../../src/raft/heartbeat-codec.ts';
import { decodeSnapshotMessage, encodeSnapshotMessage } from '../../src/raft/snapshot-codec.ts';
import { decodeBatch, readBatchHeader, validateBatch } from '../../src/record/batch.ts';
import { decodeCheckpoint, encodeCheckpoint } from '../../src/rsm/checkpoint.ts';
import { decodeRecords, encodeRecords } from '../../src/rsm/codec.ts';
import { readDirectory } from '../../src/storage/directory.ts';
import { decodeLogStart, encodeLogStart } from '../../src/storage/log-start.ts';
import { decodeReplicaFile, encodeReplicaFile } from '../../src/storage/replica-file.ts';
import { type IndexRow, putIndexRow, putSparseRow, readIndexRow } from '../../src/storage/segment-index.ts';
import { decodeSnapshot, encodeSnapshot } from '../../src/storage/segment-snapshot.ts';
import { decodeTombstoneFloor, encodeTombstoneFloor } from '../../src/storage/tombstone-floor.ts';
import { FrameBuffer, frameIntact, readHeader, readRows } from '../../src/storage/wal-frame.ts';
import { compression, text } from '../record/fixtures.ts';
import { SimDisk } from '../sim/disk.ts';
import { batchPayload, checksums, seeded, TestEnvironment } from '../storage/fixture.ts';
import {
  batch,
  beats,
  configuration,
  directoryFile,
  frame,
  group,
  heartbeatOfV2,
  image,
  log,
  messages,
  messagesV1,
  movedImage,
  moves,
  producers,
  records,
  rows,
  snapshot,
  snapshotMessages,
} from './examples.ts';

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

const grouped = (all: readonly Message[]): GroupMessage[] => all.map((message) => ({ group, message }));
const plain = (all: readonly GroupMessage[]) =>
  all.map(({ group: of, message }) => ({
    group: of,
    message: message.type === 'append' || message.type === 'pullResponse' ? { ...message, entries: lines(message.entries) } : message,
  }));

const imageText = ({ index, clusterId, featureLevel, brokers, topics, nextReplicaId, nextProducerId }: MetadataImage) => {
  return { index, clusterId, featureLevel, brokers: [...brokers.values()], topics: [...topics.values()], nextReplicaId, nextProducerId };
};

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
    name: 'segment-snapshot-v4',
    write: () => encodeSnapshot(snapshot, crc32),
    read: (bytes) => decodeSnapshot(bytes, crc32),
    says: snapshot,
    uncovered: [],
  },
  {
    name: 'segment-snapshot-v3',
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

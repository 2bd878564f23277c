/** Of each format on a disk: what a newer release wrote is refused, with what to do; to call it damaged would be to write over it. */
import { expect, test } from 'vitest';
import { ProducerState } from '../../src/broker/producer-state.ts';
import { decodeImage } from '../../src/metadata/checkpoint.ts';
import { metadataCodec } from '../../src/metadata/records.ts';
import { decodeConfiguration } from '../../src/raft/core/configuration.ts';
import { decodeEntry } from '../../src/raft/core/entry-codec.ts';
import { decodeCheckpoint } from '../../src/rsm/checkpoint.ts';
import { decodeRecords } from '../../src/rsm/codec.ts';
import { readDirectory } from '../../src/storage/directory.ts';
import { decodeLogStart, encodeLogStart } from '../../src/storage/log-start.ts';
import { decodeReplicaFile } from '../../src/storage/replica-file.ts';
import { readIndexRow } from '../../src/storage/segment-index.ts';
import { decodeSnapshot } from '../../src/storage/segment-snapshot.ts';
import { decodeTombstoneFloor, encodeTombstoneFloor } from '../../src/storage/tombstone-floor.ts';
import { scanFile } from '../../src/storage/wal-scan.ts';
import { SimDisk } from '../sim/disk.ts';
import { checksums, seeded, TestEnvironment } from '../storage/fixture.ts';
import { readGolden } from './files.ts';

const { crc32 } = checksums;

interface Newer {
  readonly name: string;
  /** Today's bytes, made newer. */
  readonly bytes: Uint8Array;
  readonly read: (bytes: Uint8Array) => unknown;
  readonly says: RegExp;
}

/** With a version of 99 there, and the checksum of a range put right. */
function newer(bytes: Uint8Array, versionAt: number, sum?: { at: number; from: number; to: number }): Uint8Array {
  bytes[versionAt] = 99;
  if (sum !== undefined) new DataView(bytes.buffer, bytes.byteOffset).setUint32(sum.at, crc32(bytes.subarray(sum.from, sum.to)));
  return bytes;
}

async function fileOf(bytes: Uint8Array, path: string): Promise<SimDisk> {
  const disk = new SimDisk(new TestEnvironment(), seeded(1));
  await disk.makeDirectory('data');
  await (await disk.open(path, { create: true })).write(0, [bytes]);
  return disk;
}

function newerDirectory(): Uint8Array {
  const { identity } = JSON.parse(new TextDecoder().decode(readGolden('directory-v1'))) as { identity: object };
  const changed = { ...identity, version: 99 };
  const checksum = crc32(new TextEncoder().encode(JSON.stringify(changed))).toString(16);
  return new TextEncoder().encode(JSON.stringify({ checksum: checksum.padStart(8, '0'), identity: changed }));
}

function newerSnapshot(): Uint8Array {
  const bytes = newer(readGolden('segment-snapshot-v4'), 5);
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(8, crc32(bytes.subarray(12), crc32(bytes.subarray(0, 8))));
  return bytes;
}

const formats: readonly Newer[] = [
  {
    name: 'a file of the write-ahead log, HardStates in it',
    bytes: newer(readGolden('wal-frame-v1'), 5, { at: 60, from: 0, to: 60 }),
    read: async (bytes) => scanFile(await (await fileOf(bytes, 'data/wal')).open('data/wal', { create: false }), bytes.length, crc32),
    says: /write-ahead log was written by a newer release \(format 99, this one reads up to 1\); start that release/,
  },
  {
    name: 'an entry',
    bytes: newer(readGolden('entry-header-v1'), 21, { at: 0, from: 4, to: 48 }),
    read: (bytes) => decodeEntry(bytes, 0),
    says: /entry of version 99.*written by a newer release; upgrade this broker/,
  },
  {
    name: 'a row of a segment',
    bytes: newer(readGolden('segment-index-v2').slice(0, 72), 57, { at: 68, from: 0, to: 68 }),
    read: (bytes) => readIndexRow(bytes, 0, crc32),
    says: /row of a segment was written by a newer release \(format 99, .*start that release/,
  },
  {
    name: 'a snapshot',
    bytes: newerSnapshot(),
    read: (bytes) => decodeSnapshot(bytes, crc32),
    says: /snapshot was written by a newer release \(format 99, this one reads up to 4\); start that release/,
  },
  {
    name: "a replica's file",
    bytes: newer(readGolden('replica-file-v1'), 5, { at: 16, from: 0, to: 16 }),
    read: (bytes) => decodeReplicaFile(bytes, crc32),
    says: /replica's file was written by a newer release \(format 99, .*start that release/,
  },
  {
    name: "a replica's file of another length",
    bytes: newer(new Uint8Array([...readGolden('replica-file-v1'), 0, 0, 0, 0]), 5, { at: 20, from: 0, to: 20 }),
    read: (bytes) => decodeReplicaFile(bytes, crc32),
    says: /replica's file was written by a newer release/,
  },
  {
    name: 'the identity of a directory',
    bytes: newerDirectory(),
    read: async (bytes) => readDirectory({ disk: await fileOf(bytes, 'data/directory.json'), path: 'data', crc32 }),
    says: /data was written by a newer release \(format 99, this one reads up to 1\); start that release/,
  },
  {
    name: 'the state of producers',
    bytes: newer(readGolden('producer-state-v1'), 0),
    read: (bytes) => ProducerState.decode(bytes, 9),
    says: /version 99; this broker reads 1: start the release that wrote it/,
  },
  {
    name: 'a configuration',
    bytes: newer(readGolden('configuration-v1'), 0),
    read: decodeConfiguration,
    says: /version 99; upgrade this broker/,
  },
  {
    name: 'the start of a log',
    bytes: newer(encodeLogStart(4711), 0),
    read: decodeLogStart,
    says: /of a version that this release knows/,
  },
  {
    name: 'a tombstone floor',
    bytes: newer(encodeTombstoneFloor(4711), 0),
    read: decodeTombstoneFloor,
    says: /of a version that this release knows/,
  },
  {
    name: 'a checkpoint in the state store',
    bytes: newer(readGolden('checkpoint-v1'), 0),
    read: decodeCheckpoint,
    says: /checkpoint format 99: this broker is older than the data directory, upgrade it/,
  },
  {
    name: 'an image of the metadata',
    bytes: newer(readGolden('metadata-image-v2'), 0),
    read: decodeImage,
    says: /format 99.*upgrade the broker/,
  },
  {
    name: 'a record of the metadata',
    bytes: newer(readGolden('metadata-records-v0'), 2),
    read: (bytes) => decodeRecords(metadataCodec, bytes),
    says: /version 99: this broker is older than the cluster's feature level; upgrade it/,
  },
];

test.each(formats)('$name of a newer release is refused', async ({ bytes, read, says }) => {
  await expect((async () => read(bytes))()).rejects.toThrow(says);
});

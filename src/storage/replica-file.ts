/**
 * Whose data a group's directory holds: the file `replica` in it, written before the directory gets its name. A replica that takes another one's
 * place must not adopt what that one voted, acknowledged or synced (hazard B14). Big-endian:
 *
 *    0  u32  magic 'FLRP'
 *    4  u16  version 1
 *    6  u16  reserved, 0
 *    8  u64  replicaId
 *   16  u32  crc32 of bytes 0 … 15
 */
import type { Disk, DiskFile } from '../base/environment.ts';
import type { ReplicaId } from '../base/ids.ts';
import { publishFile } from './directory.ts';
import { newerFormat } from './newer-format.ts';
import { type Crc32, getUint53, putUint53 } from './wal-frame.ts';

const FILE = 'replica';
const MAGIC = 0x464c5250;
const VERSION = 1;
export const REPLICA_FILE_BYTES = 20;
/** More than any version has. */
const MAX_BYTES = 4096;

export function encodeReplicaFile(replicaId: ReplicaId, crc32: Crc32): Uint8Array {
  const bytes = new Uint8Array(REPLICA_FILE_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC);
  view.setUint16(4, VERSION);
  putUint53(view, 8, replicaId);
  view.setUint32(16, crc32(bytes.subarray(0, 16)));
  return bytes;
}

/** Undefined: damaged. @throws DATA_DIRECTORY for one of a newer release, which ends with a checksum of all before as well. */
export function decodeReplicaFile(bytes: Uint8Array, crc32: Crc32): ReplicaId | undefined {
  if (bytes.length < REPLICA_FILE_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const end = bytes.length - 4;
  if (view.getUint32(0) !== MAGIC || view.getUint32(end) !== crc32(bytes.subarray(0, end))) return undefined;
  const version = view.getUint16(4);
  if (version > VERSION) throw newerFormat("a replica's file", version, VERSION);
  if (version < VERSION || bytes.length !== REPLICA_FILE_BYTES) return undefined;
  return getUint53(view, 8) as ReplicaId;
}

/** Says, durably, that the directory is the replica's. */
export async function bindDirectory(disk: Disk, directory: string, replicaId: ReplicaId, crc32: Crc32): Promise<void> {
  await publishFile(disk, directory, FILE, encodeReplicaFile(replicaId, crc32));
}

/** Whose the directory is. Undefined: the file is damaged, or gone, since a directory has its name only once it is there. */
export async function boundTo(disk: Disk, directory: string, crc32: Crc32): Promise<ReplicaId | undefined> {
  const path = `${directory}/${FILE}`;
  let file: DiskFile;
  try {
    file = await disk.open(path, { create: false });
  } catch (error) {
    // Asked only then: it is there in each of thousands of directories.
    if (await disk.exists(path)) throw error;
    return undefined;
  }
  try {
    return decodeReplicaFile(await file.read(0, MAX_BYTES), crc32);
  } finally {
    await file.close();
  }
}

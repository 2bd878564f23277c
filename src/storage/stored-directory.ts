/** A data directory as it stands on the disk of a broker that does not run, for who only looks: `flotilla log`. Changes nothing. */
import type { Disk } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';
import { formatGroupKey, type GroupKey, type ReplicaId } from '../base/ids.ts';
import { type DirectoryIdentity, IDENTITY_FILES, readIdentityFile } from './directory.ts';
import { readFile } from './files.ts';
import { parseGroupName } from './group-directories.ts';
import type { Checksums } from './payload.ts';
import { boundTo } from './replica-file.ts';
import { parseSegmentName } from './segment-files.ts';
import { decodeSnapshot, type SegmentSnapshot } from './segment-snapshot.ts';
import { type Damage, listSegments, type StoredSegment } from './stored-log.ts';
import { readWal, type StoredWal, type StoredWalGroup } from './wal-recovery.ts';

export interface StoredDirectory {
  /** Undefined: none, or a damaged one. */
  readonly identity: DirectoryIdentity | undefined;
  readonly wal: StoredWal;
  readonly replicas: readonly StoredReplica[];
  /** Names of what was deleted or replaced: quarantine.ts says how long it stays. */
  readonly quarantine: readonly string[];
  /** What is wrong, but for what only reading all of the segments would find. */
  readonly damage: readonly Damage[];
}

export interface StoredReplica {
  readonly group: GroupKey;
  readonly directory: string;
  /** Undefined: its file is damaged or gone. */
  readonly replicaId: ReplicaId | undefined;
  /** What the write-ahead log has of it; undefined: nothing, so the replica could not start. */
  readonly wal: StoredWalGroup | undefined;
  readonly segments: readonly StoredSegment[];
  /** Those that can be read, in order. */
  readonly snapshots: readonly SegmentSnapshot[];
}

export interface Access extends Checksums {
  readonly disk: Disk;
  /** The data directory. */
  readonly path: string;
}

/** @throws DATA_DIRECTORY where there is no data directory. */
export async function readStored(access: Access): Promise<StoredDirectory> {
  const { disk, path } = access;
  const damage: Damage[] = [];
  const identity = await readIdentity(access, damage);
  const checksums = { crc32: access.crc32, crc32c: access.crc32c };
  const wal = await readWal({ disk, path: `${path}/wal`, checksums });
  const names = await disk.list(`${path}/groups`);
  if (identity === undefined && damage.length === 0 && wal.files.length === 0 && names.length === 0) {
    throw new FlotillaError('DATA_DIRECTORY', `${path} is no data directory: name what log.dirs has in the configuration of the broker`);
  }
  damage.push(...wal.damage);
  const replicas: StoredReplica[] = [];
  for (const name of names) {
    const group = parseGroupName(name);
    if (group === undefined) continue;
    const replica = await readReplica(access, group, `${path}/groups/${name}`, wal.groups.get(group), damage);
    replicas.push(replica);
    if (replica.wal?.whole === false) {
      const what = `${formatGroupKey(group)} can't be proved whole by the write-ahead log: this replica will not start, and is to be replaced`;
      damage.push({ file: `${path}/wal`, position: 0, what });
    }
  }
  return { identity, wal, replicas, quarantine: await disk.list(`${path}/quarantine`), damage };
}

async function readIdentity({ disk, path, crc32 }: Access, damage: Damage[]): Promise<DirectoryIdentity | undefined> {
  let identity: DirectoryIdentity | undefined;
  for (const file of IDENTITY_FILES) {
    try {
      identity ??= await readIdentityFile({ disk, path, crc32 }, file);
    } catch (error) {
      if (!(error instanceof FlotillaError)) throw error;
      damage.push({ file: `${path}/${file}`, position: 0, what: error.message });
    }
  }
  return identity;
}

async function readReplica(
  { disk, crc32 }: Access,
  group: GroupKey,
  directory: string,
  wal: StoredWalGroup | undefined,
  damage: Damage[],
): Promise<StoredReplica> {
  const owner = await boundTo(disk, directory, crc32);
  if (owner === undefined) damage.push({ file: `${directory}/replica`, position: 0, what: 'does not say whose the directory is' });
  const snapshots: SegmentSnapshot[] = [];
  for (const name of await disk.list(directory)) {
    if (parseSegmentName(name, 'snapshot') === undefined) continue;
    const snapshot = decodeSnapshot(await readFile(disk, `${directory}/${name}`), crc32);
    if (snapshot !== undefined) snapshots.push(snapshot);
    else damage.push({ file: `${directory}/${name}`, position: 0, what: 'does not match its checksum, or is of a newer release' });
  }
  const segments = await listSegments({ disk, directory, crc32 });
  return { group, directory, replicaId: owner, wal, segments, snapshots };
}

/**
 * The identity of a data directory: the file `directory.json` in it, and `directory.copy.json`, which stands for it should it rot.
 *
 * `{ "checksum": "crc32 of the JSON text of identity, 8 hex digits", "identity": { "version": 1, "directoryId", "brokerId", "clusterId"?,
 * "controllerVoters"?, "incarnation" } }`. Published whole, by rename (hazard B26). A wiped directory gets another directoryId, so it can't vote
 * under its old name (hazard B14).
 */
import type { Disk, Random } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { type BrokerId, type ClusterId, type DirectoryId, isUuid, mintUuid, type ReplicaId } from '../base/ids.ts';
import { withFile } from './files.ts';
import { newerFormat } from './newer-format.ts';
import type { Crc32 } from './wal-frame.ts';

export const DIRECTORY_VERSION = 1;
const FILE = 'directory.json';
const COPY = 'directory.copy.json';
export const IDENTITY_FILES: readonly string[] = [FILE, COPY];
/** More than any identity: a larger file is not ours. */
const MAX_BYTES = 1 << 20;

/** A voter of the metadata quorum as the directory was formatted with it. */
export interface VoterIdentity {
  readonly replicaId: ReplicaId;
  readonly brokerId: BrokerId;
  readonly directoryId: DirectoryId;
}

export interface DirectoryIdentity {
  readonly version: number;
  readonly directoryId: DirectoryId;
  readonly brokerId: BrokerId;
  /** Undefined: the directory is empty, it belongs to no cluster yet. */
  readonly clusterId?: ClusterId;
  /** The first voters of the metadata quorum. */
  readonly controllerVoters?: readonly VoterIdentity[];
  /** Process starts on this directory; a new one tells the others that the former is gone. */
  readonly incarnation: number;
}

/** A data directory, and what its identity is read and written with. */
export interface Access {
  readonly disk: Disk;
  readonly path: string;
  readonly crc32: Crc32;
}

/**
 * The directory's identity, or undefined when it has none.
 * @throws DATA_DIRECTORY when both files are damaged or of a newer version.
 */
export async function readDirectory(access: Access): Promise<DirectoryIdentity | undefined> {
  let damage: unknown;
  for (const file of IDENTITY_FILES) {
    try {
      const identity = await readIdentityFile(access, file);
      if (identity !== undefined) return identity;
    } catch (error) {
      if (!(error instanceof DamagedIdentity)) throw error;
      damage ??= error;
    }
  }
  if (damage !== undefined) throw damage;
  return undefined;
}

/** What one of the {@link IDENTITY_FILES} says; undefined: there is none. Throws as {@link readDirectory}. */
export async function readIdentityFile({ disk, path, crc32 }: Access, file: string): Promise<DirectoryIdentity | undefined> {
  const name = `${path}/${file}`;
  if (!(await disk.exists(name))) return undefined;
  const text = await readText(disk, name);
  const { checksum, identity } = parse(name, text);
  if (checksum !== checksumOf(identity, crc32)) {
    throw damaged(name, 'its checksum does not match');
  }
  if (identity.version > DIRECTORY_VERSION) {
    throw newerFormat(path, identity.version, DIRECTORY_VERSION);
  }
  if (!isUuid(identity.directoryId)) throw damaged(name, 'its directoryId is not a UUID');
  return identity;
}

/**
 * Reads the identity, or makes a new directory with a fresh directoryId and no cluster ("empty").
 * @throws DATA_DIRECTORY when it belongs to another broker, or to another cluster than `clusterId`.
 */
export async function initDirectory(
  access: Access,
  options: { readonly brokerId: BrokerId; readonly clusterId?: ClusterId | undefined; readonly random: Random },
): Promise<DirectoryIdentity> {
  const existing = await readDirectory(access);
  if (existing !== undefined) {
    checkOwner(access.path, existing, options.brokerId, options.clusterId);
    return existing;
  }
  const directoryId = mintUuid(() => options.random.uint32()) as DirectoryId;
  const identity: DirectoryIdentity = { version: DIRECTORY_VERSION, directoryId, brokerId: options.brokerId, incarnation: 0 };
  await access.disk.makeDirectory(access.path);
  await access.disk.syncDirectory(parentOf(access.path));
  await publish(access, identity);
  return identity;
}

/**
 * Makes the directory a member of a cluster. Again with the same cluster: no change.
 * @throws DATA_DIRECTORY when it is not initialised or belongs to another cluster.
 */
export async function formatDirectory(
  access: Access,
  cluster: { readonly clusterId: ClusterId; readonly controllerVoters?: readonly VoterIdentity[] | undefined },
): Promise<DirectoryIdentity> {
  const existing = await readDirectory(access);
  if (existing === undefined)
    throw new FlotillaError('DATA_DIRECTORY', `${access.path} is not initialised; start the broker on it once, or format it`);
  checkOwner(access.path, existing, existing.brokerId, cluster.clusterId);
  if (existing.clusterId !== undefined) return existing;
  const { controllerVoters } = cluster;
  const formatted = { ...existing, clusterId: cluster.clusterId, ...(controllerVoters === undefined ? {} : { controllerVoters }) };
  await publish(access, formatted);
  return formatted;
}

/** Counts a start of the process; call it once, under the directory's lock, before talking to anyone. */
export async function nextIncarnation(access: Access): Promise<DirectoryIdentity> {
  const existing = await readDirectory(access);
  if (existing === undefined) throw new FlotillaError('DATA_DIRECTORY', `${access.path} is not initialised; format it first`);
  const next = { ...existing, incarnation: existing.incarnation + 1 };
  await publish(access, next);
  return next;
}

function checkOwner(path: string, identity: DirectoryIdentity, brokerId: BrokerId, clusterId: ClusterId | undefined): void {
  if (identity.brokerId !== brokerId) {
    throw new FlotillaError(
      'DATA_DIRECTORY',
      `${path} belongs to broker ${identity.brokerId}, not ${brokerId}; start broker ${identity.brokerId} on it or choose another directory`,
    );
  }
  if (clusterId !== undefined && identity.clusterId !== undefined && identity.clusterId !== clusterId) {
    throw new FlotillaError(
      'DATA_DIRECTORY',
      `${path} belongs to cluster ${identity.clusterId}, not ${clusterId}; choose another directory, or remove it if its data is not needed`,
    );
  }
}

async function publish({ disk, path, crc32 }: Access, identity: DirectoryIdentity): Promise<void> {
  const text = `${JSON.stringify({ checksum: checksumOf(identity, crc32), identity }, null, 2)}\n`;
  // The copy first, so that it is never older than what it stands for.
  for (const file of [COPY, FILE]) await publishFile(disk, path, file, new TextEncoder().encode(text));
}

/** Writes a small file so that its name shows either the former content or all of the new one. */
export async function publishFile(disk: Disk, directory: string, name: string, bytes: Uint8Array): Promise<void> {
  const aside = `${directory}/${name}.tmp`;
  const file = await disk.open(aside, { create: true });
  try {
    await file.truncate(0);
    await file.write(0, [bytes]);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(aside, `${directory}/${name}`);
  await disk.syncDirectory(directory);
}

async function readText(disk: Disk, name: string): Promise<string> {
  try {
    return new TextDecoder().decode(await withFile(disk, name, (file) => file.read(0, MAX_BYTES)));
  } catch (error) {
    throw new FlotillaError('DATA_DIRECTORY', `cannot read ${name}: ${messageOf(error)}; check its permissions`, { cause: error });
  }
}

function parse(name: string, text: string): { checksum: string; identity: DirectoryIdentity } {
  try {
    const parsed = JSON.parse(text) as { checksum: string; identity: DirectoryIdentity };
    if (typeof parsed.checksum === 'string' && typeof parsed.identity?.version === 'number') return parsed;
  } catch {
    // reported below: what is no JSON and what lacks the fields is damaged alike
  }
  throw damaged(name, 'it is not a directory identity');
}

function checksumOf(identity: DirectoryIdentity, crc32: Crc32): string {
  return crc32(new TextEncoder().encode(JSON.stringify(identity)))
    .toString(16)
    .padStart(8, '0');
}

class DamagedIdentity extends FlotillaError {}

function damaged(name: string, what: string): FlotillaError {
  return new DamagedIdentity(
    'DATA_DIRECTORY',
    `${name} is damaged: ${what}; restore it, or wipe the directory and let the broker rejoin as a new one`,
  );
}

function parentOf(path: string): string {
  const slash = path.replace(/\/+$/, '').lastIndexOf('/');
  return slash < 0 ? '.' : slash === 0 ? '/' : path.slice(0, slash);
}

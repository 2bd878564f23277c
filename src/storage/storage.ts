/**
 * All storage of a broker, in one data directory:
 *
 *   DIR/lock, DIR/directory.json                              taken and read before anything else (directory.ts)
 *   DIR/wal/00000001.wal …                                    the write-ahead log
 *   DIR/groups/TOPICID-PARTITION.GENERATION/                  a replica's segments, and whose they are (replica-file.ts)
 *   DIR/quarantine/TOPICID-PARTITION.GENERATION.INCARNATION/  deleted and replaced replicas, purged after a while (quarantine.ts)
 */
import type { Disk, Environment, Logger } from '../base/environment.ts';
import { FlotillaError, messageOf, once } from '../base/errors.ts';
import { type DirectoryId, formatGroupKey, type GroupKey, type ReplicaId } from '../base/ids.ts';
import type { Entry } from '../raft/core/entry.ts';
import { type DirectoryIdentity, nextIncarnation } from './directory.ts';
import { GroupDirectories, groupName } from './group-directories.ts';
import { SegmentsRepair } from './log-repair.ts';
import { SegmentedLog } from './partition-log.ts';
import { loadLog } from './partition-log-recovery.ts';
import type { Checksums } from './payload.ts';
import { PooledDisk } from './pooled-disk.ts';
import { Quarantine } from './quarantine.ts';
import { ReadBuffers } from './read-buffers.ts';
import { ReservedDisk } from './reserved-disk.ts';
import { readSnapshot } from './segment-snapshot.ts';
import { SegmentWriter } from './segment-writer.ts';
import { StagedSnapshot } from './staged-snapshot.ts';
import type { LogRepair, LogSettings, OpenedLog, RecoveredGroup, SnapshotFile, Storage, WriteAheadLog } from './types.ts';
import { DEFAULT_WAL_SETTINGS, Wal } from './wal.ts';
import { INITIAL_HARD_STATE } from './wal-groups.ts';
import { recoverWal } from './wal-recovery.ts';

export interface StorageSettings {
  /** Bytes of a write-ahead log file, a multiple of 4 KiB. Default 64 MiB. */
  readonly walFileBytes?: number;
  /** Write-ahead log files in use before the oldest is recycled. Default 4. */
  readonly walFiles?: number;
  /** Bytes of one flush frame. Default 4 MiB. */
  readonly walMaxFrameBytes?: number;
  /** Room that is kept back for a full disk (reserved-disk.ts). Default 0: none. */
  readonly reserveBytes?: number;
  /** How long deleted data stay in quarantine, milliseconds. Default: for as long as the process lives. */
  readonly deleteDelayMs?: number | undefined;
}

export interface StorageOptions extends Checksums {
  readonly disk: Disk;
  /** The data directory; its lock is held by the caller, its identity exists (`initDirectory`). */
  readonly path: string;
  readonly environment: Environment;
  readonly log: Logger;
  readonly settings?: StorageSettings;
  /** Told once, when a write or sync failed: the process must end, and not go on serving from memory (hazard B25). */
  readonly failed: (error: Error) => void;
  /** The disk was full, and the room that was kept back is given up. */
  readonly reserveReleased?: () => void;
}

/**
 * Opens the storage of a data directory: recovers the write-ahead log and counts a new incarnation.
 * @throws DATA_DIRECTORY when the directory has no identity or a damaged one.
 */
export async function openStorage(given: StorageOptions): Promise<BrokerStorage> {
  // The write-ahead log and the segments find out one after the other.
  const { path: directory, reserveReleased: released = () => {} } = given;
  const reserve = { path: `${directory}/reserve`, directory, bytes: given.settings?.reserveBytes ?? 0, log: given.log, released };
  const reservedDisk = new ReservedDisk(given.disk, reserve);
  const options = { ...given, disk: reservedDisk, failed: once(given.failed) };
  const { disk, path, crc32, crc32c, environment, log, settings = {} } = options;
  const identity = await nextIncarnation({ disk, path, crc32 });
  const walPath = `${path}/wal`;
  for (const name of ['wal', 'groups', 'quarantine']) await disk.makeDirectory(`${path}/${name}`);
  // Also what a process made that was killed before it could sync the name: what is built on it must outlast a power cut.
  await disk.syncDirectory(path);
  await disk.syncDirectory(`${path}/groups`);
  const walSettings = {
    fileBytes: settings.walFileBytes ?? DEFAULT_WAL_SETTINGS.fileBytes,
    files: settings.walFiles ?? DEFAULT_WAL_SETTINGS.files,
    maxFrameBytes: settings.walMaxFrameBytes ?? DEFAULT_WAL_SETTINGS.maxFrameBytes,
  };
  const recovery = await recoverWal({ disk, path: walPath, fileBytes: walSettings.fileBytes, checksums: { crc32, crc32c }, log });
  const logs = new Map<GroupKey, SegmentedLog>();
  const flushSegments = async (group: GroupKey): Promise<void> => logs.get(group)?.flush();
  const walOptions = { environment, crc32, log, settings: walSettings, flushSegments, failed: options.failed };
  const wal = new Wal(walOptions, recovery.files, recovery.groups, recovery.position);
  await wal.start(recovery.position.unproven, recovery.unprovenFiles);
  const { deleteDelayMs: delayMs } = settings;
  const { incarnation } = identity;
  const quarantine = await Quarantine.open({ disk, path: `${path}/quarantine`, incarnation, environment, delayMs, log });
  const directories = await GroupDirectories.list({ disk, path, quarantine, crc32 });
  const storage = new BrokerStorage(options, identity, reservedDisk, { wal, logs, recovered: recovery.recovered, directories, quarantine });
  await storage.finishInstalls();
  return storage;
}

/** A segment has two files, or three. Beyond so many open ones, those not used for longest are closed. */
const MAX_OPEN_FILES = 10_000;
/** The rest of what the process may open is for connections, the write-ahead log and the state. */
const OPEN_FILES_SHARE = 0.5;

interface Opened {
  readonly wal: Wal;
  readonly logs: Map<GroupKey, SegmentedLog>;
  readonly recovered: Map<GroupKey, RecoveredGroup>;
  readonly directories: GroupDirectories;
  readonly quarantine: Quarantine;
}

export class BrokerStorage implements Storage {
  readonly directoryId: DirectoryId;
  /** Process starts on this directory, this one counted. */
  readonly incarnation: number;
  readonly #options: StorageOptions;
  readonly #wal: Wal;
  readonly #logs: Map<GroupKey, SegmentedLog>;
  readonly #recovered: Map<GroupKey, RecoveredGroup>;
  readonly #directories: GroupDirectories;
  readonly #quarantine: Quarantine;
  readonly #writer: SegmentWriter;
  /** Of segments. */
  readonly #segmentDisk: PooledDisk;
  readonly #readBuffers = new ReadBuffers();
  readonly #reservedDisk: ReservedDisk;
  onDamage: Storage['onDamage'];
  #failed = false;

  constructor(
    options: StorageOptions,
    identity: Pick<DirectoryIdentity, 'directoryId' | 'incarnation'>,
    reservedDisk: ReservedDisk,
    opened: Opened,
  ) {
    this.#options = options;
    this.#reservedDisk = reservedDisk;
    this.directoryId = identity.directoryId;
    this.incarnation = identity.incarnation;
    this.#wal = opened.wal;
    this.#logs = opened.logs;
    this.#recovered = opened.recovered;
    this.#directories = opened.directories;
    this.#quarantine = opened.quarantine;
    const { openFileLimit = Number.POSITIVE_INFINITY } = options.disk;
    this.#segmentDisk = new PooledDisk(options.disk, Math.min(MAX_OPEN_FILES, Math.floor(openFileLimit * OPEN_FILES_SHARE)));
    this.#writer = new SegmentWriter(options.environment, (error) => this.#fail(error));
  }

  /** Writes what is kept back for a full disk, unless it is there. False: there was no room. */
  prepareReserve(): Promise<boolean> {
    return this.#reservedDisk.prepare();
  }

  get unwrittenBytes(): number {
    return this.#writer.pendingBytes;
  }

  get wal(): WriteAheadLog {
    return this.#wal;
  }

  get recovered(): ReadonlyMap<GroupKey, RecoveredGroup> {
    return this.#recovered;
  }

  groups(): readonly GroupKey[] {
    return this.#directories.groups;
  }

  async openLog(group: GroupKey, settings: LogSettings, replicaId: ReplicaId, latest = false): Promise<OpenedLog> {
    if (this.#logs.get(group)?.closed === false)
      throw new FlotillaError('DATA_DIRECTORY', `the log of ${formatGroupKey(group)} is open already`);
    const claimed = await this.#claim(group, replicaId, latest);
    const recovered = this.#stateOf(group);
    // A directory is made after the group's first HardState is durable: one without any has lost it (hazard B03).
    const provable = claimed && recovered?.whole === true;
    const directory = this.#directories.pathOf(group);
    const { crc32, crc32c, log: logger } = this.#options;
    const disk = this.#segmentDisk;
    const checksums = { crc32, crc32c };
    const loaded = await loadLog({ disk, directory, checksums, log: logger }, provable ? this.#wal.syncedIndex(group) : undefined);
    const whole = provable && loaded.whole;
    if (!whole) await this.#wal.markDamaged(group);
    await this.#directories.discardOutdated(group, loaded.last.index);
    const context = {
      group: groupName(group),
      monotonicMs: () => this.#options.environment.monotonicMs(),
      disk,
      directory,
      log: logger,
      checksums,
      writer: this.#writer,
      readBuffers: this.#readBuffers,
      written: (index: number) => this.#wal.written(group, index),
      synced: (index: number) => this.#wal.synced(group, index),
      syncedDurably: () => this.#wal.syncedDurably(group),
      settled: () => this.#wal.append([]),
      damaged: (index: number) => this.onDamage?.(group, index),
    };
    const hardState = recovered?.hardState ?? INITIAL_HARD_STATE;
    const above = followingEntries(recovered?.entries ?? [], loaded.last.index);
    const log = new SegmentedLog(context, settings, loaded);
    // What is known to be committed goes to segments at once; the core need not hold it.
    const committed = above.filter((entry) => entry.index <= hardState.commit);
    log.adopt(committed);
    this.#logs.set(group, log);
    this.#recovered.delete(group);
    return { log, tail: above.slice(committed.length), hardState, whole };
  }

  async stageSnapshot(group: GroupKey, files: readonly SnapshotFile[]): Promise<StagedSnapshot> {
    const { crc32, crc32c } = this.#options;
    const directory = this.#directories.stagedPathOf(group);
    return StagedSnapshot.open(this.#segmentDisk, directory, groupName(group), files, { crc32, crc32c });
  }

  async installSnapshot(group: GroupKey, settings: LogSettings, replicaId: ReplicaId): Promise<OpenedLog> {
    await this.#logs.get(group)?.discard();
    this.#logs.delete(group);
    await this.#directories.commitStaged(group, replicaId);
    await this.#finishInstall(group);
    return this.openLog(group, settings, replicaId);
  }

  async restartLog(group: GroupKey, settings: LogSettings, replicaId: ReplicaId): Promise<OpenedLog> {
    const log = this.#logs.get(group);
    this.#logs.delete(group);
    await log?.discard();
    // Until the records are void the directory may be anybody's, and until it is new they must not be: at every step the group is one that is not whole.
    await this.#wal.markDamaged(group);
    await this.#directories.setAside(group);
    await this.#directories.create(group, replicaId);
    await this.#wal.restart(group);
    this.#recovered.delete(group);
    await this.#directories.discardStaged(group);
    return this.openLog(group, settings, replicaId);
  }

  async releaseAside(group: GroupKey): Promise<void> {
    await this.#wal.markWhole(group);
    await this.#directories.releaseAside(group);
  }

  repairOf(group: GroupKey): LogRepair | undefined {
    const log = this.#logs.get(group);
    if (log === undefined || log.closed) return undefined;
    const { crc32, crc32c } = this.#options;
    const directory = this.#directories.pathOf(group);
    return new SegmentsRepair({ disk: this.#segmentDisk, directory, log, crc32, crc32c, failed: (error) => this.#fail(error) });
  }

  discardStaged(group: GroupKey): Promise<void> {
    return this.#directories.discardStaged(group);
  }

  /** Snapshots that a crash left on their way in (hazard B27). Call once, before anything is opened. */
  async finishInstalls(): Promise<void> {
    for (const group of this.#directories.installed) await this.#finishInstall(group);
  }

  async #finishInstall(group: GroupKey): Promise<void> {
    const { disk, crc32, log } = this.#options;
    const snapshot = await readSnapshot(disk, this.#directories.installedPathOf(group), Number.MAX_SAFE_INTEGER, crc32);
    if (snapshot === undefined) {
      // It was whole once, so it rotted. What the write-ahead log says tells whether the old log still counts.
      log.error('installed snapshot damaged', { group: formatGroupKey(group) });
      return this.#directories.discardInstalled(group);
    }
    const state = this.#stateOf(group);
    // Without records of its own it has forgotten its votes (hazard B03): it is opened as one that is not whole.
    if (state !== undefined) await this.#wal.rebase(group, snapshot.lastIndex);
    this.#recovered.delete(group);
    await this.#directories.nameInstalled(group);
  }

  /** Flushes and closes a replica's log; its data stays. */
  async closeLog(group: GroupKey): Promise<void> {
    await this.#logs.get(group)?.close();
    this.#logs.delete(group);
  }

  async deleteLog(group: GroupKey): Promise<number> {
    const log = this.#logs.get(group);
    const bytes = log?.sizeBytes ?? 0;
    this.#logs.delete(group);
    await log?.discard();
    await this.#remove(group);
    this.#options.log.info('log deleted', { group: formatGroupKey(group), bytes });
    return bytes;
  }

  async close(): Promise<void> {
    this.#writer.close();
    await this.#quarantine.close();
    if (!this.#failed) for (const log of this.#logs.values()) await log.close();
    await this.#wal.close();
  }

  /**
   * Makes the group's directory the replica's. What another replica left, in the directory and in the write-ahead log, is void, durably, before
   * anything of this one is written (hazard B14). False: it can't be told whose the data are, or some are gone.
   * @throws DATA_DIRECTORY when the data are of a later replica, or may be.
   */
  async #claim(group: GroupKey, replicaId: ReplicaId, latest: boolean): Promise<boolean> {
    const state = this.#stateOf(group);
    if (!this.#directories.has(group)) {
      // Else the directory's name is lost, and what the log has of the group may be anybody's.
      const isNew = state === undefined || (isInitial(state) && this.#wal.syncedIndex(group) === 0);
      if (!isNew) await this.#wal.markDamaged(group);
      await this.#create(group, replicaId);
      return isNew;
    }
    const owner = await this.#directories.ownerOf(group);
    if (owner === replicaId) return true;
    if (owner === undefined) {
      // Bound to an earlier replica, the directory would take the one that it belongs to for a successor, which begins without log and vote (hazard B03).
      if (!latest) {
        throw new FlotillaError(
          'DATA_DIRECTORY',
          `whose the data of ${formatGroupKey(group)} are can't be read: replica ${replicaId} waits until the metadata here are as new as this process`,
        );
      }
      await this.#wal.markDamaged(group);
      await this.#directories.bind(group, replicaId);
      return false;
    }
    // Replica ids only grow: older metadata, replayed at a start, must not undo what newer ones brought about.
    if (owner > replicaId) {
      throw new FlotillaError(
        'DATA_DIRECTORY',
        `the data of ${formatGroupKey(group)} are of replica ${owner}, which took the place of replica ${replicaId}; that one is gone for good`,
      );
    }
    this.#options.log.warn('replica replaced', { group: formatGroupKey(group), former: owner, replicaId });
    await this.#remove(group);
    await this.#create(group, replicaId);
    return true;
  }

  #stateOf(group: GroupKey): RecoveredGroup | undefined {
    return this.#recovered.get(group) ?? this.#wal.stateOf(group);
  }

  async #create(group: GroupKey, replicaId: ReplicaId): Promise<void> {
    if (this.#stateOf(group) === undefined)
      await this.#wal.append([{ group, hardState: INITIAL_HARD_STATE, truncateTo: undefined, entries: [] }]);
    await this.#directories.create(group, replicaId);
  }

  /** First from the log: a directory without records can't be mistaken for anybody's, records without a directory could. */
  async #remove(group: GroupKey): Promise<void> {
    await this.#wal.forget(group);
    this.#recovered.delete(group);
    await this.#directories.discardStaged(group);
    await this.#directories.quarantine(group);
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    const failure = new FlotillaError(
      'STORAGE_ERROR',
      `a segment could not be written: ${messageOf(error)}; check the disk, then restart`,
      { cause: error },
    );
    this.#options.log.error('segment write failed', { error });
    this.#options.failed(failure);
  }
}

function followingEntries(entries: readonly Entry[], lastIndex: number): readonly Entry[] {
  const above = entries.filter((entry) => entry.index > lastIndex);
  // Segments that end below what the write-ahead log begins with lost something: then it does not follow.
  return above[0]?.index === lastIndex + 1 ? above : [];
}

/** As it is before the replica's first turn. */
function isInitial({ hardState, entries, whole }: RecoveredGroup): boolean {
  const { term, vote, commit } = hardState;
  return whole && term === 0 && vote === 0 && commit === 0 && entries.length === 0;
}

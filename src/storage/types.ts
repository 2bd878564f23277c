/**
 * The interfaces of storage, between the write-ahead log, the segments and the Raft host.
 * One {@link WriteAheadLog} a broker; one {@link PartitionLog} a replica.
 */
import type { DirectoryId, GroupKey, ReplicaId } from '../base/ids.ts';
import type { Entry } from '../raft/core/entry.ts';
import type { Configuration, HardState, InitialLog, TermStart } from '../raft/core/types.ts';
import type { Damage } from './stored-log.ts';

/** One group's part of a flush: hardState, then truncation, then entries (core's PersistUnit). */
export interface WalWrite {
  readonly group: GroupKey;
  readonly hardState: HardState | undefined;
  /** Entries above this index are void. */
  readonly truncateTo: number | undefined;
  readonly entries: readonly Entry[];
}

export interface WriteAheadLog {
  /**
   * Queues writes for the next flush frame; resolves when they are durable. Calls are durable in their order. One frame is in flight at a time and
   * all that is queued meanwhile shares the next (group commit). Rejects only when storage failed for good: then the process must end (B25).
   */
  append(writes: readonly WalWrite[]): Promise<void>;
  /** Bytes queued or in flight. The host stops taking proposals above its bound. */
  readonly pendingBytes: number;
  /** Milliseconds that the frame on its way has been waiting for the disk; 0 when none is. For `diskFresh`. */
  stalledMs(): number;
  /** A group was deleted, or its replica replaced: its records are void, durably once this resolves. */
  forget(group: GroupKey): Promise<void>;
  /** The group's log is not what it should be: said, durably once this resolves, until the group is forgotten. Its replica opens no more (hazards B03, B29). */
  markDamaged(group: GroupKey): Promise<void>;
  /** What was {@link markDamaged} is whole again: the replica has all that it can have acknowledged. Durable once this resolves. */
  markWhole(group: GroupKey): Promise<void>;
  /** Waits for the last flush, writes a mark-only frame, closes. */
  close(): Promise<void>;
  readonly statistics: WalStatistics;
}

export interface WalStatistics {
  readonly flushes: number;
  readonly bytes: number;
  readonly fileTurns: number;
}

/** What recovery found of one group in the write-ahead log. */
export interface RecoveredGroup {
  readonly hardState: HardState;
  /** Consecutive entries, the newest version of each index; may start below what segments hold. */
  readonly entries: readonly Entry[];
  /** False when its records can't be proved whole (hazards B03, B22): it must neither vote nor campaign. */
  readonly whole: boolean;
}

/**
 * The segments of one replica: committed entries only, never truncated. Files are specified in segment.ts and segment-index.ts.
 */
export interface PartitionLog {
  /** The last entry in segments, and the terms up to it; for the core's {@link InitialLog}. */
  readonly initial: Omit<InitialLog, 'tail'>;
  /** Last configuration in the segments, or undefined: still that of the group's creation. */
  readonly configuration: { readonly index: number; readonly configuration: Configuration } | undefined;
  readonly terms: readonly TermStart[];
  /** Readers start here: moved by a setLogStart entry (log-start.ts). */
  readonly logStartOffset: number;
  readonly lastIndex: number;
  readonly nextOffset: number;
  /**
   * Takes newly committed entries, in order; written to segments in large runs later. Until an entry is written it is held here, in memory,
   * and reads see it.
   */
  append(entries: readonly Entry[]): void;
  /** The last index that is written to segments (not yet synced); the core's window need not keep what is at or below it. */
  readonly writtenIndex: number;
  /**
   * Stored batches from the one that holds `fromOffset`, whole batches only, up to the batch whose nextOffset is <= `untilOffset`, about `maxBytes`
   * (at least one batch). From memory or disk, as stored bytes. `chunks` back to back are what a Fetch serves.
   * Rejects with OFFSET_OUT_OF_RANGE below logStartOffset.
   */
  read(fromOffset: number, untilOffset: number, maxBytes: number): Promise<BatchRun>;
  /** Entries from index on, about maxBytes (at least one), for a follower that lags. */
  readEntries(fromIndex: number, maxBytes: number): Promise<Entry[]>;
  /**
   * The base offset of the first batch that ends above `fromOffset` (default: {@link logStartOffset}) and, as its header says, has a record at or after
   * the time (milliseconds since the epoch). Undefined: there is none.
   */
  offsetForTime(timestampMs: number, fromOffset?: number): Promise<number | undefined>;
  /** Every batch header that is stored from `fromOffset` on, in order, 61 bytes each, also below {@link logStartOffset}: to rebuild producer state. */
  scanBatchHeaders(fromOffset: number, visit: (header: Uint8Array, nextOffset: number) => void): Promise<void>;
  /** State that recovery starts from (producer state, a state machine's checkpoint), written at each segment roll with where it stands. */
  readonly snapshot: { readonly index: number; readonly nextOffset: number; readonly state: Uint8Array } | undefined;
  /**
   * Tombstones below this offset may go: what the last tombstoneFloor entry says (tombstone-floor.ts), which the log's snapshots keep. 0: there was none.
   */
  readonly tombstoneFloor: number;
  /** Called at a roll to get the state as of an entry, the last one that the owner was told of; undefined: no snapshot is written. */
  snapshotSource: ((nextOffset: number, index: number) => Uint8Array | undefined) | undefined;
  /** The first entry that it still holds: a follower that needs an earlier one gets a snapshot. */
  readonly firstReplicableIndex: number;
  /** What {@link openSnapshot} would give. */
  readonly lastSnapshot: { readonly index: number; readonly nextOffset: number } | undefined;
  /**
   * The newest snapshot: the record of it and all segments up to it, as files, which stay until it is released, or was not read for
   * SNAPSHOT_IDLE_MS. Undefined: none was written yet.
   */
  openSnapshot(): Promise<LogSnapshot | undefined>;
  /**
   * Drops whole segments below `index`, durably, as far as a snapshot covers them and none of them is being read for a follower; with an index above
   * the last entry the last segment goes as well. Resolves with {@link firstReplicableIndex} as it is then.
   */
  dropBefore(index: number): Promise<number>;
  /**
   * Has whole segments below {@link logStartOffset} dropped soon, as far as {@link dropBefore} would; of a log without records all of them. It does so by
   * itself when the start moves: this is for what was in use then.
   */
  reclaimSoon(): void;
  /** In their order. The last one may have entries that are not written yet. */
  segments(): readonly StoredSegment[];
  /** What may be cleaned, in its order from the first segment on: what was cleaned before, and then the dirty rest. */
  cleanable(): readonly CleanableSegment[];
  /**
   * Rewrites cleanable segments, from the first on, up to the one that ends at `throughIndex`; neighbours that fit into segment.bytes together become one.
   * `clean` gets runs of whole stored batches, back to back and in their order, at most {@link CLEAN_BYTES} of them or one that is larger, and gives
   * what is left of them, back to back: a batch keeps its base offset, its last offset delta, its producer and its leader epoch, and one without
   * records is left out. The bytes are the callee's from then on, and the log's again afterwards.
   *
   * Readers see a segment when all of it is durable, and those under way go on in the old files, or get an error that is to be tried again. A crash leaves each segment
   * as it was or as it will be. What is being read for a follower stays as it is. The signal ends it between two runs, with nothing of the segment
   * under way changed. Resolves with the payload bytes of what was rewritten, before and after.
   */
  clean(
    throughIndex: number,
    clean: (batches: Uint8Array) => Promise<Uint8Array>,
    signal: AbortSignal,
  ): Promise<{ readonly before: number; readonly after: number }>;
  /** All below this offset was cleaned by this replica at least once: what the tombstone floor stands on. As durable as the cleaned segments. */
  readonly cleanedTo: number;
  /** From the next segment on. */
  configure(settings: Pick<LogSettings, 'segmentBytes' | 'segmentMs' | 'segmentRecords'>): void;
  /** Ends the last segment, soon, if it is older than segmentMs: at the latest the next append would, and an idle log never sees one. */
  rollIfOld(): void;
  readonly sizeBytes: number;
  /** Writes and syncs all that was appended. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** Finds and repairs what rotted in the segments of an open log. */
export interface LogRepair {
  /** First indexes of its segments, in order. */
  segments(): readonly number[];
  /**
   * Reads all of a segment that is durable; what is damaged, in order. `paced` is awaited now and then with the bytes read since. None for a segment
   * that was dropped.
   */
  check(firstIndex: number, paced: (bytes: number) => Promise<void>): Promise<readonly Damage[]>;
  /** Reads the log's snapshots; what is damaged. Where that is one, another one is written, if the owner has state for it. */
  renewSnapshots(paced: (bytes: number) => Promise<void>): Promise<readonly Damage[]>;
  /**
   * Writes entries of the segment, consecutive, where they stood; all before them must be whole, and from them up to `damagedTo` nothing need be.
   * Durable when it resolves. @throws CORRUPT_MESSAGE when they are not those that this log had.
   */
  write(firstIndex: number, entries: readonly Entry[], damagedTo: number): Promise<void>;
  /** Of a cleaned segment other replicas may have less or more, and none the entries as they were: it can't be put right, only the replica replaced. */
  isCleaned(firstIndex: number): boolean;
}

/** What retention goes by. */
export interface StoredSegment {
  /** Of its first entry: the offset of the first record in it, if there are any. */
  readonly base: { readonly index: number; readonly offset: number };
  /** The greatest timestamp of its batches, milliseconds since the epoch; -1: it has none. */
  maxTimestamp(): Promise<number>;
  payloadBytes(): Promise<number>;
}

/** Bytes of one run of batches that {@link PartitionLog.clean} hands over. */
export const CLEAN_BYTES = 1 << 20;

/** A closed segment below the newest durable snapshot. */
export interface CleanableSegment extends StoredSegment {
  readonly lastIndex: number;
  /** The offset behind its last record. */
  readonly nextOffset: number;
  /** What is in it was the newest of its key when it was rewritten. */
  readonly cleaned: boolean;
}

export interface BatchRun {
  readonly chunks: readonly Uint8Array[];
  readonly bytes: number;
  /** The offset after the last batch in chunks; fromOffset when there is none. */
  readonly nextOffset: number;
  /** Present: gives the chunks' memory back, for other reads. To be called at most once, when nothing looks at the chunks any more; or never. */
  readonly release?: (() => void) | undefined;
}

/** A snapshot that is coming from a leader. Its files are named by their place in `files`. */
export interface Staging {
  readonly files: readonly SnapshotFile[];
  /** The crc32 of what is there of a chunk already, or undefined. */
  storedChecksum(file: number, position: number, length: number): Promise<number | undefined>;
  /** False: the bytes have not the checksum, and are not written. */
  write(file: number, position: number, bytes: Uint8Array, checksum: number): Promise<boolean>;
  /** All has come: makes it durable and verifies it. @throws STORAGE_ERROR when it is not whole. */
  verify(): Promise<{ readonly lastIndex: number; readonly lastTerm: number }>;
  /** What is there stays, for the next attempt. */
  close(): Promise<void>;
}

/** What {@link Storage.openLog} gives. */
export interface OpenedLog {
  readonly log: PartitionLog;
  readonly tail: readonly Entry[];
  readonly hardState: HardState;
  readonly whole: boolean;
}

/** A snapshot that is being read for a follower. */
export interface LogSnapshot {
  /** The last entry that it covers; committed. */
  readonly lastIndex: number;
  readonly lastTerm: number;
  /** The first is the snapshot's record (segment-snapshot.ts). */
  readonly files: readonly SnapshotFile[];
  /** With their crc32. */
  read(file: number, position: number, length: number): Promise<{ readonly bytes: Uint8Array; readonly checksum: number }>;
  release(): void;
}

export interface SnapshotFile {
  readonly name: string;
  readonly length: number;
}

export interface LogSettings {
  /** Kafka's segment.bytes. */
  readonly segmentBytes: number;
  /** Kafka's segment.ms, counted from the first entry that a segment took since it was opened. Default: no bound. */
  readonly segmentMs?: number;
  /** Offsets that a segment takes. Default: no bound. */
  readonly segmentRecords?: number;
  /** The owner's snapshot state is all that its entries made (a state machine's checkpoint): a follower needs no segments below it. */
  readonly stateAlone?: boolean;
}

/** All storage of a broker: one data directory. */
export interface Storage {
  readonly directoryId: DirectoryId;
  readonly wal: WriteAheadLog;
  /** Bytes of committed entries, over all logs, that are not written to segments yet. The host stops taking proposals above its bound. */
  readonly unwrittenBytes: number;
  /** What the write-ahead log held at start, by group. Emptied by {@link openLog}. */
  readonly recovered: ReadonlyMap<GroupKey, RecoveredGroup>;
  /** Groups that have a directory. */
  groups(): readonly GroupKey[];
  /**
   * Opens or creates a replica's log; with `recovered` entries above the segments as `tail`. What another replica of the group left here goes to
   * quarantine first, and its records in the write-ahead log are void (hazard B14).
   * @param latest no process before this one on the directory can have met a later replica of the group. Where whose the data are rotted, only such a one
   *   gets them, and not as whole. Default false.
   * @throws DATA_DIRECTORY when what is here is of a later replica, or may be: ids only grow.
   */
  openLog(group: GroupKey, settings: LogSettings, replicaId: ReplicaId, latest?: boolean): Promise<OpenedLog>;
  /** Takes a snapshot from a leader, or goes on with what is there of it. @throws INVALID_REQUEST when the files are none of a snapshot. */
  stageSnapshot(group: GroupKey, files: readonly SnapshotFile[]): Promise<Staging>;
  /**
   * Puts the snapshot, which was verified, in the place of the replica's log, which goes to quarantine; opens the new one. What the write-ahead log has
   * of the group's entries is void, its term and vote stay. Nothing may be in flight for the group. A crash leaves the old log or the new one.
   */
  installSnapshot(group: GroupKey, settings: LogSettings, replicaId: ReplicaId): Promise<OpenedLog>;
  /** Removes what came of a snapshot that is not needed any more, or that is damaged. */
  discardStaged(group: GroupKey): Promise<void>;
  /**
   * A replica that can't prove its log whole begins anew with an empty one, and a term and vote that may be old: whoever opens it must keep it on probation
   * (RaftOptions.probation), in every life of the process until {@link releaseAside}. What was there goes aside, where nothing purges it.
   */
  restartLog(group: GroupKey, settings: LogSettings, replicaId: ReplicaId): Promise<OpenedLog>;
  /** The probation is over: the log counts again, and what was set aside is purged later. */
  releaseAside(group: GroupKey): Promise<void>;
  /** Undefined: the group's log is not open. */
  repairOf(group: GroupKey): LogRepair | undefined;
  /** Told when a read of an open log found an entry damaged, by the index of one in the segment that holds it. */
  onDamage: ((group: GroupKey, index: number) => void) | undefined;
  /** Deletes a replica's data, on a committed tombstone only: rename to quarantine, purge later (hazard B24). */
  deleteLog(group: GroupKey): Promise<number>;
  close(): Promise<void>;
}

/**
 * Recovery of the write-ahead log: replays the frames of all files in the order of their lsn.
 *
 * Torn tail or corruption (hazards B03, B22): one frame is in flight at a time, so a frame that does not verify was never acknowledged exactly when
 * no frame follows it: it is cut, and nothing is lost. A frame missing before a later one is damage, unless it stood above every durableUpTo that
 * follows (the start after it wrote its contents again). A file that has only such frames is void: the disk may have it or not. Of a damaged frame the directory may be left at either end: then the groups that lost
 * something are known, entry by entry. Otherwise every group is suspect until its next row carries on its sequence.
 */
import { must } from '../base/assert.ts';
import { type Disk, type LogFields, type Logger, silentLogger } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { formatGroupKey, type GroupKey } from '../base/ids.ts';
import type { Entry } from '../raft/core/entry.ts';
import { decodeEntry, entrySize } from '../raft/core/entry-codec.ts';
import { type Checksums, payloadIntact } from './payload.ts';
import type { Damage } from './stored-log.ts';
import type { RecoveredGroup } from './types.ts';
import type { WalPosition } from './wal.ts';
import { type WalFile, WalFiles, walFileNames } from './wal-files.ts';
import { type FrameHeader, type Row, RowKind } from './wal-frame.ts';
import { WalGroup } from './wal-groups.ts';
import { type ScannedFile, type ScannedFrame, scanFile } from './wal-scan.ts';

export interface WalRecovery {
  readonly files: WalFiles;
  readonly groups: Map<GroupKey, WalGroup>;
  readonly recovered: Map<GroupKey, RecoveredGroup>;
  readonly position: WalPosition;
  /** Generations of files of which nothing is durable for certain. */
  readonly unprovenFiles: readonly number[];
}

interface Access {
  readonly disk: Disk;
  readonly path: string;
  readonly fileBytes: number;
  readonly checksums: Checksums;
  readonly log: Logger;
}

/** Reads the write-ahead log in `path`; changes nothing on disk but removes files that were never finished, and void ones that are too small now. */
export async function recoverWal(access: Access): Promise<WalRecovery> {
  const opened = await openFiles(access);
  // The process that made the newest file may have been killed before it could sync its name.
  await access.disk.syncDirectory(access.path);
  const scanned = opened.flatMap(({ scan }) => scan ?? []).sort((a, b) => a.generation - b.generation);
  const replay = new Replay(access.checksums, access.log);
  replay.run(scanned);
  const files = new WalFiles(access.disk, access.path, access.fileBytes);
  const unprovenFiles: number[] = [];
  for (const { file, scan } of opened) {
    file.generation = scan !== undefined && replay.needs(scan) ? scan.generation : 0;
    if (file.generation > 0 || files.isReusable(file)) files.adopt(file);
    else await files.remove(file);
    if (file.generation > 0 && scan !== undefined && replay.provesNothingOf(scan)) unprovenFiles.push(file.generation);
  }
  return { files, unprovenFiles, ...replay.result(Math.max(0, ...scanned.map(({ generation }) => generation))) };
}

/** A write-ahead log as it stands in its files. */
export interface StoredWal {
  readonly files: readonly StoredWalFile[];
  readonly groups: ReadonlyMap<GroupKey, StoredWalGroup>;
  readonly damage: readonly Damage[];
}

export interface StoredWalFile {
  readonly name: string;
  readonly bytes: number;
  /** Frames that can be read. */
  readonly frames: number;
  /** False: what it holds is void, or nothing was ever written to it. */
  readonly counts: boolean;
}

export interface StoredWalGroup extends RecoveredGroup {
  /** Segments hold all up to here, durably. */
  readonly synced: number;
}

/** What {@link recoverWal} would find; for who only looks: nothing is changed. */
export async function readWal({ disk, path, checksums }: Pick<Access, 'disk' | 'path' | 'checksums'>): Promise<StoredWal> {
  const scans: { name: string; bytes: number; scan: ScannedFile | undefined }[] = [];
  for (const name of walFileNames(await disk.list(path))) {
    const file = await disk.open(`${path}/${name}`, { create: false });
    const bytes = await file.size();
    scans.push({ name, bytes, scan: await scanFile(file, bytes, checksums.crc32).finally(() => file.close()) });
  }
  const damage: Damage[] = [];
  const placed = scans.flatMap(({ name, scan }) => (scan?.frames ?? []).map((frame) => ({ name, frame })));
  const error = (event: string, fields: LogFields = {}): void => {
    const lsn = Number(fields['lsn'] ?? Number(fields['to']) + 1);
    const at = placed.find(({ frame }) => frame.header.lsn === lsn);
    if (at !== undefined) damage.push({ file: `${path}/${at.name}`, position: at.frame.position, what: describeDamage(event, fields) });
  };
  const replay = new Replay(checksums, { ...silentLogger, error });
  replay.run(scans.flatMap(({ scan }) => scan ?? []).sort((a, b) => a.generation - b.generation));
  const { groups, recovered } = replay.result(0);
  return {
    files: scans.map(({ name, bytes, scan }) => ({
      name,
      bytes,
      frames: scan?.frames.filter(({ intact }) => intact).length ?? 0,
      counts: scan !== undefined && replay.needs(scan),
    })),
    groups: new Map([...recovered].map(([key, group]) => [key, { ...group, synced: groups.get(key)?.synced ?? 0 }])),
    damage,
  };
}

function describeDamage(event: string, { from, to, index, error }: LogFields): string {
  if (event === 'wal frames lost') return `flush frames ${from} to ${to}, which should stand before this one, are gone`;
  if (event === 'wal entry damaged') return `entry ${index} of this flush frame does not match its checksum: ${error}`;
  return 'this flush frame does not match its checksum';
}

async function openFiles({ disk, path, fileBytes, checksums }: Access): Promise<{ file: WalFile; scan: ScannedFile | undefined }[]> {
  const opened: { file: WalFile; scan: ScannedFile | undefined }[] = [];
  for (const name of walFileNames(await disk.list(path))) {
    const file = await disk.open(`${path}/${name}`, { create: false });
    const size = await file.size();
    const scan = await scanFile(file, size, checksums.crc32);
    if (scan === undefined && size < fileBytes) {
      // A crash while the file was made: it never held a frame.
      await file.close();
      await disk.remove(`${path}/${name}`);
      continue;
    }
    opened.push({ file: { name, file, size, generation: 0 }, scan });
  }
  return opened;
}

/** One group as the frames so far tell it. */
interface ReplayGroup {
  readonly state: WalGroup;
  readonly entries: Map<number, { readonly entry: Entry; readonly generation: number; readonly lsn: number }>;
  /** Indexes whose newest version can't be read. */
  readonly faulty: Set<number>;
  /** Unreadable frames before its last row, which was proved to follow the row before it. */
  holesSeen: number;
  lastLsn: number;
  /** The log says itself that its records can't be proved whole. */
  flagged: boolean;
}

class Replay {
  oldestGeneration = 0;
  readonly #checksums: Checksums;
  readonly #log: Logger;
  readonly #groups = new Map<GroupKey, ReplayGroup>();
  readonly #touched = new Map<number, Set<WalGroup>>();
  /** Groups that are no more: the lsn of the frame that says so. */
  readonly #forgotten = new Map<GroupKey, number>();
  /** Frames that were lost with their directory. */
  #holes = 0;
  #durableUpTo = 0;
  /** First frames of files. */
  #heads: readonly FrameHeader[] = [];
  #last: ScannedFrame | undefined;

  constructor(checksums: Checksums, log: Logger) {
    this.#checksums = checksums;
    this.#log = log;
  }

  run(files: readonly ScannedFile[]): void {
    this.#heads = files.flatMap(({ frames: [head] }) => (head?.header.firstOfFile ? head.header : []));
    const frames = withoutTornTails(files);
    this.#last = frames.findLast((frame) => frame.intact);
    if (this.#last === undefined) return;
    this.oldestGeneration = this.#last.header.oldestGeneration;
    this.#durableUpTo = this.#last.header.durableUpTo;
    const lastLsn = this.#last.header.lsn;
    let previousLsn: number | undefined;
    for (const frame of frames) {
      // After the last intact frame: a torn tail.
      if (frame.header.generation < this.oldestGeneration || frame.header.lsn > lastLsn) continue;
      if (previousLsn !== undefined && frame.header.lsn <= previousLsn) continue;
      this.#checkGap(previousLsn, frame);
      previousLsn = frame.header.lsn;
      if (!frame.intact) this.#log.error('wal frame damaged', { lsn: frame.header.lsn, generation: frame.header.generation });
      for (const row of frame.rows) this.#apply(row, frame);
    }
    // What is left of a frame says that frames behind the last intact one were durable: no torn tail is longer than one.
    const durable = Math.max(...files.map((file) => (file.generation < this.oldestGeneration ? 0 : file.durableUpTo)));
    if (durable > lastLsn) this.#lost(lastLsn + 1, durable, this.#last.header.generation);
  }

  /** Whether no frame says that the file's first one is durable. */
  provesNothingOf({ frames: [head] }: ScannedFile): boolean {
    return head?.header.firstOfFile === true && head.header.lsn > this.#durableUpTo;
  }

  /** False for a file whose contents are void, elsewhere too, or torn with the head of its generation. */
  needs(scan: ScannedFile): boolean {
    const isThere = scan.frames.some((frame) => frame.header.lsn <= (this.#last?.header.lsn ?? 0));
    return isThere && scan.generation >= this.oldestGeneration && !this.#isWrittenAgain(scan);
  }

  /** A start found nothing in it durable for certain, turned to a later file, and has written all of it there. */
  #isWrittenAgain({ generation, frames: [head] }: ScannedFile): boolean {
    return (
      head?.header.firstOfFile === true &&
      this.#heads.some((later) => later.generation > generation && later.durableUpTo < head.header.lsn && later.lsn <= this.#durableUpTo)
    );
  }

  result(generation: number): Omit<WalRecovery, 'files' | 'unprovenFiles'> {
    const recovered = new Map<GroupKey, RecoveredGroup>();
    const groups = new Map<GroupKey, WalGroup>();
    const unproven = new Map<WalGroup, Entry[]>();
    for (const [key, group] of this.#groups) {
      const { state } = group;
      const live = liveEntries(group);
      if (group.flagged || group.holesSeen < this.#holes || group.faulty.size > 0 || live.length < group.entries.size) state.damaged = true;
      if (state.damaged) this.#log.error('raft group not whole: it will not vote or campaign', { group: formatGroupKey(key) });
      state.release(state.synced);
      state.syncedDurably = state.synced;
      for (const { entry, generation: held } of live) state.append(entry, held);
      if (group.lastLsn > this.#durableUpTo) {
        unproven.set(
          state,
          live.filter(({ lsn }) => lsn > this.#durableUpTo).map(({ entry }) => entry),
        );
      }
      groups.set(key, state);
      recovered.set(key, { hardState: state.hardState, entries: live.map(({ entry }) => entry), whole: !state.damaged });
    }
    const { lsn, frameChecksum: checksum } = this.#last?.header ?? { lsn: 0, frameChecksum: 0 };
    const durableUpTo = this.#durableUpTo;
    for (const [key, forgottenAt] of this.#forgotten) {
      if (forgottenAt > durableUpTo) unproven.set(Object.assign(new WalGroup(key), { forgotten: true }), []);
    }
    return { groups, recovered, position: { lsn, checksum, durableUpTo, generation, touched: this.#touched, unproven } };
  }

  #checkGap(previousLsn: number | undefined, frame: ScannedFrame): void {
    const { lsn, firstOfFile, generation, durableUpTo } = frame.header;
    if (previousLsn === undefined ? firstOfFile && generation === this.oldestGeneration : lsn === previousLsn + 1) return;
    // A recovery writes what stood above its durableUpTo again, behind the head of a new file: the first version may be gone.
    if (firstOfFile && (previousLsn ?? 0) + 1 > durableUpTo) return;
    this.#lost(previousLsn === undefined ? 0 : previousLsn + 1, lsn - 1, generation);
  }

  /** Every group may have lost something. */
  #lost(from: number, to: number, generation: number): void {
    this.#holes++;
    this.#log.error('wal frames lost', { from, to, generation });
  }

  #apply(row: Row, frame: ScannedFrame): void {
    if (row.kind === RowKind.forget) {
      this.#groups.delete(row.group);
      this.#forgotten.set(row.group, frame.header.lsn);
      return;
    }
    const group = this.#group(row.group);
    const { state } = group;
    if (group.holesSeen < this.#holes && row.sequence !== state.sequence + 1) state.damaged = true;
    group.holesSeen = this.#holes;
    state.sequence = row.sequence;
    // The newest row knows: a replica that could not be proved whole may be whole again.
    group.flagged = row.damaged;
    group.lastLsn = frame.header.lsn;
    if (row.kind === RowKind.hardState) {
      state.hardState = { term: row.term, vote: row.index as WalGroup['hardState']['vote'], commit: row.extra };
    } else if (row.kind === RowKind.truncate) {
      drop(group, (index) => index > row.index);
    } else if (row.kind === RowKind.synced) {
      state.synced = Math.max(state.synced, row.index);
      drop(group, (index) => index <= row.index);
    } else {
      this.#applyEntries(group, row, frame);
    }
  }

  #applyEntries(group: ReplayGroup, row: Row, frame: ScannedFrame): void {
    const { generation, lsn } = frame.header;
    const touched = this.#touched.get(generation) ?? new Set();
    this.#touched.set(generation, touched.add(group.state));
    let at = row.position;
    for (let index = row.index; index < row.index + row.extra; index++) {
      const entry: Entry | undefined = at < 0 ? undefined : this.#readEntry(frame, at, index);
      // Without its header the entry's length is not known, so those behind it in the run can't be found.
      at = entry === undefined ? -1 : at + entry.header.length + entry.payload.length;
      if (index <= group.state.synced) continue;
      const sound = entry !== undefined && (frame.intact || payloadIntact(entry, this.#checksums));
      if (sound) {
        group.entries.set(index, { entry, generation, lsn });
        group.faulty.delete(index);
      } else {
        group.entries.delete(index);
        group.faulty.add(index);
      }
    }
  }

  #readEntry(frame: ScannedFrame, at: number, index: number): Entry | undefined {
    try {
      const entry = decodeEntry(frame.bytes, at);
      return entry.index === index ? entry : undefined;
    } catch (error) {
      // An intact frame holds what its writer meant: an entry of a newer release must stop the start, not read as damage.
      if (frame.intact) throw error;
      this.#log.error('wal entry damaged', { index, lsn: frame.header.lsn, error: messageOf(error) });
      return undefined;
    }
  }

  #group(key: GroupKey): ReplayGroup {
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = { state: new WalGroup(key), entries: new Map(), faulty: new Set(), holesSeen: 0, lastLsn: 0, flagged: false };
      this.#groups.set(key, group);
      this.#forgotten.delete(key);
    }
    return group;
  }
}

/**
 * The frames of all files in order. What a file holds at or above the lsn that the next one starts with is a tail that an earlier recovery found torn
 * and cut: its lsn was given out again.
 */
function withoutTornTails(files: readonly ScannedFile[]): ScannedFrame[] {
  const kept: ScannedFrame[] = [];
  let limit = Number.POSITIVE_INFINITY;
  for (const file of files.toReversed()) {
    const frames = file.frames.filter((frame) => frame.header.lsn < limit);
    kept.unshift(...frames);
    limit = Math.min(limit, frames.find((frame) => frame.intact)?.header.lsn ?? limit);
  }
  return kept;
}

function drop(group: ReplayGroup, isVoid: (index: number) => boolean): void {
  for (const index of group.entries.keys()) if (isVoid(index)) group.entries.delete(index);
  for (const index of group.faulty) if (isVoid(index)) group.faulty.delete(index);
}

/** The entries that follow what segments hold, up to the first that is missing. */
function liveEntries(group: ReplayGroup): { entry: Entry; generation: number; lsn: number }[] {
  const live: { entry: Entry; generation: number; lsn: number }[] = [];
  for (let index = group.state.synced + 1; group.entries.has(index); index++) {
    const found = must(group.entries.get(index), 'the entry is there', index);
    live.push({ ...found, entry: ownedCopy(found.entry) });
  }
  return live;
}

/** Bytes of its own, so that one entry does not keep megabytes of file in memory. */
function ownedCopy(entry: Entry): Entry {
  const bytes = new Uint8Array(entrySize(entry));
  bytes.set(entry.header);
  bytes.set(entry.payload, entry.header.length);
  return decodeEntry(bytes, 0);
}

/**
 * The directories of groups: their names, whose they are, and their way into quarantine. Every change of a name is durable when it returns (hazard B26).
 *
 *   groups/TOPICID-PARTITION.GENERATION             a replica's log
 *   groups/TOPICID-PARTITION.GENERATION.new         one that is being made
 *   groups/TOPICID-PARTITION.GENERATION.staged      a snapshot that is coming from the leader (staged-snapshot.ts)
 *   groups/TOPICID-PARTITION.GENERATION.installed   one that is whole: it takes the place of the log, also after a crash
 *   quarantine/TOPICID-PARTITION.GENERATION[.N].INCARNATION.aside   a log that can't be proved whole, until the replica's probation is over
 *   quarantine/TOPICID-PARTITION.GENERATION[.N].INCARNATION    what was deleted or replaced in that process life (quarantine.ts)
 */
import type { Disk } from '../base/environment.ts';
import { decodeGroupKey, encodeGroupKey, type GroupKey, isUuid, type ReplicaId, type TopicId } from '../base/ids.ts';
import type { Quarantine } from './quarantine.ts';
import { bindDirectory, boundTo } from './replica-file.ts';
import { parseSegmentName } from './segment-files.ts';
import type { Crc32 } from './wal-frame.ts';

const UNNAMED = '.new';
const STAGED = '.staged';
const INSTALLED = '.installed';

export interface GroupDirectoriesOptions {
  readonly disk: Disk;
  /** The data directory. */
  readonly path: string;
  readonly quarantine: Quarantine;
  readonly crc32: Crc32;
}

export class GroupDirectories {
  readonly #options: GroupDirectoriesOptions;
  readonly #groups: Set<GroupKey>;
  /** Of the process before. */
  readonly #staged: Set<GroupKey>;
  /** Snapshots that take the place of their groups' logs, as a crash left them. */
  readonly installed: readonly GroupKey[];

  private constructor(options: GroupDirectoriesOptions, names: readonly string[]) {
    this.#options = options;
    this.#groups = new Set(groupsNamed(names, ''));
    this.#staged = new Set(groupsNamed(names, STAGED));
    this.installed = groupsNamed(names, INSTALLED);
  }

  /** What is there; directories that were being made are removed, and so are staged snapshots of groups that are not there. */
  static async list(options: GroupDirectoriesOptions): Promise<GroupDirectories> {
    const { disk, path } = options;
    const names = await disk.list(`${path}/groups`);
    for (const name of names) {
      const orphaned = name.endsWith(STAGED) && !names.includes(name.slice(0, -STAGED.length));
      if (name.endsWith(UNNAMED) || orphaned) await disk.removeTree(`${path}/groups/${name}`);
    }
    return new GroupDirectories(options, names);
  }

  get groups(): readonly GroupKey[] {
    return [...this.#groups];
  }

  has(group: GroupKey): boolean {
    return this.#groups.has(group);
  }

  pathOf(group: GroupKey): string {
    // Joined: a template of templates would stay a tree of its eleven parts, for each of thousands of groups.
    return [this.#options.path, '/groups/', groupName(group)].join('');
  }

  stagedPathOf(group: GroupKey): string {
    return `${this.pathOf(group)}${STAGED}`;
  }

  installedPathOf(group: GroupKey): string {
    return `${this.pathOf(group)}${INSTALLED}`;
  }

  /** See {@link boundTo}. */
  ownerOf(group: GroupKey): Promise<ReplicaId | undefined> {
    const { disk, crc32 } = this.#options;
    return boundTo(disk, this.pathOf(group), crc32);
  }

  bind(group: GroupKey, replicaId: ReplicaId): Promise<void> {
    const { disk, crc32 } = this.#options;
    return bindDirectory(disk, this.pathOf(group), replicaId, crc32);
  }

  /** A directory has its name only once it says whose it is. */
  async create(group: GroupKey, replicaId: ReplicaId): Promise<void> {
    const { disk, path, crc32 } = this.#options;
    const unnamed = `${this.pathOf(group)}${UNNAMED}`;
    await disk.makeDirectory(unnamed);
    await bindDirectory(disk, unnamed, replicaId, crc32);
    await disk.rename(unnamed, this.pathOf(group));
    await disk.syncDirectory(`${path}/groups`);
    this.#groups.add(group);
  }

  /** Moves the group's directory out of the way (hazard B24). */
  async quarantine(group: GroupKey): Promise<void> {
    if (!this.#groups.delete(group)) return;
    const { disk, path, quarantine } = this.#options;
    await quarantine.take(this.pathOf(group), groupName(group));
    await disk.syncDirectory(`${path}/groups`);
  }

  /** Moves the group's directory out of the way, to where nothing purges it: it may be the last copy. */
  async setAside(group: GroupKey): Promise<void> {
    if (!this.#groups.delete(group)) return;
    const { disk, path, quarantine } = this.#options;
    await quarantine.setAside(this.pathOf(group), groupName(group));
    await disk.syncDirectory(`${path}/groups`);
  }

  /** What was set aside is as any other log in quarantine from here on. */
  releaseAside(group: GroupKey): Promise<void> {
    return this.#options.quarantine.releaseAside(groupName(group));
  }

  /** The staged snapshot is whole and verified: from here on it is the replica's log, whatever happens. */
  async commitStaged(group: GroupKey, replicaId: ReplicaId): Promise<void> {
    const { disk, path, crc32 } = this.#options;
    await bindDirectory(disk, this.stagedPathOf(group), replicaId, crc32);
    await disk.rename(this.stagedPathOf(group), this.installedPathOf(group));
    await disk.syncDirectory(`${path}/groups`);
  }

  /** Gives the installed snapshot the group's name; the log that had it goes to quarantine. */
  async nameInstalled(group: GroupKey): Promise<void> {
    const { disk, path } = this.#options;
    await this.quarantine(group);
    await disk.rename(this.installedPathOf(group), this.pathOf(group));
    await disk.syncDirectory(`${path}/groups`);
    this.#groups.add(group);
  }

  /** What the process before staged is of use only if it reaches further than the log does. */
  async discardOutdated(group: GroupKey, lastIndex: number): Promise<void> {
    if (!this.#staged.delete(group)) return;
    const names = await this.#options.disk.list(this.stagedPathOf(group));
    const reaches = names.some((name) => (parseSegmentName(name, 'snapshot')?.index ?? 0) - 1 > lastIndex);
    if (!reaches) await this.discardStaged(group);
  }

  async discardStaged(group: GroupKey): Promise<void> {
    await this.#options.disk.removeTree(this.stagedPathOf(group));
  }

  async discardInstalled(group: GroupKey): Promise<void> {
    const { disk, path } = this.#options;
    await disk.removeTree(this.installedPathOf(group));
    await disk.syncDirectory(`${path}/groups`);
  }
}

function groupsNamed(names: readonly string[], suffix: string): GroupKey[] {
  const named = names.filter((name) => name.endsWith(suffix)).map((name) => parseGroupName(name.slice(0, name.length - suffix.length)));
  return named.filter((group) => group !== undefined);
}

export function groupName(group: GroupKey): string {
  const { topicId, partition, groupGeneration } = decodeGroupKey(group);
  return [topicId, '-', partition, '.', groupGeneration].join('');
}

export function parseGroupName(name: string): GroupKey | undefined {
  const match = /^([0-9a-f]{32})-(\d+)\.(\d+)$/.exec(name);
  const topicId = match?.[1];
  if (match === null || topicId === undefined || !isUuid(topicId)) return undefined;
  return encodeGroupKey({ topicId: topicId as TopicId, partition: Number(match[2]), groupGeneration: Number(match[3]) });
}

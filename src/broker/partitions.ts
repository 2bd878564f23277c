/**
 * Keeps this broker's replicas as the metadata says: opens those that are assigned to it and its data directory, removes those of
 * deleted topics and those whose partition names other replicas only. Serial per partition, several partitions at a time.
 */
import type { Environment, Logger } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import {
  type BrokerId,
  type DirectoryId,
  encodeGroupKey,
  formatGroupKey,
  type GroupKey,
  METADATA_GROUP,
  type ReplicaId,
  type TopicId,
} from '../base/ids.ts';
import { type MetadataDelta, type MetadataView, namedReplicas, type PartitionImage, type TopicImage } from '../metadata/image.ts';
import type { Configuration, Member } from '../raft/core/types.ts';
import type { RaftHost } from '../raft/types.ts';
import type { CompressionTable } from '../record/compression.ts';
import type { Crc32c } from '../record/types.ts';
import { logSettingsOf, type TopicConfig, validateTopicConfig } from './config.ts';
import { NotLeaderError } from './not-leader.ts';
import { Partition } from './partition.ts';

/** Replicas that are opened or removed at the same time. */
export const MAX_CONCURRENT_CHANGES = 16;

/** Of a log that rots, how often its producers are read. */
const MAX_RESTORES = 5;

/** Orphans that the log names. */
const MAX_ORPHANS_NAMED = 20;
/** How long a batch waits for a partition that is about to be led here: then its producer is told, and may send it again. */
export const MAX_OPENING_MS = 10_000;
/** Names of topics of the system's own begin so, as Kafka's do. */
const INTERNAL_PREFIX = '__';
/** Between tries to open or remove a replica that the disk refused; doubled each time. */
const MIN_RETRY_MS = 1_000;
const MAX_RETRY_MS = 60_000;

export interface PartitionsOptions {
  readonly brokerId: BrokerId;
  readonly directoryId: DirectoryId;
  readonly incarnation: number;
  /** The replicas that this directory held when the process began. */
  readonly held: ReadonlySet<GroupKey>;
  readonly host: RaftHost;
  readonly metadata: MetadataView;
  readonly topicDefaults: TopicConfig;
  readonly environment: Environment;
  readonly crc32c: Crc32c;
  readonly compression: CompressionTable;
  /** @throws STORAGE_ERROR while this broker's disk has no room for records. */
  readonly checkRoom: () => void;
  readonly log: Logger;
  /** It began or ceased to lead, or was opened. */
  readonly leadershipChanged: (partition: Partition) => void;
  /** See {@link Partitions.failed}. */
  readonly failedChanged?: () => void;
}

/** A replica that this broker can't bring back: another is to take its place. */
export interface FailedReplica {
  readonly topicId: TopicId;
  readonly partition: number;
  readonly replicaId: ReplicaId;
}

/** What the metadata wants of one partition here. */
interface Wanted {
  readonly topic: TopicImage;
  readonly partition: PartitionImage;
  readonly replicaId: ReplicaId;
}

interface Slot {
  readonly group: GroupKey;
  readonly topicId: TopicId;
  readonly partition: number;
  /** deleted: the topic is gone. moved: the partition names other replicas, and none of this directory. */
  wanted: Wanted | 'deleted' | 'moved';
  opened: Partition | undefined;
  queued: boolean;
  /** Why it could not be opened, when last tried. */
  failure: string | undefined;
  /** Milliseconds until the next try, after one that failed. */
  retryMs: number;
  /** Of {@link Partitions.opening}. */
  awaited: Awaited | undefined;
}

interface Awaited {
  readonly promise: Promise<void>;
  readonly settle: () => void;
}

export class Partitions {
  readonly #options: PartitionsOptions;
  readonly #slots = new Map<GroupKey, Slot>();
  readonly #opened = new Map<TopicId, Map<number, Partition>>();
  readonly #failed = new Map<GroupKey, FailedReplica>();
  /** Groups with data in this directory. */
  readonly #held: Set<GroupKey>;
  readonly #queue: Slot[] = [];
  /** One for all: there are thousands of partitions. */
  readonly #leadershipChanged = (partition: Partition): void => {
    const slot = this.#slots.get(partition.replica.group);
    if (slot?.opened === partition && partition.isLeader) slot.awaited?.settle();
    this.#options.leadershipChanged(partition);
  };
  #changing = 0;
  /** The metadata here tell of this process's registration, so they are no older than what any process before it had seen. */
  #caughtUp = false;
  #unsubscribe: (() => void) | undefined;
  #stopped = false;
  #idle: (() => void) | undefined;

  constructor(options: PartitionsOptions) {
    this.#options = options;
    this.#held = new Set(options.held);
  }

  /** Begins to follow the metadata. */
  start(): void {
    this.#unsubscribe = this.#options.metadata.subscribe((delta) => this.#follow(delta));
  }

  /** Stops following; resolves when no change is under way. The replicas stay open: the host closes them. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#unsubscribe?.();
    this.#queue.length = 0;
    if (this.#changing > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    for (const slot of this.#slots.values()) slot.awaited?.settle();
    for (const partition of this.all())
      partition.state.close(new FlotillaError('NOT_LEADER_OR_FOLLOWER', 'This broker is stopping. Refresh metadata and try again.'));
  }

  *all(): Iterable<Partition> {
    for (const byNumber of this.#opened.values()) yield* byNumber.values();
  }

  get(topicId: TopicId, partition: number): Partition | undefined {
    return this.#opened.get(topicId)?.get(partition);
  }

  /** Replicas whose log can't be proved whole, can't be read, or is another than that of the majority: they take no part until others take their place. */
  failed(): Iterable<FailedReplica> {
    return this.#failed.values();
  }

  /** The host found that a majority of the voters has another log (hazard B29): nobody is to read this one. */
  quarantined(group: GroupKey, replicaId: ReplicaId): void {
    const slot = this.#slots.get(group);
    if (slot === undefined || typeof slot.wanted === 'string' || slot.wanted.replicaId !== replicaId) return;
    this.#failed.set(group, { topicId: slot.topicId, partition: slot.partition, replicaId });
    // Later: this comes in the middle of a turn.
    this.#options.environment.soon(() => {
      if (slot.opened?.replica.replicaId === replicaId) this.#hide(slot, isBad(slot.opened));
    });
    this.#options.failedChanged?.();
  }

  /** The partition here. Errors: UNKNOWN_TOPIC_ID, UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER (it is elsewhere, or not open yet). */
  find(topicId: TopicId, partition: number): Partition {
    const found = this.#opened.get(topicId)?.get(partition);
    if (found !== undefined) return found;
    const topic = this.#options.metadata.image.topics.get(topicId);
    if (topic === undefined) {
      throw new FlotillaError(
        'UNKNOWN_TOPIC_ID',
        `No topic has the id ${topicId}: it was deleted, or this broker does not know it yet. Refresh metadata.`,
      );
    }
    const image = topic.partitions[partition];
    if (image === undefined) {
      throw new FlotillaError(
        'UNKNOWN_TOPIC_OR_PARTITION',
        `Topic ${topic.name} has partitions 0 to ${topic.partitions.length - 1}, not ${partition}.`,
      );
    }
    const { leader, leaderEpoch } = image;
    const hint = leader === undefined || leader === this.#options.brokerId ? undefined : { brokerId: leader, leaderEpoch };
    throw new NotLeaderError(
      `Broker ${this.#options.brokerId} has no open replica of ${topic.name}-${partition}. Refresh metadata and try again.`,
      hint,
    );
  }

  /**
   * Present while the partition is about to be led here, and can't be led elsewhere: its only replica is being opened, or campaigns. Resolves when it is led,
   * can't be opened, or {@link MAX_OPENING_MS} have passed: {@link find} knows then. All who wait go on in the order in which they came.
   */
  opening(topicId: TopicId, partition: number): Promise<void> | undefined {
    const found = this.#opened.get(topicId)?.get(partition);
    if (found?.replica.leadership.leader !== undefined) return undefined;
    const image = this.#options.metadata.image.topics.get(topicId)?.partitions[partition];
    if (image === undefined || image.replicas.length > 1) return undefined;
    const slot = this.#slots.get(encodeGroupKey({ topicId, partition, groupGeneration: image.groupGeneration }));
    if (slot === undefined || this.#stopped || !this.#isComing(slot)) return undefined;
    slot.awaited ??= this.#await(slot);
    return slot.awaited.promise;
  }

  #isComing({ group, wanted, opened, failure }: Slot): boolean {
    if (typeof wanted === 'string' || failure !== undefined || this.#failed.has(group)) return false;
    return opened === undefined || opened.replica.configuration.voters.length === 1;
  }

  #await(slot: Slot): Awaited {
    const { promise, resolve } = Promise.withResolvers<void>();
    const settle = () => {
      timer.cancel();
      slot.awaited = undefined;
      resolve();
    };
    const timer = this.#options.environment.after(MAX_OPENING_MS, settle);
    return { promise, settle };
  }

  /** The leader that the replica here knows, where it is newer than the image's; its term is the leader epoch. */
  newerLeader(topicId: TopicId, image: PartitionImage): { readonly leader: BrokerId; readonly leaderEpoch: number } | undefined {
    const leadership = this.#opened.get(topicId)?.get(image.partition)?.replica.leadership;
    if (leadership?.leader === undefined || leadership.term <= image.leaderEpoch) return undefined;
    return { leader: leadership.leader.brokerId, leaderEpoch: leadership.term };
  }

  /** Why a replica that is assigned to this broker could not be opened. Undefined: it is open, or about to be. */
  failureOf(group: GroupKey): string | undefined {
    return this.#slots.get(group)?.failure;
  }

  /** Errors: UNKNOWN_TOPIC_OR_PARTITION. */
  topicIdOf(name: string): TopicId {
    const topicId = this.#options.metadata.image.topicIds.get(name);
    if (topicId === undefined) {
      throw new FlotillaError(
        'UNKNOWN_TOPIC_OR_PARTITION',
        `There is no topic ${name}. Create it first, or wait until this broker knows it.`,
      );
    }
    return topicId;
  }

  #follow(delta: MetadataDelta): void {
    for (const topic of delta.deletedTopics) for (const partition of topic.partitions) this.#want(topic, partition, false);
    for (const topic of delta.createdTopics) for (const partition of topic.partitions) this.#want(topic, partition, true);
    for (const { topic, partition } of delta.changedReplicas) this.#want(topic, partition, true);
    for (const topic of delta.changedConfigs) {
      const config = this.#configOf(topic);
      for (const partition of this.#opened.get(topic.topicId)?.values() ?? []) partition.configure(config);
    }
    const { brokerId, directoryId, incarnation } = this.#options;
    const self = delta.image.brokers.get(brokerId);
    if (this.#caughtUp || self?.incarnation !== incarnation || self.directoryId !== directoryId) return;
    this.#caughtUp = true;
    this.#reportOrphans();
    for (const slot of this.#slots.values()) if (slot.opened === undefined || slot.wanted === 'moved') this.#enqueue(slot);
  }

  /** A deletion that only a checkpoint tells of names no replica. What it left here is said, and never deleted on a guess (hazard B24). */
  #reportOrphans(): void {
    const orphans = [...this.#held].filter((group) => group !== METADATA_GROUP && !this.#slots.has(group));
    if (orphans.length === 0) return;
    this.#options.log.warn('partition.orphans', {
      count: orphans.length,
      groups: orphans.slice(0, MAX_ORPHANS_NAMED).map(formatGroupKey),
      advice: 'the metadata have no such partitions any more; their directories below groups/ only take space',
    });
  }

  /**
   * While this broker replays older metadata, a replica that is not in its directory may be one that was deleted since: made anew,
   * it would vote and acknowledge again under its old identity (hazard B14).
   */
  #mayOpen(slot: Slot): boolean {
    return this.#caughtUp || this.#held.has(slot.group);
  }

  /** The same holds the other way: older metadata may name others where newer ones gave this directory a replica again. */
  #mayRemove(slot: Slot): boolean {
    return slot.wanted === 'deleted' || this.#caughtUp;
  }

  #want(topic: TopicImage, partition: PartitionImage, exists: boolean): void {
    const { topicId } = topic;
    const group = encodeGroupKey({ topicId, partition: partition.partition, groupGeneration: partition.groupGeneration });
    const replicaId = exists ? this.#ownReplica(partition) : undefined;
    let slot = this.#slots.get(group);
    if (slot === undefined) {
      if (replicaId === undefined && !this.#held.has(group)) return;
      slot = {
        group,
        topicId,
        partition: partition.partition,
        wanted: 'moved',
        opened: undefined,
        queued: false,
        failure: undefined,
        retryMs: MIN_RETRY_MS,
        awaited: undefined,
      };
      this.#slots.set(group, slot);
    }
    slot.wanted = replicaId === undefined ? (exists ? 'moved' : 'deleted') : { topic, partition, replicaId };
    if (this.#failed.get(group)?.replicaId !== replicaId) this.#failed.delete(group);
    this.#enqueue(slot);
  }

  /** Of two replicas on this directory the later one, which takes the other's place. */
  #ownReplica(partition: PartitionImage): ReplicaId | undefined {
    const { brokerId, directoryId } = this.#options;
    let own: ReplicaId | undefined;
    for (const replica of namedReplicas(partition)) {
      if (replica.brokerId !== brokerId || replica.directoryId !== directoryId) continue;
      if (own === undefined || own < replica.replicaId) own = replica.replicaId;
    }
    return own;
  }

  #enqueue(slot: Slot): void {
    if (slot.queued || this.#stopped) return;
    slot.queued = true;
    this.#queue.push(slot);
    // Later, so that a topic which was created and deleted in what is being replayed is opened for nothing.
    this.#options.environment.soon(() => this.#run());
  }

  #run(): void {
    while (this.#changing < MAX_CONCURRENT_CHANGES) {
      const slot = this.#queue.shift();
      if (slot === undefined) break;
      this.#changing++;
      void this.#change(slot).finally(() => {
        this.#changing--;
        this.#run();
      });
    }
    if (this.#changing === 0) this.#idle?.();
  }

  async #change(slot: Slot): Promise<void> {
    const { wanted } = slot;
    let done = false;
    slot.failure = undefined;
    let failed = false;
    try {
      if (typeof wanted === 'object') await this.#bring(slot, wanted);
      else if (this.#mayRemove(slot)) {
        await this.#remove(slot, wanted);
        done = true;
      }
      slot.retryMs = MIN_RETRY_MS;
    } catch (error) {
      const { topicId, partition } = slot;
      const want = typeof wanted === 'object' ? wanted.replicaId : wanted;
      slot.failure = messageOf(error);
      this.#options.log.error('partition.change-failed', { topicId, partition, wanted: want, error: slot.failure });
      failed = !isDamaged(error);
      if (!failed && typeof wanted === 'object') this.#gaveUp(slot, wanted.replicaId);
      slot.awaited?.settle();
    }
    slot.queued = false;
    if (slot.wanted !== wanted) this.#enqueue(slot);
    else if (failed) this.#retryLater(slot);
    else if (done) this.#slots.delete(slot.group);
  }

  async #bring(slot: Slot, wanted: Wanted): Promise<void> {
    if (slot.opened !== undefined && slot.opened.replica.replicaId !== wanted.replicaId) {
      this.#hide(slot, movedAway(slot.opened));
      slot.opened = undefined;
      await this.#options.host.remove(slot.group);
    }
    const gaveUp = this.#failed.get(slot.group)?.replicaId === wanted.replicaId;
    if (slot.opened === undefined && !gaveUp && this.#mayOpen(slot)) await this.#open(slot, wanted);
  }

  /** The quorum is told; also of a replica that can't be opened now, but not of what older metadata name. */
  #gaveUp({ group, topicId, partition }: Slot, replicaId: ReplicaId): void {
    if (!this.#caughtUp) return;
    this.#failed.set(group, { topicId, partition, replicaId });
    this.#options.failedChanged?.();
  }

  /** Otherwise what one error of the disk kept closed would stay so for as long as the process lives. */
  #retryLater(slot: Slot): void {
    this.#options.environment.after(slot.retryMs, () => {
      // One whose replica went in the meantime has a successor: what was wanted of it must not befall that (hazard B14).
      if (this.#slots.get(slot.group) === slot) this.#enqueue(slot);
    });
    slot.retryMs = Math.min(2 * slot.retryMs, MAX_RETRY_MS);
  }

  async #open(slot: Slot, wanted: Wanted): Promise<void> {
    const { host, environment, crc32c, compression, checkRoom, log } = this.#options;
    const leadershipChanged = this.#leadershipChanged;
    const { topic, partition } = wanted;
    const config = this.#configOf(topic);
    const name = { topicId: topic.topicId, topic: topic.name, partition: partition.partition };
    let opened: Partition | undefined;
    await host.open({
      group: slot.group,
      replicaId: wanted.replicaId,
      configuration: configurationOf(partition),
      settings: logSettingsOf(config),
      latest: this.#caughtUp && slot.wanted === wanted,
      internal: topic.name.startsWith(INTERNAL_PREFIX),
      // The quorum chose the first replica of a new partition as its leader; afterwards elections are the replicas' own affair.
      campaign: partition.leader === undefined && partition.replicas[0]?.replicaId === wanted.replicaId,
      owner: (replica) => {
        opened = new Partition(replica, { ...name, config, environment, crc32c, compression, checkRoom, leadershipChanged });
        return opened.state;
      },
    });
    if (opened === undefined) return;
    try {
      await this.#restore(opened);
    } catch (error) {
      // It would go on to vote, and could be elected, with nobody to serve clients.
      await host.close(slot.group);
      throw error;
    }
    slot.opened = opened;
    this.#held.add(slot.group);
    let byNumber = this.#opened.get(name.topicId);
    if (byNumber === undefined) {
      byNumber = new Map();
      this.#opened.set(name.topicId, byNumber);
    }
    byNumber.set(name.partition, opened);
    // Found out while producer state was being restored.
    if (opened.replica.quarantined !== undefined) this.#hide(slot, isBad(opened));
    leadershipChanged(opened);
    log.debug('partition.opened', { topic: name.topic, partition: name.partition, replicaId: wanted.replicaId });
  }

  /** What rotted of its log is put right in the meantime, and then it is read again. */
  async #restore({ state, replica }: Partition): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        return await state.restore();
      } catch (error) {
        const again = isDamaged(error) && tries < MAX_RESTORES && (await this.#options.host.untilWhole(replica.group));
        if (!again) throw error;
      }
    }
  }

  async #remove(slot: Slot, why: 'deleted' | 'moved'): Promise<void> {
    const { topicId, partition, group } = slot;
    this.#options.log.info('partition.removed', { topicId, partition, why });
    const { opened } = slot;
    slot.awaited?.settle();
    if (opened !== undefined) {
      const deleted = () => new FlotillaError('UNKNOWN_TOPIC_ID', `Topic ${opened.topic} was deleted.`);
      this.#hide(slot, why === 'moved' ? movedAway(opened) : deleted());
      slot.opened = undefined;
    }
    await this.#options.host.remove(group);
    this.#held.delete(group);
  }

  /** Nobody finds the partition here any more; who waits on it is told. */
  #hide(slot: Slot, reason: FlotillaError): void {
    const byNumber = this.#opened.get(slot.topicId);
    byNumber?.delete(slot.partition);
    if (byNumber?.size === 0) this.#opened.delete(slot.topicId);
    slot.opened?.state.close(reason);
    slot.awaited?.settle();
  }

  #configOf(topic: TopicImage): TopicConfig {
    try {
      return validateTopicConfig(topic.configs, this.#options.topicDefaults);
    } catch (error) {
      // The controller checked it; a newer controller may know settings that this broker does not.
      this.#options.log.warn('topic.config-not-understood', { topic: topic.name, error: messageOf(error) });
      return this.#options.topicDefaults;
    }
  }
}

function movedAway({ topic, partition }: Partition): FlotillaError {
  return new FlotillaError('NOT_LEADER_OR_FOLLOWER', `${topic}-${partition} has moved to other brokers. Refresh metadata and try again.`);
}

function isBad({ topic, partition }: Partition): FlotillaError {
  return new FlotillaError(
    'NOT_LEADER_OR_FOLLOWER',
    `This broker's replica of ${topic}-${partition} differs from the others and is being replaced. Refresh metadata and try again.`,
  );
}

/** What is damaged on disk is no better the next time. */
function isDamaged(error: unknown): boolean {
  return error instanceof FlotillaError && error.code === 'STORAGE_ERROR';
}

const NONE: readonly Member[] = [];

/** Shares what it can with the image: there are thousands of them. */
function configurationOf(partition: PartitionImage): Configuration {
  return { voters: partition.replicas, outgoing: NONE, learners: NONE };
}

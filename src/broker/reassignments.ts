/**
 * Brings the members of the partitions that this broker leads to their targets, one step at a time: new replicas as learners, then, once they have caught
 * up, the target as voters; what has committed is reported to the controller until the metadata show it. Each step follows from the partition's log
 * and the metadata alone, so a new leader goes on where the one before it was.
 *
 * Also reports the replicas that this broker gave up.
 */
import type { Environment, Logger, Timer } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { type BrokerId, formatGroupKey, type TopicId } from '../base/ids.ts';
import type { CommittedConfiguration, Controller, ReplicaReport } from '../controller/types.ts';
import type { MetadataDelta, MetadataView, PartitionImage, ReplicaAssignment } from '../metadata/image.ts';
import type { Members } from '../raft/core/membership.ts';
import type { Configuration, Member } from '../raft/core/types.ts';
import type { Replica } from '../raft/types.ts';
import { within } from './deadline.ts';
import type { Partitions } from './partitions.ts';

/** Between two looks at what is under way: learners that catch up, configurations that commit, reports that the metadata do not show yet. */
export const STEP_INTERVAL_MS = 100;
/** Partitions in one report; the others are in the next. */
export const MAX_REPORTED_PARTITIONS = 1000;

export interface ReassignmentsOptions {
  readonly brokerId: BrokerId;
  readonly incarnation: number;
  readonly controller: Pick<Controller, 'reportReplicas'>;
  readonly partitions: Pick<Partitions, 'get' | 'failed'>;
  readonly metadata: MetadataView;
  readonly environment: Environment;
  readonly log: Logger;
  readonly requestTimeoutMs: number;
}

interface Moving {
  readonly topicId: TopicId;
  readonly partition: number;
}

export class Reassignments {
  readonly #options: ReassignmentsOptions;
  /** Partitions of the cluster that have a target. */
  readonly #moving = new Map<string, Moving>();
  readonly #stop = new AbortController();
  #unsubscribe: (() => void) | undefined;
  #scheduled = false;
  #timer: Timer | undefined;
  #reporting: Promise<void> | undefined;

  constructor(options: ReassignmentsOptions) {
    this.#options = options;
  }

  start(): void {
    this.#unsubscribe = this.#options.metadata.subscribe((delta) => this.#follow(delta));
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.#unsubscribe?.();
    this.#timer?.cancel();
    await this.#reporting;
  }

  /** A leadership changed, or a replica was given up. */
  changed(): void {
    if (this.#scheduled || this.#stop.signal.aborted) return;
    this.#scheduled = true;
    this.#options.environment.soon(() => {
      this.#scheduled = false;
      this.#pass();
    });
  }

  #follow(delta: MetadataDelta): void {
    for (const { topicId, partitions } of delta.deletedTopics)
      for (const { partition } of partitions) this.#moving.delete(keyOf(topicId, partition));
    for (const { topicId, partitions } of delta.createdTopics) for (const partition of partitions) this.#note(topicId, partition);
    for (const { topic, partition } of delta.changedReplicas) this.#note(topic.topicId, partition);
    if (this.#moving.size > 0) this.changed();
  }

  #note(topicId: TopicId, { partition, target }: PartitionImage): void {
    if (target === undefined) this.#moving.delete(keyOf(topicId, partition));
    else this.#moving.set(keyOf(topicId, partition), { topicId, partition });
  }

  #pass(): void {
    if (this.#stop.signal.aborted) return;
    this.#timer?.cancel();
    this.#timer = undefined;
    const { brokerId, incarnation, metadata } = this.#options;
    let underWay = false;
    const committed: CommittedConfiguration[] = [];
    for (const { topicId, partition } of this.#moving.values()) {
      const image = metadata.image.topics.get(topicId)?.partitions[partition];
      const replica = this.#options.partitions.get(topicId, partition)?.replica;
      if (image === undefined || replica === undefined || !this.#leads(replica, image)) continue;
      underWay = true;
      const report = this.#step(topicId, image, replica);
      if (report !== undefined && committed.length < MAX_REPORTED_PARTITIONS) committed.push(report);
    }
    const failed = this.#failed();
    if (committed.length > 0 || failed.length > 0) this.#reporting ??= this.#report({ brokerId, incarnation, committed, failed });
    if (underWay || failed.length > 0) this.#timer = this.#options.environment.after(STEP_INTERVAL_MS, () => this.#pass());
  }

  /** The metadata show this leadership, so they are not older than it, and nothing that was decided and reported before it is undone (see controller/reassignment.ts). */
  #leads({ leadership }: Replica, { leader, leaderEpoch }: PartitionImage): boolean {
    return leadership.ready && leader === this.#options.brokerId && leaderEpoch === leadership.term;
  }

  /** What there is to report. */
  #step(topicId: TopicId, image: PartitionImage, replica: Replica): CommittedConfiguration | undefined {
    const { partition, target, targetEpoch, leaderEpoch } = image;
    const { configuration, configurationIndex: index } = replica;
    if (target === undefined || configuration.outgoing.length > 0 || index > replica.commitIndex) return undefined;
    const next = nextMembers(configuration, target.replicas);
    if (next !== undefined) this.#propose(replica, next);
    // Learners are members as well, and not to be forgotten.
    if (configuration.learners.length > 0 || (next !== undefined && index <= image.configuration.index)) return undefined;
    return { topicId, partition, leaderEpoch, index, targetEpoch, voters: configuration.voters };
  }

  #propose(replica: Replica, next: Members): void {
    const { log } = this.#options;
    try {
      const index = replica.changeMembers(next);
      log.info('partition.members', {
        group: formatGroupKey(replica.group),
        index,
        voters: idsOf(next.voters),
        learners: idsOf(next.learners),
      });
    } catch (error) {
      if (!(error instanceof FlotillaError)) throw error;
      // Most often a learner that has not caught up yet.
      const level = error.retriable ? 'debug' : 'warn';
      log[level]('partition.members-wait', { group: formatGroupKey(replica.group), reason: error.message });
    }
  }

  /** What was given up here, and the metadata do not show it yet. */
  #failed(): ReplicaReport['failed'] {
    const { metadata, partitions } = this.#options;
    const news = [...partitions.failed()].filter(({ topicId, partition, replicaId }) => {
      const image = metadata.image.topics.get(topicId)?.partitions[partition];
      return image !== undefined && !image.failed.includes(replicaId);
    });
    return news.slice(0, MAX_REPORTED_PARTITIONS);
  }

  async #report(report: ReplicaReport): Promise<void> {
    const { controller, environment, metadata, requestTimeoutMs, log } = this.#options;
    try {
      await within(environment, requestTimeoutMs, this.#stop.signal, 'reporting replicas to the controller', async (signal) => {
        const { index } = await controller.reportReplicas(report, signal);
        await metadata.reached(index, signal);
      });
    } catch (error) {
      if (!this.#stop.signal.aborted) log.debug('replicas.report-failed', { error: messageOf(error) });
    }
    this.#reporting = undefined;
  }
}

/** The next change on the way from a configuration that is not joint to the target; undefined: it is there. */
export function nextMembers({ voters, learners }: Configuration, target: readonly ReplicaAssignment[]): Members | undefined {
  const newcomers = target.filter(({ replicaId }) => !has(voters, replicaId));
  const learning = learners.length === newcomers.length && newcomers.every(({ replicaId }) => has(learners, replicaId));
  if (newcomers.length > 0 && !learning) return { voters, learners: newcomers };
  const there =
    learners.length === 0 && voters.length === target.length && voters.every(({ replicaId }, at) => target[at]?.replicaId === replicaId);
  return there ? undefined : { voters: target, learners: [] };
}

function has(members: readonly Member[], id: Member['replicaId']): boolean {
  return members.some(({ replicaId }) => replicaId === id);
}

function idsOf(members: readonly Member[]): number[] {
  return members.map(({ replicaId }) => replicaId);
}

function keyOf(topicId: TopicId, partition: number): string {
  return `${topicId}-${partition}`;
}

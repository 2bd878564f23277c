/**
 * Raft groups as all brokers see them. Each broker tells of its own replicas only; here all are asked, and what they say is put side by side,
 * so that a group whose leader is gone, or whose brokers contradict each other, can be looked into as well.
 */
import { create } from '@bufbuild/protobuf';
import { hex } from '../base/bytes.ts';
import { FlotillaError } from '../base/errors.ts';
import { compareGroupNames, formatGroupName, type GroupName, METADATA_NAME, parseGroupName } from '../base/group-name.ts';
import { METADATA_TOPIC_ID } from '../base/ids.ts';
import { Admin, MetadataRequestSchema, type MetadataResponse } from '../gen/flotilla/v1/admin_pb.ts';
import type { BrokerNode } from '../gen/flotilla/v1/common_pb.ts';
import { type DescribeReplicasRequest, DescribeReplicasRequestSchema } from '../gen/flotilla/v1/raft_groups_pb.ts';
import { type CallOptions, type Cluster, callAny, fromWire } from './cluster.ts';
import { problemsOf } from './raft-problems.ts';
import {
  type KnownGroup,
  type OwnedReplica,
  type RaftGroupDescription,
  type RaftReplicaDescription,
  readReplica,
  type SilentBroker,
} from './raft-wire.ts';
import { linkSignals, throwIfAborted } from './wait.ts';

/** A broker's time for a page; one that the controller takes for dead may still answer, and has less. */
export const PAGE_TIMEOUT_MS = 5_000;
export const DEAD_PAGE_TIMEOUT_MS = 1_000;

/** A legal name that no topic should have: asks for the brokers alone. */
export const NO_TOPIC = '__none';

export interface RaftGroupFilter {
  /** Only the groups of this topic. Default: all groups, that of the metadata log first. */
  readonly topic?: string | undefined;
}

export async function describeRaftGroup(cluster: Cluster, group: string, options?: CallOptions): Promise<RaftGroupDescription> {
  const name = parseGroupName(group);
  const metadata = await askMetadata(cluster, [name.topic ?? NO_TOPIC], options);
  const known = name.topic === undefined ? metadataGroup : partitionNamed(metadata, name.topic, name.partition);
  return within(cluster, options, async (signal) => {
    const brokers = metadata.brokers.map((broker) => new BrokerReplicas(cluster, broker, { group: formatGroupName(name) }, signal));
    await Promise.all(brokers.map((broker) => broker.fill()));
    return assemble(known, brokers);
  });
}

/** In the order of names; holds a page of each broker in memory. */
export async function* listRaftGroups(
  cluster: Cluster,
  filter: RaftGroupFilter,
  options?: CallOptions,
): AsyncGenerator<RaftGroupDescription, void> {
  const { topic } = filter;
  const metadata = await askMetadata(cluster, topic === undefined ? [] : [topic], options);
  const groups = metadata.topics.flatMap((each) => partitionsOf(each)).sort((a, b) => compareGroupNames(a.name, b.name));
  const { signal, release } = linkSignals(options?.signal, cluster.closing);
  try {
    const brokers = metadata.brokers.map((broker) => new BrokerReplicas(cluster, broker, { topic: topic ?? '' }, signal));
    for (const known of topic === undefined ? [metadataGroup, ...groups] : groups) {
      await Promise.all(brokers.map((broker) => broker.advance(known.name)));
      throwIfAborted(signal);
      yield assemble(known, brokers);
    }
  } finally {
    release();
  }
}

export async function within<T>(cluster: Cluster, options: CallOptions | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const { signal, release } = linkSignals(options?.signal, cluster.closing);
  try {
    const result = await work(signal);
    throwIfAborted(signal);
    return result;
  } finally {
    release();
  }
}

/** Errors: UNKNOWN_TOPIC_OR_PARTITION, not retriable: to a person who names a topic, that is the answer. */
export async function askMetadata(cluster: Cluster, topics: string[], options: CallOptions | undefined): Promise<MetadataResponse> {
  const request = () => create(MetadataRequestSchema, { topics });
  const metadata = await callAny(cluster, Admin.method.metadata, request, () => undefined, options);
  for (const { name, error } of metadata.topics) if (error !== undefined && name !== NO_TOPIC) throw fromWire(error);
  return metadata;
}

const metadataGroup: KnownGroup = { name: METADATA_NAME, assigned: [], topicId: METADATA_TOPIC_ID };

function partitionsOf({ name: topic, topicId, partitions }: MetadataResponse['topics'][number]): KnownGroup[] {
  return partitions.map(({ partition, replicas }) => ({ name: { topic, partition }, assigned: replicas, topicId: hex(topicId) }));
}

function partitionNamed({ topics }: MetadataResponse, topic: string, partition: number): KnownGroup {
  const groups = topics.flatMap((each) => partitionsOf(each));
  const known = groups.find(({ name }) => name.partition === partition);
  if (known !== undefined) return known;
  throw new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', `topic '${topic}' has partitions 0 to ${groups.length - 1}, not ${partition}`);
}

interface Head extends OwnedReplica {
  readonly name: GroupName;
}

/** One broker's replicas in the order of names, a page at a time. One that failed once is not asked again. */
class BrokerReplicas {
  readonly brokerId: number;
  silent: SilentBroker | undefined;
  readonly #cluster: Cluster;
  readonly #broker: BrokerNode;
  readonly #which: Pick<Partial<DescribeReplicasRequest>, 'group' | 'topic'>;
  readonly #signal: AbortSignal;
  #page: readonly Head[] = [];
  #at = 0;
  #more = true;

  constructor(cluster: Cluster, broker: BrokerNode, which: Pick<Partial<DescribeReplicasRequest>, 'group' | 'topic'>, signal: AbortSignal) {
    this.#cluster = cluster;
    this.#broker = broker;
    this.brokerId = broker.brokerId;
    this.#which = which;
    this.#signal = signal;
  }

  /** The replica that comes next. */
  get head(): Head | undefined {
    return this.#page[this.#at];
  }

  /** Goes on to the first group that is not before `name`. */
  async advance(name: GroupName): Promise<void> {
    for (;;) {
      const { head } = this;
      if (head !== undefined && compareGroupNames(head.name, name) >= 0) return;
      if (head !== undefined) this.#at++;
      else if (this.#more && this.silent === undefined) await this.fill();
      else return;
    }
  }

  /** Asks for the next page. */
  async fill(): Promise<void> {
    const { brokerId, address, alive } = this.#broker;
    try {
      if (address === '') throw new FlotillaError('BROKER_NOT_AVAILABLE', 'it has no address on this listener');
      const last = this.#page.at(-1);
      const request = create(DescribeReplicasRequestSchema, {
        ...this.#which,
        after: last === undefined ? '' : formatGroupName(last.name),
      });
      const timeoutMs = alive ? PAGE_TIMEOUT_MS : DEAD_PAGE_TIMEOUT_MS;
      const channel = this.#cluster.channels.get(address);
      const answer = await channel.unary(Admin.method.describeReplicas, request, { timeoutMs, signal: this.#signal });
      if (answer.error !== undefined) throw fromWire(answer.error);
      const pendingDiskBytes = Number(answer.pendingDiskBytes);
      this.#page = answer.replicas.map((wire) => ({ name: parseGroupName(wire.group), ...readReplica(wire, brokerId, pendingDiskBytes) }));
      this.#at = 0;
      this.#more = answer.more && this.#page.length > 0;
    } catch (error) {
      throwIfAborted(this.#signal);
      if (!(error instanceof FlotillaError)) throw error;
      this.#page = [];
      // The broker may not have learned of the topic yet, or not have forgotten it: it has no replica then, and says so.
      if (error.code === 'UNKNOWN_TOPIC_OR_PARTITION') this.#more = false;
      else this.silent = { brokerId, alive, error };
    }
  }
}

function assemble({ name, assigned, topicId }: KnownGroup, brokers: readonly BrokerReplicas[]): RaftGroupDescription {
  const told = brokers.flatMap(({ head }) => (head !== undefined && compareGroupNames(head.name, name) === 0 ? [head] : []));
  const generation = Math.max(0, ...told.map((each) => each.generation));
  // A broker whose metadata lag may still have the replica of a topic of this name that was deleted, or of an older generation.
  const current = told.filter((each) => each.topicId === topicId && each.generation === generation);
  const replicas = current.map(({ replica }) => replica).sort((a, b) => a.brokerId - b.brokerId);
  const silent = brokers.flatMap((broker) => broker.silent ?? []).sort((a, b) => a.brokerId - b.brokerId);
  const leading = newest(replicas.filter(({ role }) => role === 'leader'));
  const open = replicas.filter(({ role }) => role !== undefined);
  const newestOpen = newest(open);
  const configured = [...open].sort((a, b) => (b.configuration?.index ?? 0) - (a.configuration?.index ?? 0))[0];
  const group = {
    name: formatGroupName(name),
    ...name,
    topicId,
    generation,
    leader: leading === undefined ? leaderByHearsay(newestOpen, silent) : { brokerId: leading.brokerId, replicaId: leading.replicaId },
    term: (leading ?? newestOpen)?.term ?? 0,
    commitIndex: leading?.commitIndex ?? Math.max(0, ...open.map(({ commitIndex }) => commitIndex)),
    configuration: (leading ?? configured)?.configuration,
    inSync: leading?.inSync,
    replicas,
    silent,
  };
  return { ...group, problems: problemsOf(group, assigned) };
}

function newest(replicas: readonly RaftReplicaDescription[]): RaftReplicaDescription | undefined {
  return replicas.reduce<RaftReplicaDescription | undefined>(
    (best, each) => (best === undefined || each.term > best.term ? each : best),
    undefined,
  );
}

/** The leader that the others follow, where its own broker did not answer. */
function leaderByHearsay(newestOpen: RaftReplicaDescription | undefined, silent: readonly SilentBroker[]): RaftGroupDescription['leader'] {
  const leader = newestOpen?.leader;
  return leader !== undefined && silent.some(({ brokerId }) => brokerId === leader.brokerId) ? leader : undefined;
}

/** DescribeReplicas: what this broker's own Raft replicas know of their groups. Who asks puts the brokers' views side by side. */
import { create } from '@bufbuild/protobuf';
import { FlotillaError } from '../base/errors.ts';
import { compareGroupNames, formatGroupName, type GroupName, METADATA_NAME, parseGroupName } from '../base/group-name.ts';
import { encodeGroupKey, type GroupKey, METADATA_GROUP, METADATA_TOPIC_ID, type TopicId, topicIdToBytes } from '../base/ids.ts';
import { Admin } from '../gen/flotilla/v1/admin_pb.ts';
import {
  type DescribeReplicasRequest,
  type DescribeReplicasResponse,
  DescribeReplicasResponseSchema,
  RaftConfigurationSchema,
  type RaftFollower,
  RaftFollowerSchema,
  RaftMemberSchema,
  RaftMembership,
  RaftProgress,
  type RaftReplica,
  RaftReplicaSchema,
  RaftRole,
  RaftSnapshotSchema,
} from '../gen/flotilla/v1/raft_groups_pb.ts';
import type { PartitionImage, TopicImage } from '../metadata/image.ts';
import type { Configuration, Member, Role } from '../raft/core/types.ts';
import type { FollowerDescription, Membership, RaftHost, ReplicaDescription } from '../raft/types.ts';
import { type UnaryHandler, unaryHandler } from '../rpc/types.ts';
import { answerError, type BrokerContext } from './context.ts';

/** Replicas in one answer: some milliseconds of the event loop. */
export const MAX_REPLICAS_PER_PAGE = 250;

export type ReplicaSource = Pick<RaftHost, 'get' | 'pendingDiskBytes'>;

export function describeReplicasHandler(context: BrokerContext, host: ReplicaSource): [string, UnaryHandler] {
  const replicas = new OwnReplicas(context, host);
  return unaryHandler(Admin.method.describeReplicas, async (request, call) => {
    try {
      return replicas.page(request);
    } catch (error) {
      return create(DescribeReplicasResponseSchema, { error: answerError(context, call.listener, error) });
    }
  });
}

class OwnReplicas {
  readonly #context: BrokerContext;
  readonly #host: ReplicaSource;
  /** Names of topics in order, for as long as there are the same topics: a list of 10,000 groups asks for 40 pages. */
  #sorted: { readonly of: ReadonlyMap<string, TopicId>; readonly names: readonly string[] } | undefined;

  constructor(context: BrokerContext, host: ReplicaSource) {
    this.#context = context;
    this.#host = host;
  }

  /** Errors: INVALID_REQUEST (a malformed name), UNKNOWN_TOPIC_OR_PARTITION. */
  page({ group, topic, after, limit }: DescribeReplicasRequest): DescribeReplicasResponse {
    const most = limit === 0 ? MAX_REPLICAS_PER_PAGE : Math.min(limit, MAX_REPLICAS_PER_PAGE);
    const response = create(DescribeReplicasResponseSchema, { pendingDiskBytes: BigInt(this.#host.pendingDiskBytes) });
    const found = group === '' ? this.#after(topic, after === '' ? undefined : parseGroupName(after)) : this.#named(parseGroupName(group));
    for (const replica of found) {
      if (response.replicas.length === most) {
        response.more = true;
        break;
      }
      response.replicas.push(replica);
    }
    return response;
  }

  *#named(name: GroupName): Generator<RaftReplica> {
    if (name.topic === undefined) {
      yield* this.#metadataReplica();
      return;
    }
    const topic = this.#topic(name.topic);
    const partition = topic.partitions[name.partition];
    if (partition === undefined) {
      const last = topic.partitions.length - 1;
      throw new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', `Topic ${name.topic} has partitions 0 to ${last}, not ${name.partition}.`);
    }
    yield* this.#replicaOf(topic, partition);
  }

  *#after(only: string, after: GroupName | undefined): Generator<RaftReplica> {
    const isDue = (name: GroupName) => after === undefined || compareGroupNames(name, after) > 0;
    if (only === '' && isDue(METADATA_NAME)) yield* this.#metadataReplica();
    for (const name of only === '' ? this.#topicNames() : [only]) {
      if (after?.topic !== undefined && name < after.topic) continue;
      const topic = this.#topic(name);
      for (const partition of topic.partitions) {
        if (isDue({ topic: name, partition: partition.partition })) yield* this.#replicaOf(topic, partition);
      }
    }
  }

  *#metadataReplica(): Generator<RaftReplica> {
    const replica = this.#host.get(METADATA_GROUP);
    if (replica !== undefined) yield wireReplica(METADATA_NAME, { topicId: METADATA_TOPIC_ID, generation: 0 }, replica.describe());
  }

  /** The replica here, if there is one or should be one. */
  *#replicaOf({ topicId, name: topic }: TopicImage, { partition, groupGeneration, replicas }: PartitionImage): Generator<RaftReplica> {
    const name = { topic, partition };
    const identity = { topicId, generation: groupGeneration };
    const group = encodeGroupKey({ topicId, partition, groupGeneration });
    const open = this.#host.get(group);
    if (open !== undefined) {
      const replica = wireReplica(name, identity, open.describe());
      replica.cleanedTo = BigInt(open.log.cleanedTo);
      replica.tombstoneFloor = BigInt(open.log.tombstoneFloor);
      const here = this.#context.partitions.get(topicId, partition);
      if (here?.replica === open) replica.settledTo = BigInt(here.settledTo());
      yield replica;
      return;
    }
    const assigned = replicas.find(({ brokerId }) => brokerId === this.#context.config.nodeId);
    if (assigned === undefined) return;
    const replica = emptyReplica(name, identity);
    replica.replicaId = BigInt(assigned.replicaId);
    replica.notOpen = this.#whyNotOpen(group);
    yield replica;
  }

  #whyNotOpen(group: GroupKey): string {
    return this.#context.partitions.failureOf(group) ?? 'it is not open yet, or belongs to another data directory of this broker';
  }

  #topic(name: string): TopicImage {
    const { image } = this.#context.metadata;
    const topicId = image.topicIds.get(name);
    const topic = topicId === undefined ? undefined : image.topics.get(topicId);
    if (topic === undefined) throw new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', `There is no topic ${name}.`);
    return topic;
  }

  #topicNames(): readonly string[] {
    const { topicIds } = this.#context.metadata.image;
    if (this.#sorted?.of !== topicIds) this.#sorted = { of: topicIds, names: [...topicIds.keys()].sort() };
    return this.#sorted.names;
  }
}

interface Identity {
  readonly topicId: TopicId;
  readonly generation: number;
}

function emptyReplica(name: GroupName, { topicId, generation }: Identity): RaftReplica {
  return create(RaftReplicaSchema, { group: formatGroupName(name), topicId: topicIdToBytes(topicId), generation });
}

function wireReplica(name: GroupName, identity: Identity, described: ReplicaDescription): RaftReplica {
  const { leader, configuration, lastSnapshot } = described;
  const replica = emptyReplica(name, identity);
  replica.replicaId = BigInt(described.replicaId);
  replica.membership = memberships[described.membership];
  replica.role = roles[described.role];
  replica.term = BigInt(described.term);
  replica.leaderReplicaId = BigInt(leader?.replicaId ?? 0);
  replica.leaderBrokerId = leader?.brokerId ?? 0;
  replica.ready = described.ready;
  replica.commitIndex = BigInt(described.commitIndex);
  replica.appliedIndex = BigInt(described.appliedIndex);
  replica.lastIndex = BigInt(described.lastIndex);
  replica.durableIndex = BigInt(described.durableIndex);
  replica.firstReplicableIndex = BigInt(described.firstReplicableIndex);
  replica.nextOffset = BigInt(described.nextOffset);
  replica.quiesced = described.quiesced;
  replica.configuration = create(RaftConfigurationSchema, {
    index: BigInt(configuration.index),
    committed: configuration.committed,
    ageMs: BigInt(Math.round(configuration.ageMs)),
    ...wireMembers(configuration),
  });
  replica.followers = described.followers.map(wireFollower);
  replica.inSync = [...described.inSync];
  if (lastSnapshot !== undefined) {
    const { index, offset, bytes } = lastSnapshot;
    replica.lastSnapshot = create(RaftSnapshotSchema, { index: BigInt(index), offset: BigInt(offset), bytes: BigInt(bytes) });
  }
  replica.divergedIndex = BigInt(described.divergedIndex);
  replica.quarantined = described.quarantined ?? '';
  replica.damage = described.damage ?? '';
  replica.onProbation = described.onProbation;
  return replica;
}

function wireMembers({ voters, outgoing, learners }: Configuration) {
  const wire = ({ replicaId, brokerId, directoryId }: Member) =>
    create(RaftMemberSchema, { replicaId: BigInt(replicaId), brokerId, directoryId });
  return { voters: voters.map(wire), outgoing: outgoing.map(wire), learners: learners.map(wire) };
}

function wireFollower(follower: FollowerDescription): RaftFollower {
  return create(RaftFollowerSchema, {
    replicaId: BigInt(follower.replicaId),
    brokerId: follower.brokerId,
    membership: memberships[follower.membership],
    matchIndex: BigInt(follower.matchIndex),
    nextIndex: BigInt(follower.nextIndex),
    state: progresses[follower.state],
    inflightMessages: follower.inflightMessages,
    inflightBytes: BigInt(follower.inflightBytes),
  });
}

const roles: Readonly<Record<Role, RaftRole>> = {
  follower: RaftRole.FOLLOWER,
  preCandidate: RaftRole.PRE_CANDIDATE,
  candidate: RaftRole.CANDIDATE,
  leader: RaftRole.LEADER,
};

const memberships: Readonly<Record<Membership, RaftMembership>> = {
  voter: RaftMembership.VOTER,
  outgoing: RaftMembership.OUTGOING,
  learner: RaftMembership.LEARNER,
  none: RaftMembership.UNSPECIFIED,
};

const progresses: Readonly<Record<FollowerDescription['state'], RaftProgress>> = {
  probe: RaftProgress.PROBE,
  replicate: RaftProgress.REPLICATE,
  snapshot: RaftProgress.SNAPSHOT,
};

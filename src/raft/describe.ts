/** What a replica tells of itself and of its group: for people, through the broker's DescribeReplicas. */
import type { ReplicaId } from '../base/ids.ts';
import { isJoint } from './core/membership.ts';
import type { FollowerProgress } from './core/progress.ts';
import type { Configuration } from './core/types.ts';
import type { RaftReplica } from './replica.ts';
import type { FollowerDescription, Membership, ReplicaDescription } from './types.ts';

/** `configuredMs`: how long ago the configuration in force was first seen. */
export function describeReplica(replica: RaftReplica, configuredMs: number): ReplicaDescription {
  const { core, group, replicaId } = replica;
  const { configuration, configurationIndex: index } = core;
  return {
    group,
    replicaId,
    membership: membershipIn(configuration, replicaId),
    role: core.role,
    term: core.term,
    leader: core.leader === 0 ? undefined : { replicaId: core.leader, brokerId: replica.brokerOf(core.leader) },
    ready: core.isReady,
    commitIndex: core.commitIndex,
    appliedIndex: replica.log.lastIndex,
    lastIndex: core.lastIndex,
    durableIndex: core.durableIndex,
    firstReplicableIndex: replica.log.firstReplicableIndex,
    nextOffset: core.lastNextOffset,
    quiesced: replica.quiesced,
    configuration: {
      ...configuration,
      index,
      committed: index <= core.commitIndex,
      joint: isJoint(configuration),
      ageMs: configuredMs,
    },
    followers: core.progress().map((progress) => describeFollower(progress, configuration, core.lastIndex)),
    inSync: replica.inSync(),
    lastSnapshot: lastSnapshotOf(replica),
    divergedIndex: core.divergedIndex,
    quarantined: replica.quarantined,
    damage: replica.damage,
    onProbation: core.probation > 0,
  };
}

function lastSnapshotOf({ log: { lastSnapshot, sizeBytes } }: RaftReplica): ReplicaDescription['lastSnapshot'] {
  return lastSnapshot && { index: lastSnapshot.index, offset: lastSnapshot.nextOffset, bytes: sizeBytes };
}

function describeFollower(progress: FollowerProgress, configuration: Configuration, lastIndex: number): FollowerDescription {
  const { replicaId, brokerId, matchIndex, nextIndex, state, inflight } = progress;
  return {
    replicaId,
    brokerId,
    membership: membershipIn(configuration, replicaId),
    matchIndex,
    nextIndex,
    lag: lastIndex - matchIndex,
    state,
    inflightMessages: inflight.count,
    inflightBytes: inflight.bytes,
  };
}

function membershipIn({ voters, outgoing, learners }: Configuration, id: ReplicaId): Membership {
  const among = (members: Configuration['voters']) => members.some(({ replicaId }) => replicaId === id);
  if (among(voters)) return 'voter';
  if (among(outgoing)) return 'outgoing';
  return among(learners) ? 'learner' : 'none';
}

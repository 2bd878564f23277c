/** Replicas as brokers describe them, and groups as the SDK tells of them. Indexes count entries of the log, not records; 0: none. */
import { hex } from '../base/bytes.ts';
import type { FlotillaError } from '../base/errors.ts';
import type { GroupName } from '../base/group-name.ts';
import type {
  RaftConfiguration as WireConfiguration,
  RaftFollower as WireFollower,
  RaftReplica as WireReplica,
} from '../gen/flotilla/v1/raft_groups_pb.ts';

export type RaftRole = 'follower' | 'preCandidate' | 'candidate' | 'leader';

/** `outgoing`: a voter only of the old half of a joint configuration. `none`: no member. */
export type RaftMembership = 'voter' | 'outgoing' | 'learner' | 'none';

/** A Raft group: all that its brokers tell, side by side. They were asked at about the same time, not at one instant. */
export interface RaftGroupDescription {
  /** `TOPIC/PARTITION`, or `metadata`. */
  readonly name: string;
  /** Undefined: the metadata log. */
  readonly topic: string | undefined;
  readonly partition: number;
  /** 32 hex digits */
  readonly topicId: string;
  /** 0 at creation; raised by unsafe recovery. */
  readonly generation: number;
  /** The leader; of several that think they lead, the one of the highest term. Undefined: none. */
  readonly leader: { readonly brokerId: number; readonly replicaId: number } | undefined;
  /** The leader's; without one, the highest that a replica knows. */
  readonly term: number;
  /** The leader's; without one, the highest that a replica knows. */
  readonly commitIndex: number;
  /** The leader's; without one, the newest that a replica knows. Undefined: no replica answered. */
  readonly configuration: RaftConfiguration | undefined;
  /** Broker ids of voters within reach of the leader's end. Undefined: no leader answered. */
  readonly inSync: readonly number[] | undefined;
  /** By broker id. */
  readonly replicas: readonly RaftReplicaDescription[];
  /** Brokers that did not tell. */
  readonly silent: readonly SilentBroker[];
  /** What is wrong, the worst first. Empty: nothing. */
  readonly problems: readonly RaftProblem[];
}

/** What a replica knows of itself and of its group. */
export interface RaftReplicaDescription {
  readonly brokerId: number;
  readonly replicaId: number;
  /** Why the replica, which is assigned to this broker, is not open there; everything below is then empty. Undefined: it is open. */
  readonly notOpen: string | undefined;
  readonly membership: RaftMembership;
  /** Undefined: not open. */
  readonly role: RaftRole | undefined;
  readonly term: number;
  /** Whom it follows; itself as the leader. Undefined: it knows no leader; its broker is 0 where only the replica is known. */
  readonly leader: { readonly brokerId: number; readonly replicaId: number } | undefined;
  /** Leader, and the first entry of its term has committed: it serves. */
  readonly ready: boolean;
  readonly commitIndex: number;
  /** Committed entries up to here were handed to the partition, or the state machine. */
  readonly appliedIndex: number;
  readonly lastIndex: number;
  /** The log is synced to disk up to here. */
  readonly durableIndex: number;
  /** A follower that lacks what is below needs a snapshot. */
  readonly firstReplicableIndex: number;
  /** The offset after the last entry. */
  readonly nextOffset: number;
  /** The group is idle and its heartbeats rest. */
  readonly quiesced: boolean;
  readonly configuration: RaftConfiguration | undefined;
  /** Leader only: all other members. */
  readonly followers: readonly RaftFollower[];
  /** Leader only: broker ids of voters within reach of its end, its own included. */
  readonly inSync: readonly number[];
  /** Undefined: none was taken. */
  readonly lastSnapshot: RaftSnapshot | undefined;
  /** The first index at which a leader's entries did not continue this log. 0: none. */
  readonly divergedIndex: number;
  /** Why the replica takes no part although it is open. Undefined: it does. */
  readonly quarantined: string | undefined;
  /** Of a compacted partition: all below this offset was cleaned here. */
  readonly cleanedTo: number;
  /** Tombstones below this offset may go. */
  readonly tombstoneFloor: number;
  /** What rotted in its segments and is being put right. Undefined: nothing, as far as is known. */
  readonly damage: string | undefined;
  /** It could not prove its log whole, and counts for nothing until it has all that it can have acknowledged. */
  readonly onProbation: boolean;
  /** Bytes of all groups of its broker that wait for the disk. */
  readonly pendingDiskBytes: number;
}

/** A replica as its leader sees it. */
export interface RaftFollower {
  readonly brokerId: number;
  readonly replicaId: number;
  readonly membership: RaftMembership;
  /** The last index known to be the same, and durable, there. */
  readonly matchIndex: number;
  /** The next index to send. */
  readonly nextIndex: number;
  /** Entries of the leader's log that it is not known to hold. */
  readonly lag: number;
  /** `probe`: where the logs agree is being found out. `replicate`: entries are pipelined. `snapshot`: one is under way. */
  readonly state: 'probe' | 'replicate' | 'snapshot';
  /** Appends sent and not acknowledged. */
  readonly inFlight: { readonly messages: number; readonly bytes: number };
}

export interface RaftConfiguration {
  /** Of its entry; 0: from the group's creation. */
  readonly index: number;
  readonly committed: boolean;
  /** A change of voters is under way: majorities of both `voters` and `outgoing` are needed. */
  readonly joint: boolean;
  /** Milliseconds since the replica saw it come into force, in this life of its process. */
  readonly ageMs: number;
  readonly voters: readonly RaftMember[];
  readonly outgoing: readonly RaftMember[];
  readonly learners: readonly RaftMember[];
}

export interface RaftMember {
  readonly brokerId: number;
  readonly replicaId: number;
  /** 32 hex digits: the data directory that the replica is bound to. */
  readonly directoryId: string;
}

/** It stands for all entries up to `index`, and all records below `offset`. */
export interface RaftSnapshot {
  readonly index: number;
  readonly offset: number;
  readonly bytes: number;
}

export interface SilentBroker {
  readonly brokerId: number;
  /** The controller hears its heartbeats. */
  readonly alive: boolean;
  readonly error: FlotillaError;
}

/** From the worst down. */
export const raftProblemKinds = [
  'no-leader',
  'diverged',
  'quarantined',
  'damaged',
  'on-probation',
  'not-open',
  'no-answer',
  'two-leaders',
  'not-ready',
  'behind',
  'changing-members',
] as const;

export type RaftProblemKind = (typeof raftProblemKinds)[number];

export interface RaftProblem {
  readonly kind: RaftProblemKind;
  /** The broker that it is about. Undefined: the group as a whole. */
  readonly brokerId: number | undefined;
  readonly message: string;
}

/** A replica, and the group that it is of. */
export interface OwnedReplica {
  readonly topicId: string;
  readonly generation: number;
  readonly replica: RaftReplicaDescription;
}

export function readReplica(wire: WireReplica, brokerId: number, pendingDiskBytes: number): OwnedReplica {
  const lastIndex = Number(wire.lastIndex);
  const replica: RaftReplicaDescription = {
    brokerId,
    replicaId: Number(wire.replicaId),
    notOpen: wire.notOpen === '' ? undefined : wire.notOpen,
    membership: memberships[wire.membership] ?? 'none',
    role: roles[wire.role],
    term: Number(wire.term),
    leader: wire.leaderReplicaId === 0n ? undefined : { brokerId: wire.leaderBrokerId, replicaId: Number(wire.leaderReplicaId) },
    ready: wire.ready,
    commitIndex: Number(wire.commitIndex),
    appliedIndex: Number(wire.appliedIndex),
    lastIndex,
    durableIndex: Number(wire.durableIndex),
    firstReplicableIndex: Number(wire.firstReplicableIndex),
    nextOffset: Number(wire.nextOffset),
    quiesced: wire.quiesced,
    configuration: wire.configuration && readConfiguration(wire.configuration),
    followers: wire.followers.map((follower) => readFollower(follower, lastIndex)),
    inSync: wire.inSync,
    lastSnapshot: wire.lastSnapshot && {
      index: Number(wire.lastSnapshot.index),
      offset: Number(wire.lastSnapshot.offset),
      bytes: Number(wire.lastSnapshot.bytes),
    },
    divergedIndex: Number(wire.divergedIndex),
    quarantined: wire.quarantined === '' ? undefined : wire.quarantined,
    cleanedTo: Number(wire.cleanedTo),
    tombstoneFloor: Number(wire.tombstoneFloor),
    damage: wire.damage === '' ? undefined : wire.damage,
    onProbation: wire.onProbation,
    pendingDiskBytes,
  };
  return { topicId: hex(wire.topicId), generation: wire.generation, replica };
}

function readConfiguration({ index, committed, ageMs, voters, outgoing, learners }: WireConfiguration): RaftConfiguration {
  return {
    index: Number(index),
    committed,
    joint: outgoing.length > 0,
    ageMs: Number(ageMs),
    voters: voters.map(readMember),
    outgoing: outgoing.map(readMember),
    learners: learners.map(readMember),
  };
}

function readMember({ brokerId, replicaId, directoryId }: WireConfiguration['voters'][number]): RaftMember {
  return { brokerId, replicaId: Number(replicaId), directoryId };
}

function readFollower(wire: WireFollower, lastIndex: number): RaftFollower {
  const matchIndex = Number(wire.matchIndex);
  return {
    brokerId: wire.brokerId,
    replicaId: Number(wire.replicaId),
    membership: memberships[wire.membership] ?? 'none',
    matchIndex,
    nextIndex: Number(wire.nextIndex),
    lag: lastIndex - matchIndex,
    state: progresses[wire.state] ?? 'probe',
    inFlight: { messages: wire.inflightMessages, bytes: Number(wire.inflightBytes) },
  };
}

/** By the numbers of the protocol's enumerations; a newer broker's are not known. */
const roles: readonly (RaftRole | undefined)[] = [undefined, 'follower', 'preCandidate', 'candidate', 'leader'];
const memberships: readonly (RaftMembership | undefined)[] = ['none', 'voter', 'outgoing', 'learner'];
const progresses: readonly (RaftFollower['state'] | undefined)[] = [undefined, 'probe', 'replicate', 'snapshot'];

/** What is known of a group before its brokers are asked. */
export interface KnownGroup {
  readonly name: GroupName;
  /** Brokers that should have a replica. */
  readonly assigned: readonly number[];
  /** 32 hex digits */
  readonly topicId: string;
}

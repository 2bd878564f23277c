/**
 * The Raft host's interfaces: many groups on one turn loop, over one write-ahead log and one stream per broker pair.
 */
import type { BrokerId, ClusterId, DirectoryId, GroupKey, ReplicaId } from '../base/ids.ts';
import type { LogSettings, PartitionLog } from '../storage/types.ts';
import type { Entry } from './core/entry.ts';
import type { Members } from './core/membership.ts';
import type { ProgressState } from './core/progress.ts';
import type { RaftCore } from './core/raft.ts';
import type { Configuration, Proposal, RaftOptions, Role } from './core/types.ts';
import type { RepairStatistics } from './repairs.ts';

/** What the host runs a replica for: a partition, or a replicated state machine. All calls are synchronous and in log order. */
export interface ReplicaOwner {
  /** Newly committed entries, consecutive, each exactly once per process life. */
  apply(entries: readonly Entry[]): void;
  /** Role, term or leader changed. As leader, `ready` is false until the own-term no-op has committed (hazard B21), then this is called again. */
  leadershipChanged(leadership: Leadership): void;
  /**
   * Entries were appended to this replica's log, not yet committed: for producer state (hazard B30). On a leader, inside `propose`, before it
   * returns; on a follower, in the turn; at open, for the entries that recovery found above the segments.
   */
  appended(entries: readonly Entry[]): void;
  /** Entries above `index` were cut off before they committed; the log now ends at `nextOffset`. */
  truncated(index: number, nextOffset: number): void;
  /**
   * A snapshot took the place of the log, which now starts and ends elsewhere: what was appended or applied before is in it, or void. `log.snapshot` has the
   * state as of its last entry. Nothing else is told before this resolves; if it rejects, the replica is closed.
   */
  restored(): Promise<void>;
  /** The leader's view of what is durable moved (its own copy or a follower's): for acks=leader and min.insync.replicas. */
  progressed(): void;
}

export interface Leadership {
  readonly role: Role;
  readonly term: number;
  /** Undefined: not known. */
  readonly leader: { readonly replicaId: ReplicaId; readonly brokerId: BrokerId } | undefined;
  /** Leader, and the own-term no-op has committed. */
  readonly ready: boolean;
}

export interface ReplicaOptions {
  readonly group: GroupKey;
  readonly replicaId: ReplicaId;
  /** The configuration at the group's creation; a later one in the log wins. */
  readonly configuration: Configuration;
  readonly settings: LogSettings;
  /** Campaign at once (the quorum chose this replica as the new partition's first leader). */
  readonly campaign: boolean;
  /** A topic of the system's own, which others wait for: when a broker dies it has its leader before they have. Default false. */
  readonly internal?: boolean;
  /**
   * When its log can't be proved whole it returns under its own id, empty and on probation (docs/adr/0008): for a group whose replicas nobody replaces.
   * Default false: it is not opened.
   */
  readonly mayReturn?: boolean;
  /** See Storage.openLog. Default false. */
  readonly latest?: boolean;
  readonly owner: (replica: Replica) => ReplicaOwner;
}

export interface Replica {
  readonly group: GroupKey;
  readonly replicaId: ReplicaId;
  readonly log: PartitionLog;
  readonly leadership: Leadership;
  /** The last one in the log, committed or not. */
  readonly configuration: Configuration;
  /** Of its entry; 0: from the group's creation. */
  readonly configurationIndex: number;
  readonly lastIndex: number;
  /** The offset after the last appended entry: what the next proposal's first record gets. */
  readonly nextOffset: number;
  readonly commitIndex: number;
  /** The highest index that is durable on at least `count` voters, this leader's own copy counted once synced. Leader only. */
  durableOn(count: number): number;
  /** The highest index durable here. */
  readonly durableIndex: number;
  /** Broker ids of voters whose match index is within reach of the leader's end. Leader only. */
  inSync(): readonly BrokerId[];
  /**
   * Appends to the leader's log, synchronously: order needs no lock. The entry commits, or a `truncated` call follows.
   * Throws NOT_LEADER_OR_FOLLOWER, or THROTTLING_QUOTA_EXCEEDED when too much is uncommitted.
   */
  propose(proposal: Proposal): { readonly index: number; readonly term: number; readonly nextOffset: number };
  /** Confirms leadership with a majority (ReadIndex); resolves with the index that must be applied before reading. */
  readIndex(signal: AbortSignal): Promise<number>;
  /** Leader: lets `to` campaign once it has caught up. Resolves when this replica is no longer the leader; rejects when the transfer timed out. */
  transferLeadership(to: ReplicaId, signal: AbortSignal): Promise<void>;
  /**
   * Leader: begins a change of the group's members (see RaftCore.proposeMembers) and returns the index of its entry. {@link configuration} tells how far it
   * is: joint while both majorities are needed, then without `outgoing`; what is at or below {@link commitIndex} has committed.
   * Throws NOT_LEADER_OR_FOLLOWER, REASSIGNMENT_IN_PROGRESS, INELIGIBLE_REPLICA, INVALID_REQUEST.
   */
  changeMembers(target: Members): number;
  /** Pre-campaigns now, through PreVote. */
  campaign(): void;
  /** The group is idle and its heartbeats rest, until anything happens in it. */
  readonly quiesced: boolean;
  /** Why this replica takes no part although it is open: a majority of the voters has another log (hazard B29). Undefined: it does. */
  readonly quarantined: string | undefined;
  /** Everything that this replica knows of its group, at this moment: for people. Costs some objects, changes nothing. */
  describe(): ReplicaDescription;
}

/** A replica and its view of the group. Indexes count entries, not records; 0: none. */
export interface ReplicaDescription {
  readonly group: GroupKey;
  readonly replicaId: ReplicaId;
  readonly membership: Membership;
  readonly role: Role;
  readonly term: number;
  /** Undefined: not known. Its broker is undefined while this replica can't tell where the leader is. */
  readonly leader: { readonly replicaId: ReplicaId; readonly brokerId: BrokerId | undefined } | undefined;
  /** Leader, and the own-term no-op has committed. */
  readonly ready: boolean;
  readonly commitIndex: number;
  /** Committed entries up to here were handed to the owner. */
  readonly appliedIndex: number;
  readonly lastIndex: number;
  readonly durableIndex: number;
  /** What is below can't be sent to a follower any more. */
  readonly firstReplicableIndex: number;
  /** The offset after the last entry. */
  readonly nextOffset: number;
  readonly quiesced: boolean;
  readonly configuration: ConfigurationDescription;
  /** Leader only: all other members. */
  readonly followers: readonly FollowerDescription[];
  /** As {@link Replica.inSync}. */
  readonly inSync: readonly BrokerId[];
  readonly lastSnapshot: SnapshotDescription | undefined;
  /** The first index at which a leader's entries did not continue this log (hazard B29). 0: none. */
  readonly divergedIndex: number;
  /** Why this replica takes no part although it is open. Undefined: it does. */
  readonly quarantined: string | undefined;
  /** What rotted in its segments and is being put right. Undefined: nothing, as far as is known. */
  readonly damage: string | undefined;
  /** Could not prove its log whole, and takes part again once it has all that it can have acknowledged. */
  readonly onProbation: boolean;
}

/** A voter (of the incoming configuration too), only of the outgoing voters of a joint configuration, a learner, or no member. */
export type Membership = 'voter' | 'outgoing' | 'learner' | 'none';

export interface ConfigurationDescription extends Configuration {
  /** Of its entry; 0: from the group's creation. */
  readonly index: number;
  readonly committed: boolean;
  /** Two majorities are needed: a change of voters is under way. */
  readonly joint: boolean;
  /** Milliseconds since this replica saw it come into force, in this life of its process. */
  readonly ageMs: number;
}

export interface FollowerDescription {
  readonly replicaId: ReplicaId;
  readonly brokerId: BrokerId;
  readonly membership: Membership;
  /** The last index known to be the same, and durable, there. */
  readonly matchIndex: number;
  readonly nextIndex: number;
  /** Entries of the leader's log that it is not known to hold. */
  readonly lag: number;
  readonly state: ProgressState;
  /** Append messages sent and not acknowledged, and their bytes of entries. */
  readonly inflightMessages: number;
  readonly inflightBytes: number;
}

/** A snapshot of a replica: it stands for all entries up to `index`, and all records below `offset`. */
export interface SnapshotDescription {
  readonly index: number;
  readonly offset: number;
  readonly bytes: number;
}

export interface RaftHost {
  /** Opens the log, recovers, joins the turn loop. */
  open(options: ReplicaOptions): Promise<Replica>;
  /** Stops taking part; the log is flushed and closed, its data kept. */
  close(group: GroupKey): Promise<void>;
  /** Stops and deletes the data, on a committed tombstone only. */
  remove(group: GroupKey): Promise<void>;
  get(group: GroupKey): Replica | undefined;
  readonly replicas: Iterable<Replica>;
  /** Brokers to talk to; the host keeps a stream to each. */
  setPeers(peers: readonly Peer[]): void;
  /** True while the broker's heartbeats arrive. */
  isAlive(broker: BrokerId): boolean;
  /** A segment of the group's log, by its first index, was found damaged: it is put right from the other replicas. */
  repair(group: GroupKey, firstIndex: number): void;
  /** Resolves with true when nothing of the log is known to be damaged any more; with false when the replica was closed before, or is to be replaced. */
  untilWhole(group: GroupKey): Promise<boolean>;
  /** What is damaged of the group's log here, for a person; undefined: nothing, as far as is known. */
  damageOf(group: GroupKey): string | undefined;
  /** Of all groups. */
  readonly repairs: RepairStatistics;
  /** Bytes of all groups that wait for this broker's disk. */
  readonly pendingDiskBytes: number;
  /** How much room the disk has left. Less than ample: leaderships go to brokers that have more; none: entries of others but the metadata's are not taken. */
  setRoom(room: Room): void;
  stop(): Promise<void>;
}

/** Of a disk (hazard B37). low: no records are to be taken. none: what was kept back for the worst is in use. */
export type Room = 'ample' | 'low' | 'none';

export interface Peer {
  readonly brokerId: BrokerId;
  readonly address: string;
  /** Undefined: not known yet (while forming). */
  readonly directoryId: DirectoryId | undefined;
}

/** Three independent lanes to each peer: heartbeats never wait behind appends, and neither behind a snapshot. */
export type Lane = 'raft' | 'heartbeat' | 'bulk';

/**
 * Frames between brokers: gRPC streams in production, memory in simulation. Frames of one (peer, lane) arrive in order or not at all;
 * a broken connection loses what was in flight. The transport reconnects by itself with backoff.
 */
export interface PeerTransport {
  /** Called once, before anything else. */
  start(receiver: PeerReceiver): void;
  setPeers(peers: readonly Peer[]): void;
  /**
   * Takes the frame, in parts that leave back to back and never change, or returns false (not connected, or over the bound of bytes buffered): it
   * is lost, Raft retries.
   */
  send(to: BrokerId, lane: Lane, frame: readonly Uint8Array[]): boolean;
  close(): Promise<void>;
}

export interface PeerReceiver {
  frame(from: BrokerId, lane: Lane, frame: Uint8Array): void;
  connected(broker: BrokerId, lane: Lane): void;
  disconnected(broker: BrokerId, lane: Lane): void;
}

/** Makes a group's core. What it makes does what a {@link RaftCore} does; it may tell of it, as traces do (test/spec). */
export type MakeCore = (options: RaftOptions, group: GroupKey) => RaftCore;

/** Says who calls, on each stream between brokers; a mismatch is refused. */
export interface PeerIdentity {
  readonly clusterId: ClusterId;
  readonly brokerId: BrokerId;
  readonly directoryId: DirectoryId;
  readonly incarnation: number;
}

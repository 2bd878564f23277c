/**
 * What goes into and comes out of the Raft core. The core is a pure, deterministic state machine: inputs are
 * {@link Message}s, ticks, proposals and completions of persistence; the output is a {@link Ready}.
 */
import type { BrokerId, DirectoryId, ReplicaId } from '../../base/ids.ts';
import type { Entry, EntryKind } from './entry.ts';

/** Raft's durable state of a group (paper, figure 2), written as one checksummed record (hazards B01, B02). `commit` is a hint that may lag. */
export interface HardState {
  readonly term: number;
  /** 0: voted for nobody in this term. */
  readonly vote: ReplicaId | 0;
  readonly commit: number;
}

/** A voter or learner and the disk it is bound to (hazard B14). */
export interface Member {
  readonly replicaId: ReplicaId;
  readonly brokerId: BrokerId;
  readonly directoryId: DirectoryId;
}

/** The members of a group. A joint configuration (Raft thesis 4.3) has `outgoing` voters too; majorities of both are needed. */
export interface Configuration {
  readonly voters: readonly Member[];
  readonly outgoing: readonly Member[];
  readonly learners: readonly Member[];
}

export type Role = 'follower' | 'preCandidate' | 'candidate' | 'leader';

interface Envelope {
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  readonly term: number;
}

export interface AppendRequest extends Envelope {
  readonly type: 'append';
  readonly prevIndex: number;
  readonly prevTerm: number;
  readonly commit: number;
  /** Consecutive, the first at prevIndex + 1. Empty: a probe or a commit notice. */
  readonly entries: readonly Entry[];
}

export interface AppendResponse extends Envelope {
  readonly type: 'appendResponse';
  /** Accepted: the follower's log matches the leader's up to `matchIndex` AND is durable there. Rejected: see hints. */
  readonly rejected: boolean;
  readonly matchIndex: number;
  /** When rejected: the prevIndex that did not match, and the follower's best guess of where its log matches (etcd's findConflictByTerm). */
  readonly rejectedIndex: number;
  readonly hintIndex: number;
  readonly hintTerm: number;
  /** The follower is on probation, in a life of its process that has this number: what it had acknowledged before may be lost. 0: it is not. */
  readonly probation: number;
}

export interface VoteRequest extends Envelope {
  readonly type: 'vote';
  /** A pre-vote: `term` is the term the candidate would campaign at; nobody's term changes by it. */
  readonly pre: boolean;
  readonly lastIndex: number;
  readonly lastTerm: number;
  /** The leader told this candidate to campaign (TimeoutNow), so leases don't count against it. */
  readonly transfer: boolean;
}

export interface VoteResponse extends Envelope {
  readonly type: 'voteResponse';
  readonly pre: boolean;
  readonly granted: boolean;
  /** A pre-vote that was refused because the voter's log is ahead of the candidate's, and for nothing else: where it ends. Otherwise 0. */
  readonly lastIndex: number;
  readonly lastTerm: number;
}

/** Asks a voter for the entries after those at which the two logs agree for certain: see pull.ts. */
export interface PullRequest extends Envelope {
  readonly type: 'pull';
  readonly prevIndex: number;
  readonly prevTerm: number;
}

export interface PullResponse extends Envelope {
  readonly type: 'pullResponse';
  readonly prevIndex: number;
  readonly prevTerm: number;
  /** Consecutive, the first at prevIndex + 1. */
  readonly entries: readonly Entry[];
  /** Where the sender's log ends. */
  readonly lastIndex: number;
  readonly lastTerm: number;
}

/**
 * A leader's heartbeat for one group. In the host these come out of the node-level heartbeat channel.
 * `commit` is at most the follower's acknowledged matchIndex. `readContext` > 0 asks to confirm leadership (ReadIndex, thesis 6.4).
 */
export interface HeartbeatRequest extends Envelope {
  readonly type: 'heartbeat';
  readonly commit: number;
  readonly readContext: number;
  /** The group rests from here on: `commit` is where the leader's log ends. A follower whose log ends there too rests and does not answer. */
  readonly quiesce: boolean;
  /** The leader's log, for the follower to compare with its own (hazard B29). */
  readonly check: LogCheck | undefined;
  /** `check` is what a majority of the voters have: a replica that has something else there is damaged. */
  readonly verdict: boolean;
  /** The probation with this number is over. 0: none is. */
  readonly over: number;
}

export interface HeartbeatResponse extends Envelope {
  readonly type: 'heartbeatResponse';
  readonly readContext: number;
  /** The follower does not rest though its leader may: that is to wake. Other answers come late, and wake nobody. */
  readonly awake: boolean;
  /** The follower's log where the heartbeat's check asked, or where an append did not continue it. Undefined: not asked, or not in memory. */
  readonly check: LogCheck | undefined;
}

/** All of a log up to an index, in one number: its chain there (chain.ts). */
export interface LogCheck {
  readonly index: number;
  readonly chainHigh: number;
  readonly chainLow: number;
}

/** The leader tells its successor to campaign at once (thesis 3.10). */
export interface TimeoutNow extends Envelope {
  readonly type: 'timeoutNow';
}

export type Message =
  | AppendRequest
  | AppendResponse
  | VoteRequest
  | VoteResponse
  | PullRequest
  | PullResponse
  | HeartbeatRequest
  | HeartbeatResponse
  | TimeoutNow;

/** What a person or program proposes; index, term, chain and header are the leader's. */
export interface Proposal {
  readonly kind: EntryKind;
  readonly payload: Uint8Array;
  /** Offsets it takes: 0 for Raft's own kinds and state machines. */
  readonly recordCount: number;
  readonly payloadChecksum: number;
}

/**
 * Work that the core asks its host for. The host takes everything of a Ready and, in this order: sends `messages`; hands
 * `hardState`, `truncateTo` and `entries` to the write-ahead log as one unit, in the order in which Readys of this group came;
 * when that unit is durable, calls `persisted(token)` and then sends `afterPersist`. `committed` may be applied at once.
 */
export interface Ready {
  /** Present when there is something to persist. Monotone per group; completions come back in this order (hazards B07-B09). */
  readonly persist: PersistUnit | undefined;
  /** May leave at once: leader's appends, heartbeats, requests for pre-votes. */
  readonly messages: readonly Message[];
  /** May leave only once `persist` (and all before it) is durable: votes, vote requests of a real election, append responses (hazard B01). */
  readonly afterPersist: readonly Message[];
  /** Newly committed entries, consecutive, from memory. */
  readonly committed: readonly Entry[];
  /** Replicas that need entries which are no longer in memory here: the host reads them from segments and calls `supplyEntries`. */
  readonly reads: readonly EntriesWanted[];
  /**
   * Followers, or candidates that pull, that need entries below the log's start: the host brings them a snapshot, and calls `snapshotDone` in any case.
   */
  readonly snapshots: readonly SnapshotWanted[];
  /** ReadIndex requests that are confirmed: serve when applied >= index. */
  readonly readStates: readonly ReadState[];
  /** Present when role, term or leader changed since the last Ready. */
  readonly softState: SoftState | undefined;
}

export interface PersistUnit {
  readonly token: number;
  readonly hardState: HardState | undefined;
  /** Entries above this index are cut off before `entries` are appended. */
  readonly truncateTo: number | undefined;
  readonly entries: readonly Entry[];
}

export interface EntriesWanted {
  readonly to: ReplicaId;
  readonly fromIndex: number;
  readonly maxBytes: number;
}

export interface SnapshotWanted {
  readonly to: ReplicaId;
}

export interface ReadState {
  readonly context: number;
  readonly index: number;
}

export interface SoftState {
  readonly role: Role;
  readonly term: number;
  /** 0: not known. */
  readonly leader: ReplicaId | 0;
}

/** Where the log of a restarted group stands: what is only in segments, and the entries above that are in memory. */
export interface InitialLog {
  /** The last entry before `tail`: index 0 and all zero for a new group. */
  readonly base: LogPosition;
  /** Consecutive, the first at base.index + 1; all durable. */
  readonly tail: readonly Entry[];
  /** First index of each term in the log up to base, ascending. */
  readonly terms: readonly TermStart[];
  /** The first index that can be sent to a follower. 1 for a whole log. */
  readonly firstReplicableIndex: number;
}

export interface LogPosition {
  readonly index: number;
  readonly term: number;
  readonly nextOffset: number;
  readonly chainHigh: number;
  readonly chainLow: number;
}

export interface TermStart {
  readonly term: number;
  readonly index: number;
}

export interface RaftOptions {
  readonly id: ReplicaId;
  readonly hardState: HardState;
  readonly configuration: Configuration;
  /** The index of the configuration's entry; 0: from the group's creation. */
  readonly configurationIndex: number;
  readonly log: InitialLog;
  /** Ticks without a leader before a follower campaigns; the actual timeout is drawn from [electionTicks, 2 * electionTicks). */
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  /** Ticks in which a leader has nothing to do before its group rests. Default 0: never. */
  readonly quiesceTicks?: number;
  /**
   * The host knows that nobody hears of the broker. A group rests without its members there, as long as the others are a majority; when the broker is
   * back, the host wakes it. Called only inside tick. Default: none is away.
   */
  readonly isAway?: (broker: BrokerId) => boolean;
  /** A uniform 32-bit integer. Called only inside tick and step, so a replay draws the same. */
  readonly uint32: () => number;
  /**
   * Not 0: this replica can't prove what it voted and acknowledged before (hazard B03), and this number is new. It gives no vote, campaigns never, and counts
   * for nothing, until a leader says that it has all that it can have acknowledged (docs/adr/0008). Default 0.
   */
  readonly probation?: number;
  /** Bytes of entries in one append message. Default 1 MiB. */
  readonly maxAppendBytes: number;
  /** Bytes of entries in flight to one follower. Default 8 MiB. */
  readonly maxInflightBytes: number;
  /** Append messages in flight to one follower. Default 256. */
  readonly maxInflightMessages: number;
  /** Uncommitted bytes of a leader; a proposal beyond it is refused. Default 64 MiB. */
  readonly maxUncommittedBytes: number;
  /** Bytes of released entries kept in memory for followers that are a little behind. Default 16 MiB. */
  readonly maxWindowBytes?: number;
}

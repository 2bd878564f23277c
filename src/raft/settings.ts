/** See {@link RaftHostSettings.campaignsPerPace}. */
export const CAMPAIGN_PACE_MS = 100;

/** What a Raft host can be tuned by, and the bounds that it keeps. */
export interface RaftHostSettings {
  /** Milliseconds between two ticks of all groups. */
  readonly tickMs: number;
  /** Ticks without a leader before a follower campaigns, drawn from [electionTicks, 2 * electionTicks). */
  readonly electionTicks: number;
  /** Milliseconds between two heartbeats to each peer. */
  readonly heartbeatMs: number;
  /** Milliseconds without a heartbeat after which a peer counts as down. */
  readonly heartbeatTimeoutMs: number;
  /** Milliseconds in which a group has nothing to do before it rests: then it costs neither ticks nor heartbeats. 0: never. */
  readonly quiesceAfterMs: number;
  /** When a broker dies, so many of the groups that it led begin their elections each {@link CAMPAIGN_PACE_MS}. */
  readonly campaignsPerPace: number;
  /** The disk is fresh while no flush has been waiting for longer than this. */
  readonly diskFreshMs: number;
  /** The event loop is fresh while a tick comes no later than this. */
  readonly loopFreshMs: number;
  /** A leader whose flush has been waiting for longer than this, or whose loop has been late for as long, hands over to a voter that keeps up (hazard B38). */
  readonly handOverStallMs: number;
  /** A flush that has been waiting for longer than this ends the process: others are to take its place (hazard B38). */
  readonly fatalStallMs: number;
  /** A voter is in sync that holds what was committed this long ago (at most twice as long). Kafka: replica.lag.time.max.ms. */
  readonly inSyncLagMs: number;
  /** Deadline of {@link import('./types.ts').Replica.readIndex}. */
  readonly readTimeoutMs: number;
  /** Deadline of {@link import('./types.ts').Replica.transferLeadership}. */
  readonly transferTimeoutMs: number;
  /** Deadline of closing a group and of stopping the host. */
  readonly stopTimeoutMs: number;
  /** Bytes that wait for the write-ahead log, and committed ones that wait for segments; proposals beyond it are refused. */
  readonly maxPendingDiskBytes: number;
  /** The same bytes, beyond which a follower takes no more entries: its leaders send them again. */
  readonly maxPendingAppendBytes: number;
  /** Bytes of entries that are being read from segments for followers that lag, over all groups. */
  readonly maxCatchUpBytes: number;
  /** Bytes of such entries in a second, over all groups: what is left is for producers. */
  readonly catchUpBytesPerSecond: number;
  /** Snapshots that are sent, and that are received, at the same time. */
  readonly maxSnapshotTransfers: number;
  /** Bytes of snapshots that this broker sends in a second, over all. */
  readonly snapshotBytesPerSecond: number;
  /** Bytes of one chunk of a snapshot, and chunks that a follower asks for ahead. */
  readonly snapshotChunkBytes: number;
  readonly snapshotWindowChunks: number;
  /** What was lost of a snapshot's way is offered, or asked for, again after so long. */
  readonly snapshotRetryMs: number;
  /** A snapshot that comes no further for so long is given up. */
  readonly snapshotTimeoutMs: number;
  /** See RaftOptions in raft/core/types.ts. */
  readonly maxAppendBytes: number;
  readonly maxInflightBytes: number;
  readonly maxInflightMessages: number;
  readonly maxUncommittedBytes: number;
  /** Bytes that each group keeps in memory, though they are in segments, for followers that are a little behind. */
  readonly maxWindowBytes: number;
}

export const defaultRaftHostSettings: RaftHostSettings = {
  tickMs: 50,
  electionTicks: 10,
  heartbeatMs: 100,
  heartbeatTimeoutMs: 600,
  quiesceAfterMs: 300,
  campaignsPerPace: 1_000,
  diskFreshMs: 200,
  loopFreshMs: 200,
  handOverStallMs: 2_000,
  fatalStallMs: 20_000,
  inSyncLagMs: 5_000,
  readTimeoutMs: 5_000,
  transferTimeoutMs: 2_000,
  stopTimeoutMs: 5_000,
  maxPendingDiskBytes: 64 * 1024 * 1024,
  maxPendingAppendBytes: 256 * 1024 * 1024,
  maxCatchUpBytes: 32 * 1024 * 1024,
  catchUpBytesPerSecond: 128 * 1024 * 1024,
  maxSnapshotTransfers: 4,
  snapshotBytesPerSecond: 1024 * 1024 * 1024,
  snapshotChunkBytes: 512 * 1024,
  snapshotWindowChunks: 8,
  snapshotRetryMs: 1_000,
  snapshotTimeoutMs: 30_000,
  maxAppendBytes: 1024 * 1024,
  maxInflightBytes: 8 * 1024 * 1024,
  maxInflightMessages: 256,
  maxUncommittedBytes: 64 * 1024 * 1024,
  maxWindowBytes: 4 * 1024 * 1024,
};

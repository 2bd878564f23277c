import type { SeededRandom } from './random.ts';

/** A seed's mix of load. */
export interface WorkloadShape {
  readonly topics: number;
  readonly partitions: number;
  /** Of each partition. */
  readonly replicas: number;
  readonly producers: number;
  readonly consumers: number;
  /** Milliseconds between two sends of a producer, on average. */
  readonly sendEveryMs: number;
  /** Bytes that a value is padded to, at most. */
  readonly valueBytes: number;
  readonly deliveryTimeoutMs: number;
  readonly maxInFlight: number;
  readonly maxBatchBytes: number;
  readonly segmentBytes: number;
  /** Kafka's retention.bytes and retention.ms of each topic; -1: for ever. */
  readonly retentionBytes: number;
  readonly retentionMs: number;
  /** The topics are compacted. Undefined: they are not. */
  readonly compaction?: CompactionShape | undefined;
  /** Somebody deletes records now and then. */
  readonly deletesRecords: boolean;
  /** Topics are created, used and deleted, and leaderships moved, all the while. */
  readonly administers: boolean;
  /** Now and then topics get nothing for seconds, so that their groups come to rest. */
  readonly rests: boolean;
}

export interface CompactionShape {
  /** Keys that are written to at a time. */
  readonly keys: number;
  /** The share of records that delete their key. */
  readonly tombstones: number;
  /** Kafka's delete.retention.ms, min.cleanable.dirty.ratio, min.compaction.lag.ms and max.compaction.lag.ms. */
  readonly deleteRetentionMs: number;
  readonly dirtyRatio: number;
  readonly minLagMs: number;
  readonly maxLagMs: number;
  /** Records go by age and size as well. */
  readonly deletes: boolean;
}

export function drawCompaction(random: SeededRandom): CompactionShape {
  return {
    keys: random.pick([1, 3, 10]),
    tombstones: random.pick([0.1, 0.3, 0.6]),
    deleteRetentionMs: random.pick([500, 1_500, 5_000]),
    dirtyRatio: random.pick([0.01, 0.3, 0.5]),
    minLagMs: random.pick([0, 0, 0, 1_000]),
    maxLagMs: random.pick([1_000, 1_000, 5_000, 600_000]),
    deletes: random.chance(0.2),
  };
}

export function drawWorkload(random: SeededRandom, brokers: number): WorkloadShape {
  return {
    topics: random.pick([1, 1, 2]),
    partitions: random.pick([1, 2, 4]),
    replicas: Math.min(brokers, random.pick([1, 2, 3, 3, 3, 3, 3, 3, 5])),
    producers: random.pick([1, 2, 3]),
    consumers: random.pick([1, 1, 2]),
    sendEveryMs: random.pick([6, 20, 50]),
    valueBytes: random.pick([16, 16, 200, 2000]),
    deliveryTimeoutMs: random.pick([1_000, 5_000, 120_000]),
    maxInFlight: random.pick([1, 5, 5]),
    maxBatchBytes: random.pick([3_000, 30_000, 80_000]),
    segmentBytes: random.pick([4_000, 50_000, 1 << 30]),
    administers: random.chance(0.4),
    rests: random.chance(0.4),
    retentionBytes: random.pick([-1, -1, -1, -1, 20_000, 200_000]),
    retentionMs: random.pick([-1, -1, -1, -1, -1, 10_000]),
    deletesRecords: random.chance(0.2),
  };
}

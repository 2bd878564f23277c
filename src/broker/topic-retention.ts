/**
 * retention.topic.bytes: a topic keeps at least so much, all its partitions together, and the oldest segments go first, whatever partitions they are of.
 * Each broker reckons for itself from what all leaders say, and moves the partitions that it leads: the order of segments is the same for all of them (as
 * far as a partition's timestamps grow), so together they delete no more than one alone would. What a leader that does not answer has counts as nothing,
 * so the others keep more.
 */
import type { PartitionLog } from '../storage/types.ts';

export interface SegmentSize {
  /** Behind its last record. */
  readonly nextOffset: number;
  readonly sizeBytes: number;
  /** Milliseconds since the epoch; -1: it has no records. */
  readonly maxTimestampMs: number;
}

export type MeasuredLog = Pick<PartitionLog, 'nextOffset' | 'sizeBytes' | 'segments'>;

export interface MeasuredSegment extends Omit<SegmentSize, 'maxTimestampMs'> {
  /** Milliseconds since the epoch; -1: it has no records. Costs a read. */
  maxTimestamp(): Promise<number>;
}

/** The segments of a log, in their order; the last one with what is not written yet. */
export async function* measuredSegments(log: MeasuredLog): AsyncGenerator<MeasuredSegment> {
  const end = log.nextOffset;
  const segments = log.segments();
  let left = log.sizeBytes;
  for (const [at, segment] of segments.entries()) {
    const next = segments[at + 1];
    const sizeBytes = next === undefined ? left : await segment.payloadBytes();
    left -= sizeBytes;
    yield { nextOffset: next?.base.offset ?? end, sizeBytes, maxTimestamp: () => segment.maxTimestamp() };
  }
}

/** The offsets that partitions are to start at, of those that lose something. */
export function retainedOfTopic(partitions: ReadonlyMap<number, readonly SegmentSize[]>, bytes: number): Map<number, number> {
  const starts = new Map<number, number>();
  let excess = -bytes;
  for (const segments of partitions.values()) for (const { sizeBytes } of segments) excess += sizeBytes;
  for (const { partition, sizeBytes, nextOffset } of oldestFirst(partitions)) {
    if (sizeBytes > excess) break;
    excess -= sizeBytes;
    starts.set(partition, nextOffset);
  }
  return starts;
}

/** A segment goes after those before it in its partition, so it counts as no older than they are. Of equals, the lowest partition first. */
function oldestFirst(partitions: ReadonlyMap<number, readonly SegmentSize[]>) {
  const all: (SegmentSize & { readonly partition: number })[] = [];
  for (const [partition, segments] of partitions) {
    let maxTimestampMs = Number.NEGATIVE_INFINITY;
    for (const segment of segments) {
      maxTimestampMs = Math.max(maxTimestampMs, segment.maxTimestampMs);
      all.push({ ...segment, partition, maxTimestampMs });
    }
  }
  return all.sort((one, other) => one.maxTimestampMs - other.maxTimestampMs || one.partition - other.partition);
}

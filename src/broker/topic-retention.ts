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

/** The segments of a log, in their order; the last one with what is not written yet. */
export async function* segmentSizes(log: MeasuredLog): AsyncGenerator<SegmentSize> {
  const end = log.nextOffset;
  const segments = log.segments();
  let left = log.sizeBytes;
  for (const [at, segment] of segments.entries()) {
    const next = segments[at + 1];
    const sizeBytes = next === undefined ? left : await segment.payloadBytes();
    left -= sizeBytes;
    yield { nextOffset: next?.base.offset ?? end, sizeBytes, maxTimestampMs: await segment.maxTimestamp() };
  }
}

/** The offsets that partitions are to start at, of those that lose something. */
export function retainedOfTopic(partitions: ReadonlyMap<number, readonly SegmentSize[]>, bytes: number): Map<number, number> {
  const starts = new Map<number, number>();
  const left = new Map([...partitions].map(([partition, segments]) => [partition, [...segments]]));
  let excess = [...partitions.values()].flat().reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) - bytes;
  for (;;) {
    const [partition, segments] = oldest(left) ?? [];
    const segment = segments?.shift();
    if (partition === undefined || segment === undefined || segment.sizeBytes > excess) return starts;
    excess -= segment.sizeBytes;
    starts.set(partition, segment.nextOffset);
  }
}

/** The partition whose first segment is the oldest; of equals, that with the lowest number. */
function oldest(partitions: ReadonlyMap<number, SegmentSize[]>): readonly [number, SegmentSize[]] | undefined {
  let found: readonly [number, SegmentSize[]] | undefined;
  let age = Number.POSITIVE_INFINITY;
  for (const [partition, segments] of [...partitions].sort(([a], [b]) => a - b)) {
    const maxTimestampMs = segments[0]?.maxTimestampMs ?? Number.POSITIVE_INFINITY;
    if (maxTimestampMs < age) [found, age] = [[partition, segments], maxTimestampMs];
  }
  return found;
}

/**
 * The checker: the taxonomy of jepsen.tests.kafka over a history of sends and polls. Only `ok` sends must appear; `info` sends may; `fail` sends must not.
 * Values are unique. Sends stand where they were begun. One pass over the history, maps per partition.
 */
export type Operation =
  | {
      readonly type: 'send';
      readonly partition: number;
      readonly value: string;
      readonly producer: number;
      readonly outcome: 'ok';
      /** -1: acknowledged as a duplicate whose offset the broker no longer knows. */
      readonly offset: number;
    }
  | {
      readonly type: 'send';
      readonly partition: number;
      readonly value: string;
      readonly producer: number;
      readonly outcome: 'info' | 'fail';
    }
  /** What one call of one consumer returned, in order. */
  | {
      readonly type: 'poll';
      readonly consumer: number;
      readonly partition: number;
      readonly records: readonly { readonly offset: number; readonly value: string }[];
    }
  /** The consumer moved its position: the next poll may start anywhere. */
  | { readonly type: 'assign'; readonly consumer: number };

export interface Verdict {
  readonly valid: boolean;
  readonly sends: { readonly ok: number; readonly info: number; readonly fail: number };
  readonly read: number;
  /** Each list holds evidence, at most {@link EVIDENCE} of a kind; `counts` has them all. */
  readonly anomalies: Readonly<Record<Anomaly, readonly string[]>>;
  readonly counts: Readonly<Record<Anomaly, number>>;
}

export const ANOMALIES = [
  'inconsistent-offsets',
  'lost-write',
  'unseen',
  'duplicate',
  'aborted-read',
  'nonmonotonic-poll',
  'int-nonmonotonic-poll',
  'poll-skip',
  'int-poll-skip',
  'nonmonotonic-send',
] as const;
export type Anomaly = (typeof ANOMALIES)[number];

const EVIDENCE = 10;

/**
 * `starts`: where each partition begins at the end, if records were deleted on purpose. What lay below need not be read, and may be passed over. `mayBeGone`: of a
 * compacted topic, whether something has taken the value's place.
 */
export function check(
  history: readonly Operation[],
  starts: ReadonlyMap<number, number> = new Map(),
  mayBeGone: (value: string) => boolean = () => false,
): Verdict {
  const anomalies = Object.fromEntries(ANOMALIES.map((name) => [name, [] as string[]])) as Record<Anomaly, string[]>;
  const counts = Object.fromEntries(ANOMALIES.map((name) => [name, 0])) as Record<Anomaly, number>;
  const found = (name: Anomaly, evidence: string) => {
    counts[name]++;
    if (anomalies[name].length < EVIDENCE) anomalies[name].push(evidence);
  };
  const valueAt = new Map<string, string>();
  const offsetsOf = new Map<string, Set<string>>();
  const read = new Set<string>();
  const failed = new Set<string>();
  const acknowledged: { partition: number; value: string; offset: number }[] = [];
  const highestRead = new Map<number, number>();
  const lastSent = new Map<string, number>();
  const sends = { ok: 0, info: 0, fail: 0 };
  const startOf = (partition: number) => starts.get(partition) ?? Number.NEGATIVE_INFINITY;

  const placed = (partition: number, offset: number, value: string, by: string) => {
    const place = `${partition}@${offset}`;
    const known = valueAt.get(place);
    if (known === undefined) valueAt.set(place, value);
    else if (known !== value) found('inconsistent-offsets', `${place} holds ${known} and, ${by}, ${value}`);
    let places = offsetsOf.get(value);
    if (places === undefined) {
      places = new Set();
      offsetsOf.set(value, places);
    }
    if (!places.has(place)) {
      places.add(place);
      if (places.size > 1) found('duplicate', `${value} is at ${[...places].join(' and ')}`);
    }
  };

  for (const operation of history) {
    if (operation.type === 'send') {
      sends[operation.outcome]++;
      if (operation.outcome === 'fail') failed.add(operation.value);
      if (operation.outcome !== 'ok') continue;
      acknowledged.push(operation);
      if (operation.offset < 0) continue;
      placed(operation.partition, operation.offset, operation.value, 'as acknowledged');
      const line = `${operation.producer}/${operation.partition}`;
      const before = lastSent.get(line) ?? -1;
      if (operation.offset <= before)
        found('nonmonotonic-send', `producer ${line} got offset ${operation.offset} after ${before} for ${operation.value}`);
      lastSent.set(line, Math.max(before, operation.offset));
    } else if (operation.type === 'poll') {
      for (const record of operation.records) {
        placed(operation.partition, record.offset, record.value, `as consumer ${operation.consumer} read`);
        read.add(record.value);
        highestRead.set(operation.partition, Math.max(highestRead.get(operation.partition) ?? -1, record.offset));
      }
    }
  }

  // Which offsets exist is known only now, so skips are found in a second pass.
  const existing = new Map<number, number[]>();
  for (const [place, value] of valueAt) {
    if (mayBeGone(value)) continue;
    const [partition = 0, offset = 0] = place.split('@').map(Number);
    const list = existing.get(partition);
    if (list === undefined) existing.set(partition, [offset]);
    else list.push(offset);
  }
  for (const list of existing.values()) list.sort((a, b) => a - b);
  const position = new Map<string, number>();
  for (const operation of history) {
    if (operation.type === 'assign') {
      for (const line of [...position.keys()]) if (line.startsWith(`${operation.consumer}/`)) position.delete(line);
    } else if (operation.type === 'poll') {
      const line = `${operation.consumer}/${operation.partition}`;
      operation.records.forEach((record, i) => {
        const before = position.get(line);
        if (before !== undefined) {
          const evidence = `consumer ${line} read ${record.offset} after ${before}`;
          if (record.offset <= before) found(i === 0 ? 'nonmonotonic-poll' : 'int-nonmonotonic-poll', evidence);
          else if (
            holdsBetween(existing.get(operation.partition) ?? [], Math.max(before, startOf(operation.partition) - 1), record.offset)
          ) {
            found(i === 0 ? 'poll-skip' : 'int-poll-skip', evidence);
          }
        }
        position.set(line, record.offset);
      });
    }
  }

  for (const value of read) if (failed.has(value)) found('aborted-read', `${value} failed, and was read`);
  for (const { partition, value, offset } of acknowledged) {
    // An acknowledgement without an offset is of a duplicate of long ago.
    if (read.has(value) || offset < startOf(partition) || mayBeGone(value)) continue;
    const evidence = `${value}, acknowledged at ${partition}@${offset}, was never read`;
    if (offset <= (highestRead.get(partition) ?? -1)) found('lost-write', evidence);
    else found('unseen', evidence);
  }
  return { valid: ANOMALIES.every((name) => counts[name] === 0), sends, read: read.size, anomalies, counts };
}

/** Whether the ascending list holds a number strictly between two others. */
function holdsBetween(ascending: readonly number[], low: number, high: number): boolean {
  let from = 0;
  let to = ascending.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if ((ascending[middle] as number) <= low) from = middle + 1;
    else to = middle;
  }
  const next = ascending[from];
  return next !== undefined && next < high;
}

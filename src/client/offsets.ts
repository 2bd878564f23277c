import { create } from '@bufbuild/protobuf';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { Data, IsolationLevel, ListOffsetsRequestSchema, type ListOffsetsResult } from '../gen/flotilla/v1/data_pb.ts';
import { type CallOptions, type Cluster, DEFAULT_CALL_TIMEOUT_MS, fromWire, isRetriable } from './cluster.ts';
import { noSuchPartition } from './metadata-cache.ts';
import { backoffMs, linkSignals, sleep, throwIfAborted } from './wait.ts';

/** A place in a partition. `time` is in milliseconds since the epoch: the first record at or after it, or the end when there is none. */
export type Where = 'beginning' | 'end' | { readonly offset: number } | { readonly time: number };

export type Isolation = 'read_uncommitted' | 'read_committed';

export interface OffsetQuery {
  readonly topic: string;
  readonly partition: number;
  /** Milliseconds since the epoch, or one of the constants. */
  readonly timestamp: number;
}

/** Kafka's constants for {@link OffsetQuery.timestamp}. */
export const LATEST = -1;
export const EARLIEST = -2;

const LIST_OFFSETS_TIMEOUT_MS = 5_000;

/** Errors: INVALID_REQUEST, where an offset or a time is not one that fits a wire. */
export function checkWhere(what: string, where: Where): void {
  if (typeof where !== 'object') return;
  const [unit, value] = 'offset' in where ? ['an offset', where.offset] : ['a time in milliseconds', where.time];
  if (!Number.isSafeInteger(value)) throw new FlotillaError('INVALID_REQUEST', `${what}: ${unit} is a whole number, not ${value}`);
}

export function isolationLevel(isolation: Isolation | undefined): IsolationLevel {
  return isolation === 'read_committed' ? IsolationLevel.READ_COMMITTED : IsolationLevel.READ_UNCOMMITTED;
}

/**
 * The offset of each query in turn, asked of the partitions' leaders; -1: no record at or after the time. A start is asked of any replica where nobody leads,
 * and never goes back for one client.
 */
export async function listOffsets(
  cluster: Cluster,
  queries: readonly OffsetQuery[],
  options: CallOptions & { readonly isolation?: Isolation | undefined },
): Promise<number[]> {
  const { environment, metadata } = cluster;
  for (const { timestamp } of queries) checkWhere('listOffsets', { time: timestamp });
  const deadline = environment.monotonicMs() + (options.timeoutMs ?? DEFAULT_CALL_TIMEOUT_MS);
  const offsets: number[] = new Array(queries.length);
  const { signal, release } = linkSignals(options.signal, cluster.closing);
  try {
    let open = queries.map((_query, index) => index);
    for (let attempt = 1; ; attempt++) {
      const failures: unknown[] = [];
      const byBroker = await groupByBroker(cluster, queries, open, attempt, signal, failures);
      const asked = [...byBroker].map(([address, indexes]) => ask(cluster, address, queries, indexes, offsets, options.isolation, signal));
      for (const failure of await Promise.all(asked)) if (failure !== undefined) failures.push(failure);
      open = open.filter((index) => offsets[index] === undefined);
      if (open.length === 0) return offsets;
      throwIfAborted(signal);
      const left = deadline - environment.monotonicMs();
      if (left <= 0) throw new FlotillaError('REQUEST_TIMED_OUT', `no leader answered an offset query in time: ${messageOf(failures[0])}`);
      await sleep(environment, Math.min(backoffMs(environment, attempt), left), signal);
      await metadata.refresh().catch(() => {});
    }
  } finally {
    release();
  }
}

/** Failures in a row after which others than the leader are asked for the start, which any replica knows. */
const LEADER_ATTEMPTS = 3;

async function groupByBroker(
  { metadata }: Cluster,
  queries: readonly OffsetQuery[],
  open: readonly number[],
  attempt: number,
  signal: AbortSignal,
  failures: unknown[],
): Promise<Map<string, number[]>> {
  const byBroker = new Map<string, number[]>();
  for (const index of open) {
    const query = queries[index];
    if (query === undefined) continue;
    const { topic, partition, timestamp } = query;
    try {
      const state = await metadata.topic(topic, signal);
      if (state.partitions[partition] === undefined) throw noSuchPartition(state, partition);
    } catch (error) {
      if (error instanceof FlotillaError && error.retriable && error.code !== 'UNKNOWN_TOPIC_OR_PARTITION') {
        failures.push(error);
        continue;
      }
      throw error;
    }
    const replicas = metadata.replicas(topic, partition);
    const anyReplica = timestamp === EARLIEST && attempt > LEADER_ATTEMPTS;
    const address = anyReplica ? replicas[attempt % replicas.length] : metadata.leader(topic, partition)?.address;
    if (address === undefined) {
      failures.push(new FlotillaError('BROKER_NOT_AVAILABLE', `${topic}-${partition} has no leader now`));
      continue;
    }
    const indexes = byBroker.get(address);
    if (indexes) indexes.push(index);
    else byBroker.set(address, [index]);
  }
  return byBroker;
}

/** Asks one broker; fills in what it answers and returns a retriable failure, if any. */
async function ask(
  { channels, metadata }: Cluster,
  address: string,
  queries: readonly OffsetQuery[],
  indexes: readonly number[],
  offsets: number[],
  isolation: Isolation | undefined,
  signal: AbortSignal,
): Promise<unknown> {
  const partitions = indexes.flatMap((index) => {
    const query = queries[index];
    const topicId = query && metadata.cached(query.topic)?.topicId;
    return query && topicId ? [{ topicId, partition: query.partition, timestamp: BigInt(query.timestamp) }] : [];
  });
  let results: readonly ListOffsetsResult[];
  try {
    const request = create(ListOffsetsRequestSchema, {
      partitions,
      isolationLevel: isolationLevel(isolation),
      timeoutMs: LIST_OFFSETS_TIMEOUT_MS,
    });
    ({ results } = await channels.get(address).unary(Data.method.listOffsets, request, { timeoutMs: LIST_OFFSETS_TIMEOUT_MS, signal }));
  } catch (error) {
    if (error instanceof FlotillaError && !error.retriable) throw error;
    return error;
  }
  let failure: unknown;
  for (const [at, index] of indexes.entries()) {
    const query = queries[index];
    const result = results[at];
    if (query === undefined || result === undefined || result.partition !== query.partition) continue;
    const state = metadata.cached(query.topic);
    if (result.error === undefined) {
      const offset = Number(result.offset);
      offsets[index] = query.timestamp === EARLIEST && state !== undefined ? metadata.startsAt(state, query.partition, offset) : offset;
    } else if (!isRetriable(result.error)) throw fromWire(result.error);
    else {
      if (result.error.leader) metadata.applyHint(query.topic, query.partition, result.error.leader);
      failure = fromWire(result.error);
    }
  }
  return failure;
}

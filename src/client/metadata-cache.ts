/**
 * What the client knows of the cluster: brokers, topics and leaders. One refresh is in flight at a time; an answer never takes a
 * partition back to an older leader epoch; hints in errors apply at once, without a refresh.
 */
import { create } from '@bufbuild/protobuf';
import { hex } from '../base/bytes.ts';
import type { Environment } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { Admin, MetadataRequestSchema, type MetadataResponse, type TopicMetadata } from '../gen/flotilla/v1/admin_pb.ts';
import type { LeaderHint } from '../gen/flotilla/v1/common_pb.ts';
import type { Channels } from './channels.ts';
import { abortable, backoffMs, Deferred, linkSignals, sleep, throwIfAborted } from './wait.ts';

/** A topic that was just created may not have reached the broker that is asked: an unknown topic is asked for again for this long. */
export const UNKNOWN_TOPIC_RETRY_MS = 5_000;
/** One broker's time to answer. */
export const METADATA_TIMEOUT_MS = 3_000;
/** A broker that has not answered after so long gets company: the next is asked as well, and the first answer counts. */
export const HEDGE_MS = 250;
/** From one refresh to the next: a thousand partitions that look for a leader ask no more often than one. */
export const REFRESH_INTERVAL_MS = 50;
/** Partitions that a refresh may tell of within {@link REFRESH_INTERVAL_MS}. The interval grows with more, or asking would keep a broker that starts with ten thousand of them from opening them. */
export const PARTITIONS_PER_INTERVAL = 2_000;
/** For so long a broker that did not answer is asked after the others. */
const SILENT_MS = 10_000;
/** Ids of topics that were deleted and created again, remembered. */
const MAX_RETIRED = 1_000;
/** Names of topics that are gone, whose ids are remembered. */
const MAX_GONE = 1_000;
/** Topics of which it is remembered where their partitions start; those that were not asked for the longest are forgotten. */
export const MAX_STARTS = 1_000;
/** The API version that this client speaks. */
export const API_VERSION = 1;

/** Where a partition's leader is, as far as the client knows. */
export interface Leader {
  readonly brokerId: number;
  readonly address: string;
  readonly epoch: number;
}

export interface PartitionState {
  readonly partition: number;
  /** 0: none known. */
  leader: number;
  leaderEpoch: number;
  readonly replicas: readonly number[];
}

export interface TopicState {
  readonly name: string;
  /** 16 bytes */
  readonly topicId: Uint8Array;
  /** The topic id as 32 hex digits. */
  readonly id: string;
  /** By partition number. */
  readonly partitions: readonly PartitionState[];
}

export class MetadataCache {
  readonly #environment: Environment;
  readonly #channels: Channels;
  readonly #bootstrap: readonly string[];
  readonly #brokers = new Map<number, string>();
  readonly #topics = new Map<string, TopicState>();
  /** The id last seen of each name that no topic has any more. The oldest go first. */
  readonly #gone = new Map<string, string>();
  /** Ids whose names have others by now: a broker that lags behind must not bring them back. The oldest go first. */
  readonly #retired = new Set<string>();
  readonly #closing: AbortSignal;
  #clusterId: string | undefined;
  #inFlight: Promise<void> | undefined;
  #following: Promise<void> | undefined;
  #lastAskedMs = Number.NEGATIVE_INFINITY;
  /** The refresh in flight has not asked yet: what is wanted now, it asks for. */
  #pausing = false;
  /** Topics that the refresh in flight does not ask for, and the next will. */
  readonly #wanted = new Set<string>();
  /** Addresses that did not answer when last asked: until then they are asked after the others. */
  readonly #silentUntilMs = new Map<string, number>();
  readonly #listeners = new Set<() => void>();
  /** Where partitions start, as far as anybody told: by topic id, those asked for last at the end, and by number. */
  readonly #starts = new Map<string, Map<number, number>>();
  #next = 0;

  constructor(environment: Environment, channels: Channels, bootstrap: readonly string[], closing: AbortSignal) {
    this.#environment = environment;
    this.#channels = channels;
    this.#bootstrap = bootstrap;
    this.#closing = closing;
  }

  get clusterId(): string | undefined {
    return this.#clusterId;
  }

  /** Calls the listener after each answer that was taken over. Returns the unsubscribe. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  cached(topic: string): TopicState | undefined {
    return this.#topics.get(topic);
  }

  /** A replica told where the partition starts. Returns the highest start that any told: one that lags behind may tell a former one. */
  startsAt({ id }: TopicState, partition: number, told: number): number {
    const starts = this.#starts.get(id) ?? new Map<number, number>();
    const start = Math.max(told, starts.get(partition) ?? 0);
    this.#starts.delete(id);
    this.#starts.set(id, starts.set(partition, start));
    forgetOldest(this.#starts, MAX_STARTS);
    return start;
  }

  /** The topic, from the cache or the cluster. Throws UNKNOWN_TOPIC_OR_PARTITION after {@link UNKNOWN_TOPIC_RETRY_MS}. */
  async topic(name: string, signal?: AbortSignal): Promise<TopicState> {
    const cached = this.#topics.get(name);
    if (cached) return cached;
    const deadline = this.#environment.monotonicMs() + UNKNOWN_TOPIC_RETRY_MS;
    for (let attempt = 1; ; attempt++) {
      throwIfAborted(signal);
      this.#wanted.add(name);
      await abortable(this.refresh(), signal);
      const topic = this.#topics.get(name);
      if (topic) return topic;
      if (this.#environment.monotonicMs() >= deadline) {
        this.#wanted.delete(name);
        throw new FlotillaError(
          'UNKNOWN_TOPIC_OR_PARTITION',
          `topic '${name}' does not exist: create it with client.admin.createTopic({ name: '${name}' }) or 'flotilla topic create ${name}'`,
        );
      }
      await sleep(this.#environment, backoffMs(this.#environment, attempt), signal);
    }
  }

  /** The leader as the cache has it; undefined: none known. */
  leader(topic: string, partition: number): Leader | undefined {
    const state = this.#topics.get(topic)?.partitions[partition];
    if (!state || state.leader === 0) return undefined;
    const address = this.#brokers.get(state.leader);
    return address === undefined ? undefined : { brokerId: state.leader, address, epoch: state.leaderEpoch };
  }

  /** Where the partition's replicas are, its leader's first: for what any of them may answer. */
  replicas(topic: string, partition: number): string[] {
    const replicas = this.#topics.get(topic)?.partitions[partition]?.replicas ?? [];
    const addresses = replicas.flatMap((brokerId) => this.#brokers.get(brokerId) ?? []);
    const leader = this.leader(topic, partition)?.address;
    return leader === undefined ? addresses : [leader, ...addresses.filter((address) => address !== leader)];
  }

  /** Takes over the hint of a NOT_LEADER_OR_FOLLOWER. False when it is no news. */
  applyHint(topic: string, partition: number, hint: LeaderHint): boolean {
    const state = this.#topics.get(topic)?.partitions[partition];
    if (!state || hint.brokerId === 0 || hint.leaderEpoch < state.leaderEpoch) return false;
    const news = hint.leaderEpoch > state.leaderEpoch || hint.brokerId !== state.leader;
    if (hint.address !== '') this.#brokers.set(hint.brokerId, hint.address);
    state.leader = hint.brokerId;
    state.leaderEpoch = hint.leaderEpoch;
    return news && this.#brokers.has(hint.brokerId);
  }

  /** Addresses to ask, the known brokers before the bootstrap list, starting with another one each time; silent ones last. */
  addresses(): string[] {
    const known = [...new Set([...this.#brokers.values()])];
    const start = known.length === 0 ? 0 : this.#next++ % known.length;
    const all = [...new Set([...known.slice(start), ...known.slice(0, start), ...this.#bootstrap])];
    const nowMs = this.#environment.monotonicMs();
    for (const [address, untilMs] of this.#silentUntilMs) if (untilMs <= nowMs) this.#silentUntilMs.delete(address);
    const isSilent = (address: string) => this.#silentUntilMs.has(address);
    return [...all.filter((address) => !isSilent(address)), ...all.filter(isSilent)];
  }

  /** Asks any broker for all known and wanted topics. Concurrent callers share one refresh. Rejects with BROKER_NOT_AVAILABLE when none answers. */
  refresh(): Promise<void> {
    if (this.#inFlight === undefined) return this.#begin();
    if (this.#wanted.size === 0 || this.#pausing) return this.#inFlight;
    // The refresh in flight does not ask for what is wanted now: one more follows it, for all who came meanwhile.
    this.#following ??= this.#inFlight
      .catch(() => {})
      .then(() => {
        this.#following = undefined;
        return this.#inFlight ?? this.#begin();
      });
    return this.#following;
  }

  #begin(): Promise<void> {
    this.#inFlight = this.#pause()
      .then(() => this.#refresh())
      .finally(() => {
        this.#inFlight = undefined;
      });
    return this.#inFlight;
  }

  async #pause(): Promise<void> {
    let partitions = 0;
    for (const topic of this.#topics.values()) partitions += topic.partitions.length;
    const intervalMs = REFRESH_INTERVAL_MS * Math.max(1, partitions / PARTITIONS_PER_INTERVAL);
    const leftMs = this.#lastAskedMs + intervalMs - this.#environment.monotonicMs();
    if (leftMs <= 0) return;
    this.#pausing = true;
    await sleep(this.#environment, leftMs, this.#closing).finally(() => {
      this.#pausing = false;
    });
  }

  /** One broker after the other: the next as soon as one failed or was silent for HEDGE_MS, so that a hung broker costs little. */
  async #refresh(): Promise<void> {
    this.#lastAskedMs = this.#environment.monotonicMs();
    const topics = [...new Set([...this.#topics.keys(), ...this.#wanted])];
    this.#wanted.clear();
    const done = new AbortController();
    const { signal, release } = linkSignals(this.#closing, done.signal);
    const answered = new Deferred<true>();
    answered.promise.catch(() => {});
    const failures: string[] = [];
    const asks: Promise<void>[] = [];
    try {
      for (const address of this.addresses()) {
        throwIfAborted(this.#closing);
        const ask = this.#askFor(address, topics, signal).then(
          () => answered.resolve(true),
          (error: unknown) => {
            if (isFatal(error)) answered.reject(error);
            else failures.push(`${address}: ${messageOf(error)}`);
          },
        );
        asks.push(ask);
        const silent = sleep(this.#environment, HEDGE_MS, signal).then(
          () => this.#markSilent(address),
          () => {},
        );
        if ((await Promise.race([answered.promise, ask, silent])) === true) return;
      }
      if ((await Promise.race([answered.promise, Promise.all(asks)])) === true) return;
    } finally {
      done.abort();
      release();
    }
    throwIfAborted(this.#closing);
    throw new FlotillaError('BROKER_NOT_AVAILABLE', `no broker answered; check that the cluster runs (${failures.join('; ')})`);
  }

  async #askFor(address: string, topics: readonly string[], signal: AbortSignal): Promise<void> {
    try {
      const response = await this.ask(address, topics, signal);
      // Another broker was faster.
      if (signal.aborted) return;
      this.apply(response, topics);
      this.#silentUntilMs.delete(address);
    } catch (error) {
      if (!signal.aborted) this.#markSilent(address);
      throw error;
    }
  }

  #markSilent(address: string): void {
    this.#silentUntilMs.set(address, this.#environment.monotonicMs() + SILENT_MS);
  }

  /** Asks one broker, with no effect on the cache. No topics: the brokers only (a name that no topic can have). */
  ask(address: string, topics: readonly string[], signal?: AbortSignal): Promise<MetadataResponse> {
    const request = create(MetadataRequestSchema, { topics: topics.length === 0 ? [NO_TOPIC] : [...topics] });
    return this.#channels.get(address).unary(Admin.method.metadata, request, { timeoutMs: METADATA_TIMEOUT_MS, signal });
  }

  /** Takes over what a broker answered about `topics`. */
  apply(response: MetadataResponse, topics: readonly string[]): void {
    if (response.apiVersion !== 0 && response.apiVersion < API_VERSION) {
      throw new FlotillaError(
        'UNSUPPORTED_VERSION',
        `the broker speaks API version ${response.apiVersion}, this client ${API_VERSION}: upgrade the brokers`,
      );
    }
    if (response.clusterId !== '') {
      if (this.#clusterId !== undefined && this.#clusterId !== response.clusterId) {
        throw new FlotillaError(
          'INCONSISTENT_CLUSTER_ID',
          `the broker belongs to cluster ${response.clusterId}, not ${this.#clusterId}: check the bootstrap list`,
        );
      }
      this.#clusterId = response.clusterId;
    }
    for (const broker of response.brokers) this.#brokers.set(broker.brokerId, broker.address);
    const answered = new Set<string>();
    for (const topic of response.topics) {
      if (topic.error || topic.partitions.length === 0) continue;
      const id = hex(topic.topicId);
      if (this.#retired.has(id)) continue;
      answered.add(topic.name);
      this.#identify(topic.name, id);
      this.#topics.set(topic.name, merge(this.#topics.get(topic.name), topic));
    }
    for (const name of topics) if (!answered.has(name)) this.#remove(name);
    this.#channels.retain(new Set([...this.#brokers.values(), ...this.#bootstrap]));
    for (const listener of this.#listeners) listener();
  }

  #identify(name: string, id: string): void {
    const before = this.#topics.get(name)?.id ?? this.#gone.get(name);
    this.#gone.delete(name);
    if (before === undefined || before === id) return;
    this.#starts.delete(before);
    this.#retired.add(before);
    forgetOldest(this.#retired, MAX_RETIRED);
  }

  #remove(name: string): void {
    const topic = this.#topics.get(name);
    if (topic === undefined) return;
    this.#topics.delete(name);
    this.#gone.set(name, topic.id);
    forgetOldest(this.#gone, MAX_GONE);
  }
}

/** When one more than `most` are in it, the first one goes. */
function forgetOldest(all: Map<string, unknown> | Set<string>, most: number): void {
  const [oldest] = all.keys();
  if (all.size > most && oldest !== undefined) all.delete(oldest);
}

export function noSuchPartition({ name, partitions }: TopicState, partition: number): FlotillaError {
  return new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', `topic '${name}' has partitions 0 to ${partitions.length - 1}, not ${partition}`);
}

/** A legal name that no topic should have. */
const NO_TOPIC = '__none';

/** The newer of both, partition by partition: a broker that lags behind must not send the client back to a deposed leader. */
function merge(known: TopicState | undefined, answer: TopicMetadata): TopicState {
  const id = hex(answer.topicId);
  const partitions: PartitionState[] = [];
  for (const { partition, leader, leaderEpoch, replicas } of answer.partitions) {
    const before = known?.id === id ? known.partitions[partition] : undefined;
    const stale = before !== undefined && before.leaderEpoch > leaderEpoch;
    partitions[partition] = stale ? { ...before, replicas } : { partition, leader, leaderEpoch, replicas };
  }
  return { name: answer.name, topicId: answer.topicId, id, partitions };
}

/** Another broker would say the same. */
function isFatal(error: unknown): boolean {
  return error instanceof FlotillaError && (error.code === 'UNSUPPORTED_VERSION' || error.code === 'INCONSISTENT_CLUSTER_ID');
}

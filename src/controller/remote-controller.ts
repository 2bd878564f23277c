/**
 * The controller as a broker sees it: this process while it leads the metadata quorum, else the leader over RPC. Follows hints,
 * asks the other voters in turn where there is none, and retries with backoff until the caller's signal fires. When another leader is
 * elected, nobody waits for the old one or for the end of a pause.
 *
 * A call whose answer got lost is made again: `createTopic` may then find its own topic (TOPIC_ALREADY_EXISTS), as in Kafka.
 */
import { create, type DescMethod, type MessageShape } from '@bufbuild/protobuf';
import type { Environment } from '../base/environment.ts';
import { type ErrorCode, FlotillaError, messageOf } from '../base/errors.ts';
import { type TopicId, topicIdFromBytes, topicIdToBytes } from '../base/ids.ts';
import {
  Admin,
  AllocateProducerIdRequestSchema,
  AlterTopicConfigsRequestSchema,
  CreateTopicRequestSchema,
  DeleteTopicRequestSchema,
  ReassignPartitionsRequestSchema,
} from '../gen/flotilla/v1/admin_pb.ts';
import type { Error as WireError } from '../gen/flotilla/v1/common_pb.ts';
import {
  BrokerHeartbeatRequestSchema,
  RegisterBrokerRequestSchema,
  ReportReplicasRequestSchema,
  Controller as Service,
} from '../gen/flotilla/v1/controller_pb.ts';
import type { Connect, RpcChannel } from '../rpc/types.ts';
import { backoffMs, pause } from './pause.ts';
import type { AlterTopicConfigs, BrokerHeartbeat, Controller, CreateTopic, Reassignment, RegisterBroker, ReplicaReport } from './types.ts';
import { replicaToWire } from './wire.ts';

/** One try; a controller that hangs must not use up the caller's whole deadline. */
export const TRY_TIMEOUT_MS = 5_000;
/** One try of what may be done twice. Well below broker.session.timeout.ms: a controller that was cut off must not cost live brokers their session. */
export const REPEATABLE_TRY_TIMEOUT_MS = 1_000;
/** The longest pause between two tries. */
const MAX_PAUSE_MS = 250;
/** Channels kept open to controllers; voters and hints are few. */
const MAX_CHANNELS = 16;

export interface ControllerRoute {
  /** This broker's own controller while it is active. */
  readonly local: () => Controller | undefined;
  /** The leader's address as the local replica or the image knows it; undefined: not known. */
  readonly leaderAddress: () => string | undefined;
  /** Addresses of the voters of the metadata quorum, without this broker. */
  readonly addresses: () => readonly string[];
  readonly connect: Connect;
  readonly environment: Environment;
}

/** The controller, wherever it is now. */
export interface ControllerRouter extends Controller {
  /** Who leads the metadata quorum, as the local replica knows, or whether the local controller is active, changed. */
  leaderChanged(): void;
  /** When the broker stops. */
  close(): void;
}

export function routeController(route: ControllerRoute): ControllerRouter {
  return new RoutedController(route);
}

class RoutedController implements ControllerRouter {
  readonly #route: ControllerRoute;
  readonly #channels = new Map<string, RpcChannel>();
  /** From the last NOT_CONTROLLER, or the controller that answered last. */
  #hint: string | undefined;
  #turn = 0;
  #closed = false;
  /** Each ends a pause or a repeatable try that another leader has made pointless. */
  readonly #waiting = new Set<AbortController>();

  constructor(route: ControllerRoute) {
    this.#route = route;
  }

  createTopic(request: CreateTopic, signal: AbortSignal): Promise<{ readonly topicId: TopicId; readonly index: number }> {
    return this.#retry(signal, (controller) => controller.createTopic(request, signal));
  }

  deleteTopic(
    request: { readonly name: string; readonly topicId: TopicId | undefined },
    signal: AbortSignal,
  ): Promise<{ topicId: TopicId; index: number }> {
    return this.#retry(signal, (controller) => controller.deleteTopic(request, signal));
  }

  /** Made again when its answer was lost: a setting that is as it should be changes nothing. */
  alterTopicConfigs(
    change: AlterTopicConfigs,
    signal: AbortSignal,
  ): Promise<{ readonly configs: ReadonlyMap<string, string>; readonly index: number }> {
    return this.#retry(signal, (controller) => controller.alterTopicConfigs(change, signal));
  }

  allocateProducerIds(count: number, signal: AbortSignal): Promise<{ readonly first: number; readonly count: number }> {
    return this.#retry(signal, (controller, interrupt) => controller.allocateProducerIds(count, interrupt));
  }

  registerBroker(registration: RegisterBroker, signal: AbortSignal): Promise<void> {
    return this.#retry(signal, (controller, interrupt) => controller.registerBroker(registration, interrupt));
  }

  heartbeat(heartbeat: BrokerHeartbeat, signal: AbortSignal): Promise<void> {
    return this.#retry(signal, (controller, interrupt) => controller.heartbeat(heartbeat, interrupt));
  }

  /** Made again when its answer was lost: to ask for what is there, or on its way, already changes nothing. */
  reassign(changes: readonly Reassignment[], signal: AbortSignal): Promise<{ readonly index: number }> {
    return this.#retry(signal, (controller) => controller.reassign(changes, signal));
  }

  reportReplicas(report: ReplicaReport, signal: AbortSignal): Promise<{ readonly index: number }> {
    return this.#retry(signal, (controller, interrupt) => controller.reportReplicas(report, interrupt));
  }

  leaderChanged(): void {
    this.#hint = undefined;
    this.#turn = 0;
    for (const waiting of this.#waiting) waiting.abort();
  }

  close(): void {
    this.#closed = true;
    for (const channel of this.#channels.values()) channel.close();
    this.#channels.clear();
  }

  /** `call` gets a signal that also fires when another leader is elected, for what may be done twice. */
  async #retry<T>(signal: AbortSignal, call: (controller: Controller, interrupt: AbortSignal) => Promise<T>): Promise<T> {
    let failures = 0;
    let last = 'no controller was asked';
    for (;;) {
      if (signal.aborted) throw new FlotillaError('REQUEST_TIMED_OUT', `no controller answered in time; the last try: ${last}`);
      if (this.#closed) throw new FlotillaError('BROKER_NOT_AVAILABLE', 'this broker is stopping: ask another');
      const target = this.#target();
      if (target !== undefined) {
        try {
          return await this.#interruptible(signal, (interrupt) => call(target.local ?? this.#remote(target.address), interrupt));
        } catch (error) {
          const interrupted = error instanceof FlotillaError && error.code === 'ABORTED' && !signal.aborted;
          // Who did not answer within the caller's time is not asked first the next time.
          if (signal.aborted) this.#hint = undefined;
          if (!interrupted && !worthRetrying(error)) throw error;
          last = `${target.address ?? 'this broker'}: ${messageOf(error)}`;
          if (interrupted) continue;
          const hinted = error instanceof HintedError && error.address !== target.address;
          this.#hint = hinted ? error.address : undefined;
          // Elected, and not ready yet: it will be in a moment.
          if (isNotController(error) && target.address === this.#route.leaderAddress()) this.#turn = 0;
          // A fresh hint is followed at once, unless hints lead in circles.
          if (hinted && failures++ < 2) continue;
        }
      }
      const { environment } = this.#route;
      const ms = Math.min(MAX_PAUSE_MS, backoffMs(failures++, environment));
      await this.#interruptible(signal, (interrupt) => pause(environment, ms, interrupt));
    }
  }

  async #interruptible<T>(signal: AbortSignal, work: (interrupt: AbortSignal) => Promise<T>): Promise<T> {
    const waiting = new AbortController();
    const abort = () => waiting.abort();
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    this.#waiting.add(waiting);
    try {
      return await work(waiting.signal);
    } finally {
      signal.removeEventListener('abort', abort);
      this.#waiting.delete(waiting);
    }
  }

  /** Undefined: there is nobody to ask yet. */
  #target(): Target | undefined {
    const { local, leaderAddress, addresses } = this.#route;
    const here = local();
    if (here !== undefined) return { local: here, address: undefined };
    const known = this.#hint ?? (this.#turn++ % 2 === 0 ? leaderAddress() : undefined);
    if (known !== undefined) return { local: undefined, address: known };
    const voters = addresses();
    const address = voters[Math.floor(this.#turn / 2) % Math.max(1, voters.length)];
    return address === undefined ? undefined : { local: undefined, address };
  }

  #remote(address: string): Controller {
    return new RemoteController(this.#channel(address), () => {
      this.#hint = address;
    });
  }

  #channel(address: string): RpcChannel {
    const open = this.#channels.get(address);
    if (open !== undefined) return open;
    const [oldest] = this.#channels;
    if (oldest !== undefined && this.#channels.size >= MAX_CHANNELS) {
      oldest[1].close();
      this.#channels.delete(oldest[0]);
    }
    const channel = this.#route.connect(address);
    this.#channels.set(address, channel);
    return channel;
  }
}

type Target = { readonly local: Controller; readonly address: undefined } | { readonly local: undefined; readonly address: string };

/** NOT_CONTROLLER with the address of who is. */
class HintedError extends FlotillaError {
  readonly address: string;
  constructor(message: string, address: string) {
    super('NOT_CONTROLLER', message);
    this.address = address;
  }
}

/** What another try, or another voter, may answer better. Not all retriable errors: BROKER_ID_NOT_REGISTERED is for the caller to act on. */
const retried: ReadonlySet<ErrorCode> = new Set([
  'NOT_CONTROLLER',
  'NETWORK_EXCEPTION',
  'BROKER_NOT_AVAILABLE',
  'REQUEST_TIMED_OUT',
  'THROTTLING_QUOTA_EXCEEDED',
  // The channel was closed under the call: this broker stops, or the channel gave way to another.
  'CLOSED',
]);

function worthRetrying(error: unknown): boolean {
  return error instanceof FlotillaError && retried.has(error.code);
}

function isNotController(error: unknown): boolean {
  return error instanceof FlotillaError && error.code === 'NOT_CONTROLLER';
}

/** The controller at one address: one try a call. */
class RemoteController implements Controller {
  readonly #channel: RpcChannel;
  readonly #answered: () => void;

  constructor(channel: RpcChannel, answered: () => void) {
    this.#channel = channel;
    this.#answered = answered;
  }

  async createTopic(request: CreateTopic, signal: AbortSignal): Promise<{ readonly topicId: TopicId; readonly index: number }> {
    const { name, partitions, replicas, validateOnly } = request;
    const configs = Array.from(request.configs, ([key, value]) => ({ key, value }));
    const message = create(CreateTopicRequestSchema, {
      name,
      partitions,
      replicas,
      configs,
      validateOnly,
      timeoutMs: TRY_TIMEOUT_MS,
      forwarded: true,
    });
    const { topic, metadataIndex } = await this.#call(Admin.method.createTopic, message, signal);
    return { topicId: topicIdFromBytes(topic?.topicId ?? new Uint8Array()), index: Number(metadataIndex) };
  }

  async deleteTopic(
    request: { readonly name: string; readonly topicId: TopicId | undefined },
    signal: AbortSignal,
  ): Promise<{ topicId: TopicId; index: number }> {
    const topicId = request.topicId === undefined ? new Uint8Array() : topicIdToBytes(request.topicId);
    const message = create(DeleteTopicRequestSchema, { name: request.name, topicId, timeoutMs: TRY_TIMEOUT_MS, forwarded: true });
    const response = await this.#call(Admin.method.deleteTopic, message, signal);
    return { topicId: topicIdFromBytes(response.topicId), index: Number(response.metadataIndex) };
  }

  async alterTopicConfigs(
    { name, set, remove, validateOnly }: AlterTopicConfigs,
    signal: AbortSignal,
  ): Promise<{ readonly configs: ReadonlyMap<string, string>; readonly index: number }> {
    const message = create(AlterTopicConfigsRequestSchema, {
      name,
      set: Array.from(set, ([key, value]) => ({ key, value })),
      remove: [...remove],
      validateOnly,
      timeoutMs: TRY_TIMEOUT_MS,
      forwarded: true,
    });
    const response = await this.#call(Admin.method.alterTopicConfigs, message, signal);
    return { configs: new Map(response.configs.map(({ key, value }) => [key, value])), index: Number(response.metadataIndex) };
  }

  async allocateProducerIds(count: number, signal: AbortSignal): Promise<{ readonly first: number; readonly count: number }> {
    const message = create(AllocateProducerIdRequestSchema, { count, forwarded: true, timeoutMs: REPEATABLE_TRY_TIMEOUT_MS });
    const response = await this.#call(Admin.method.allocateProducerId, message, signal, REPEATABLE_TRY_TIMEOUT_MS);
    return { first: Number(response.firstProducerId), count: response.count };
  }

  async registerBroker(registration: RegisterBroker, signal: AbortSignal): Promise<void> {
    const { brokerId, directoryId, incarnation, rack, listeners, peerAddress } = registration;
    const message = create(RegisterBrokerRequestSchema, {
      brokerId,
      directoryId,
      incarnation: BigInt(incarnation),
      rack: rack ?? '',
      listeners: Array.from(listeners, ([name, address]) => ({ name, address })),
      peerAddress,
    });
    await this.#call(Service.method.registerBroker, message, signal, REPEATABLE_TRY_TIMEOUT_MS);
  }

  async heartbeat(heartbeat: BrokerHeartbeat, signal: AbortSignal): Promise<void> {
    const { brokerId, incarnation, leaders, stopping, metadataIndex } = heartbeat;
    const message = create(BrokerHeartbeatRequestSchema, {
      brokerId,
      incarnation: BigInt(incarnation),
      leaders: leaders.map((report) => ({ ...report, topicId: topicIdToBytes(report.topicId) })),
      stopping,
      metadataIndex: BigInt(metadataIndex),
    });
    await this.#call(Service.method.brokerHeartbeat, message, signal, REPEATABLE_TRY_TIMEOUT_MS);
  }

  async reassign(changes: readonly Reassignment[], signal: AbortSignal): Promise<{ readonly index: number }> {
    const partitions = changes.map(({ topic, partition, brokers }) => ({
      topic,
      partition,
      brokers: [...(brokers ?? [])],
      cancel: brokers === undefined,
    }));
    const message = create(ReassignPartitionsRequestSchema, { partitions, timeoutMs: TRY_TIMEOUT_MS, forwarded: true });
    const { metadataIndex } = await this.#call(Admin.method.reassignPartitions, message, signal);
    return { index: Number(metadataIndex) };
  }

  async reportReplicas(report: ReplicaReport, signal: AbortSignal): Promise<{ readonly index: number }> {
    const { brokerId, incarnation, committed, failed } = report;
    const message = create(ReportReplicasRequestSchema, {
      brokerId,
      incarnation: BigInt(incarnation),
      committed: committed.map((each) => ({
        topicId: topicIdToBytes(each.topicId),
        partition: each.partition,
        leaderEpoch: each.leaderEpoch,
        index: BigInt(each.index),
        targetEpoch: BigInt(each.targetEpoch),
        voters: each.voters.map(replicaToWire),
      })),
      failed: failed.map(({ topicId, partition, replicaId }) => ({
        topicId: topicIdToBytes(topicId),
        partition,
        replicaId: BigInt(replicaId),
      })),
    });
    const { metadataIndex } = await this.#call(Service.method.reportReplicas, message, signal, REPEATABLE_TRY_TIMEOUT_MS);
    return { index: Number(metadataIndex) };
  }

  async #call<M extends DescMethod>(
    method: M & { readonly output: { readonly typeName: string } },
    request: MessageShape<M['input']>,
    signal: AbortSignal,
    timeoutMs = TRY_TIMEOUT_MS,
  ): Promise<MessageShape<M['output']>> {
    const response = await this.#channel.unary(method, request, { timeoutMs, signal });
    // Every response of these services has this field.
    const { error } = response as { readonly error?: WireError };
    if (error === undefined) {
      this.#answered();
      return response;
    }
    const known = FlotillaError.fromNumber(error.code, error.message);
    if (known.code === 'NOT_CONTROLLER' && error.leader !== undefined && error.leader.address !== '') {
      throw new HintedError(error.message, error.leader.address);
    }
    throw known;
  }
}

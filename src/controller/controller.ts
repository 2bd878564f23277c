/**
 * The controller: the leader of the metadata quorum (group 0). All that it decides is a record of the metadata log; what it only
 * observes (which broker was heard when) is soft state, begun anew by each leader.
 */
import { must } from '../base/assert.ts';
import { type Environment, type Logger, randomBelow, type StateStore, type Timer } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { type BrokerId, type ClusterId, mintUuid, type TopicId } from '../base/ids.ts';
import type { BrokerRegistration, MetadataDelta, MetadataImage } from '../metadata/image.ts';
import { metadataMachine } from '../metadata/machine.ts';
import { FEATURE_LEVEL, type MetadataRecord } from '../metadata/records.ts';
import type { MetadataStore } from '../metadata/view.ts';
import { StateMachineRuntime } from '../rsm/runtime.ts';
import type { Operation, StateMachineReplica } from '../rsm/types.ts';
import { LeaderBalancer, type TransferLeadership } from './balance.ts';
import { checkPartitions, checkTopicName, collidingTopic } from './policy.ts';
import { reassignRecords, reportRecords } from './reassignment.ts';
import { replaceLost } from './repair.ts';
import { BrokerSessions } from './sessions.ts';
import { alterConfigs, createTopicRecord, findTopic, leaderRecords } from './topics.ts';
import type { AlterTopicConfigs, BrokerHeartbeat, Controller, CreateTopic, Reassignment, RegisterBroker, ReplicaReport } from './types.ts';

export interface ControllerSettings {
  /** Kafka's broker.session.timeout.ms; 3 s here. */
  readonly brokerSessionTimeoutMs: number;
  /** num.partitions and default.replication.factor, for requests that say 0. */
  readonly defaultPartitions: number;
  readonly defaultReplicationFactor: number;
}

export interface QuorumControllerOptions {
  readonly environment: Environment;
  readonly logger: Logger;
  /** Where checkpoints of the image are kept. */
  readonly store: StateStore;
  /** The broker's own image, fed by this controller's replica. */
  readonly metadata: MetadataStore;
  readonly settings: ControllerSettings;
  /** The cluster that was formed: the first leader makes it the first record. */
  readonly cluster: { readonly clusterId: ClusterId; readonly voters: readonly { readonly replicaId: number }[] };
  readonly checksum: (payload: Uint8Array) => number;
  /** Throws INVALID_CONFIG for a key that is unknown or a value that does not fit. */
  readonly validateTopicConfig: (configs: ReadonlyMap<string, string>) => void;
  readonly transfer: TransferLeadership;
  /** Who leads the quorum, or whether this controller is active, changed. */
  readonly leaderChanged?: () => void;
  /** The replica has stopped for good; the broker must end and say why. */
  readonly failed: (error: Error) => void;
}

/** The most producer ids that one call gets. */
export const MAX_PRODUCER_ID_BLOCK = 100_000;
/** Leaders recorded by one entry; a longer report takes several. */
const LEADERS_PER_ENTRY = 10_000;
const BALANCE_INTERVAL_MS = 5_000;

type Runtime = StateMachineRuntime<MetadataImage, MetadataRecord, MetadataDelta>;

export class QuorumController implements Controller {
  readonly #options: QuorumControllerOptions;
  readonly #sessions: BrokerSessions;
  readonly #balancer: LeaderBalancer;
  #loaded: Runtime | undefined;
  #timer: Timer | undefined;
  #nextBalanceMs = 0;
  /** Partitions that the last pass of repairs could do nothing for. */
  #stuck = 0;
  /** Something may have been lost, or may be repaired, since the last pass. */
  #repairDue = false;
  /** Ends the controller's own operations when it stops leading. */
  #leading = new AbortController();

  /** Loads the image from its checkpoint; rejects with INCONSISTENT_CLUSTER_ID when it is another cluster's. Open the replica of group 0 with `owner: (replica) => controller.attach(replica)` next. */
  static async open(options: QuorumControllerOptions): Promise<QuorumController> {
    const controller = new QuorumController(options);
    controller.#loaded = await StateMachineRuntime.load({
      name: 'metadata',
      machine: metadataMachine,
      store: options.store,
      environment: options.environment,
      logger: options.logger,
      checksum: options.checksum,
      notLeader: 'NOT_CONTROLLER',
      observer: {
        applied: ({ delta }) => options.metadata.publish(delta),
        restored: (image) => options.metadata.replace(image),
        activeChanged: (active) => {
          if (active) controller.#begin();
          else controller.#end();
          options.leaderChanged?.();
        },
        leadershipChanged: () => options.leaderChanged?.(),
        failed: options.failed,
      },
    });
    const image = controller.#runtime.state;
    if (image.clusterId !== undefined && image.clusterId !== options.cluster.clusterId) {
      throw new FlotillaError(
        'INCONSISTENT_CLUSTER_ID',
        `the data directory belongs to cluster ${options.cluster.clusterId}, the metadata in it to ${image.clusterId}: directories were mixed up`,
      );
    }
    options.metadata.replace(image);
    return controller;
  }

  private constructor(options: QuorumControllerOptions) {
    this.#options = options;
    this.#sessions = new BrokerSessions(options.settings.brokerSessionTimeoutMs);
    this.#balancer = new LeaderBalancer(options.transfer, options.logger);
  }

  /** The owner of group 0's replica. */
  attach(replica: StateMachineReplica): Runtime {
    return this.#runtime.attach(replica);
  }

  /** True while this broker is the controller and ready to decide. */
  get active(): boolean {
    return this.#runtime.active;
  }

  get #runtime(): Runtime {
    return must(this.#loaded, 'open() has loaded the runtime');
  }

  async createTopic(request: CreateTopic, signal: AbortSignal): Promise<{ readonly topicId: TopicId; readonly index: number }> {
    const { settings, environment, logger, validateTopicConfig } = this.#options;
    checkTopicName(request.name);
    const complete = {
      ...request,
      partitions: request.partitions === 0 ? settings.defaultPartitions : request.partitions,
      replicas: request.replicas === 0 ? settings.defaultReplicationFactor : request.replicas,
    };
    checkPartitions(complete.partitions);
    validateTopicConfig(request.configs);
    const draw = { topicId: mintUuid(() => environment.uint32()) as TopicId, seed: environment.uint32() };
    const { response, index } = await this.#runtime.run((image) => {
      const record = createTopicRecord(image, complete, draw);
      return { records: request.validateOnly ? [] : [record], response: collidingTopic(image, request.name) };
    }, signal);
    if (response !== undefined) {
      logger.warn("topic names that differ only by '.' and '_' collide in metrics", { topic: request.name, other: response });
    }
    return { topicId: draw.topicId, index };
  }

  async deleteTopic(
    request: { readonly name: string; readonly topicId: TopicId | undefined },
    signal: AbortSignal,
  ): Promise<{ topicId: TopicId; index: number }> {
    const { response, index } = await this.#runtime.run((image) => {
      const { topicId } = findTopic(image, request);
      return { records: [{ type: 'deleteTopic', topicId }], response: topicId };
    }, signal);
    return { topicId: response, index };
  }

  async alterTopicConfigs(
    change: AlterTopicConfigs,
    signal: AbortSignal,
  ): Promise<{ readonly configs: ReadonlyMap<string, string>; readonly index: number }> {
    const { response, index } = await this.#runtime.run((image) => {
      const { configs, records } = alterConfigs(image, change);
      this.#options.validateTopicConfig(configs);
      return { records: change.validateOnly ? [] : records, response: configs };
    }, signal);
    return { configs: response, index };
  }

  async allocateProducerIds(count: number, signal: AbortSignal): Promise<{ readonly first: number; readonly count: number }> {
    if (!Number.isInteger(count) || count < 1 || count > MAX_PRODUCER_ID_BLOCK) {
      throw new FlotillaError('INVALID_REQUEST', `a block has 1 to ${MAX_PRODUCER_ID_BLOCK} producer ids, not ${count}`);
    }
    const { response } = await this.#runtime.run(
      ({ nextProducerId: first }) => ({
        records: [{ type: 'allocateProducerIds', nextProducerId: first + count }],
        response: { first, count },
      }),
      signal,
    );
    return response;
  }

  /**
   * Errors: DUPLICATE_BROKER_REGISTRATION while another process or disk is live under this id. A newer incarnation of the same directory
   * replaces the older at once: the directory's lock proves that the older process is gone.
   */
  async registerBroker(registration: RegisterBroker, signal: AbortSignal): Promise<void> {
    await this.#runtime.run((image) => {
      const known = image.brokers.get(registration.brokerId);
      if (known !== undefined) this.#checkDuplicate(known, registration);
      return { records: [{ type: 'registerBroker', ...registration }], response: undefined };
    }, signal);
    this.#repairDue = true;
    this.#sessions.heard(registration.brokerId, this.#options.environment.monotonicMs());
  }

  #checkDuplicate(known: BrokerRegistration, registration: RegisterBroker): void {
    const sameDirectory = known.directoryId === registration.directoryId;
    if (sameDirectory && registration.incarnation >= known.incarnation) return;
    const { brokerId } = registration;
    if (!sameDirectory && (known.fenced || !this.#sessions.isLive(brokerId, this.#options.environment.monotonicMs()))) return;
    const other = sameDirectory ? `a newer process (incarnation ${known.incarnation})` : `the data directory ${known.directoryId}`;
    throw new FlotillaError(
      'DUPLICATE_BROKER_REGISTRATION',
      `broker ${brokerId} is already running with ${other} at ${known.peerAddress}: stop it, or give this one another broker.id`,
    );
  }

  /** Errors: BROKER_ID_NOT_REGISTERED when the broker must register (again). */
  async heartbeat(heartbeat: BrokerHeartbeat, signal: AbortSignal): Promise<void> {
    const { brokerId, incarnation, stopping, leaders } = heartbeat;
    let from = 0;
    do {
      const reports = leaders.slice(from, from + LEADERS_PER_ENTRY);
      await this.#runtime.run((image) => {
        const known = registered(image, brokerId, incarnation);
        this.#sessions.heard(brokerId, this.#options.environment.monotonicMs());
        const records = leaderRecords(image, reports);
        if (stopping !== known.fenced) records.push({ type: stopping ? 'fenceBroker' : 'unfenceBroker', brokerId });
        return { records, response: undefined };
      }, signal);
      from += LEADERS_PER_ENTRY;
    } while (from < leaders.length);
  }

  async reassign(changes: readonly Reassignment[], signal: AbortSignal): Promise<{ readonly index: number }> {
    const { index } = await this.#runtime.run((image) => ({ records: reassignRecords(image, changes), response: undefined }), signal);
    this.#options.logger.info('replicas reassigned', { partitions: changes.length, index });
    return { index };
  }

  async reportReplicas(report: ReplicaReport, signal: AbortSignal): Promise<{ readonly index: number }> {
    const { index } = await this.#runtime.run((image) => {
      registered(image, report.brokerId, report.incarnation);
      return { records: reportRecords(image, report), response: undefined };
    }, signal);
    this.#repairDue = true;
    return { index };
  }

  /** Stops leading and writes a last checkpoint. */
  async close(): Promise<void> {
    this.#end();
    await this.#runtime.close();
  }

  #begin(): void {
    const { environment, settings, logger } = this.#options;
    this.#leading = new AbortController();
    const now = environment.monotonicMs();
    this.#sessions.clear();
    for (const broker of this.#runtime.state.brokers.values()) if (!broker.fenced) this.#sessions.heard(broker.brokerId, now);
    this.#nextBalanceMs = now + BALANCE_INTERVAL_MS;
    this.#repairDue = true;
    this.#stuck = 0;
    logger.info('this broker is the controller', { term: this.#runtime.leadership.term, index: this.#runtime.appliedIndex });
    if (this.#runtime.state.clusterId === undefined) void this.#recordCluster();
    // A first tick at random, so that several clusters on a machine don't tick together.
    this.#timer = environment.after(1 + randomBelow(environment, Math.ceil(settings.brokerSessionTimeoutMs / 4)), () => this.#tick());
  }

  #end(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#leading.abort();
  }

  async #recordCluster(): Promise<void> {
    const { clusterId, voters } = this.#options.cluster;
    const nextReplicaId = Math.max(0, ...voters.map((voter) => voter.replicaId)) + 1;
    await this.#decide('record the cluster', (image) => {
      if (image.clusterId !== undefined) return { records: [], response: undefined };
      return {
        records: [
          { type: 'featureLevel', level: FEATURE_LEVEL },
          { type: 'clusterFormed', clusterId, nextReplicaId },
        ],
        response: undefined,
      };
    });
  }

  #tick(): void {
    const { environment, settings, logger } = this.#options;
    const now = environment.monotonicMs();
    const image = this.#runtime.state;
    if (image.clusterId === undefined) void this.#recordCluster();
    for (const { brokerId, fenced } of image.brokers.values()) {
      if (fenced || this.#sessions.isLive(brokerId, now)) continue;
      logger.warn('broker fenced: no heartbeat within broker.session.timeout.ms', {
        broker: brokerId,
        timeoutMs: settings.brokerSessionTimeoutMs,
      });
      void this.#decide(`fence broker ${brokerId}`, (newest) => {
        const lost = newest.brokers.get(brokerId)?.fenced === false && !this.#sessions.isLive(brokerId, environment.monotonicMs());
        return { records: lost ? [{ type: 'fenceBroker', brokerId }] : [], response: undefined };
      });
    }
    if (this.#repairDue) void this.#repair();
    if (now >= this.#nextBalanceMs) {
      this.#nextBalanceMs = now + BALANCE_INTERVAL_MS;
      this.#balancer.pass(image, now, (broker) => this.#sessions.liveForMs(broker, now));
    }
    this.#timer = environment.after(settings.brokerSessionTimeoutMs / 4, () => this.#tick());
  }

  async #repair(): Promise<void> {
    const { logger } = this.#options;
    await this.#decide('replace lost replicas', (image) => {
      const { records, stuck } = replaceLost(image);
      // Until a pass finds nothing to do: what was decided may fail, and what is stuck may come loose.
      this.#repairDue = records.length > 0 || stuck > 0;
      if (records.length > 0) logger.warn('replicas were lost and are being replaced', { partitions: records.length });
      if (stuck > 0 && stuck !== this.#stuck) {
        logger.error('replicas were lost and can not be replaced: no majority of their voters is whole and live', { partitions: stuck });
      }
      this.#stuck = stuck;
      return { records, response: undefined };
    });
  }

  /** An operation of the controller's own. One that fails is decided again at the next tick. */
  async #decide(what: string, operation: Operation<MetadataImage, MetadataRecord, undefined>): Promise<void> {
    try {
      await this.#runtime.run(operation, this.#leading.signal);
    } catch (error) {
      this.#options.logger.info('controller could not decide', { what, reason: messageOf(error) });
    }
  }
}

function registered(image: MetadataImage, brokerId: BrokerId, incarnation: number): BrokerRegistration {
  const known = image.brokers.get(brokerId);
  if (known !== undefined && known.incarnation === incarnation) return known;
  throw new FlotillaError('BROKER_ID_NOT_REGISTERED', `broker ${brokerId}, incarnation ${incarnation}, is not registered: register again`);
}

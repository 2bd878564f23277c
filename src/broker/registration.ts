/**
 * This broker's standing with the controller: registers, and reports leaderships at each heartbeat, those that changed at once.
 * A report is repeated until it is acknowledged; the controller keeps (term, leader) monotone.
 */

import type { Environment, Logger } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { pause } from '../controller/pause.ts';
import type { BrokerHeartbeat, Controller, RegisterBroker } from '../controller/types.ts';
import type { MetadataView } from '../metadata/image.ts';
import { within } from './deadline.ts';
import type { Partition } from './partition.ts';
import type { Partitions } from './partitions.ts';

/** Leaderships in one heartbeat; the rest follows in the next, at once. */
export const MAX_REPORTED_LEADERS = 10_000;

const FIRST_RETRY_MS = 50;
const MAX_RETRY_MS = 2000;

export interface RegistrationOptions {
  readonly registration: RegisterBroker;
  readonly controller: Controller;
  readonly partitions: Partitions;
  readonly metadata: MetadataView;
  readonly environment: Environment;
  readonly log: Logger;
  readonly heartbeatIntervalMs: number;
  readonly requestTimeoutMs: number;
}

export class Registration {
  readonly #options: RegistrationOptions;
  readonly #stop = new AbortController();
  /** Partitions whose leadership changed since it was last acknowledged: a start of thousands of them must not look at all for each. */
  readonly #unreported = new Set<Partition>();
  #registered = false;
  #stopping = false;
  /** Something changed since the last heartbeat was put together. */
  #changed = false;
  #wake: AbortController | undefined;
  #loop: Promise<void> | undefined;

  constructor(options: RegistrationOptions) {
    this.#options = options;
  }

  get registered(): boolean {
    return this.#registered;
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  /** A leadership changed: report it soon, with all that change in this turn. */
  leadershipChanged(partition: Partition): void {
    this.#unreported.add(partition);
    this.#reportSoon();
  }

  #reportSoon(): void {
    if (this.#changed) return;
    this.#changed = true;
    this.#options.environment.nextTurn(() => this.#wake?.abort());
  }

  /** Tells the controller that this broker is about to stop. */
  announceStop(): void {
    this.#stopping = true;
    this.#reportSoon();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wake?.abort();
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { environment, log, heartbeatIntervalMs } = this.#options;
    let retryMs = FIRST_RETRY_MS;
    while (!this.#stop.signal.aborted) {
      let pauseMs = heartbeatIntervalMs;
      try {
        await this.#report();
        retryMs = FIRST_RETRY_MS;
      } catch (error) {
        if (error instanceof FlotillaError && error.code === 'BROKER_ID_NOT_REGISTERED') this.#registered = false;
        if (!this.#stop.signal.aborted) log.debug('heartbeat.failed', { error: messageOf(error), retryMs });
        pauseMs = retryMs;
        retryMs = Math.min(MAX_RETRY_MS, heartbeatIntervalMs, retryMs * 2);
        this.#changed = false;
      }
      if (this.#changed || this.#stop.signal.aborted) continue;
      this.#wake = new AbortController();
      await pause(environment, pauseMs, this.#wake.signal);
      this.#wake = undefined;
    }
  }

  async #report(): Promise<void> {
    const { registration, controller, environment, requestTimeoutMs } = this.#options;
    const stopped = this.#stop.signal;
    if (!this.#registered) {
      await within(environment, requestTimeoutMs, stopped, 'registering with the controller', (signal) =>
        controller.registerBroker(registration, signal),
      );
      this.#registered = true;
      for (const partition of this.#options.partitions.all()) this.#unreported.add(partition);
      this.#options.log.info('broker.registered', { brokerId: registration.brokerId });
    }
    this.#changed = false;
    const { heartbeat, reported } = this.#compose();
    await within(environment, requestTimeoutMs, stopped, 'heartbeat to the controller', (signal) =>
      controller.heartbeat(heartbeat, signal),
    );
    for (const [partition, epoch] of reported) if (partition.leaderEpoch === epoch) this.#unreported.delete(partition);
    if (reported.length === MAX_REPORTED_LEADERS) this.#changed = true;
  }

  #compose(): { heartbeat: BrokerHeartbeat; reported: readonly (readonly [Partition, number])[] } {
    const { registration, partitions, metadata } = this.#options;
    const { brokerId, incarnation } = registration;
    const leaders: BrokerHeartbeat['leaders'][number][] = [];
    const reported: [Partition, number][] = [];
    for (const changed of this.#unreported) {
      const { topicId, partition, replica } = changed;
      const { ready, term } = replica.leadership;
      // Of one that is not open yet, or no more, or not ready, it is told when it is.
      if (!ready || partitions.get(topicId, partition) !== changed) {
        this.#unreported.delete(changed);
        continue;
      }
      leaders.push({ topicId, partition, leader: brokerId, leaderEpoch: term });
      reported.push([changed, term]);
      if (leaders.length === MAX_REPORTED_LEADERS) break;
    }
    const heartbeat = { brokerId, incarnation, leaders, stopping: this.#stopping, metadataIndex: metadata.image.index };
    return { heartbeat, reported };
  }
}

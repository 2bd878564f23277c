/** The demo's parts put together: a dev cluster, a topic, a load and a reader, and what happens to them. */
import { randomUUID } from 'node:crypto';
import { FlotillaError, messageOf } from '../../base/errors.ts';
import type { ClusterClient, PartitionDescription } from '../client.ts';
import type { DevCluster } from '../dev/cluster.ts';
import { loadFlights } from './flights.ts';
import { Ledger, type Proof, prove } from './ledger.ts';
import { Load, pause, Reader } from './load.ts';

export const DEMO_TOPIC = 'demo';
const PARTITIONS = 3;
const MAX_REPLICAS = 3;
const WATCH_INTERVAL_MS = 250;
const WATCH_TIMEOUT_MS = 2_000;
/** How long the reader may take to get to the end once nothing more is sent. */
const CATCH_UP_MS = 60_000;
const MAX_EVENTS = 100;

export interface DemoEvent {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly text: string;
}

export class DemoRun {
  readonly cluster: DevCluster;
  readonly ledger = new Ledger();
  readonly load: Load;
  readonly reader: Reader;
  readonly events: DemoEvent[] = [];
  readonly rate: number;
  /** As last seen. */
  partitions: readonly PartitionDescription[] = [];
  readonly #client: ClusterClient;
  readonly #runId: string;
  readonly #stopLoad = new AbortController();
  readonly #stopAll = new AbortController();
  readonly #tasks: Promise<void>[] = [];
  #onEvent: (event: DemoEvent) => void = () => {};

  private constructor(cluster: DevCluster, client: ClusterClient, load: Load, ledger: Ledger, options: { run: string; rate: number }) {
    this.cluster = cluster;
    this.#client = client;
    this.ledger = ledger;
    this.load = load;
    this.rate = options.rate;
    this.#runId = options.run;
    this.reader = new Reader(client, { topic: DEMO_TOPIC, run: options.run });
  }

  /** Creates the topic where it is not there yet, and starts to send and to read. */
  static async start(cluster: DevCluster, client: ClusterClient, rate: number, signal: AbortSignal): Promise<DemoRun> {
    const records = await loadFlights();
    const replicas = Math.min(MAX_REPLICAS, cluster.brokers.length);
    try {
      await client.admin.createTopic({ name: DEMO_TOPIC, partitions: PARTITIONS, replicas, configs: {} }, signal);
    } catch (error) {
      if (!(error instanceof FlotillaError && error.code === 'TOPIC_ALREADY_EXISTS')) throw error;
    }
    const ledger = new Ledger();
    const run = randomUUID();
    const load = new Load(client, ledger, { topic: DEMO_TOPIC, records, rate, run });
    const demo = new DemoRun(cluster, client, load, ledger, { run, rate });
    demo.#begin();
    return demo;
  }

  #begin(): void {
    this.#tasks.push(
      this.load.run(this.#stopLoad.signal),
      this.reader.run('beginning', this.#stopAll.signal).catch((error: unknown) => this.event(`the reader ended: ${messageOf(error)}`)),
      this.#watch(),
    );
  }

  onEvent(listener: (event: DemoEvent) => void): void {
    this.#onEvent = listener;
  }

  event(text: string): void {
    const event = { at: Date.now(), text };
    this.events.push(event);
    if (this.events.length > MAX_EVENTS) this.events.shift();
    this.#onEvent(event);
  }

  /** kill -9 when it runs, else back to life. */
  toggle(id: number): void {
    const broker = this.cluster.broker(id);
    if (broker === undefined) return;
    if (broker.pid !== undefined) this.load.resetGap();
    const done = broker.pid === undefined ? broker.start() : broker.kill();
    done.catch((error: unknown) => this.event(messageOf(error)));
  }

  /** Stops the load, lets the reader come to the end, compares. */
  async finish(): Promise<Proof> {
    this.#stopLoad.abort();
    await this.#tasks[0];
    if (!(await this.reader.caughtUp(CATCH_UP_MS, this.#stopAll.signal))) this.event('the reader did not get to the end in time');
    return prove(this.ledger, this.reader.reading);
  }

  /** Reads all of it once more from the beginning with a reader of its own, and compares. */
  async readBack(): Promise<Proof> {
    const stop = new AbortController();
    const reader = new Reader(this.#client, { topic: DEMO_TOPIC, run: this.#runId });
    const reading = reader.run('beginning', stop.signal).catch((error: unknown) => this.event(`reading back ended: ${messageOf(error)}`));
    if (!(await reader.caughtUp(CATCH_UP_MS, this.#stopAll.signal))) this.event('reading back did not get to the end in time');
    stop.abort();
    await reading;
    return prove(this.ledger, reader.reading);
  }

  async close(): Promise<void> {
    this.#onEvent = () => {};
    this.#stopLoad.abort();
    this.#stopAll.abort();
    await Promise.allSettled(this.#tasks);
  }

  /** Follows leaders and offsets; a change of leader is an event. */
  async #watch(): Promise<void> {
    const { signal } = this.#stopAll;
    while (!signal.aborted) {
      try {
        const topic = await this.#client.admin.describeTopic(DEMO_TOPIC, AbortSignal.any([signal, AbortSignal.timeout(WATCH_TIMEOUT_MS)]));
        this.partitions = topic.partitions.map((partition) => this.#newest(partition));
      } catch {
        // While a leader is being elected there may be no answer; the next round asks again.
      }
      await pause(WATCH_INTERVAL_MS);
    }
  }

  /** A broker that was cut off or paused may answer with what was true before: terms never go back here. */
  #newest(now: PartitionDescription): PartitionDescription {
    const before = this.partitions.find(({ partition }) => partition === now.partition);
    if (before === undefined) return now;
    if (now.leaderEpoch < before.leaderEpoch) return before;
    if (now.leader !== 0 && now.leaderEpoch > before.leaderEpoch) {
      this.event(
        `partition ${now.partition}: broker ${now.leader} leads in term ${now.leaderEpoch} (before: ${before.leader === 0 ? 'nobody' : `broker ${before.leader}`})`,
      );
    }
    return now;
  }
}

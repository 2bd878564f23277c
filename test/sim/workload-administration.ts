import { FlotillaError } from '../../src/base/errors.ts';
import { sleep } from '../../src/client/wait.ts';
import type { SeededRandom } from './random.ts';
import type { Host } from './workload.ts';

/** Topics that are created while the cluster is being broken. */
const MAX_CREATED = 10;
/** Milliseconds between two calls, at most. */
const CALL_MS = 5_000;
const LIST_MS = 100;

export interface AdministrationOptions {
  open(): Promise<Host>;
  readonly random: SeededRandom;
  readonly signal: AbortSignal;
  readonly topics: number;
  readonly partitions: number;
  readonly brokers: number;
  /** The other calls of an administrator are made, too. */
  readonly administers: boolean;
  readonly deletesRecords: boolean;
  failed(error: Error): void;
  /** A partition begins at the offset, at least, from now on. */
  startsAt(place: number, offset: number): void;
}

/** An administrator who creates topics, uses them, deletes them and moves leaderships, all the while. What was answered must be so from then on. */
export class Administration {
  succeeded = 0;
  readonly #options: AdministrationOptions;
  /** Topics whose creation was acknowledged, and that nobody has asked to delete. */
  readonly #created = new Set<string>();
  /** Topics whose deletion was acknowledged, and that nobody has asked to create again. */
  readonly #deleted = new Set<string>();

  constructor(options: AdministrationOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    const { open, random, signal, administers, deletesRecords } = this.#options;
    const host = await open();
    for (let count = 0; !signal.aborted; count++) {
      await sleep(host.environment, random.between(0, CALL_MS));
      if (deletesRecords && (!administers || random.chance(0.5))) await this.#deleteRecords(host);
      else if (count < MAX_CREATED && random.chance(0.5)) await this.#liveAndDie(host, `created-${count}`);
      else await this.#moveLeader(host);
    }
    await host.client.close();
  }

  /** Topics that were created, and not deleted, take records; those that were deleted are gone. */
  async finish(): Promise<void> {
    const { client, environment } = await this.#options.open();
    const producer = client.producer();
    await Promise.all(Array.from(this.#created, (name) => producer.send(name, { value: 'used' })));
    // A broker may show what the metadata were a moment ago, and not for ever.
    const isLeft = ({ name }: { readonly name: string }) => this.#deleted.has(name);
    for (const { name } of (await client.admin.listTopics()).filter(isLeft)) {
      // An earlier try to create it, whose answer nobody waited for, may have been carried out after the deletion.
      await this.#ask(() => client.admin.deleteTopic(name), ['UNKNOWN_TOPIC_OR_PARTITION']);
    }
    while ((await client.admin.listTopics()).some(isLeft)) await sleep(environment, LIST_MS);
    await client.close();
  }

  async #liveAndDie({ client, environment }: Host, name: string): Promise<void> {
    const { random, brokers } = this.#options;
    const spec = { name, partitions: 1 + random.below(2), replicas: Math.min(3, brokers) };
    const created = await this.#ask(() => client.admin.createTopic(spec), ['TOPIC_ALREADY_EXISTS']);
    if (created === 'unknown') return;
    this.#created.add(name);
    if (random.chance(0.3)) {
      const again = await this.#ask(() => client.admin.createTopic(spec), ['TOPIC_ALREADY_EXISTS']);
      if (again === 'done') this.#options.failed(new Error(`${name} was created twice`));
    }
    if (random.chance(0.4)) return;
    await sleep(environment, random.between(0, 1_000));
    // Whatever comes of it: it may be carried out later.
    this.#created.delete(name);
    const deleted = await this.#ask(() => client.admin.deleteTopic(name), ['UNKNOWN_TOPIC_OR_PARTITION']);
    if (deleted === 'unknown') return;
    this.#deleted.add(name);
  }

  async #deleteRecords({ client }: Host): Promise<void> {
    const { random, topics, partitions, startsAt, failed } = this.#options;
    const [topic, partition] = [random.below(topics), random.below(partitions)];
    const named = { topic: `t${topic}`, partition };
    try {
      const [end = 0] = await client.admin.listOffsets([{ ...named, at: 'end' }]);
      const before = random.below(end + 1);
      const [start = -1] = await client.admin.deleteRecords([{ ...named, before: random.chance(0.1) ? 'end' : before }]);
      this.succeeded++;
      if (start < before) failed(new Error(`${named.topic}-${partition} begins at ${start} after all below ${before} was deleted`));
      startsAt(topic * partitions + partition, start);
    } catch (error) {
      if (!(error instanceof FlotillaError) || error.code !== 'REQUEST_TIMED_OUT') throw error;
    }
  }

  /** Nothing need come of it: the broker may be down, or no replica of the partition. */
  async #moveLeader({ client }: Host): Promise<void> {
    const { random, topics, partitions, brokers } = this.#options;
    const move = () => client.admin.transferLeader(`t${random.below(topics)}`, random.below(partitions), 1 + random.below(brokers));
    try {
      await move();
      this.succeeded++;
    } catch (error) {
      if (!(error instanceof FlotillaError)) throw error;
    }
  }

  /** 'done': by this call. 'already': as `already` says, perhaps by an earlier try of it. 'unknown': it may be carried out, now or later. */
  async #ask(call: () => Promise<unknown>, already: readonly string[]): Promise<'done' | 'already' | 'unknown'> {
    try {
      await call();
      this.succeeded++;
      return 'done';
    } catch (error) {
      if (!(error instanceof FlotillaError)) throw error;
      if (already.includes(error.code)) return 'already';
      // With brokers down there may be too few to hold the replicas.
      if (error.code !== 'REQUEST_TIMED_OUT' && error.code !== 'INVALID_REPLICATION_FACTOR') throw error;
      return 'unknown';
    }
  }
}

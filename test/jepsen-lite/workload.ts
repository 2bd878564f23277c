/**
 * The log workload: idempotent producers send values that are unique, consumers follow from the beginning, one of them starting over now and
 * then; at the end everything is read back. All that happened is in the history, which the checker judges.
 */
import { setTimeout } from 'node:timers/promises';
import { messageOf } from '../../src/base/errors.ts';
import { type Client, connect } from '../../src/client/index.ts';
import type { Operation } from './checker.ts';
import type { Gaps } from './gaps.ts';

const PARTITIONS = 3;
const PRODUCERS = 3;
const SEND_EVERY_MS = 4;
/** Behind each value, so that files fill. */
const PADDING = ` ${'.'.repeat(300)}`;
/** With everything healed: each partition acknowledges, each consumer is at the end, all is read back. */
const RECOVER_WITHIN_MS = 30_000;
const START_OVER_EVERY_MS = 15_000;
const LOOK_EVERY_MS = 50;
/** The consumer that reads all back. */
const READS_BACK = 99;
const text = new TextDecoder();

export interface Load {
  /** Default `jepsen`. */
  readonly topic?: string;
  /** Records that each producer sends in a row, every {@link SEND_EVERY_MS}. Default 1. */
  readonly burst?: number;
}

export class LogWorkload {
  /** Sends where they were begun, polls where they ended. */
  readonly history: Operation[] = [];
  /** What did not come back in time, and errors that the SDK should not have shown. */
  readonly failures: string[] = [];
  readonly #client: Client;
  readonly #gaps: Gaps;
  readonly #topic: string;
  readonly #burst: number;
  readonly #stopProducing = new AbortController();
  readonly #stopConsuming = new AbortController();
  readonly #producing: Promise<void>[] = [];
  readonly #consuming: Promise<void>[] = [];
  /** By consumer, then by partition: the offset that it reads next. */
  readonly #positions = new Map<number, number[]>();
  /** By partition: when the newest of the sends that were acknowledged was begun. */
  readonly #newestSentAt = new Array<number>(PARTITIONS).fill(0);

  private constructor(client: Client, gaps: Gaps, { topic = 'jepsen', burst = 1 }: Load) {
    this.#client = client;
    this.#gaps = gaps;
    this.#topic = topic;
    this.#burst = burst;
  }

  static async start(bootstrap: string, gaps: Gaps, load: Load = {}): Promise<LogWorkload> {
    const client = await connect({ bootstrap });
    const workload = new LogWorkload(client, gaps, load);
    await client.admin.createTopic({ name: workload.#topic, partitions: PARTITIONS, replicas: 3 });
    for (let producer = 1; producer <= PRODUCERS; producer++) workload.#producing.push(workload.#produce(producer));
    workload.#consuming.push(workload.#follow(1), workload.#startOver(2));
    return workload;
  }

  /** The leader of partition 0. */
  async leader(): Promise<number> {
    for (;;) {
      const description = await this.#client.admin.describeTopic(this.#topic);
      const leader = description.partitions[0]?.leader;
      if (leader !== undefined && leader !== 0) return leader;
      await setTimeout(LOOK_EVERY_MS);
    }
  }

  /** What is sent from now on is acknowledged in some partition, or the signal comes. */
  async acknowledges(signal: AbortSignal): Promise<void> {
    const from = performance.now();
    while (!signal.aborted && Math.max(...this.#newestSentAt) < from) await setTimeout(LOOK_EVERY_MS);
  }

  /** With everything healed: waits until the cluster works again, stops, and reads all back. */
  async finish(): Promise<void> {
    const healedAt = performance.now();
    await this.#within('a partition that acknowledges nothing', () =>
      this.#newestSentAt.flatMap((at, partition) => (at > healedAt ? [] : [`partition ${partition}`])),
    );
    this.#stopProducing.abort();
    await Promise.all(this.#producing);
    const ends = await this.#client.admin.listOffsets(
      partitions().map((partition) => ({ topic: this.#topic, partition, at: 'end' as const })),
    );
    await this.#within('a consumer that does not follow', () => this.#behind(ends, [1]));
    this.#stopConsuming.abort();
    await Promise.all(this.#consuming);
    await this.#readBack(ends);
    await this.#client.close();
  }

  async #within(what: string, missing: () => readonly string[]): Promise<void> {
    const deadline = performance.now() + RECOVER_WITHIN_MS;
    while (missing().length > 0) {
      if (performance.now() > deadline) {
        this.failures.push(`${what} ${RECOVER_WITHIN_MS / 1000} s after everything was healed: ${missing().join(', ')}`);
        return;
      }
      await setTimeout(LOOK_EVERY_MS);
    }
  }

  #behind(ends: readonly number[], consumers: readonly number[]): string[] {
    return consumers.flatMap((consumer) =>
      ends.flatMap((end, partition) => {
        const at = this.#positions.get(consumer)?.[partition] ?? 0;
        return at >= end ? [] : [`consumer ${consumer} is at ${at} of ${end} in partition ${partition}`];
      }),
    );
  }

  async #produce(producer: number): Promise<void> {
    const handle = this.#client.producer();
    for (let count = 0; !this.#stopProducing.signal.aborted; ) {
      for (const end = count + this.#burst; count < end; count++) this.#send(handle, producer, count);
      await setTimeout(SEND_EVERY_MS);
    }
    await handle.close({ deadlineMs: RECOVER_WITHIN_MS });
  }

  #send(handle: ReturnType<Client['producer']>, producer: number, count: number): void {
    const partition = count % PARTITIONS;
    const value = `${producer}.${count}`;
    const begunAt = performance.now();
    // In the place of its beginning: what a producer sends first must stand first.
    const at = this.history.push({ type: 'send', partition, value, producer, outcome: 'info' }) - 1;
    handle.send(this.#topic, { value: value + PADDING, partition }).then(
      ({ offset }) => {
        this.#gaps.acknowledged(partition);
        this.#newestSentAt[partition] = Math.max(this.#newestSentAt[partition] ?? 0, begunAt);
        this.history[at] = { type: 'send', partition, value, producer, outcome: 'ok', offset };
      },
      (error: unknown) => this.failures.push(`send of ${value}: ${messageOf(error)}`), // Whether it was written is not known.
    );
  }

  async #follow(consumer: number): Promise<void> {
    await this.#consume(consumer, this.#stopConsuming.signal, () => false);
  }

  /** A consumer that forgets where it was. */
  async #startOver(consumer: number): Promise<void> {
    while (!this.#stopConsuming.signal.aborted) {
      this.history.push({ type: 'assign', consumer });
      this.#positions.delete(consumer);
      await this.#consume(consumer, AbortSignal.any([this.#stopConsuming.signal, AbortSignal.timeout(START_OVER_EVERY_MS)]), () => false);
    }
  }

  async #readBack(ends: readonly number[]): Promise<void> {
    const consumer = READS_BACK;
    if (ends.every((end) => end === 0)) return;
    const deadline = AbortSignal.timeout(RECOVER_WITHIN_MS + Math.ceil(this.history.length / 10));
    await this.#consume(consumer, deadline, () => this.#behind(ends, [consumer]).length === 0);
    for (const lag of this.#behind(ends, [consumer])) this.failures.push(`reading back: ${lag}`);
  }

  async #consume(consumer: number, signal: AbortSignal, done: () => boolean): Promise<void> {
    const positions = new Array<number>(PARTITIONS).fill(0);
    this.#positions.set(consumer, positions);
    try {
      await using handle = this.#client.consumer({ topics: [this.#topic], from: 'beginning', signal });
      for await (const { partition, records: consumed } of handle.batches()) {
        const records = consumed.map(({ offset, value }) => ({ offset, value: unpadded(value) }));
        this.history.push({ type: 'poll', consumer, partition, records });
        positions[partition] = (records.at(-1)?.offset ?? -1) + 1;
        if (done()) return;
      }
    } catch (error) {
      if (!signal.aborted) this.failures.push(`consumer ${consumer}: ${messageOf(error)}`);
    }
  }
}

/** Without the padding; what is damaged shows. */
function unpadded(bytes: Uint8Array | null): string {
  const value = text.decode(bytes ?? new Uint8Array());
  return value.endsWith(PADDING) ? value.slice(0, -PADDING.length) : value;
}

function partitions(): number[] {
  return Array.from({ length: PARTITIONS }, (_, partition) => partition);
}

/** A topic whose values are unique and counted: what was acknowledged, and whether just that is there, once each and in order. */
import { expect } from 'vitest';
import { type Client, connect, type Producer } from '../../src/client/index.ts';
import { until } from '../processes.ts';

const TOPIC = 'ledger';
/** Behind each value, so that files fill. */
const PADDING_BYTES = 1_000;

export class Ledger implements AsyncDisposable {
  readonly client: Client;
  readonly acknowledged: { readonly value: string; readonly offset: number }[] = [];
  readonly #producer: Producer;
  #sent = 0;
  #pressing = false;
  #pressure: Promise<void> = Promise.resolve();

  private constructor(client: Client) {
    this.client = client;
    this.#producer = client.producer({ deliveryTimeoutMs: 110_000 });
  }

  static async open(
    bootstrap: string,
    topic: { partitions?: number; replicas?: number; configs?: Record<string, string> } = {},
  ): Promise<Ledger> {
    const client = await connect({ bootstrap });
    const { replicas = 1 } = topic;
    // A broker that serves may have yet to be counted as alive.
    await until(async () => (await client.admin.describeCluster()).brokers.filter(({ alive }) => alive).length >= replicas);
    await client.admin.createTopic({ name: TOPIC, partitions: 1, replicas, ...topic });
    return new Ledger(client);
  }

  /** Sends one more; resolves when it is acknowledged, however often it takes. */
  async send(bytes = PADDING_BYTES): Promise<void> {
    const value = `${this.#sent++}${' '.repeat(bytes)}`;
    const { offset } = await this.#producer.send(TOPIC, { value, partition: 0 });
    this.acknowledged.push({ value: value.trimEnd(), offset });
  }

  /** Sends without a pause, some at a time, until {@link relax}. */
  press(atATime = 10): void {
    this.#pressing = true;
    const one = async (): Promise<void> => {
      while (this.#pressing) await this.send();
    };
    this.#pressure = Promise.all(Array.from({ length: atATime }, one)).then(() => {});
  }

  async relax(): Promise<void> {
    this.#pressing = false;
    await this.#pressure;
  }

  /** Reads all from the log's start: each value that was acknowledged before is at its offset, and no value is there twice. */
  async verify(): Promise<void> {
    const acknowledged = [...this.acknowledged];
    const [start = 0, end = 0] = await this.client.admin.listOffsets([
      { topic: TOPIC, partition: 0, at: 'beginning' },
      { topic: TOPIC, partition: 0, at: 'end' },
    ]);
    const read = new Map<number, string>();
    await using consumer = this.client.consumer({ topics: [TOPIC], from: 'beginning' });
    for await (const { offset, value } of start < end ? consumer : []) {
      read.set(
        offset,
        Buffer.from(value ?? [])
          .toString()
          .trimEnd(),
      );
      if (offset === end - 1) break;
    }
    expect(new Set(read.values()).size, 'values that are there twice').toBe(read.size);
    const lost = acknowledged.filter(({ value, offset }) => offset >= start && read.get(offset) !== value);
    expect(lost, 'acknowledged, and not where they were').toEqual([]);
    expect(acknowledged.length).toBeGreaterThan(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#pressing = false;
    await this.client.close({ deadlineMs: 1_000 });
    await this.#pressure.catch(() => {});
  }
}

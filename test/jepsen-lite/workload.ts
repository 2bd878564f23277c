import { connect } from '../../src/client/index.ts';
import type { Operation } from './checker.ts';

const TOPIC = 'jepsen';
const PARTITIONS = 3;
const PRODUCERS = 3;
const SEND_EVERY_MS = 4;
const READ_BACK_WITHIN_MS = 60_000;
const text = new TextDecoder();

/** `log`: producers send unique values, consumers read from the beginning all the while; at the end a fresh consumer reads everything. */
export class LogWorkload {
  readonly history: Operation[] = [];
  readonly #client: Awaited<ReturnType<typeof connect>>;
  readonly #stop = new AbortController();
  #work: Promise<unknown>[] = [];
  #lastAcknowledged = performance.now();
  #worstGapMs = 0;

  private constructor(client: Awaited<ReturnType<typeof connect>>) {
    this.#client = client;
  }

  static async start(bootstrap: string): Promise<LogWorkload> {
    const client = await connect({ bootstrap });
    await client.admin.createTopic({ name: TOPIC, partitions: PARTITIONS, replicas: 3 });
    const workload = new LogWorkload(client);
    for (let producer = 1; producer <= PRODUCERS; producer++) workload.#work.push(workload.#produce(producer));
    workload.#work.push(workload.#consume(1));
    return workload;
  }

  /** Stops producing, reads all that there is, and hands out the history. */
  async finish(): Promise<{ readonly history: readonly Operation[]; readonly worstGapMs: number }> {
    this.#stop.abort();
    await Promise.all(this.#work);
    const wanted = new Set(
      this.history.flatMap((operation) => (operation.type === 'send' && operation.outcome === 'ok' ? [operation.value] : [])),
    );
    const deadline = AbortSignal.timeout(READ_BACK_WITHIN_MS);
    try {
      await this.#read(99, deadline, (value) => {
        wanted.delete(value);
        return wanted.size === 0;
      });
    } catch (error) {
      if (!deadline.aborted) throw error;
    }
    await this.#client.close();
    return { history: this.history, worstGapMs: this.#worstGapMs };
  }

  async #produce(producer: number): Promise<void> {
    const handle = this.#client.producer();
    const pending: Promise<void>[] = [];
    for (let count = 0; !this.#stop.signal.aborted; count++) {
      const partition = count % PARTITIONS;
      const value = `${producer}.${count}`;
      pending.push(
        handle.send(TOPIC, { value, partition }).then(
          ({ offset }) => {
            const now = performance.now();
            this.#worstGapMs = Math.max(this.#worstGapMs, now - this.#lastAcknowledged);
            this.#lastAcknowledged = now;
            this.history.push({ type: 'send', partition, value, producer, outcome: 'ok', offset });
          },
          () => {
            // The SDK gave up: whether it was written is not known.
            this.history.push({ type: 'send', partition, value, producer, outcome: 'info' });
          },
        ),
      );
      await new Promise((resolve) => setTimeout(resolve, SEND_EVERY_MS));
    }
    await Promise.all(pending);
    await handle.close();
  }

  async #consume(consumer: number): Promise<void> {
    try {
      await this.#read(consumer, this.#stop.signal, () => false);
    } catch (error) {
      if (!this.#stop.signal.aborted) throw error;
    }
  }

  async #read(consumer: number, signal: AbortSignal, done: (value: string) => boolean): Promise<void> {
    await using handle = this.#client.consumer({ topics: [TOPIC], from: 'beginning', signal });
    for await (const batch of handle.batches()) {
      const records = batch.records.map((record) => ({ offset: record.offset, value: text.decode(record.value ?? new Uint8Array()) }));
      this.history.push({ type: 'poll', consumer, partition: batch.partition, records });
      let finished = false;
      for (const record of records) finished = done(record.value) || finished;
      if (finished) return;
    }
  }
}

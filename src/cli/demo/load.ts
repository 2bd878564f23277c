/** A steady stream of records into a topic, and the reader that follows it. Both survive the death of brokers. */
import { setTimeout } from 'node:timers/promises';
import { build, type Histogram } from 'hdr-histogram-js';
import { messageOf } from '../../base/errors.ts';
import type { ClusterClient, ClusterProducer, IncomingRecord, StartingPoint } from '../client.ts';
import type { Flight } from './flights.ts';
import { type Ledger, Reading } from './ledger.ts';

const NUMBER_HEADER = 'demo-number';
const RUN_HEADER = 'demo-run';
/** What is due is sent so often. */
const TICK_MS = 5;
/** Beyond it the load waits, and says so in the latency: records are timed from when they were due. */
const MAX_UNACKNOWLEDGED = 20_000;

export interface LoadOptions {
  readonly topic: string;
  readonly records: readonly Flight[];
  /** Records a second. */
  readonly rate: number;
  /** Tells this run's records from those of earlier ones in the same topic. */
  readonly run: string;
}

export class Load {
  /** Microseconds from due to acknowledged, of the last whole window. */
  latency: Histogram = newHistogram();
  /** The longest time without an acknowledgement in any partition, in milliseconds, since {@link resetGap}. */
  longestGapMs = 0;
  error: string | undefined;
  readonly #ledger: Ledger;
  readonly #options: LoadOptions;
  readonly #producer: ClusterProducer;
  readonly #run: Uint8Array;
  readonly #lastAcknowledged = new Map<number, number>();

  constructor(client: ClusterClient, ledger: Ledger, options: LoadOptions) {
    this.#ledger = ledger;
    this.#options = options;
    this.#producer = client.producer({ acks: 'quorum' });
    this.#run = Buffer.from(options.run);
  }

  /** Sends until the signal, then waits for what is in flight. */
  async run(signal: AbortSignal): Promise<void> {
    const started = performance.now();
    const interval = 1000 / this.#options.rate;
    for (let due = 0; !signal.aborted; ) {
      const now = performance.now() - started;
      while (due * interval <= now && this.#ledger.pending < MAX_UNACKNOWLEDGED) this.#send(due, started + due++ * interval);
      await pause(TICK_MS);
    }
    while (this.#ledger.pending > 0) await pause(TICK_MS);
    await this.#producer.close();
  }

  resetGap(): void {
    this.longestGapMs = 0;
  }

  #send(at: number, dueMs: number): void {
    const { topic, records } = this.#options;
    const flight = records[at % records.length] as Flight;
    const number = this.#ledger.sent();
    const headers = [
      { key: RUN_HEADER, value: this.#run },
      { key: NUMBER_HEADER, value: Buffer.from(String(number)) },
    ];
    this.#producer.send(topic, { key: Buffer.from(flight.key), value: Buffer.from(flight.value), headers }).then(
      ({ partition, offset }) => this.#acknowledged(number, partition, offset, dueMs),
      (error: unknown) => {
        this.#ledger.failed();
        this.error = messageOf(error);
      },
    );
  }

  #acknowledged(number: number, partition: number, offset: number, dueMs: number): void {
    const now = performance.now();
    this.#ledger.acknowledged(number, partition, offset);
    this.latency.recordValue(Math.max(1, Math.round((now - dueMs) * 1000)));
    this.longestGapMs = Math.max(this.longestGapMs, now - (this.#lastAcknowledged.get(partition) ?? now));
    this.#lastAcknowledged.set(partition, now);
  }
}

/** Reads a topic into a {@link Reading}, only the records of one run. */
export class Reader {
  readonly reading = new Reading();
  error: string | undefined;
  readonly #client: ClusterClient;
  readonly #options: Pick<LoadOptions, 'topic' | 'run'>;
  readonly #positions = new Map<number, number>();

  constructor(client: ClusterClient, options: Pick<LoadOptions, 'topic' | 'run'>) {
    this.#client = client;
    this.#options = options;
  }

  /** The offset that is read next; 0 before anything was. */
  position(partition: number): number {
    return this.#positions.get(partition) ?? 0;
  }

  /** Reads until the signal. */
  async run(from: StartingPoint, signal: AbortSignal): Promise<void> {
    const { topic, run } = this.#options;
    try {
      await using consumer = this.#client.consumer({ topic, from, signal });
      for await (const record of consumer) {
        this.#positions.set(record.partition, record.offset + 1);
        const number = numberOf(record, run);
        if (number !== undefined) this.reading.read(number, text(record.key), record.partition, record.offset);
      }
    } catch (error) {
      if (!signal.aborted) {
        this.error = messageOf(error);
        throw error;
      }
    }
  }

  /** Every partition has been read up to the end that it has now, or the deadline has passed: then false. */
  async caughtUp(deadlineMs: number, signal: AbortSignal): Promise<boolean> {
    const { partitions } = await this.#client.admin.describeTopic(this.#options.topic, signal);
    const numbers = partitions.map(({ partition }) => partition);
    const ends = await this.#client.admin.endOffsets(this.#options.topic, numbers, signal);
    const deadline = performance.now() + deadlineMs;
    while (numbers.some((partition, at) => this.position(partition) < (ends[at] ?? 0))) {
      if (performance.now() > deadline || this.error !== undefined) return false;
      await pause(20);
    }
    return true;
  }
}

function numberOf(record: IncomingRecord, run: string): number | undefined {
  const header = (key: string) => record.headers.find((each) => each.key === key)?.value ?? null;
  if (text(header(RUN_HEADER)) !== run) return undefined;
  return Number(text(header(NUMBER_HEADER)));
}

function text(bytes: Uint8Array | null): string {
  return bytes === null ? '' : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}

/** Microseconds, up to two minutes. */
export function newHistogram(): Histogram {
  return build({ lowestDiscernibleValue: 1, highestTrackableValue: 120_000_000, numberOfSignificantValueDigits: 3, useWebAssembly: false });
}

/** Resolves after `ms`; with a signal, rejects once that fires. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return setTimeout(ms, undefined, signal === undefined ? {} : { signal });
}

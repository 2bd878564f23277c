/** `flotilla bench produce | consume | latency`. */
import { randomBytes } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { CompressionName } from '../../record/types.ts';
import { Latencies, Pace, type Percentiles } from '../bench/measure.ts';
import type { Acks, ClusterClient, ClusterProducer } from '../client.ts';
import { pause } from '../demo/load.ts';
import { byteSize, integerText, milliseconds } from '../format.ts';
import { Progress } from '../progress.ts';
import type { Session } from '../session.ts';

export interface BenchOptions {
  readonly topic?: string;
  readonly partitions: number;
  readonly replicas: number;
  readonly recordSize: number;
  readonly batchBytes?: number;
  readonly seconds: number;
  readonly acks: Acks;
  readonly compression: CompressionName;
  /** Records a second; 0: as fast as it goes. */
  readonly rate?: number;
  /** Bytes written before reading is measured. */
  readonly fill?: number;
}

/** What the sender may have in flight: more than the producer's own bound, so that this one decides. */
const MAX_IN_FLIGHT_BYTES = 32 * 2 ** 20;
/** Different values, so that compression has something to do. */
const VALUES = 64;
/** Sends between two looks at the clock. */
const BURST = 64;
/** The first part of a run warms up connections and compilers; it is not measured. */
const WARM_UP_SHARE = 0.1;

export async function benchProduce(session: Session, options: BenchOptions): Promise<void> {
  await withTopic(session, options, async (client, topic) => {
    await using producer = client.producer(producerSettings(options));
    const sending = new Sending(producer, topic, options);
    const progress = new Progress(session.streams, 'records', () => sending.acknowledged);
    try {
      await sending.run(performance.now() + options.seconds * 1000, Number.POSITIVE_INFINITY, session.signal);
    } finally {
      progress.end();
    }
    await report(session, 'produce', options, sending.result());
  });
}

export async function benchConsume(session: Session, options: BenchOptions): Promise<void> {
  await withTopic(session, options, async (client, topic) => {
    if (options.topic === undefined) {
      await using producer = client.producer(producerSettings(options));
      const records = Math.ceil((options.fill ?? 0) / options.recordSize);
      const filling = new Sending(producer, topic, { ...options, rate: 0 });
      session.note(`writing ${byteSize(records * options.recordSize)} to read …`);
      await filling.run(Number.POSITIVE_INFINITY, records, session.signal);
    }
    const total = await recordCount(client, topic, session.signal);
    const until = performance.now() + options.seconds * 1000;
    const sums = { records: 0, bytes: 0, elapsedMs: 0 };
    while (total > 0 && performance.now() < until && !session.signal.aborted)
      await readOnce(client, topic, total, until, sums, session.signal);
    await report(session, 'consume', options, { ...sums, latency: undefined });
  });
}

export async function benchLatency(session: Session, options: BenchOptions): Promise<void> {
  await withTopic(session, options, async (client, topic) => {
    await using producer = client.producer(producerSettings(options));
    const values = makeValues(options.recordSize);
    const started = performance.now();
    const measureFrom = started + options.seconds * 1000 * WARM_UP_SHARE;
    const until = started + options.seconds * 1000;
    const pace = options.rate ? new Pace(options.rate, started) : undefined;
    const latencies = new Latencies();
    let records = 0;
    for (let at = 0; performance.now() < until && !session.signal.aborted; at++) {
      while (pace !== undefined && performance.now() < pace.dueMs) await (pace.dueMs - performance.now() > 2 ? pause(1) : nextTurn());
      const due = pace?.take() ?? performance.now();
      await producer.send(topic, { key: null, value: values[at % VALUES] ?? null });
      if (due < measureFrom) continue;
      latencies.record(performance.now() - due);
      records++;
    }
    const elapsedMs = performance.now() - measureFrom;
    await report(session, 'latency', options, {
      records,
      bytes: records * options.recordSize,
      elapsedMs,
      latency: latencies.percentiles(),
    });
  });
}

interface Result {
  readonly records: number;
  readonly bytes: number;
  readonly elapsedMs: number;
  readonly latency: Percentiles | undefined;
}

/** Sends as fast as the bound on what is in flight lets it, or on a beat. */
class Sending {
  acknowledged = 0;
  readonly #producer: ClusterProducer;
  readonly #topic: string;
  readonly #options: BenchOptions;
  readonly #values: readonly Uint8Array[];
  readonly #latencies = new Latencies();
  readonly #maxInFlight: number;
  #inFlight = 0;
  #measured = 0;
  #measureFrom = 0;
  #elapsedMs = 0;
  #error: unknown;
  #wake: (() => void) | undefined;

  constructor(producer: ClusterProducer, topic: string, options: BenchOptions) {
    this.#producer = producer;
    this.#topic = topic;
    this.#options = options;
    this.#values = makeValues(options.recordSize);
    this.#maxInFlight = Math.max(1, Math.floor(MAX_IN_FLIGHT_BYTES / Math.max(64, options.recordSize)));
  }

  async run(untilMs: number, maxRecords: number, signal: AbortSignal): Promise<void> {
    const started = performance.now();
    const bounded = Number.isFinite(untilMs) ? (untilMs - started) * WARM_UP_SHARE : 0;
    this.#measureFrom = started + bounded;
    const pace = this.#options.rate ? new Pace(this.#options.rate, started) : undefined;
    for (let sent = 0; sent < maxRecords && performance.now() < untilMs && !signal.aborted && this.#error === undefined; ) {
      if (pace !== undefined && performance.now() < pace.dueMs) {
        await pause(1);
        continue;
      }
      const now = performance.now();
      for (let burst = 0; burst < BURST && sent < maxRecords && (pace === undefined || pace.dueMs <= now); burst++) {
        this.#send(sent++, pace?.take() ?? now);
      }
      while (this.#inFlight >= this.#maxInFlight) await this.#change();
    }
    while (this.#inFlight > 0) await this.#change();
    this.#elapsedMs = performance.now() - this.#measureFrom;
    if (this.#error !== undefined) throw this.#error;
  }

  result(): Result {
    return {
      records: this.#measured,
      bytes: this.#measured * this.#options.recordSize,
      elapsedMs: this.#elapsedMs,
      latency: this.#latencies.percentiles(),
    };
  }

  #send(at: number, dueMs: number): void {
    this.#inFlight++;
    this.#producer.send(this.#topic, { key: null, value: this.#values[at % VALUES] ?? null }).then(
      () => {
        const now = performance.now();
        this.acknowledged++;
        if (now >= this.#measureFrom) {
          this.#measured++;
          this.#latencies.record(now - dueMs);
        }
        this.#done();
      },
      (error: unknown) => {
        this.#error ??= error;
        this.#done();
      },
    );
  }

  #done(): void {
    this.#inFlight--;
    this.#wake?.();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

async function readOnce(
  client: ClusterClient,
  topic: string,
  total: number,
  untilMs: number,
  sums: { records: number; bytes: number; elapsedMs: number },
  signal: AbortSignal,
): Promise<void> {
  const started = performance.now();
  let read = 0;
  await using consumer = client.consumer({ topic, from: 'beginning', signal });
  for await (const { key, value } of consumer) {
    sums.bytes += (key?.length ?? 0) + (value?.length ?? 0);
    read++;
    if (read >= total || ((read & 0x3ff) === 0 && performance.now() > untilMs)) break;
  }
  sums.records += read;
  sums.elapsedMs += performance.now() - started;
}

async function recordCount(client: ClusterClient, topic: string, signal: AbortSignal): Promise<number> {
  const { partitions } = await client.admin.describeTopic(topic, signal);
  return partitions.reduce((sum, { logStartOffset, highWatermark }) => sum + highWatermark - logStartOffset, 0);
}

async function withTopic(
  session: Session,
  options: BenchOptions,
  body: (client: ClusterClient, topic: string) => Promise<void>,
): Promise<void> {
  await using client = await session.connect();
  if (options.topic !== undefined) return body(client, options.topic);
  const topic = `bench-${randomBytes(4).toString('hex')}`;
  const { partitions, replicas } = options;
  await client.admin.createTopic({ name: topic, partitions, replicas, configs: {} }, session.signal);
  try {
    await body(client, topic);
  } finally {
    await client.admin.deleteTopic(topic, AbortSignal.timeout(10_000));
  }
}

function producerSettings({ acks, compression, batchBytes }: BenchOptions) {
  return { acks, compression, ...(batchBytes !== undefined && { batchBytes }) };
}

/** Half random, half constant: compresses about as well as JSON does. */
function makeValues(size: number): readonly Uint8Array[] {
  return Array.from({ length: VALUES }, () => {
    const value = Buffer.alloc(size, 'flotilla');
    randomBytes(Math.ceil(size / 2)).copy(value);
    return value;
  });
}

async function report(session: Session, name: string, options: BenchOptions, result: Result): Promise<void> {
  const { records, bytes, elapsedMs, latency } = result;
  const perSecond = (value: number) => (elapsedMs > 0 ? (value * 1000) / elapsedMs : 0);
  const corrected = Boolean(options.rate);
  if (session.json) {
    return void (await session.out.json({
      bench: name,
      records,
      bytes,
      seconds: elapsedMs / 1000,
      recordsPerSecond: perSecond(records),
      megabytesPerSecond: perSecond(bytes) / 1e6,
      ...(latency !== undefined && { latencyMs: latency, correctedForCoordinatedOmission: corrected }),
      options,
    }));
  }
  await session.out.line(
    `${name}: ${integerText(perSecond(records))} records/s, ${byteSize(perSecond(bytes))}/s (${integerText(records)} records of ${options.recordSize} bytes)`,
  );
  if (latency === undefined) return;
  const { p50, p90, p99, p999, max } = latency;
  const numbers = Object.entries({ p50, p90, p99, 'p99.9': p999, max }).map(([label, ms]) => `${label} ${milliseconds(ms)}`);
  await session.out.line(
    `latency: ${numbers.join('   ')}   ${corrected ? 'from when each record was due' : 'from when each was sent: with --rate it is from when it was due'}`,
  );
}

/** `flotilla produce`: a record for each line of stdin, streaming; done when every one is acknowledged. */
import { addAbortSignal } from 'node:stream';
import type { CompressionName, RecordHeader } from '../../record/types.ts';
import type { Acks, ClusterProducer, OutgoingRecord } from '../client.ts';
import { Failure } from '../failures.ts';
import { byteSize, count, seconds } from '../format.ts';
import { lineChunks } from '../lines.ts';
import { Progress } from '../progress.ts';
import type { Session } from '../session.ts';

export interface ProduceOptions {
  readonly keySeparator?: string;
  readonly header?: readonly [string, string][];
  readonly partition?: number;
  readonly acks: Acks;
  readonly compression: CompressionName;
  readonly encoding: 'text' | 'base64';
}

/** What may wait for its acknowledgement; beyond it, stdin is not read. */
const MAX_UNACKNOWLEDGED_RECORDS = 50_000;
const MAX_UNACKNOWLEDGED_BYTES = 64 * 2 ** 20;

export async function produce(session: Session, topic: string, options: ProduceOptions): Promise<void> {
  const toRecord = recordParser(options);
  const started = performance.now();
  await using client = await session.connect();
  await client.admin.describeTopic(topic, session.signal);
  await using producer = client.producer({ acks: options.acks, compression: options.compression });
  const sender = new Sender(producer, topic);
  const progress = new Progress(session.streams, 'acknowledged', () => sender.acknowledged);
  // A person at a terminal, or a pipe, may say nothing for ever.
  addAbortSignal(session.signal, session.streams.stdin);
  let line = 0;
  try {
    for await (const lines of lineChunks(session.streams.stdin)) {
      for (const text of lines) {
        line++;
        if (session.signal.aborted || sender.failed) break;
        await sender.send(toRecord(text, line));
      }
      if (session.signal.aborted || sender.failed) break;
    }
  } catch (error) {
    if (!session.signal.aborted) throw error;
  } finally {
    await sender.settled();
    progress.end();
  }
  const elapsed = performance.now() - started;
  if (sender.error !== undefined) throw sender.error;
  if (session.signal.aborted)
    throw new Failure(`Stopped after ${count(sender.acknowledged, 'acknowledged record')}, before the end of the input.`);
  if (session.json) {
    await session.out.json({ topic, acknowledged: sender.acknowledged, bytes: sender.bytes, seconds: elapsed / 1000 });
  } else {
    session.note(`${count(sender.acknowledged, 'record')} acknowledged (${byteSize(sender.bytes)} in ${seconds(elapsed)})`);
  }
}

/** Sends with a bound on what is unacknowledged. The first failure is kept; what was sent before it still counts. */
class Sender {
  acknowledged = 0;
  bytes = 0;
  error: unknown;
  readonly #producer: ClusterProducer;
  readonly #topic: string;
  #pendingRecords = 0;
  #pendingBytes = 0;
  #wake: (() => void) | undefined;

  constructor(producer: ClusterProducer, topic: string) {
    this.#producer = producer;
    this.#topic = topic;
  }

  get failed(): boolean {
    return this.error !== undefined;
  }

  /** Resolves when more may be sent. */
  async send(record: OutgoingRecord): Promise<void> {
    const size = (record.key?.length ?? 0) + (record.value?.length ?? 0);
    this.#pendingRecords++;
    this.#pendingBytes += size;
    this.#producer.send(this.#topic, record).then(
      () => {
        this.acknowledged++;
        this.bytes += size;
        this.#done(size);
      },
      (error: unknown) => {
        this.error ??= error;
        this.#done(size);
      },
    );
    while ((this.#pendingRecords >= MAX_UNACKNOWLEDGED_RECORDS || this.#pendingBytes >= MAX_UNACKNOWLEDGED_BYTES) && !this.failed) {
      await this.#change();
    }
  }

  /** Every record sent is acknowledged or has failed (each within the producer's delivery timeout). */
  async settled(): Promise<void> {
    while (this.#pendingRecords > 0) await this.#change();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #done(size: number): void {
    this.#pendingRecords--;
    this.#pendingBytes -= size;
    this.#wake?.();
  }
}

/** How a line becomes a record. Errors: {@link Failure} naming the line. */
export function recordParser(options: ProduceOptions): (line: Uint8Array, number: number) => OutgoingRecord {
  const separator = options.keySeparator === undefined ? undefined : Buffer.from(options.keySeparator);
  const headers: readonly RecordHeader[] = (options.header ?? []).map(([key, value]) => ({ key, value: Buffer.from(value) }));
  const constant = {
    ...(headers.length > 0 && { headers }),
    ...(options.partition !== undefined && { partition: options.partition }),
  };
  const decode = (bytes: Uint8Array, number: number) => (options.encoding === 'base64' ? fromBase64(bytes, number) : bytes);
  return (line, number) => {
    if (separator === undefined) return { ...constant, key: null, value: decode(line, number) };
    const at = Buffer.from(line.buffer, line.byteOffset, line.byteLength).indexOf(separator);
    if (at === -1) {
      throw new Failure(`Line ${number} has no '${options.keySeparator}', so no key. Nothing after line ${number - 1} was sent.`);
    }
    return { ...constant, key: decode(line.subarray(0, at), number), value: decode(line.subarray(at + separator.length), number) };
  };
}

function fromBase64(bytes: Uint8Array, number: number): Uint8Array {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1').trimEnd();
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw new Failure(`Line ${number} is not base64. Nothing after line ${number - 1} was sent.`);
  return Buffer.from(text, 'base64');
}

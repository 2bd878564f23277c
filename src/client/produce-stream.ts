import { create } from '@bufbuild/protobuf';
import type { Environment, Timer } from '../base/environment.ts';
import {
  type Acks,
  Data,
  ProduceBatchSchema,
  type ProduceRequest,
  ProduceRequestSchema,
  type ProduceResult,
} from '../gen/flotilla/v1/data_pb.ts';
import type { RpcChannel, RpcStream } from '../rpc/types.ts';
import type { PartitionQueue } from './partition-queue.ts';
import type { ProducerBatch } from './producer-batch.ts';

/** A frame is closed when it has reached this many bytes; the rest goes in the next turn. */
export const FRAME_BYTES = 1 << 20;
/** How long a small batch waits for others while the broker is busy with earlier ones. Idle, it goes at once. */
export const LINGER_MS = 5;

export interface ProduceStreamOptions {
  readonly acks: Acks;
  readonly requestTimeoutMs: number;
}

/**
 * One stream to one broker: the batches of one event-loop turn leave in one frame. Idle, a record leaves at the end of the task that
 * sent it; busy, batches gather until the answer comes, so their size follows the load.
 */
export class ProduceStream {
  readonly address: string;
  readonly #environment: Environment;
  readonly #options: ProduceStreamOptions;
  readonly #stream: RpcStream<ProduceRequest>;
  readonly #inFlight = new Map<number, { readonly queue: PartitionQueue; readonly batch: ProducerBatch }>();
  readonly #queues = new Set<PartitionQueue>();
  readonly #onClosed: (stream: ProduceStream) => void;
  #listed: PartitionQueue[] = [];
  #scheduled = false;
  #blocked = false;
  #closed = false;
  #linger: Timer | undefined;
  #correlation = 0;
  #lastHeardMs: number;

  constructor(environment: Environment, channel: RpcChannel, options: ProduceStreamOptions, onClosed: (stream: ProduceStream) => void) {
    this.#environment = environment;
    this.#options = options;
    this.#onClosed = onClosed;
    this.address = channel.address;
    this.#lastHeardMs = environment.monotonicMs();
    this.#stream = channel.stream(
      Data.method.produce,
      {
        message: (response) => this.#receive(response.results),
        closed: () => this.#break(),
        drained: () => {
          this.#blocked = false;
          this.#schedule();
        },
      },
      {},
    );
  }

  /** Batches in flight. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  get queues(): ReadonlySet<PartitionQueue> {
    return this.#queues;
  }

  /** Milliseconds since anything was heard, while something is awaited; 0: nothing is. */
  silentMs(nowMs: number): number {
    const first = this.#inFlight.values().next().value;
    return first === undefined ? 0 : nowMs - Math.max(this.#lastHeardMs, first.batch.sentAtMs);
  }

  attach(queue: PartitionQueue): void {
    this.#queues.add(queue);
  }

  detach(queue: PartitionQueue): void {
    this.#queues.delete(queue);
  }

  /** The queue has something to send; `urgent`: a batch that need not wait for more. */
  wake(queue: PartitionQueue, urgent: boolean): void {
    if (!queue.listed) {
      queue.listed = true;
      this.#listed.push(queue);
    }
    if (this.#scheduled) return;
    if (this.#inFlight.size === 0 || urgent) this.#schedule();
    else this.#linger ??= this.#environment.after(LINGER_MS, () => this.#pump(true));
  }

  cancel(): void {
    this.#stream.cancel();
    // A transport that never says so must not keep the batches.
    this.#break();
  }

  #schedule(): void {
    if (this.#scheduled || this.#closed || this.#listed.length === 0) return;
    this.#scheduled = true;
    if (this.#inFlight.size === 0) this.#environment.soon(() => this.#pump(false));
    else this.#environment.nextTurn(() => this.#pump(false));
  }

  #pump(lingered: boolean): void {
    if (!lingered) this.#scheduled = false;
    this.#linger?.cancel();
    this.#linger = undefined;
    if (this.#closed || this.#blocked) return;
    const idle = lingered || this.#inFlight.size === 0;
    const nowMs = this.#environment.monotonicMs();
    const frame = create(ProduceRequestSchema);
    const listed = this.#listed;
    this.#listed = [];
    let bytes = 0;
    for (const queue of listed) {
      queue.listed = false;
      while (bytes < FRAME_BYTES) {
        const batch = queue.next(idle);
        if (batch === undefined) break;
        bytes += this.#add(frame, queue, batch, nowMs);
      }
      if (queue.sendable) {
        queue.listed = true;
        this.#listed.push(queue);
      }
    }
    if (frame.batches.length > 0) this.#blocked = !this.#stream.send(frame);
    if (this.#listed.length === 0 || this.#blocked) return;
    if (bytes >= FRAME_BYTES) this.#schedule();
    else this.#linger ??= this.#environment.after(LINGER_MS, () => this.#pump(true));
  }

  #add(frame: ProduceRequest, queue: PartitionQueue, batch: ProducerBatch, nowMs: number): number {
    const bytes = queue.bytesOf(batch);
    this.#correlation = (this.#correlation + 1) >>> 0;
    batch.correlation = this.#correlation;
    batch.sentAtMs = nowMs;
    this.#inFlight.set(batch.correlation, { queue, batch });
    frame.batches.push(
      create(ProduceBatchSchema, {
        correlation: batch.correlation,
        topicId: queue.topicId,
        partition: queue.partition,
        acks: this.#options.acks,
        timeoutMs: this.#options.requestTimeoutMs,
        recordBatch: bytes,
      }),
    );
    return bytes.length;
  }

  #receive(results: readonly ProduceResult[]): void {
    if (this.#closed) return;
    this.#lastHeardMs = this.#environment.monotonicMs();
    for (const result of results) {
      const sent = this.#inFlight.get(result.correlation);
      // A second answer to one batch says nothing new.
      if (sent === undefined) continue;
      this.#inFlight.delete(result.correlation);
      sent.queue.receive(sent.batch, result);
    }
    this.#schedule();
  }

  #break(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#linger?.cancel();
    this.#onClosed(this);
    this.#inFlight.clear();
    for (const queue of this.#listed) queue.listed = false;
    this.#listed = [];
    for (const queue of [...this.#queues]) queue.streamBroke(this);
    this.#queues.clear();
  }
}

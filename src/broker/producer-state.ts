/**
 * What a partition remembers of idempotent producers (KIP-98): the last batches of each, so that a batch that is sent again is
 * recognised and a missing one is noticed. It is a function of the log: leader and follower record batches as they are appended, in
 * log order, and forget what is truncated (hazard B30).
 *
 * Snapshot format (big-endian), producers from the least to the most recently appended:
 *
 *   0  u8   version, 1
 *   1  u32  producers
 *   5  for each: i64 producerId, u8 batches, then for each batch, oldest first:
 *      i16 producerEpoch, i32 firstSequence, i32 lastSequence, i64 baseOffset, i64 nextOffset
 */
import { assert } from '../base/assert.ts';
import { FlotillaError } from '../base/errors.ts';

/** Committed batches kept of each producer, as in Kafka: so many may be in flight and still be recognised. */
export const BATCHES_PER_PRODUCER = 5;

/** Producers that a partition remembers; beyond it the one that has been silent for longest is forgotten. */
export const MAX_PRODUCERS = 16_384;

const SEQUENCE_MASK = 0x7fff_ffff;
const SNAPSHOT_VERSION = 1;
const SNAPSHOT_HEADER_BYTES = 5;
const PRODUCER_BYTES = 9;
const BATCH_BYTES = 26;
/** A snapshot is cut at a committed offset, so a producer has no more batches than this in it. */
const MAX_SNAPSHOT_BATCHES = 255;

/** One batch of an idempotent producer, where it stands in the log. */
export interface ProducerBatch {
  readonly producerId: number;
  readonly epoch: number;
  readonly firstSequence: number;
  /** Inclusive; below firstSequence when the sequence went past 2^31 - 1. */
  readonly lastSequence: number;
  readonly baseOffset: number;
  readonly nextOffset: number;
  /** Raft index; 0: committed before this process began. */
  readonly index: number;
}

/** The sequence `count` after `sequence`: sequences go from 2^31 - 1 to 0. */
export function sequenceAfter(sequence: number, count: number): number {
  return (sequence + count) & SEQUENCE_MASK;
}

export class ProducerState {
  /** From the least to the most recently appended; each producer's batches in log order. */
  readonly #producers = new Map<number, ProducerBatch[]>();
  #nextOffset: number;
  #committedOffset: number;

  /** @param nextOffset where the log stands that this state is of; all before it is committed. */
  constructor(nextOffset: number) {
    this.#nextOffset = nextOffset;
    this.#committedOffset = nextOffset;
  }

  /** The offset after the last batch that was recorded, of whatever producer. */
  get nextOffset(): number {
    return this.#nextOffset;
  }

  get size(): number {
    return this.#producers.size;
  }

  /** Batches remembered of one producer: at most five, and what is not committed yet. */
  batchesOf(producerId: number): number {
    return this.#producers.get(producerId)?.length ?? 0;
  }

  /**
   * Whether a batch may be appended now: undefined if so, or the batch that it is a duplicate of.
   * Errors: INVALID_PRODUCER_EPOCH (a newer instance took over), OUT_OF_ORDER_SEQUENCE_NUMBER (a batch before this one is missing),
   * DUPLICATE_SEQUENCE_NUMBER (committed long ago, its offset is no longer known).
   */
  check(producerId: number, epoch: number, firstSequence: number, recordCount: number): ProducerBatch | undefined {
    const batches = this.#producers.get(producerId);
    const last = batches?.at(-1);
    if (batches === undefined || last === undefined || epoch > last.epoch) {
      if (firstSequence !== 0) throw outOfOrder(producerId, epoch, firstSequence, 0);
      return undefined;
    }
    if (epoch < last.epoch) {
      throw new FlotillaError(
        'INVALID_PRODUCER_EPOCH',
        `Producer ${producerId} has epoch ${last.epoch} here, the batch has ${epoch}: a newer instance of this producer took over.`,
      );
    }
    const expected = sequenceAfter(last.lastSequence, 1);
    if (firstSequence === expected) return undefined;
    const lastSequence = sequenceAfter(firstSequence, recordCount - 1);
    for (const batch of batches) {
      if (batch.epoch === epoch && batch.firstSequence === firstSequence && batch.lastSequence === lastSequence) return batch;
    }
    const oldest = batches.find((batch) => batch.epoch === epoch);
    if (oldest !== undefined && isBefore(lastSequence, oldest.firstSequence)) {
      throw new FlotillaError(
        'DUPLICATE_SEQUENCE_NUMBER',
        `Producer ${producerId} sent sequence ${firstSequence} before; the next is ${expected}. It is committed, its offset is no longer known.`,
      );
    }
    throw outOfOrder(producerId, epoch, firstSequence, expected);
  }

  /** Records an appended batch. Batches without a producer only move {@link nextOffset}; what was recorded already is passed over. */
  append(batch: ProducerBatch): void {
    if (batch.nextOffset <= this.#nextOffset) return;
    this.#nextOffset = batch.nextOffset;
    if (batch.producerId < 0) return;
    const batches = this.#producers.get(batch.producerId) ?? [];
    this.#producers.delete(batch.producerId);
    this.#producers.set(batch.producerId, batches);
    batches.push(batch);
    // Five committed ones must be left whatever is truncated.
    let surplus = 0;
    while ((batches[surplus + BATCHES_PER_PRODUCER]?.nextOffset ?? Number.POSITIVE_INFINITY) <= this.#committedOffset) surplus++;
    if (surplus > 0) batches.splice(0, surplus);
    if (this.#producers.size > MAX_PRODUCERS) this.#forgetSilent();
  }

  /** Moves past a batch of no producer. */
  advance(nextOffset: number): void {
    if (nextOffset > this.#nextOffset) this.#nextOffset = nextOffset;
  }

  /** All below `offset` is committed: it will not be truncated. */
  committed(offset: number): void {
    if (offset > this.#committedOffset) this.#committedOffset = offset;
  }

  /** The log now ends at `nextOffset`: forgets what was above. */
  truncate(nextOffset: number): void {
    assert(nextOffset >= this.#committedOffset, 'producer state is truncated below what is committed', {
      nextOffset,
      committed: this.#committedOffset,
    });
    if (nextOffset >= this.#nextOffset) return;
    this.#nextOffset = nextOffset;
    for (const [producerId, batches] of this.#producers) {
      while ((batches.at(-1)?.nextOffset ?? 0) > nextOffset) batches.pop();
      if (batches.length === 0) this.#producers.delete(producerId);
    }
  }

  /** The state as it was at the committed offset `nextOffset`. */
  encode(nextOffset: number): Uint8Array {
    const kept: (readonly [number, readonly ProducerBatch[]])[] = [];
    let bytes = SNAPSHOT_HEADER_BYTES;
    for (const [producerId, batches] of this.#producers) {
      const below = batches.filter((batch) => batch.nextOffset <= nextOffset).slice(-MAX_SNAPSHOT_BATCHES);
      if (below.length === 0) continue;
      kept.push([producerId, below]);
      bytes += PRODUCER_BYTES + below.length * BATCH_BYTES;
    }
    const encoded = new Uint8Array(bytes);
    const view = new DataView(encoded.buffer);
    view.setUint8(0, SNAPSHOT_VERSION);
    view.setUint32(1, kept.length);
    let at = SNAPSHOT_HEADER_BYTES;
    for (const [producerId, batches] of kept) {
      view.setBigInt64(at, BigInt(producerId));
      view.setUint8(at + 8, batches.length);
      at += PRODUCER_BYTES;
      for (const batch of batches) {
        view.setInt16(at, batch.epoch);
        view.setInt32(at + 2, batch.firstSequence);
        view.setInt32(at + 6, batch.lastSequence);
        view.setBigInt64(at + 10, BigInt(batch.baseOffset));
        view.setBigInt64(at + 18, BigInt(batch.nextOffset));
        at += BATCH_BYTES;
      }
    }
    return encoded;
  }

  /** The state that {@link encode} wrote at `nextOffset`. Errors: STORAGE_ERROR. */
  static decode(encoded: Uint8Array, nextOffset: number): ProducerState {
    const state = new ProducerState(nextOffset);
    const view = new DataView(encoded.buffer, encoded.byteOffset, encoded.byteLength);
    const version = encoded.length < SNAPSHOT_HEADER_BYTES ? 0 : view.getUint8(0);
    if (version !== SNAPSHOT_VERSION)
      throw new FlotillaError(
        'STORAGE_ERROR',
        `A producer snapshot has version ${version}; this broker reads ${SNAPSHOT_VERSION}: start the release that wrote it.`,
      );
    let at = SNAPSHOT_HEADER_BYTES;
    for (let left = view.getUint32(1); left > 0; left--) {
      const producerId = Number(view.getBigInt64(at));
      const batches: ProducerBatch[] = [];
      const count = view.getUint8(at + 8);
      at += PRODUCER_BYTES;
      for (let i = 0; i < count; i++, at += BATCH_BYTES) {
        batches.push({
          producerId,
          epoch: view.getInt16(at),
          firstSequence: view.getInt32(at + 2),
          lastSequence: view.getInt32(at + 6),
          baseOffset: Number(view.getBigInt64(at + 10)),
          nextOffset: Number(view.getBigInt64(at + 18)),
          index: 0,
        });
      }
      state.#producers.set(producerId, batches);
    }
    return state;
  }

  /** Only a producer whose batches are all committed may be forgotten: truncation must be able to undo the others. */
  #forgetSilent(): void {
    for (const [producerId, batches] of this.#producers) {
      if ((batches.at(-1)?.nextOffset ?? 0) > this.#committedOffset) continue;
      this.#producers.delete(producerId);
      return;
    }
  }
}

/** Whether sequence `a` comes before `b`, on a circle of 2^31. */
function isBefore(a: number, b: number): boolean {
  const distance = (b - a) & SEQUENCE_MASK;
  return distance !== 0 && distance < 2 ** 30;
}

function outOfOrder(producerId: number, epoch: number, sequence: number, expected: number): FlotillaError {
  return new FlotillaError(
    'OUT_OF_ORDER_SEQUENCE_NUMBER',
    `Producer ${producerId} (epoch ${epoch}) sent sequence ${sequence}, but ${expected} is next: send the batches before it again, in order.`,
  );
}

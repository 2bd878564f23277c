/**
 * A broker's own copy of the metadata image and those who watch it. Fed by one of two: the local replica of the metadata log
 * (`publish`), or a stream from a controller (`applyEntry`, `replace`).
 */
import { assert } from '../base/assert.ts';
import { FlotillaError } from '../base/errors.ts';
import { applyRecords, difference, emptyImage } from './apply.ts';
import { decodeImage } from './checkpoint.ts';
import type { MetadataDelta, MetadataImage, MetadataView } from './image.ts';
import { readMetadataEntry } from './records.ts';

/** Callers of `reached` that may wait at once; more are refused with THROTTLING_QUOTA_EXCEEDED. */
export const MAX_WAITERS = 10_000;

interface Waiter {
  readonly index: number;
  readonly resolve: () => void;
}

export class MetadataStore implements MetadataView {
  #image: MetadataImage = emptyImage;
  readonly #subscribers = new Set<(delta: MetadataDelta) => void>();
  readonly #waiters = new Set<Waiter>();
  #publishing = false;

  get image(): MetadataImage {
    return this.#image;
  }

  /** A subscriber that throws is a defect and ends the broker: skipping it would leave it with another image than the rest. */
  subscribe(subscriber: (delta: MetadataDelta) => void): () => void {
    // A function may be subscribed twice; each subscription is its own.
    const subscription = (delta: MetadataDelta): void => subscriber(delta);
    this.#subscribers.add(subscription);
    subscription(difference(emptyImage, this.#image));
    return () => this.#subscribers.delete(subscription);
  }

  async reached(index: number, signal: AbortSignal): Promise<void> {
    if (this.#image.index >= index) return;
    if (signal.aborted) throw aborted(index, this.#image.index);
    if (this.#waiters.size >= MAX_WAITERS)
      throw new FlotillaError('THROTTLING_QUOTA_EXCEEDED', `${MAX_WAITERS} calls wait for metadata already`);
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiters.delete(waiter);
        reject(aborted(index, this.#image.index));
      };
      const waiter: Waiter = {
        index,
        resolve: () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#waiters.add(waiter);
    });
  }

  /** Takes the next image, made by the local replica. */
  publish(delta: MetadataDelta): void {
    assert(!this.#publishing, 'a subscriber must not change the metadata it is told of');
    assert(delta.image.index > this.#image.index, 'images come in order', { from: this.#image.index, to: delta.image.index });
    this.#image = delta.image;
    this.#publishing = true;
    try {
      // A copy: who subscribes meanwhile has been given the whole image, this delta included.
      for (const subscriber of [...this.#subscribers]) if (this.#subscribers.has(subscriber)) subscriber(delta);
    } finally {
      this.#publishing = false;
    }
    for (const waiter of this.#waiters) {
      if (waiter.index > delta.image.index) continue;
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
  }

  /** Applies a committed entry of the metadata log; one that is already in the image is ignored, a gap is refused. */
  applyEntry(index: number, payload: Uint8Array): void {
    if (index <= this.#image.index) return;
    assert(index === this.#image.index + 1, 'metadata entries come without gaps', { image: this.#image.index, entry: index });
    this.publish(applyRecords(this.#image, index, readMetadataEntry(payload)));
  }

  /** Takes a whole image: a checkpoint, older ones are ignored. */
  replace(image: MetadataImage): void {
    if (image.index > this.#image.index) this.publish(difference(this.#image, image));
  }

  replaceEncoded(checkpoint: Uint8Array): void {
    this.replace(decodeImage(checkpoint));
  }
}

function aborted(index: number, at: number): FlotillaError {
  return new FlotillaError('REQUEST_TIMED_OUT', `metadata of index ${index} has not arrived at this broker (it is at ${at})`);
}

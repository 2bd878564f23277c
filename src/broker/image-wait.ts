/** Waits for what the metadata will say. */
import { FlotillaError } from '../base/errors.ts';
import type { MetadataImage, MetadataView } from '../metadata/image.ts';

/** Resolves when the image is as wanted; rejects with the signal's reason when that is a FlotillaError, else with ABORTED. */
export function until(metadata: MetadataView, wanted: (image: MetadataImage) => boolean, signal: AbortSignal): Promise<void> {
  if (wanted(metadata.image)) return Promise.resolve();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = () =>
    reject(signal.reason instanceof FlotillaError ? signal.reason : new FlotillaError('ABORTED', 'The wait for metadata was given up.'));
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  const unsubscribe = metadata.subscribe(({ image }) => {
    if (wanted(image)) resolve();
  });
  return promise.finally(() => {
    unsubscribe();
    signal.removeEventListener('abort', onAbort);
  });
}

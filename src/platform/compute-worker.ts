/** The worker thread of compute.ts. */
import { parentPort } from 'node:worker_threads';
import { must } from '../base/assert.ts';
import type { CleaningOptions, Noted } from '../base/compute.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import { LogCleaning } from '../record/cleaning.ts';
import { CompressionTable } from '../record/compression.ts';
import { nodeCompressions } from './compression.ts';
import { nativeCompressions } from './compression-native.ts';
import { transferable } from './compute.ts';
import { nativeCrc32c } from './crc32c.ts';

export type ComputeRequest =
  | { readonly type: 'begin'; readonly options: CleaningOptions }
  | { readonly type: 'note' | 'clean'; readonly bytes: Uint8Array }
  | { readonly type: 'end' };

/** One for each request, in their order. */
export interface ComputeAnswer {
  readonly noted?: Noted;
  readonly bytes?: Uint8Array;
  /** `number`: of a FlotillaError's code. */
  readonly error?: { readonly number: number | undefined; readonly message: string };
}

const codecs = { compression: new CompressionTable([...nodeCompressions, ...nativeCompressions]), crc32c: nativeCrc32c };
const port = must(parentPort ?? undefined, 'this module runs in a worker thread');
let cleaning: LogCleaning | undefined;

function answer(request: ComputeRequest): ComputeAnswer {
  switch (request.type) {
    case 'begin':
      cleaning = new LogCleaning(codecs, request.options);
      return {};
    case 'note':
      return { noted: must(cleaning, 'a cleaning was begun').note(request.bytes) };
    case 'clean':
      return { bytes: transferable(must(cleaning, 'a cleaning was begun').clean(request.bytes)) };
    case 'end':
      cleaning = undefined;
      return {};
  }
}

port.on('message', (request: ComputeRequest) => {
  try {
    const answered = answer(request);
    port.postMessage(answered, answered.bytes === undefined ? [] : [answered.bytes.buffer as ArrayBuffer]);
  } catch (error) {
    port.postMessage({ error: { number: error instanceof FlotillaError ? error.number : undefined, message: messageOf(error) } });
  }
});

/** The worker thread of compute.ts. */
import { constants, setPriority } from 'node:os';
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

yieldToOthers();

port.on('message', (request: ComputeRequest) => {
  try {
    const answered = answer(request);
    port.postMessage(answered, answered.bytes === undefined ? [] : [answered.bytes.buffer as ArrayBuffer]);
  } catch (error) {
    port.postMessage({ error: { number: error instanceof FlotillaError ? error.number : undefined, message: messageOf(error) } });
  }
  if ('bytes' in request) free(request.bytes);
});

/** At once: a collector that sees little of its heap change lets tens of MB of buffers wait for it. Nothing to do where they went back. */
function free({ buffer }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && !buffer.detached) buffer.transfer(0);
}

/** What waits for this thread is background work. Only Linux has priorities of threads: elsewhere it would be the whole process's. */
function yieldToOthers(): void {
  if (process.platform !== 'linux') return;
  try {
    setPriority(constants.priority.PRIORITY_LOW);
  } catch {
    // A sandbox refuses it: the work is done all the same.
  }
}

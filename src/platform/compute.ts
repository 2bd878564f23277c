/** {@link Compute} in one worker thread, which is started when it is first needed, and again when it died. */
import { Worker } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import type { Cleaning, CleaningOptions, Compute, Noted } from '../base/compute.ts';
import { FlotillaError } from '../base/errors.ts';
import type { ComputeAnswer, ComputeRequest } from './compute-worker.ts';

/** Some MB of batches take tens of milliseconds; a worker that needs so long hangs. */
const ANSWER_MS = 60_000;
/** Of closing. */
const CLOSE_MS = 1_000;
/** MiB of the worker's own heap: bytes and the map of keys are outside of it. */
const HEAP_MIB = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 8 };

interface Waiting {
  resolve(answer: ComputeAnswer): void;
  reject(error: Error): void;
}

export class WorkerCompute implements Compute {
  readonly #path: URL;
  #thread: Thread | undefined;
  #closed = false;

  /** `path`: of the worker's module. Compiled, it stands beside this one as well. */
  constructor(path = new URL(`./compute-worker.${import.meta.url.endsWith('.ts') ? 'ts' : 'js'}`, import.meta.url)) {
    this.#path = path;
  }

  beginCleaning(options: CleaningOptions): Cleaning {
    assert(!this.#closed, 'nothing is begun in a worker that was closed');
    if (this.#thread?.dead !== false) this.#thread = new Thread(this.#path);
    const thread = this.#thread;
    // What there is no memory for, say, is told to whoever asks next.
    thread.ask({ type: 'begin', options }).catch((error: Error) => thread.end(error));
    return {
      note: async (bytes) => (await thread.ask({ type: 'note', bytes })).noted as Noted,
      clean: async (bytes) => (await thread.ask({ type: 'clean', bytes })).bytes as Uint8Array,
      end: () => void thread.ask({ type: 'end' }).catch(() => {}),
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#thread?.end(new FlotillaError('CLOSED', 'The broker is stopping.'));
  }
}

/** One life of the worker. */
class Thread {
  readonly #worker: Worker;
  /** In the order in which they were asked, and are answered. */
  readonly #waiting: Waiting[] = [];
  #timer: NodeJS.Timeout | undefined;
  dead = false;

  constructor(path: URL) {
    this.#worker = new Worker(path, { resourceLimits: HEAP_MIB, name: 'compute' });
    this.#worker.unref();
    this.#worker.on('message', (answer: ComputeAnswer) => this.#answered(answer));
    this.#worker.on('messageerror', (error) => void this.end(error));
    this.#worker.on('error', (error) => void this.end(error instanceof Error ? error : new Error(String(error))));
    this.#worker.on('exit', (code) => void this.end(new Error(`the worker thread ended with code ${code}`)));
  }

  ask(request: ComputeRequest): Promise<ComputeAnswer> {
    if (this.dead) return Promise.reject(new Error('the worker thread has ended'));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#timer ??= this.#patience();
      const bytes = 'bytes' in request ? transferable(request.bytes) : undefined;
      this.#worker.postMessage(bytes === undefined ? request : { ...request, bytes }, bytes === undefined ? [] : [bytes.buffer]);
    });
  }

  async end(error: Error): Promise<void> {
    if (this.dead) return;
    this.dead = true;
    clearTimeout(this.#timer);
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise((resolve) => {
      timer = setTimeout(resolve, CLOSE_MS);
    });
    await Promise.race([this.#worker.terminate(), late]);
    clearTimeout(timer);
  }

  #answered(answer: ComputeAnswer): void {
    clearTimeout(this.#timer);
    const waiting = this.#waiting.shift();
    this.#timer = this.#waiting.length > 0 ? this.#patience() : undefined;
    const { error } = answer;
    if (error === undefined) waiting?.resolve(answer);
    else waiting?.reject(error.number === undefined ? new Error(error.message) : FlotillaError.fromNumber(error.number, error.message));
  }

  #patience(): NodeJS.Timeout {
    const late = () => void this.end(new Error(`the worker thread did not answer within ${ANSWER_MS} ms`));
    return setTimeout(late, ANSWER_MS).unref();
  }
}

/** Bytes whose whole buffer may go to another thread. A small part of one is copied: Node cuts small reads out of a buffer that they share. */
export function transferable(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer } = bytes;
  return buffer instanceof ArrayBuffer && bytes.length * 2 > buffer.byteLength ? (bytes as Uint8Array<ArrayBuffer>) : bytes.slice();
}

/** One broker process of `flotilla dev`: started, killed, watched. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { brokerHeapFlags, brokerMallocSettings } from '../../platform/heap.ts';
import { Failure } from '../failures.ts';
import type { ChildMessage } from './parent.ts';

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url));

export type BrokerState = 'starting' | 'serving' | 'stopping' | 'dead';

export interface BrokerFiles {
  readonly config: string;
  readonly pid: string;
  readonly log: string;
  /** The directory with one for each replica; there is none before the first start. */
  readonly groups: string;
}

export interface BrokerEvent {
  readonly id: number;
  readonly what: 'started' | 'serving' | 'killed' | 'stopped' | 'failed';
  readonly detail?: string;
}

export class BrokerProcess {
  readonly id: number;
  readonly address: string;
  state: BrokerState = 'dead';
  residentBytes = 0;
  readonly #files: BrokerFiles;
  readonly #onEvent: (event: BrokerEvent) => void;
  #child: ChildProcess | undefined;
  #exited: Promise<void> = Promise.resolve();

  constructor(id: number, address: string, files: BrokerFiles, onEvent: (event: BrokerEvent) => void) {
    this.id = id;
    this.address = address;
    this.#files = files;
    this.#onEvent = onEvent;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Resolves when the broker serves. No change when it runs already. Errors: {@link Failure} with what it said at its end. */
  async start(): Promise<void> {
    if (this.#child !== undefined) return;
    const log = openSync(this.#files.log, 'a');
    // A group of its own: Ctrl-C in the terminal reaches only the parent, which ends the brokers in its own way.
    const replicas = existsSync(this.#files.groups) ? readdirSync(this.#files.groups).length : 0;
    const child = spawn(process.execPath, [...brokerHeapFlags(replicas), MAIN, 'start', '--config', this.#files.config], {
      env: { ...brokerMallocSettings, ...process.env },
      stdio: ['ignore', log, log, 'ipc'],
      detached: true,
    });
    closeSync(log);
    this.#child = child;
    this.state = 'starting';
    if (child.pid !== undefined) writeFileSync(this.#files.pid, `${child.pid}\n`);
    this.#onEvent({ id: this.id, what: 'started', detail: `pid ${child.pid}` });
    await this.#serving(child);
  }

  /** kill -9. It stays dead until {@link start}. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#exited;
  }

  /** A clean end, which hands leaderships over; after `timeoutMs`, kill -9. */
  async stop(timeoutMs: number): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.state = 'stopping';
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    await this.#exited;
    clearTimeout(timer);
  }

  #serving(child: ChildProcess): Promise<void> {
    let lastWords: string | undefined;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#exited = new Promise((exited) => {
      child.once('error', (error) => {
        lastWords = error.message;
      });
      child.once('close', (code, signal) => {
        this.#ended(child, code, signal, lastWords);
        exited();
        reject(new Failure(`Broker ${this.id} ended before it served: ${lastWords ?? `see ${this.#files.log}`}`));
      });
    });
    child.on('message', (message: ChildMessage) => {
      if (message.type === 'ready') {
        this.state = 'serving';
        this.#onEvent({ id: this.id, what: 'serving' });
        resolve();
      } else if (message.type === 'memory') this.residentBytes = message.residentBytes;
      else lastWords = message.message;
    });
    return promise;
  }

  #ended(child: ChildProcess, code: number | null, signal: string | null, lastWords: string | undefined): void {
    if (this.#child !== child) return;
    const what = signal === 'SIGKILL' ? 'killed' : code === 0 ? 'stopped' : 'failed';
    this.#child = undefined;
    this.state = 'dead';
    this.residentBytes = 0;
    rmSync(this.#files.pid, { force: true });
    const detail = signal ?? (code === 0 ? undefined : (lastWords ?? `exit ${code}, see ${this.#files.log}`));
    this.#onEvent({ id: this.id, what, ...(detail !== undefined && { detail }) });
  }
}

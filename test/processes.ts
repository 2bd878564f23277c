/** Real processes for end-to-end tests: the command line as a person runs it, and brokers that are started, watched and killed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const MAIN = new URL('../src/cli/main.ts', import.meta.url).pathname;

export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export function start(argv: readonly string[], extra: Record<string, string> = {}): ChildProcess {
  const env = { ...process.env, NODE_ENV: 'production', ...extra };
  return spawn(process.execPath, [MAIN, ...argv], { env, stdio: 'pipe' });
}

/** Runs one command to its end. */
export async function run(argv: readonly string[], options: { bootstrap?: string; stdin?: string } = {}): Promise<Ended> {
  const child = start(argv, { FLOTILLA_BOOTSTRAP: options.bootstrap ?? '127.0.0.1:1' });
  child.stdin!.on('error', () => {}); // It may end without having read all.
  child.stdin!.end(options.stdin ?? '');
  const [out, err, code] = await Promise.all([
    child.stdout!.toArray(),
    child.stderr!.toArray(),
    new Promise<number | null>((resolve) => child.once('close', resolve)),
  ]);
  return { code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() };
}

/** The first of `count` ports in a row that are free now. */
export async function freePorts(count: number): Promise<number> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const first = 20_000 + Math.floor(Math.random() * 10_000);
    const free = await Promise.all(Array.from({ length: count }, (_, at) => isFree(first + at)));
    if (free.every(Boolean)) return first;
  }
  throw new Error(`no ${count} free ports in a row`);
}

function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** A directory that is gone with the scope. */
export class TemporaryDirectory implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'flotilla-test-'));

  join(...names: string[]): string {
    return join(this.path, ...names);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

export interface BrokerOptions {
  /** All that the process may have open (POSIX shells alone can say so). */
  readonly openFiles?: number;
  /** A command that runs the command behind it, and is replaced by it. */
  readonly within?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

/** One `flotilla start`, and what it logs. */
export class BrokerUnderTest {
  readonly #child: ChildProcess;
  readonly #ended: Promise<Ended>;
  #log = '';

  constructor(argv: readonly string[], { openFiles, within = [], environment = {} }: BrokerOptions = {}) {
    const limited = openFiles === undefined ? [] : ['sh', '-c', `ulimit -n ${openFiles}; exec "$@"`, 'sh'];
    const [file = '', ...args] = [...within, ...limited, process.execPath, MAIN, 'start', ...argv];
    this.#child = spawn(file, args, { env: { ...process.env, NODE_ENV: 'production', ...environment }, stdio: 'pipe' });
    let out = '';
    this.#child.stdout!.on('data', (chunk: Buffer) => {
      out += chunk.toString();
    });
    this.#child.stderr!.on('data', (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
    this.#ended = new Promise((resolve) => this.#child.once('close', (code) => resolve({ code, out, err: this.#log })));
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get log(): string {
    return this.#log;
  }

  /** When it has ended, by itself or otherwise. */
  get ended(): Promise<Ended> {
    return this.#ended;
  }

  async ready(): Promise<this> {
    await until(() => this.#log.includes('"broker.ready"') || !this.isRunning);
    if (!this.isRunning) throw new Error(`the broker ended before it was ready: ${this.#log}`);
    return this;
  }

  end(signal: NodeJS.Signals): Promise<Ended> {
    this.#child.kill(signal);
    return this.#ended;
  }
}

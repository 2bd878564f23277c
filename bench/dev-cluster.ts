import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePorts } from '../test/processes.ts';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const READY_WITHIN_MS = 30_000;
const STOP_WITHIN_MS = 20_000;

/** A cluster of real processes for measuring: `flotilla dev` in a directory of its own. */
export class DevCluster implements AsyncDisposable {
  readonly directory: string;
  readonly port: number;
  readonly brokers: number;
  readonly readyMs: number;
  readonly bootstrap: string;
  readonly #child: ChildProcess;

  private constructor(directory: string, port: number, brokers: number, readyMs: number, bootstrap: string, child: ChildProcess) {
    this.directory = directory;
    this.port = port;
    this.brokers = brokers;
    this.readyMs = readyMs;
    this.bootstrap = bootstrap;
    this.#child = child;
  }

  static async start(
    options: { brokers?: number; args?: readonly string[]; quiet?: boolean; env?: NodeJS.ProcessEnv } = {},
  ): Promise<DevCluster> {
    const brokers = options.brokers ?? 3;
    const directory = mkdtempSync(join(tmpdir(), 'flotilla-'));
    const port = await freePorts(brokers);
    const started = performance.now();
    const child = spawn(
      process.execPath,
      [
        join(root, 'src/cli/main.ts'),
        'dev',
        '--brokers',
        String(brokers),
        '--port',
        String(port),
        '--data',
        directory,
        ...(options.args ?? []),
      ],
      { stdio: ['pipe', 'pipe', options.quiet ? 'ignore' : 'inherit'], env: { ...process.env, ...options.env } },
    );
    const bootstrap = await new Promise<string>((resolve, reject) => {
      let text = '';
      const timer = setTimeout(() => reject(new Error(`no ready line within ${READY_WITHIN_MS} ms: ${text}`)), READY_WITHIN_MS);
      child.stdout.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        const match = /^ready (\S+)/m.exec(text);
        if (match?.[1] === undefined) return;
        clearTimeout(timer);
        resolve(match[1]);
      });
      child.on('exit', (code) => reject(new Error(`flotilla dev ended with ${code}: ${text}`)));
    });
    return new DevCluster(directory, port, brokers, performance.now() - started, bootstrap, child);
  }

  pid(broker: number): number {
    return Number(readFileSync(this.#pidFile(broker), 'utf8'));
  }

  #pidFile(broker: number): string {
    return join(this.directory, `broker-${broker}.pid`);
  }

  signal(broker: number, signal: NodeJS.Signals): void {
    process.kill(this.pid(broker), signal);
  }

  /** Ends a broker, and resolves when `flotilla dev` knows it. */
  async end(broker: number, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    this.signal(broker, signal);
    while (existsSync(this.#pidFile(broker))) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  /** Starts a broker again that has ended. */
  start(broker: number): void {
    this.#child.stdin?.write(`start ${broker}\n`);
  }

  usage(broker: number): Usage | undefined {
    return usageOf(this.pid(broker));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = new Promise<void>((resolve) => this.#child.once('exit', () => resolve()));
      this.#child.kill('SIGINT');
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_WITHIN_MS);
      await ended;
      clearTimeout(timer);
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** What the kernel counts for a process. */
export interface Usage {
  readonly residentKiB: number;
  /** User and system time of all its threads. */
  readonly cpuSeconds: number;
}

/** Linux's clock ticks, in which /proc counts time, are hundredths of a second on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100;

/** Undefined where there is no /proc, or no such process any more. */
export function usageOf(pid: number): Usage | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command's name, field 2, may hold blanks and parentheses.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return {
      residentKiB: Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0),
      cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND,
    };
  } catch {
    return undefined;
  }
}

const SECTOR_BYTES = 512;

/**
 * What the disk that holds the directory has written, by whomever. Not the process's own `write_bytes`: where the page cache has large folios (ext4 since
 * Linux 6.16), a page that is written over counts with all the others of its folio, 2.7 bytes where the disk writes 2.1. Undefined where there is no /sys.
 */
export function writtenByDisk(directory: string): number | undefined {
  const { dev } = statSync(directory);
  // As glibc's major() and minor() do, below 2^32.
  const device = `${(dev >>> 8) & 0xfff}:${(dev & 0xff) | ((dev >>> 12) & 0xfff00)}`;
  try {
    return Number(readFileSync(`/sys/dev/block/${device}/stat`, 'utf8').trim().split(/\s+/)[6]) * SECTOR_BYTES;
  } catch {
    return undefined;
  }
}

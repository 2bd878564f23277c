/** What is measured of Flotilla and of others, and how others' programs are run. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { usageOf } from '../dev-cluster.ts';

export const PARTS = ['ready', 'produce', 'latency', 'consume', 'gap'] as const;
export type Part = (typeof PARTS)[number];

export const RECORD_BYTES = 1024;
export const PARTITIONS = 3;
/** A steady load, in which the longest time without an acknowledgement is looked for. */
export const GAP_RECORDS_PER_SECOND = 200;

const STOP_WITHIN_MS = 15_000;

/** Of one round; undefined: not measured, or no such thing. */
export interface Result {
  readonly readyMs?: number | undefined;
  readonly produceMBs?: number | undefined;
  readonly residentMB?: number | undefined;
  readonly p50Ms?: number | undefined;
  readonly p99Ms?: number | undefined;
  readonly consumeMBs?: number | undefined;
  readonly gapMs?: number | undefined;
}

export interface Plan {
  readonly parts: ReadonlySet<Part>;
  /** To produce, and to consume. */
  readonly records: number;
}

/** Starts a fresh cluster, measures, and leaves nothing behind. */
export type System = (plan: Plan) => Promise<Result>;

/** A failure that a person can do something about. */
export class PeerError extends Error {}

/** One of the peers' scripts, which the repository does not hold. */
export class Peer {
  readonly #name: string;
  readonly #script: string;
  readonly #pidFile: string;

  /** `pidFile`: where the script keeps its brokers' process ids, below its part of `$PEERS_DIR`. */
  constructor(directory: string, name: string, pidFile: string) {
    this.#name = name;
    this.#script = join(directory, name, name);
    this.#pidFile = join(process.env.PEERS_DIR ?? join(homedir(), '.cache', 'flotilla-peers'), name, pidFile);
  }

  get isThere(): boolean {
    return existsSync(this.#script);
  }

  /** What it prints. @throws PeerError with the end of what it said when it fails */
  run(...args: string[]): Promise<string> {
    return new Promise((resolve, reject) => {
      const child = spawn(this.#script, args, { stdio: ['ignore', 'pipe', 'pipe'] });
      let out = '';
      let err = '';
      child.stdout.on('data', (chunk: Buffer) => {
        out += chunk.toString();
      });
      child.stderr.on('data', (chunk: Buffer) => {
        err += chunk.toString();
      });
      child.on('error', (error) => reject(new PeerError(`${this.#script} can't be run: ${error.message}`)));
      // Not `close`: the brokers that it leaves behind may hold the pipes.
      child.on('exit', (code) => {
        child.stdout.destroy();
        child.stderr.destroy();
        if (code === 0) resolve(out);
        else reject(new PeerError(`${this.#name} ${args.join(' ')} ended with ${code}: ${(err || out).slice(-500)}`));
      });
    });
  }

  /** Without arguments it installs what it needs and prints its usage, with an exit code of 2. */
  async install(): Promise<void> {
    await this.run().catch((error: unknown) => {
      if (!(error instanceof PeerError && error.message.includes('ended with 2'))) throw error;
    });
  }

  /** Of its brokers, in their order; none when it is down. */
  pids(): number[] {
    if (!existsSync(this.#pidFile)) return [];
    return readFileSync(this.#pidFile, 'utf8').split('\n').filter(Boolean).map(Number);
  }

  /** A broker whose quorum is gone may take minutes to end by itself. */
  async stop(): Promise<void> {
    const impatient = setTimeout(() => {
      for (const pid of this.pids()) kill(pid);
    }, STOP_WITHIN_MS);
    await this.run('down').finally(() => clearTimeout(impatient));
  }
}

/** It may have ended already. */
function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** MB of the largest. */
export function largestResident(pids: readonly number[]): number {
  return Math.max(...pids.map((pid) => (usageOf(pid)?.residentKiB ?? 0) / 1024));
}

export function recordsToMB(records: number): number {
  return (records * RECORD_BYTES) / 1e6;
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const READY_WITHIN_MS = 120_000;

/** How long until `probe` says yes, asked every 50 ms. @throws PeerError when it does not */
export async function readyAfter(probe: () => Promise<boolean>): Promise<number> {
  const started = performance.now();
  while (performance.now() - started < READY_WITHIN_MS) {
    if (await probe().catch(() => false)) return performance.now() - started;
    await pause(50);
  }
  throw new PeerError(`not ready within ${READY_WITHIN_MS / 1000} s`);
}

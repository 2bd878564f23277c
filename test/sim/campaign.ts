/** Many seeds over several processes. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { failed, type SeedOrder, type SeedReport } from './seed-report.ts';

const WORKER = fileURLToPath(new URL('worker.ts', import.meta.url));
/** A worker for each processor: threads that collect garbage beside it only take turns with the others. A quarter less of a processor for each seed. */
const FLAGS = ['--single-threaded-gc', '--max-semi-space-size=64'];
/** No world takes so long, unless it goes round in itself. */
const SEED_TIMEOUT_MS = 300_000;

export interface SeedsOptions {
  readonly from: number;
  readonly count: number;
  readonly jobs: number;
  readonly order: Omit<SeedOrder, 'seed'>;
  /** Asked before each seed. */
  readonly goOn: () => boolean;
  /** Each seed's report, in the order of the seeds. */
  readonly report: (report: SeedReport) => void;
}

/** Runs seeds from `from` on; resolves when those that were begun have ended. All of them, without a gap, were reported then. */
export async function runSeeds({ from, count, jobs, order, goOn, report }: SeedsOptions): Promise<void> {
  let next = from;
  let reported = from;
  const waiting = new Map<number, SeedReport>();
  const finished = (result: SeedReport) => {
    waiting.set(result.seed, result);
    for (let ready = waiting.get(reported); ready !== undefined; ready = waiting.get(reported)) {
      waiting.delete(reported++);
      report(ready);
    }
  };
  const work = async () => {
    const worker = new Worker();
    while (next < from + count && goOn()) finished(await worker.run({ ...order, seed: next++ }));
    worker.end();
  };
  await Promise.all(Array.from({ length: Math.max(1, Math.min(jobs, count)) }, work));
}

/** A process that runs one seed at a time; another takes its place when it ends in the middle of one. */
class Worker {
  #child: ChildProcess | undefined;

  run(order: SeedOrder): Promise<SeedReport> {
    this.#child ??= fork(WORKER, { execArgv: FLAGS, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    const child = this.#child;
    return new Promise((resolve) => {
      const settle = (report: SeedReport) => {
        clearTimeout(timer);
        child.removeAllListeners();
        resolve(report);
      };
      const gone = (why: string) => {
        this.end();
        settle(failed(order.seed, `seed ${order.seed}: ${why}`));
      };
      const timer = setTimeout(() => gone(`no end after ${SEED_TIMEOUT_MS / 1000} s`), SEED_TIMEOUT_MS);
      child.once('message', (report) => settle(report as SeedReport));
      child.once('exit', (code, signal) => gone(`the process ended with ${signal ?? code}`));
      child.send(order);
    });
  }

  end(): void {
    this.#child?.removeAllListeners();
    this.#child?.kill('SIGKILL');
    this.#child = undefined;
  }
}

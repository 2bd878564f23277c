/** `flotilla dev`: a cluster of broker processes on this machine. */
import { createInterface } from 'node:readline';
import { messageOf } from '../../base/errors.ts';
import { DevCluster, type DevClusterOptions } from '../dev/cluster.ts';
import { UsageError } from '../failures.ts';
import type { Session } from '../session.ts';

export interface DevOptions extends DevClusterOptions {
  readonly demo?: boolean;
}

export async function dev(session: Session, options: DevOptions): Promise<void> {
  if (options.demo === true) return (await import('../demo/demo.ts')).demo(session, options);
  await using cluster = await DevCluster.start({
    ...options,
    onEvent: ({ id, what, detail }) => session.note(`broker ${id} ${what}${detail === undefined ? '' : ` (${detail})`}`),
  });
  await (session.json
    ? session.out.json({ ready: cluster.brokers.map(({ address }) => address), data: cluster.directory })
    : session.out.line(`ready ${cluster.bootstrap}`));
  obey(session, cluster);
  await aborted(session.signal);
  session.note('ending all brokers');
}

/** Lines on stdin, from a script: `kill 2`, `stop 2`, `start 2`. A terminal's stdin is left alone, so that `flotilla dev &` runs on. */
function obey(session: Session, cluster: DevCluster): void {
  if (session.streams.stdin.isTTY === true) return;
  createInterface({ input: session.streams.stdin }).on('line', (line) => {
    if (line.trim() === '') return;
    command(cluster, line).catch((error: unknown) => session.note(messageOf(error)));
  });
}

async function command(cluster: DevCluster, line: string): Promise<void> {
  const [verb, number] = line.trim().split(/\s+/);
  const broker = cluster.broker(Number(number));
  if (broker !== undefined && verb === 'start') return broker.start();
  if (broker !== undefined && verb === 'kill') return broker.kill();
  if (broker !== undefined && verb === 'stop') return broker.stop(10_000);
  throw new UsageError(`'${line}' is none of start N, stop N, kill N, with N from 1 to ${cluster.brokers.length}.`);
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    // A signal alone keeps no process alive.
    const alive = setInterval(() => {}, 2 ** 30);
    signal.addEventListener(
      'abort',
      () => {
        clearInterval(alive);
        resolve();
      },
      { once: true },
    );
  });
}

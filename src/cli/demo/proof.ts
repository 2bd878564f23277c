/**
 * `npm run demo`: the proof without a person. Load, kill -9 of a leader in mid-stream, its restart, everything read back,
 * compared. Exit 1 if anything is lost, doubled or out of order.
 */
import { DevCluster } from '../dev/cluster.ts';
import { Exit, explain } from '../failures.ts';
import { integerText, milliseconds } from '../format.ts';
import { connectCluster } from '../sdk.ts';
import { type Proof, proofLines } from './ledger.ts';
import { pause } from './load.ts';
import { DemoRun } from './run.ts';

/** Away from the ports of a cluster that may run here. */
const PORT = 7301;
const RATE = 3_000;
const BEFORE_KILL_MS = 3_000;
const DEAD_MS = 3_000;
const AFTER_RESTART_MS = 4_000;

const say = (text: string) => process.stdout.write(`${text}\n`);

export async function proof(signal: AbortSignal): Promise<Proof> {
  let run: DemoRun | undefined;
  const started = performance.now();
  await using cluster = await DevCluster.start({
    brokers: 3,
    port: PORT,
    onEvent: ({ id, what, detail }) => (run === undefined ? undefined : run.event(`broker ${id} ${what}${detail ? ` (${detail})` : ''}`)),
  });
  say(`three brokers serve after ${milliseconds(performance.now() - started)}`);
  await using client = await connectCluster(cluster.bootstrap, signal);
  run = await DemoRun.start(cluster, client, RATE, signal);
  run.onEvent(({ text }) => say(`  ${text}`));
  try {
    say(`sending ${integerText(RATE)} flights a second into 3 partitions with 3 replicas each`);
    await pause(BEFORE_KILL_MS, signal);
    const victim = cluster.broker(run.partitions[0]?.leader ?? 1) ?? cluster.brokers[0];
    say(`kill -9 broker ${victim?.id}, the leader of partition 0, after ${integerText(run.ledger.acknowledgedCount)} acknowledgements`);
    run.load.resetGap();
    await victim?.kill();
    await pause(DEAD_MS, signal);
    say(`longest time without an acknowledgement in a partition: ${milliseconds(run.load.longestGapMs)}`);
    await victim?.start();
    await pause(AFTER_RESTART_MS, signal);
    const live = await run.finish();
    say(`all acknowledged; a reader that lived through it has ${live.holds ? 'everything, in order' : 'NOT everything in order:'}`);
    if (!live.holds) say(proofLines(live).join('\n'));
    say('reading everything back from the beginning\n');
    const readBack = await run.readBack();
    say(proofLines(readBack).join('\n'));
    return { ...readBack, holds: readBack.holds && live.holds };
  } finally {
    await run.close();
  }
}

if (import.meta.main) {
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  try {
    const { holds } = await proof(stop.signal);
    process.exitCode = holds ? Exit.done : Exit.failed;
  } catch (error) {
    process.stderr.write(`${stop.signal.aborted ? 'interrupted' : explain(error)}\n`);
    process.exitCode = Exit.failed;
  }
  process.exit();
}

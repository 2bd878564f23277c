/** `flotilla dev --demo`: a cluster with real data flowing through it, in a live terminal view; elsewhere, plain lines. */
import { createColors } from 'picocolors';
import { DevCluster, type DevClusterOptions } from '../dev/cluster.ts';
import { Failure } from '../failures.ts';
import { integerText, milliseconds } from '../format.ts';
import { wantsColour } from '../io.ts';
import { connectCluster } from '../sdk.ts';
import type { Session } from '../session.ts';
import { type Proof, proofLines } from './ledger.ts';
import { newHistogram, pause } from './load.ts';
import { DemoRun } from './run.ts';
import { Screen } from './screen.ts';
import { type Frame, render } from './view.ts';

/** Records a second. */
const RATE = 1_000;
const FRAME_MS = 250;
const LINE_MS = 1_000;
const SPARKS = 48;
/** The latency shown is of the last window, and of the one before while the window is young. */
const LATENCY_WINDOW_MS = 5_000;

export async function demo(session: Session, options: DevClusterOptions): Promise<void> {
  let run: DemoRun | undefined;
  session.note(`starting ${options.brokers} brokers …`);
  await using cluster = await DevCluster.start({
    ...options,
    onEvent: ({ id, what, detail }) => run?.event(`broker ${id} ${what}${detail === undefined ? '' : ` (${detail})`}`),
  });
  await using client = await connectCluster(cluster.bootstrap, new AbortController().signal);
  run = await DemoRun.start(cluster, client, RATE, session.signal);
  const interactive = session.streams.stdout.isTTY === true && session.streams.stdin.isTTY === true && !session.json;
  let proof: Proof;
  try {
    await (interactive ? watchLive(session, run) : watchPlain(session, run, cluster));
    // The screen is gone with what it showed.
    if (interactive) for (const { text } of run.events) session.note(text);
    session.note('waiting for what is in flight, and for the reader …');
    proof = await run.finish();
  } finally {
    await run.close();
  }
  if (session.json) await session.out.json(proof);
  else for (const line of proofLines(proof)) await session.out.line(line);
  if (!proof.holds) throw new Failure('The proof does not hold: see the table.');
}

async function watchLive(session: Session, run: DemoRun): Promise<void> {
  const meter = new Meter(run);
  const colours = createColors(wantsColour(session.streams.stdout, session.streams.env));
  let quit = false;
  using screen = new Screen(session.streams, (key) => {
    if (key === 'q' || key === '\u0003') quit = true;
    else run.toggle(Number(key));
  });
  while (!quit && !session.signal.aborted) {
    const { columns, rows } = screen.size;
    screen.draw(render(meter.frame(), colours, columns, rows));
    await pause(FRAME_MS);
  }
}

async function watchPlain(session: Session, run: DemoRun, cluster: DevCluster): Promise<void> {
  const meter = new Meter(run);
  if (!session.json) await session.out.line(`ready ${cluster.bootstrap}`);
  run.onEvent(({ text }) => session.note(text));
  while (!session.signal.aborted) {
    await Promise.race([pause(LINE_MS), new Promise((resolve) => session.signal.addEventListener('abort', resolve, { once: true }))]);
    const frame = meter.frame();
    await (session.json ? session.out.json(frame) : session.out.line(plainLine(frame)));
  }
}

function plainLine(frame: Frame): string {
  const lag = frame.partitions.reduce((sum, { highWatermark, position }) => sum + Math.max(0, highWatermark - position), 0);
  const leaders = frame.partitions.map(({ partition, leader, leaderEpoch }) => `${partition}:${leader}@${leaderEpoch}`).join(' ');
  const alive = frame.brokers.filter(({ state }) => state === 'serving').length;
  return [
    `${alive}/${frame.brokers.length} brokers`,
    `leaders ${leaders}`,
    `${integerText(frame.throughput.at(-1) ?? 0)} records/s`,
    `p50 ${milliseconds(frame.p50Ms)} p99 ${milliseconds(frame.p99Ms)}`,
    `acknowledged ${integerText(frame.acknowledged)}`,
    `read ${integerText(frame.read)}`,
    `lag ${integerText(lag)}`,
  ].join('  ');
}

/** Turns counters into what the view shows: rates since the last frame, latency of a sliding window. */
class Meter {
  readonly #run: DemoRun;
  readonly #started = performance.now();
  readonly #throughput: number[] = [];
  #former = newHistogram();
  #windowBegan = performance.now();
  #lastAt = performance.now();
  #lastAcknowledged = 0;

  constructor(run: DemoRun) {
    this.#run = run;
  }

  frame(): Frame {
    const { cluster, ledger, load, reader, partitions, events } = this.#run;
    const now = performance.now();
    this.#throughput.push(((ledger.acknowledgedCount - this.#lastAcknowledged) * 1000) / Math.max(1, now - this.#lastAt));
    if (this.#throughput.length > SPARKS) this.#throughput.shift();
    this.#lastAcknowledged = ledger.acknowledgedCount;
    this.#lastAt = now;
    this.#turnWindow(now);
    const latency = load.latency.totalCount > 0 ? load.latency : this.#former;
    return {
      seconds: (now - this.#started) / 1000,
      brokers: cluster.brokers.map(({ id, address, state, pid, residentBytes }) => ({ id, address, state, pid, residentBytes })),
      partitions: partitions.map((each) => ({ ...each, position: reader.position(each.partition) })),
      throughput: this.#throughput,
      p50Ms: latency.getValueAtPercentile(50) / 1000,
      p99Ms: latency.getValueAtPercentile(99) / 1000,
      longestGapMs: load.longestGapMs,
      acknowledged: ledger.acknowledgedCount,
      read: reader.reading.readCount,
      pending: ledger.pending,
      doubled: reader.reading.doubledCount,
      outOfOrder: reader.reading.outOfOrderCount,
      events,
    };
  }

  #turnWindow(now: number): void {
    if (now - this.#windowBegan < LATENCY_WINDOW_MS) return;
    this.#former = this.#run.load.latency;
    this.#run.load.latency = newHistogram();
    this.#windowBegan = now;
  }
}

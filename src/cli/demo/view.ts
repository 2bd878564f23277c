/** What the live view shows, as lines. Pure: a frame in, text out. */
import { byteSize, integerText, milliseconds, sparkline } from '../format.ts';

export interface Frame {
  readonly seconds: number;
  readonly brokers: readonly {
    readonly id: number;
    readonly address: string;
    readonly state: string;
    readonly pid: number | undefined;
    readonly residentBytes: number;
  }[];
  readonly partitions: readonly {
    readonly partition: number;
    readonly leader: number;
    readonly leaderEpoch: number;
    readonly replicas: readonly number[];
    readonly inSync: readonly number[];
    readonly highWatermark: number;
    readonly position: number;
  }[];
  /** Acknowledged records a second, oldest first. */
  readonly throughput: readonly number[];
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly longestGapMs: number;
  readonly acknowledged: number;
  readonly read: number;
  readonly pending: number;
  readonly doubled: number;
  readonly outOfOrder: number;
  readonly events: readonly { readonly at: number; readonly text: string }[];
}

export interface Paint {
  bold(text: string): string;
  dim(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  red(text: string): string;
  cyan(text: string): string;
}

/** Lines of the frame, cut to the terminal's size. Cutting counts what is seen, not the colours' escapes. */
export function render(frame: Frame, paint: Paint, columns: number, rows: number): string[] {
  const head = [
    `${paint.bold('flotilla')}  ${paint.dim(`${frame.brokers.length} brokers, one topic, real flights · ${Math.floor(frame.seconds)} s`)}`,
    '',
    ...brokerLines(frame, paint),
    '',
    ...partitionLines(frame, paint),
    '',
    ...flowLines(frame, paint),
    '',
  ];
  const foot = ['', `${keys(frame, paint)}`];
  const room = Math.max(0, rows - head.length - foot.length);
  const events = room === 0 ? [] : frame.events.slice(-room).map(({ at, text }) => `${paint.dim(clock(at))}  ${text}`);
  const filler = Array.from({ length: room - events.length }, () => '');
  return [...head, ...events, ...filler, ...foot].slice(0, rows).map((line) => cut(line, columns));
}

function brokerLines({ brokers, partitions }: Frame, paint: Paint): string[] {
  return brokers.map(({ id, address, state, pid, residentBytes }) => {
    const colour = state === 'serving' ? paint.green : state === 'dead' ? paint.red : paint.yellow;
    const leads = partitions.filter(({ leader }) => leader === id).map(({ partition }) => partition);
    const life = pid === undefined ? '' : `pid ${String(pid).padEnd(8)}${byteSize(residentBytes).padStart(8)}   `;
    return `  ${colour('●')} broker ${id}  ${address.padEnd(16)}${colour(state.padEnd(10))}${life}${state === 'dead' ? '' : `leads ${leads.join(' ') || '-'}`}`;
  });
}

function partitionLines({ partitions }: Frame, paint: Paint): string[] {
  const head = paint.dim(
    `  ${'partition'.padEnd(11)}${'leader'.padEnd(8)}${'term'.padEnd(6)}${'in sync'.padEnd(10)}${'end'.padStart(12)}${'read'.padStart(12)}${'lag'.padStart(8)}`,
  );
  const lines = partitions.map(({ partition, leader, leaderEpoch, replicas, inSync, highWatermark, position }) => {
    // The end was asked for a moment ago; what has been read since is there as well.
    const end = Math.max(highWatermark, position);
    const sync = inSync.join(' ').padEnd(10);
    return `  ${String(partition).padEnd(11)}${(leader === 0 ? '-' : String(leader)).padEnd(8)}${String(leaderEpoch).padEnd(6)}${
      inSync.length < replicas.length ? paint.yellow(sync) : sync
    }${integerText(end).padStart(12)}${integerText(position).padStart(12)}${integerText(end - position).padStart(8)}`;
  });
  return [head, ...lines];
}

function flowLines(frame: Frame, paint: Paint): string[] {
  const { throughput, p50Ms, p99Ms, longestGapMs, acknowledged, read, pending, doubled, outOfOrder } = frame;
  const now = throughput.at(-1) ?? 0;
  const bad = doubled + outOfOrder;
  return [
    `  ${'throughput'.padEnd(13)}${integerText(now).padStart(8)} records/s  ${paint.cyan(sparkline(throughput))}`,
    `  ${'latency'.padEnd(13)}p50 ${milliseconds(p50Ms)}   p99 ${milliseconds(p99Ms)}   longest gap ${milliseconds(longestGapMs)}`,
    `  ${'acknowledged'.padEnd(13)}${integerText(acknowledged).padStart(8)}   in flight ${integerText(pending)}`,
    `  ${'read'.padEnd(13)}${integerText(read).padStart(8)}   ${bad === 0 ? paint.green('none doubled, none out of order') : paint.red(`${doubled} doubled, ${outOfOrder} out of order`)}`,
  ];
}

function keys({ brokers }: Frame, paint: Paint): string {
  const list = brokers.map(({ id, pid }) => `${paint.bold(String(id))} ${pid === undefined ? 'bring back' : 'kill -9'} broker ${id}`);
  return `  ${[...list, `${paint.bold('q')} end with the proof`].join('   ')}`;
}

function clock(ms: number): string {
  return new Date(ms).toTimeString().slice(0, 8);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: the escape of a colour begins with one.
const escapes = /\u001b\[[0-9;]*m/y;

function cut(line: string, columns: number): string {
  let seen = 0;
  for (let at = 0; at < line.length; ) {
    escapes.lastIndex = at;
    const colour = escapes.exec(line);
    if (colour !== null) at += colour[0].length;
    else if (seen === columns) return `${line.slice(0, at)}\u001b[0m`;
    else {
      seen++;
      at++;
    }
  }
  return line;
}

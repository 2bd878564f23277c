/**
 * `npm run bench:peers`: Flotilla, Apache Kafka and NATS JetStream in turn on this machine, some rounds of it, and the medians beside each other:
 * a machine has good and bad hours, so only figures of the same run compare.
 *
 *   --peers DIR              where the peers' scripts are, or $FLOTILLA_PEERS: see MISSING below for what is expected there
 *   --rounds N               default 3
 *   --only produce,gap       some parts: ready (always), produce, latency, consume, gap
 *   --systems flotilla,nats  some systems
 *   --megabytes N            to produce and to consume in a round, after a warm-up; default 600
 *   --json                   one object at the end: every round, the medians and the ratios
 */
import { parseArgs } from 'node:util';
import { chosen, median } from './figures.ts';
import { measureFlotilla } from './peers/flotilla.ts';
import { measureKafka } from './peers/kafka.ts';
import { measureNats } from './peers/nats.ts';
import { PARTS, Peer, PeerError, type Plan, RECORD_BYTES, type Result } from './peers/system.ts';

const MISSING = `Apache Kafka and NATS JetStream are not part of this repository. Name a directory with --peers DIR or $FLOTILLA_PEERS that holds two scripts:

  kafka/kafka   up 3, down, run CLASS ARGS… (one of Kafka's own tools): three brokers with default settings, the first at 127.0.0.1:39092
  nats/nats     up always, down, perf RECORDS SIZE STREAMS: three nodes at 127.0.0.1:14222 to 14224, sync_interval "always"

Without arguments a script installs what it needs, prints its usage and exits with 2. It keeps its brokers' process ids, a line each in their
order, in $PEERS_DIR/kafka/data/pids and $PEERS_DIR/nats/pids (PEERS_DIR is by default ~/.cache/flotilla-peers).
Flotilla alone: --systems flotilla.`;

const PID_FILES = { kafka: 'data/pids', nats: 'pids' } as const;

const SYSTEMS = ['flotilla', 'kafka', 'nats'] as const;
type SystemName = (typeof SYSTEMS)[number];

interface Figure {
  readonly name: string;
  readonly of: keyof Result;
  /** What Flotilla's share of the other's has to be. */
  readonly goals: { readonly [system in SystemName]?: { readonly atLeast?: number; readonly atMost?: number } };
}

const FIGURES: readonly Figure[] = [
  { name: 'start to ready, ms', of: 'readyMs', goals: {} },
  { name: 'produce, MB/s', of: 'produceMBs', goals: { kafka: { atLeast: 2 }, nats: { atLeast: 1.3 } } },
  { name: 'resident, MB a broker (largest)', of: 'residentMB', goals: {} },
  { name: 'one in flight, p50 ms', of: 'p50Ms', goals: { nats: { atMost: 1.8 } } },
  { name: 'one in flight, p99 ms', of: 'p99Ms', goals: { nats: { atMost: 3 } } },
  { name: 'consume, MB/s', of: 'consumeMBs', goals: { kafka: { atLeast: 0.65 } } },
  { name: 'longest gap after kill -9, ms', of: 'gapMs', goals: {} },
];

const { values } = parseArgs({
  options: {
    peers: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    only: { type: 'string' },
    systems: { type: 'string' },
    megabytes: { type: 'string', default: '600' },
    json: { type: 'boolean', default: false },
  },
});

try {
  await main();
} catch (error) {
  if (!(error instanceof PeerError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

async function main(): Promise<void> {
  const systems = chosen(values.systems, SYSTEMS);
  const plan: Plan = { parts: chosen(values.only, PARTS), records: Math.ceil((Number(values.megabytes) * 1e6) / RECORD_BYTES) };
  const peers = peersFor(systems);
  const rounds: { readonly [system in SystemName]?: Result }[] = [];
  for (let round = 1; round <= Number(values.rounds); round++) {
    const results: { [system in SystemName]?: Result } = {};
    for (const system of systems) {
      results[system] = await measure(system, plan, peers);
      if (!values.json) console.log(`round ${round}: ${system} ${told(results[system])}`);
    }
    rounds.push(results);
  }
  const table = FIGURES.map((figure) => row(figure, rounds));
  if (values.json) console.log(JSON.stringify({ rounds, figures: table }));
  else print(table);
}

/** @throws PeerError that says what is expected where, when a script is not there */
function peersFor(systems: ReadonlySet<SystemName>): ReadonlyMap<SystemName, Peer> {
  const directory = values.peers ?? process.env.FLOTILLA_PEERS;
  const peers = new Map<SystemName, Peer>();
  for (const system of systems) {
    if (system === 'flotilla') continue;
    const peer = directory === undefined ? undefined : new Peer(directory, system, PID_FILES[system]);
    if (peer === undefined) throw new PeerError(MISSING);
    if (!peer.isThere) throw new PeerError(`${directory} holds no ${system}/${system}.\n\n${MISSING}`);
    peers.set(system, peer);
  }
  return peers;
}

async function measure(system: SystemName, plan: Plan, peers: ReadonlyMap<SystemName, Peer>): Promise<Result> {
  const peer = peers.get(system);
  if (peer === undefined) return measureFlotilla(plan);
  return system === 'kafka' ? measureKafka(peer, plan) : measureNats(peer, plan);
}

interface Row {
  readonly name: string;
  readonly medians: { readonly [system in SystemName]?: number };
  readonly ratios: { readonly [system in SystemName]?: { readonly ratio: number; readonly goal?: string; readonly reached?: boolean } };
}

function row({ name, of, goals }: Figure, rounds: readonly { readonly [system in SystemName]?: Result }[]): Row {
  const medians: { [system in SystemName]?: number } = {};
  for (const system of SYSTEMS) {
    const numbers = rounds.map((round) => round[system]?.[of]).filter((number) => number !== undefined);
    if (numbers.length > 0) medians[system] = rounded(median(numbers));
  }
  const ratios: { [system in SystemName]?: { ratio: number; goal?: string; reached?: boolean } } = {};
  for (const other of ['kafka', 'nats'] as const) {
    const [mine, theirs] = [medians.flotilla, medians[other]];
    if (mine === undefined || theirs === undefined || theirs === 0) continue;
    const ratio = rounded(mine / theirs);
    const { atLeast, atMost } = goals[other] ?? {};
    if (atLeast !== undefined) ratios[other] = { ratio, goal: `>= ${atLeast}`, reached: ratio >= atLeast };
    else if (atMost !== undefined) ratios[other] = { ratio, goal: `<= ${atMost}`, reached: ratio <= atMost };
    else ratios[other] = { ratio };
  }
  return { name, medians, ratios };
}

function print(rows: readonly Row[]): void {
  const columns = ['median of the rounds', 'flotilla', 'kafka', 'nats', 'to kafka', 'to nats'];
  console.log(`\n${line(columns)}`);
  for (const { name, medians, ratios } of rows) {
    if (Object.keys(medians).length === 0) continue;
    const shares = (['kafka', 'nats'] as const).map((other) => {
      const share = ratios[other];
      if (share === undefined) return '-';
      return share.goal === undefined ? `${share.ratio}` : `${share.ratio} (${share.goal}: ${share.reached ? 'yes' : 'no'})`;
    });
    console.log(line([name, ...SYSTEMS.map((system) => String(medians[system] ?? '-')), ...shares]));
  }
}

function line(cells: readonly string[]): string {
  return cells
    .map((cell, i) => (i === 0 ? cell.padEnd(34) : cell.padEnd(i <= SYSTEMS.length ? 11 : 22)))
    .join('')
    .trimEnd();
}

function told(result: Result | undefined): string {
  const numbers = FIGURES.flatMap(({ name, of }) => (result?.[of] === undefined ? [] : [`${name} ${rounded(result[of])}`]));
  return numbers.join('; ');
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}

/**
 * `npm run kill-all [-- --kills N --seconds N --seed N --brokers N --set key=value]`: kill -9 of all brokers at once, at random moments under load, again and again
 * on the same directories. Every few kills all is read back and checked, as jepsen-lite does; at the end, what all earlier rounds left is read once
 * more. Exit 1 on any anomaly, when a broker ended by itself, or when the cluster did not recover in time.
 */
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { crc32 } from 'node:zlib';
import { connect } from '../../src/client/index.ts';
import { SeededRandom } from '../sim/random.ts';
import { type Anomaly, check } from './checker.ts';
import { Cluster } from './cluster.ts';
import { Gaps } from './gaps.ts';
import { report } from './report.ts';
import { LogWorkload } from './workload.ts';

const KILLS_A_ROUND = 10;
/** About 1,100 records a second and producer: what is in flight when the brokers die is many frames. */
const BURST = 5;
/** Of all kills, those that hit brokers which have not all come up from the one before. */
const WHILE_STARTING = 0.25;
/** And those that hit one broker after the other. */
const ONE_BY_ONE = 0.3;
const RECOVER_WITHIN_MS = 30_000;
const LOST: readonly Anomaly[] = ['lost-write', 'unseen'];

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '100' },
    seconds: { type: 'string', default: '100000' },
    seed: { type: 'string', default: String(Date.now() % 1e6) },
    brokers: { type: 'string', default: '3' },
    port: { type: 'string' },
    // Files that fill and turn over within a few kills.
    set: { type: 'string', multiple: true, default: ['flotilla.wal.file.bytes=1MiB', 'log.segment.bytes=200KiB'] },
  },
});
const replay = `npm run kill-all -- --kills ${values.kills} --seed ${values.seed}${values.set.map((each) => ` --set ${each}`).join('')}`;
console.log(replay);
const random = new SeededRandom(Number(values.seed));
const startedMs = performance.now();
const elapsedSeconds = () => (performance.now() - startedMs) / 1000;
const totals = { kills: 0, acknowledged: 0, lost: 0, doubled: 0, other: 0 };
/** By topic of an earlier round: what was read back, and checked. */
const kept = new Map<string, string>();
const failures: string[] = [];

await using cluster = await Cluster.start({
  brokers: Number(values.brokers),
  port: values.port === undefined ? undefined : Number(values.port),
  set: values.set,
});
while (totals.kills < Number(values.kills) && elapsedSeconds() < Number(values.seconds) && failures.length === 0) {
  await round(`round-${kept.size + 1}`, Math.min(KILLS_A_ROUND, Number(values.kills) - totals.kills));
}
for (const [topic, sum] of kept) {
  const again = await sumOf(topic);
  if (again !== sum) failures.push(`${topic} held ${sum} after its round, and ${again} at the end`);
}
failures.push(...cluster.crashes);
for (const failure of failures) console.log(`  ${failure}`);
const { kills, acknowledged, lost, doubled, other } = totals;
console.log(
  `ran: ${kills} kills of all ${values.brokers} brokers in ${elapsedSeconds().toFixed(0)} s; ${acknowledged} records acknowledged, ${lost} lost, ${doubled} doubled, ${other} other anomalies`,
);
const valid = failures.length === 0 && lost + doubled + other === 0 && kills > 0 && acknowledged > 0;
if (!valid) {
  cluster.keep = true;
  console.log(`the brokers' logs and data stay in ${cluster.directory}`);
}
console.log(`${valid ? 'valid' : 'INVALID'}: ${replay}`);
process.exitCode = valid ? 0 : 1;

/** A topic of its own, kills under its load, all of it read back and checked. */
async function round(topic: string, killsInRound: number): Promise<void> {
  const gaps = new Gaps();
  const workload = await LogWorkload.start(cluster.bootstrap, gaps, { topic, burst: BURST });
  await workload.acknowledges(AbortSignal.timeout(RECOVER_WITHIN_MS));
  for (let kill = 0; kill < killsInRound; kill++) {
    await setTimeout(random.between(0, 1_000));
    const recovered = gaps.begin('kill-all');
    await killAll();
    totals.kills++;
    const starting = Promise.all(cluster.ids.map((id) => cluster.start(id)));
    if (random.chance(WHILE_STARTING)) await setTimeout(random.between(0, 500));
    else await Promise.all([starting, workload.acknowledges(AbortSignal.timeout(RECOVER_WITHIN_MS))]);
    recovered();
  }
  await Promise.all(cluster.ids.map((id) => cluster.start(id)));
  await workload.finish();
  const verdict = check(workload.history);
  const { counts, sends } = verdict;
  const sum = (names: readonly Anomaly[]) => names.reduce((total, name) => total + counts[name], 0);
  totals.acknowledged += sends.ok;
  totals.lost += sum(LOST);
  totals.doubled += counts.duplicate;
  totals.other += sum(Object.keys(counts) as Anomaly[]) - sum(LOST) - counts.duplicate;
  if (!report({ verdict, failures: workload.failures, gaps })) failures.push(`${topic} is not as it should be: see above`);
  kept.set(topic, await sumOf(topic));
  console.log(
    `${elapsedSeconds().toFixed(0).padStart(5)} s  ${topic}: ${totals.kills} kills so far, ${totals.acknowledged} records acknowledged`,
  );
}

async function killAll(): Promise<void> {
  const oneByOne = random.chance(ONE_BY_ONE);
  await Promise.all(
    cluster.ids.map(async (id) => {
      if (oneByOne) await setTimeout(random.between(0, 300));
      await cluster.broker(id).kill();
    }),
  );
}

/** Of each partition: where it ends, and a sum over the offsets and values of its records. */
async function sumOf(topic: string): Promise<string> {
  await using client = await connect({ bootstrap: cluster.bootstrap });
  const { partitions } = await client.admin.describeTopic(topic);
  const ends = await client.admin.listOffsets(partitions.map(({ partition }) => ({ topic, partition, at: 'end' as const })));
  const sums = ends.map(() => 0);
  const next = ends.map(() => 0);
  await using consumer = client.consumer({ topics: [topic], from: 'beginning', signal: AbortSignal.timeout(RECOVER_WITHIN_MS) });
  for await (const { partition, records } of consumer.batches()) {
    for (const { offset, value } of records) sums[partition] = crc32(value ?? '', crc32(`${offset}`, sums[partition]));
    next[partition] = (records.at(-1)?.offset ?? -1) + 1;
    if (ends.every((end, at) => (next[at] as number) >= end)) break;
  }
  return ends.map((end, at) => `${end}:${sums[at]}`).join(' ');
}

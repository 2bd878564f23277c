/** The simulator from a shell: the production broker and SDK under faults, by seed. `npm run sim -- --help` is its manual. */
import type { LogFields, Logger } from '../../src/base/environment.ts';
import { runSeeds } from './campaign.ts';
import { simulateCore } from './core/simulate.ts';
import { type Campaign, codeHash, commitName, nextSeed, readLedger, totalOf, validCampaigns, writeDown } from './ledger.ts';
import { type Options, parseOptions, replayCommand } from './options.ts';
import { simulate } from './run.ts';
import { shrink } from './shrink.ts';
import { add, EMPTY, summaryOf, table } from './summary.ts';

const MAX_FAILURES = 10;
const REPORT_EVERY_MS = 15_000;
const SHRINK_MINUTES = 10;

const options = parseOptions(process.argv.slice(2));
if (options.command === 'ledger') ledger();
else if (options.seed === undefined) process.exitCode = await many(options);
else if (options.shrink) process.exitCode = await shrink(options.seed, options.overrides, options.minutes ?? SHRINK_MINUTES);
else process.exitCode = await one(options, options.seed);

/** One seed, told. */
async function one({ kind, overrides, steps, trace, log }: Options, seed: number): Promise<number> {
  try {
    const narrate = (line: string) => console.log(line);
    const result =
      kind === 'core'
        ? simulateCore(seed, steps === undefined ? {} : { steps })
        : await simulate({
            ...overrides,
            seed,
            trace,
            narrate,
            untilItCounts: overrides.safetyMs === undefined,
            log: log ? consoleLogger({}) : undefined,
          });
    console.log(result);
    return 0;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    if (error instanceof Error) console.error(error.cause ?? error.stack);
    console.error(`replay: ${replayCommand(kind, seed, overrides, steps)}\n`);
    return 1;
  }
}

/** Many seeds, added up; in a campaign, written down. */
async function many({ kind, overrides, steps, campaign, jobs, keepGoing, ...given }: Options): Promise<number> {
  const minutes = given.minutes ?? (given.seeds === undefined ? 1 : Number.POSITIVE_INFINITY);
  const from = given.from ?? (campaign ? nextSeed(validCampaigns(kind)) : given.seeds === undefined ? Date.now() % 1e9 : 1);
  const count = given.seeds ?? Number.POSITIVE_INFINITY;
  const written = { kind, code: codeHash(kind), commit: commitName(), from };
  console.log(
    `${kind} seeds from ${from}, ${jobs} at a time${Number.isFinite(minutes) ? `, for ${minutes} min` : ''} (--help tells the options)`,
  );
  const started = performance.now();
  const elapsedMs = () => performance.now() - started;
  let summary = EMPTY;
  let nextReportMs = REPORT_EVERY_MS;
  let stopped = false;
  process.once('SIGINT', () => {
    stopped = true;
    console.log('ending with the seeds that are under way; once more: at once');
  });
  const writeSoFar = () => {
    if (!campaign || summary.seeds === 0) return;
    const entry: Campaign = {
      ...written,
      to: from + summary.seeds - 1,
      minutes: Math.round((elapsedMs() / 60_000) * jobs * 10) / 10,
      summary,
    };
    writeDown(entry);
  };
  await runSeeds({
    from,
    count,
    jobs,
    order: { kind, overrides, steps },
    goOn: () => !stopped && elapsedMs() < minutes * 60_000 && (keepGoing || summary.failed.length < MAX_FAILURES),
    report: (report) => {
      summary = add(summary, summaryOf(report));
      if (report.failure !== undefined) console.error(`${report.failure}\nreplay: ${replayCommand(kind, report.seed, overrides, steps)}\n`);
      if (elapsedMs() < nextReportMs) return;
      nextReportMs = elapsedMs() + REPORT_EVERY_MS;
      console.log(`… ${summary.seeds} seeds, ${summary.failed.length} failed (${(elapsedMs() / 1000).toFixed(0)} s)`);
      writeSoFar();
    },
  });
  writeSoFar();
  console.log(table(summary));
  console.log(
    `ran: ${kind} seeds ${from} to ${from + summary.seeds - 1}: ${((summary.seeds / elapsedMs()) * 3_600_000).toFixed(0)} an hour with ${jobs} processes`,
  );
  return summary.failed.length === 0 ? 0 : 1;
}

function ledger(): void {
  for (const kind of ['core', 'broker'] as const) {
    const valid = validCampaigns(kind);
    const older = readLedger().filter((campaign) => campaign.kind === kind).length - valid.length;
    console.log(`${kind}, code ${codeHash(kind)}: ${valid.length} campaigns (and ${older} of older code)`);
    for (const { from, to, commit, minutes, summary } of valid) {
      console.log(`  seeds ${from} to ${to} at ${commit}, ${minutes} min: ${summary.counted} count, ${summary.failed.length} failed`);
    }
    if (valid.length > 0) console.log(table(totalOf(valid)));
    console.log('');
  }
}

function consoleLogger(bound: LogFields): Logger {
  const write = (level: string) => (event: string, fields?: LogFields) =>
    console.log(
      `  ${level} ${event} ${JSON.stringify({ ...bound, ...fields }, (_key, value: unknown) => (value instanceof Error ? value.message : value))}`,
    );
  return {
    debug: () => {},
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: (fields) => consoleLogger({ ...bound, ...fields }),
  };
}

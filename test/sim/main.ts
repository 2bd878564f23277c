/** The simulator from a shell: the production broker and SDK under faults, by seed. USAGE is its manual. */
import { parseArgs } from 'node:util';
import type { LogFields, Logger } from '../../src/base/environment.ts';
import { simulateCore } from './core/simulate.ts';
import { FAULTS, type Fault } from './nemesis.ts';
import { DEFAULT_SAFETY_MS, type SimulationResult, simulate } from './run.ts';

const USAGE = `npm run sim: the production broker and SDK under faults, on a virtual clock, network and disk, by seed

  npm run sim                              seeds from the time of day on, for a minute
  npm run sim -- --seed 42                 one seed, told fault by fault
  npm run sim -- --seeds 500 --from 1      seeds 1 to 500
  npm run sim -- --minutes 30              as many as fit
  npm run sim -- --core --seeds 10000      the Raft core alone, in a world of its own

  --seed N         one seed; what it did, fault by fault, and its result
  --seeds N        so many seeds, one after the other
  --from N         the first of them (default 1; without --seeds: the time of day)
  --minutes N      begin no further seed after so many minutes
  --safety MS      simulated milliseconds under faults before all is healed (default ${DEFAULT_SAFETY_MS})
  --faults a,b     these instead of those that the seed draws, of:
                   ${FAULTS.join(', ')}
  --log            the brokers' logs as well
  --core           the Raft core alone
  --keep-going     do not end at the tenth failure
  --help           this

A seed that fails prints what broke, where each replica stood, and the command that replays it: the same world, event by event.
Exit 0: no seed failed; 1: some did; 2: the command was not understood.`;

const OPTIONS = {
  seed: { type: 'string' },
  seeds: { type: 'string' },
  from: { type: 'string' },
  minutes: { type: 'string' },
  safety: { type: 'string' },
  faults: { type: 'string' },
  core: { type: 'boolean', default: false },
  log: { type: 'boolean', default: false },
  'keep-going': { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const;
const values = parsed();
if (values.help) {
  console.log(USAGE);
  process.exit();
}
const MAX_FAILURES = 10;
const REPORT_EVERY_MS = 15_000;
const safetyMs = numberOf('safety');
const weather = values.faults === undefined ? undefined : { faults: values.faults.split(',').map(faultOf) };
const one = numberOf('seed');
const seeds = one === undefined ? numberOf('seeds') : 1;
const first = one ?? numberOf('from') ?? (seeds === undefined ? Date.now() % 1e9 : 1);
const count = seeds ?? Number.POSITIVE_INFINITY;
const minutes = numberOf('minutes') ?? (seeds === undefined ? 1 : Number.POSITIVE_INFINITY);
if (one === undefined) {
  const many = seeds === undefined ? 'seeds' : `${seeds} seeds`;
  console.log(`${many} from ${first}${Number.isFinite(minutes) ? `, for ${minutes} min` : ''} (--help tells the options)`);
}

const started = performance.now();
const elapsedMs = () => performance.now() - started;
let run = 0;
let nextReportMs = REPORT_EVERY_MS;
let failed = 0;
let simulatedMs = 0;
let acknowledged = 0;
for (let seed = first; seed < first + count && elapsedMs() < minutes * 60_000; seed++) {
  try {
    const result = values.core ? simulateCore(seed) : await world(seed);
    if (values.seed !== undefined) console.log(result);
  } catch (error) {
    failed++;
    console.error(error instanceof Error ? error.message : error);
    if (values.seed !== undefined && error instanceof Error) console.error(error.cause ?? error.stack);
    const flags = `${values.core ? ' --core' : ''}${safetyMs === undefined ? '' : ` --safety ${safetyMs}`}${values.faults === undefined ? '' : ` --faults ${values.faults}`}`;
    console.error(`replay: npm run sim -- --seed ${seed}${flags}\n`);
    if (failed >= MAX_FAILURES && !values['keep-going']) break;
  }
  run++;
  if (elapsedMs() > nextReportMs) {
    nextReportMs += REPORT_EVERY_MS;
    console.log(`… ${run} seeds, ${failed} failed (${(elapsedMs() / 1000).toFixed(0)} s)`);
  }
}
const perMinute = (run / elapsedMs()) * 60_000;
const hours = values.core
  ? ''
  : `, ${(simulatedMs / 3_600_000).toFixed(2)} simulated hours (${(simulatedMs / elapsedMs()).toFixed(0)}x real time), ${acknowledged} records acknowledged`;
console.log(`${run} seeds from ${first}, ${failed} failed, ${perMinute.toFixed(0)} seeds/min${hours}`);
process.exitCode = failed === 0 ? 0 : 1;

function parsed() {
  try {
    return parseArgs({ options: OPTIONS }).values;
  } catch (error) {
    return misunderstood(error instanceof Error ? error.message : String(error));
  }
}

function misunderstood(why: string): never {
  console.error(`${why}; npm run sim -- --help tells the options`);
  process.exit(2);
}

function numberOf(option: 'seed' | 'seeds' | 'from' | 'minutes' | 'safety'): number | undefined {
  const text = values[option];
  if (text === undefined) return undefined;
  const number = Number(text);
  if (text.trim() === '' || !(number >= 0)) misunderstood(`--${option} is a number, not '${text}'`);
  return number;
}

function faultOf(name: string): Fault {
  return FAULTS.find((known) => known === name) ?? misunderstood(`there is no fault '${name}', but ${FAULTS.join(', ')}`);
}

async function world(seed: number): Promise<SimulationResult> {
  const narrate = values.seed === undefined ? undefined : (line: string) => console.log(line);
  const result = await simulate({ seed, safetyMs, weather, narrate, log: values.log ? consoleLogger({}) : undefined });
  simulatedMs += result.simulatedMs;
  acknowledged += result.acknowledged;
  return result;
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

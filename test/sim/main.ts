/**
 * The simulator from a shell: the production broker and SDK under faults, by seed.
 *
 *   npm run sim                              seeds from the time of day on, for a minute
 *   npm run sim -- --seed 42                 one seed, told fault by fault
 *   npm run sim -- --seeds 500 --from 1      many seeds
 *   npm run sim -- --minutes 30              as many as fit
 *   npm run sim -- --core --seeds 10000      the Raft core alone (its own world: test/sim/core)
 *   options: --faults kill,pause (instead of those that the seed draws), --safety MS (simulated length of the safety phase), --log (the brokers' logs), --keep-going (do not end at the tenth failure)
 */
import { parseArgs } from 'node:util';
import type { LogFields, Logger } from '../../src/base/environment.ts';
import { simulateCore } from './core/simulate.ts';
import { FAULTS, type Fault } from './nemesis.ts';
import { type SimulationResult, simulate } from './run.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    from: { type: 'string' },
    minutes: { type: 'string' },
    safety: { type: 'string' },
    faults: { type: 'string' },
    core: { type: 'boolean', default: false },
    log: { type: 'boolean', default: false },
    'keep-going': { type: 'boolean', default: false },
  },
});
const MAX_FAILURES = 10;
const REPORT_EVERY_MS = 60_000;
const safetyMs = values.safety === undefined ? undefined : Number(values.safety);
const weather = values.faults === undefined ? undefined : { faults: values.faults.split(',').map(faultOf) };
const first = Number(values.seed ?? values.from ?? (values.seeds === undefined ? Date.now() % 1e9 : 1));
const count = values.seed !== undefined ? 1 : Number(values.seeds ?? Number.POSITIVE_INFINITY);
const minutes = Number(values.minutes ?? (values.seed === undefined && values.seeds === undefined ? 1 : Number.POSITIVE_INFINITY));

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
    console.log(`… ${run} seeds, ${failed} failed`);
  }
}
const perMinute = (run / elapsedMs()) * 60_000;
const hours = values.core
  ? ''
  : `, ${(simulatedMs / 3_600_000).toFixed(2)} simulated hours (${(simulatedMs / elapsedMs()).toFixed(0)}x real time), ${acknowledged} records acknowledged`;
console.log(`${run} seeds from ${first}, ${failed} failed, ${perMinute.toFixed(0)} seeds/min${hours}`);
process.exitCode = failed === 0 ? 0 : 1;

function faultOf(name: string): Fault {
  const fault = FAULTS.find((known) => known === name);
  if (fault === undefined) throw new Error(`there is no fault ${name}; there are ${FAULTS.join(', ')}`);
  return fault;
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

/** The simulator's command line. */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { FAULTS } from './faults/faults.ts';
import { DEFAULT_SAFETY_MS, type Overrides } from './world.ts';

const USAGE = `npm run sim: the production broker and SDK under faults, on a virtual clock, network and disk, by seed

  npm run sim                              seeds from the time of day on, for a minute
  npm run sim -- --seed 42                 one seed, told fault by fault
  npm run sim -- --seed 42 --trace         and message by message
  npm run sim -- --seed 42 --shrink        the smallest case that still fails
  npm run sim -- --seeds 500 --from 1      seeds 1 to 500
  npm run sim -- --minutes 30              as many as fit
  npm run sim -- --campaign --minutes 60   goes on where the ledger ends, and writes down what was run; Ctrl-C ends it early
  npm run sim -- ledger                    what was run of the code as it is now
  npm run sim -- --core --seeds 10000      the Raft core alone, in a world of its own

  --seed N         one seed; what it did, fault by fault, and its result
  --seeds N        so many seeds
  --from N         the first of them (default 1; without --seeds: the time of day)
  --minutes N      begin no further seed after so many minutes
  --jobs N         so many processes at a time (default ${availableParallelism()})
  --core           the Raft core alone
  --keep-going     do not end at the tenth failure

of the world:
  --swarm off      one standard cluster under all faults, instead of what the seed draws
  --brokers N      so many brokers
  --safety MS      simulated milliseconds under faults before all is healed (default ${DEFAULT_SAFETY_MS}; exactly so many, when it is given)
  --faults a,b     these instead of those that the seed draws
  --without a,b    drawn as ever, and not inflicted
  --muted 3,7      occurrences, by their number, that are not inflicted
  --steps N        of the core alone: random steps

told:
  --trace          who sent what to whom, one line each
  --log            the brokers' logs as well
  --shrink         fewer faults, shorter, fewer brokers, as long as it still fails; at most --minutes (default 10)

faults:
${[...FAULTS.values()].map(({ name, about }) => `  ${name.padEnd(16)} ${about}`).join('\n')}

Each hundredth seed runs twice and must give the same hash. A seed that fails prints what broke, where each replica stood, and the command that
replays it: the same world, event by event.
Exit 0: no seed failed; 1: some did; 2: the command was not understood.`;

const OPTIONS = {
  seed: { type: 'string' },
  seeds: { type: 'string' },
  from: { type: 'string' },
  minutes: { type: 'string' },
  jobs: { type: 'string' },
  safety: { type: 'string' },
  brokers: { type: 'string' },
  steps: { type: 'string' },
  faults: { type: 'string' },
  without: { type: 'string' },
  muted: { type: 'string' },
  swarm: { type: 'string' },
  core: { type: 'boolean', default: false },
  campaign: { type: 'boolean', default: false },
  trace: { type: 'boolean', default: false },
  shrink: { type: 'boolean', default: false },
  log: { type: 'boolean', default: false },
  'keep-going': { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

export type Kind = 'broker' | 'core';

export interface Options {
  readonly command: 'run' | 'ledger';
  readonly kind: Kind;
  readonly seed: number | undefined;
  readonly from: number | undefined;
  readonly seeds: number | undefined;
  readonly minutes: number | undefined;
  readonly jobs: number;
  readonly steps: number | undefined;
  readonly campaign: boolean;
  readonly keepGoing: boolean;
  readonly trace: boolean;
  readonly log: boolean;
  readonly shrink: boolean;
  readonly overrides: Overrides;
}

/** Prints the manual and ends for --help; ends with 2 for what it does not understand. */
export function parseOptions(args: readonly string[]): Options {
  const { values, positionals } = understood(() => parseArgs({ args: [...args], options: OPTIONS, allowPositionals: true }));
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const number = (option: NumberOption) => numberOf(option, values[option]);
  const [command = 'run', ...more] = positionals;
  if ((command !== 'run' && command !== 'ledger') || more.length > 0) misunderstood(`'${positionals.join(' ')}' is no command`);
  if (values.swarm !== undefined && values.swarm !== 'on' && values.swarm !== 'off') misunderstood('--swarm is on or off');
  const overrides: Overrides = {
    brokers: number('brokers'),
    safetyMs: number('safety'),
    faults: listOf(values.faults, 'faults'),
    without: listOf(values.without, 'without'),
    muted: values.muted?.split(',').map((each) => numberOf('muted', each) ?? 0),
    swarm: values.swarm === undefined ? undefined : values.swarm === 'on',
  };
  if (values.campaign && Object.values(overrides).some((override) => override !== undefined)) {
    misunderstood('a campaign runs the worlds that the seeds draw: leave the options of the world out');
  }
  return {
    command,
    kind: values.core ? 'core' : 'broker',
    seed: number('seed'),
    from: number('from'),
    seeds: number('seeds'),
    minutes: number('minutes'),
    jobs: number('jobs') ?? availableParallelism(),
    steps: number('steps'),
    campaign: values.campaign,
    keepGoing: values['keep-going'],
    trace: values.trace,
    log: values.log,
    shrink: values.shrink,
    overrides,
  };
}

/** The command that runs this seed again, in this world. */
export function replayCommand(kind: Kind, seed: number, overrides: Overrides, steps?: number): string {
  const { brokers, safetyMs, faults, without, muted, swarm } = overrides;
  const flags = [
    kind === 'core' ? '--core' : '',
    steps === undefined ? '' : `--steps ${steps}`,
    swarm === false ? '--swarm off' : '',
    brokers === undefined ? '' : `--brokers ${brokers}`,
    safetyMs === undefined ? '' : `--safety ${safetyMs}`,
    faults === undefined ? '' : `--faults ${faults.join(',')}`,
    without === undefined || without.length === 0 ? '' : `--without ${without.join(',')}`,
    muted === undefined || muted.length === 0 ? '' : `--muted ${muted.join(',')}`,
  ];
  return ['npm run sim -- --seed', seed, ...flags.filter((flag) => flag !== '')].join(' ');
}

type NumberOption = 'seed' | 'seeds' | 'from' | 'minutes' | 'jobs' | 'safety' | 'brokers' | 'steps';

function numberOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const number = Number(text);
  if (text.trim() === '' || !(number >= 0)) misunderstood(`--${option} is a number, not '${text}'`);
  return number;
}

function listOf(text: string | undefined, option: string): string[] | undefined {
  const names = text?.split(',').filter((name) => name !== '');
  for (const name of names ?? []) if (!FAULTS.has(name)) misunderstood(`--${option}: there is no fault '${name}'`);
  return names;
}

function understood<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    return misunderstood(error instanceof Error ? error.message : String(error));
  }
}

function misunderstood(why: string): never {
  console.error(`${why}; npm run sim -- --help tells the options`);
  process.exit(2);
}

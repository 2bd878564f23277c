/**
 * The exhaustive small model from a shell; README.md says what it is.
 *
 *   npm run model                                   a minute, within the bounds that --help tells
 *   npm run model -- --minutes 30 --terms 2
 *   npm run model -- --replay counterexample.txt    each line, and where the replicas then stand
 */
import './open-core.ts';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

const { replay, stateLine } = await import('./script.ts');
const { search } = await import('./search.ts');
const { World } = await import('./world.ts');

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    depth: { type: 'string', default: '1000' },
    states: { type: 'string', default: '60000000' },
    servers: { type: 'string', default: '3' },
    terms: { type: 'string', default: '3' },
    values: { type: 'string', default: '2' },
    crashes: { type: 'string', default: '1' },
    slow: { type: 'string', default: '2' },
    duplicates: { type: 'string', default: '1' },
    ticks: { type: 'string', default: '1' },
    timeouts: { type: 'string', default: '0' },
    replay: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

if (values.help) {
  console.log(`--minutes N (1)   --depth N actions   --states N (60 million)
bounds: --servers N (3)  --terms N (3)  --values N (2)  --crashes N (1)  --slow N writes (2)  --duplicates N (1)  --ticks N (1)  --timeouts N (0)
--replay FILE: a script, one action a line; with the bounds that it was found in`);
  process.exit(0);
}

const world = new World({
  servers: Number(values.servers),
  terms: Number(values.terms),
  values: Number(values.values),
  crashes: Number(values.crashes),
  slow: Number(values.slow),
  duplicates: Number(values.duplicates),
  ticks: Number(values.ticks),
  timeouts: Number(values.timeouts),
});

if (values.replay !== undefined) {
  const lines = readFileSync(values.replay, 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  const violation = replay(world, lines, (line, state) => console.log(`${line}\n      ${stateLine(world, state)}`));
  console.log(violation === undefined ? 'nothing broke' : `${lines.at(-1)}\nBROKEN: ${violation}`);
  process.exit(violation === undefined ? 0 : 1);
}

const started = performance.now();
const end = started + Number(values.minutes) * 60_000;
const seconds = () => (performance.now() - started) / 1000;
const limits = { depth: Number(values.depth), states: Number(values.states), stop: () => performance.now() > end };
const { depth, states, complete, violation } = search(world, limits, (progress) => {
  console.log(`depth ${progress.depth}: ${progress.frontier} states, ${progress.states} in all, ${seconds().toFixed(1)} s`);
});
console.log(
  `${states} states, all of depth ${depth}${complete ? ' (complete: there are no more)' : ''}, ${((states / seconds()) * 60).toFixed(0)} a minute; ` +
    `the core ran ${world.transitions.rows} times for ${world.transitions.states.values.length} states of a replica`,
);
if (violation !== undefined) {
  console.log(
    `# BROKEN at action ${violation.script.length}: ${violation.what}\n# replay: npm run model -- --replay FILE, with the same bounds`,
  );
  console.log(violation.script.join('\n'));
  process.exitCode = 1;
}

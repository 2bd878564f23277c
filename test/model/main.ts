/**
 * The exhaustive small model from a shell; README.md says what it is.
 *
 *   npm run model                                   each world of worlds.ts for ten seconds
 *   npm run model -- --world crash --minutes 30     one of them, for longer
 *   npm run model -- --world crash --terms 3        with other bounds
 *   npm run model -- --world crash --replay FILE    a counterexample: each line, and where the replicas then stand
 */
import './open-core.ts';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { Beginning, Found } from './search.ts';
import type { Bounds, World } from './world.ts';

const { replay, stateLine } = await import('./script.ts');
const { search } = await import('./search.ts');
const { World: ModelWorld } = await import('./world.ts');
const { worlds } = await import('./worlds.ts');

const BOUNDS = ['servers', 'terms', 'values', 'crashes', 'slow', 'duplicates', 'ticks', 'timeouts', 'changes', 'learners'] as const;

const { values } = parseArgs({
  options: {
    world: { type: 'string' },
    minutes: { type: 'string' },
    depth: { type: 'string', default: '1000' },
    states: { type: 'string', default: '60000000' },
    replay: { type: 'string' },
    from: { type: 'string' },
    help: { type: 'boolean', default: false },
    ...Object.fromEntries(BOUNDS.map((bound) => [bound, { type: 'string' as const }])),
  },
});

if (values.help) {
  console.log(`--world NAME     ${Object.keys(worlds).join(', ')}; without it, each in turn
--minutes N      for each world (1/6)
--depth N        actions from the start
--states N       (60 million: about 2 GB)
--replay FILE    a script, one action a line
--from FILE      search from where a script ends
bounds, on top of the world's: ${BOUNDS.map((bound) => `--${bound} N`).join(' ')}`);
  process.exit(0);
}

const names = values.world === undefined ? Object.keys(worlds) : [values.world];
for (const name of names) {
  const world = new ModelWorld(boundsOf(name));
  if (values.replay === undefined) explore(name, world);
  else replayed(world, values.replay);
}

function boundsOf(name: string): Bounds {
  const bounds = worlds[name];
  if (bounds === undefined) throw new Error(`no world ${name}: ${Object.keys(worlds).join(', ')}`);
  const given = values as Readonly<Record<string, string | boolean | undefined>>;
  const changed = BOUNDS.filter((bound) => given[bound] !== undefined).map((bound) => [bound, Number(given[bound])]);
  return { ...bounds, ...Object.fromEntries(changed) };
}

function explore(name: string, world: World): void {
  const started = performance.now();
  const end = started + Number(values.minutes ?? 1 / 6) * 60_000;
  const seconds = () => (performance.now() - started) / 1000;
  const limits = { depth: Number(values.depth), states: Number(values.states), stop: () => performance.now() > end };
  const found = search(world, beginning(world), limits, ({ depth, frontier, states }) => {
    if (values.world !== undefined) console.log(`depth ${depth}: ${frontier} states, ${states} in all, ${seconds().toFixed(1)} s`);
  });
  report(name, world, found, seconds());
}

function report(name: string, world: World, { depth, states, complete, violation }: Found, seconds: number): void {
  const end = complete ? 'there are no more' : `all of depth ${depth}`;
  const runs = `the core ran ${world.transitions.rows} times, for ${world.transitions.states.values.length} states of a replica`;
  console.log(`${name}: ${states} states in ${seconds.toFixed(1)} s, ${((states / seconds) * 60).toFixed(0)} a minute, ${end}; ${runs}`);
  if (violation === undefined) return;
  console.log(`# BROKEN at action ${violation.script.length}: ${violation.what}`);
  console.log(`# replay: npm run model -- --world ${name} --replay FILE\n${violation.script.join('\n')}`);
  process.exitCode = 1;
}

/** The world's own, or where the script of --from ends. */
function beginning(world: World): Beginning {
  if (values.from === undefined) return { start: world.start(), prefix: [] };
  const prefix = linesOf(values.from);
  const { state, violation } = replay(world, prefix, () => {});
  if (violation !== undefined) throw new Error(`the script ends in: ${violation}`);
  return { start: state, prefix };
}

function replayed(world: World, file: string): void {
  const lines = linesOf(file);
  const { violation } = replay(world, lines, (line, state) => console.log(`${line}\n      ${stateLine(world, state)}`));
  console.log(violation === undefined ? 'nothing broke' : `${lines.at(-1)}\nBROKEN: ${violation}`);
  if (violation !== undefined) process.exitCode = 1;
}

function linesOf(file: string): string[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
}

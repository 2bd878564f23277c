/** Opens after-crash states from a shell, many of them: `npm run crash-states -- --states 10000`. */
import { parseArgs } from 'node:util';
import { openStates } from './run.ts';

const REPORT_EVERY = 1_000;

const { values } = parseArgs({ options: { states: { type: 'string', default: '10000' }, seed: { type: 'string', default: '1' } } });
const started = performance.now();
let reported = 0;
const opened = await openStates({
  states: Number(values.states),
  seed: Number(values.seed),
  progress: (count, seed) => {
    if (count < reported + REPORT_EVERY) return;
    reported = count - (count % REPORT_EVERY);
    console.log(`… ${count} states opened, seed ${seed}`);
  },
});
const seconds = (performance.now() - started) / 1000;
console.log(`${opened} after-crash states opened, nothing acknowledged was lost; ${Math.round(opened / seconds)} a second`);

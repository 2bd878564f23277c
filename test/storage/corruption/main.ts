/** `npm run corruption -- --trials N [--seed S]`: damages files of one replica of three, under load, and tells what was lost and what was put right by itself. */
import { parseArgs } from 'node:util';
import { KINDS } from './damage.ts';
import { FILE_CLASSES, runTrials, type TrialsResult } from './trials.ts';

const { values } = parseArgs({ options: { trials: { type: 'string', default: '1000' }, seed: { type: 'string', default: '1' } } });
const began = performance.now();

function table({ rows }: TrialsResult): string {
  const lines = [['file', ...KINDS].map((name) => name.padStart(12)).join('')];
  for (const file of FILE_CLASSES) {
    const cells = KINDS.map((kind) => {
      const { trials, repaired, lost } = rows.get(`${file} ${kind}`) ?? { trials: 0, repaired: 0, lost: 0 };
      return `${repaired}/${trials}${lost > 0 ? ` LOST ${lost}` : ''}`;
    });
    lines.push([file, ...cells].map((cell) => cell.padStart(12)).join(''));
  }
  return lines.join('\n');
}

let toldMs = 0;
let toldFailures = 0;
const result = await runTrials(Number(values.trials), Number(values.seed), ({ total, failures }) => {
  for (const failure of failures.slice(toldFailures)) console.log(failure);
  toldFailures = failures.length;
  if (performance.now() - toldMs < 10_000) return;
  toldMs = performance.now();
  console.log(`${total.trials} trials, ${total.repaired} repaired, ${total.lost} lost, ${failures.length} failed`);
});
const { trials, repaired, lost } = result.total;
console.log(`repaired by itself / trials:\n${table(result)}`);
if (result.deaths > 0) console.log(`${result.deaths} processes died over the state that they read, and were started again`);
const share = ((100 * repaired) / trials).toFixed(2);
console.log(
  `${trials} corruptions on a minority, ${lost} acknowledged records lost, ${share}% repaired without a person, ${((performance.now() - began) / 1000).toFixed(0)} s`,
);
process.exitCode = lost > 0 || repaired < 0.99 * trials ? 1 : 0;

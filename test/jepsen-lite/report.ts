/** What a run has found, for a person. */
import { ANOMALIES, type Verdict } from './checker.ts';
import type { Gaps } from './gaps.ts';

/** What the longest gap is to be after a leader's failure, with default settings. */
const GOALS_MS: Readonly<Record<string, number>> = {
  'kill-leader': 1_000,
  'pause-leader': 3_000,
  'swallow-leader': 3_000,
  'isolate-leader': 3_000,
};
const SHOWN_FAILURES = 20;

export interface Findings {
  readonly verdict: Verdict;
  readonly failures: readonly string[];
  readonly gaps: Gaps;
}

/** Prints it. True when there is nothing wrong. */
export function report({ verdict, failures, gaps }: Findings): boolean {
  const { sends, read, counts, anomalies } = verdict;
  const sent = sends.ok + sends.info + sends.fail;
  console.log(`sent ${sent}, acknowledged ${sends.ok}, indeterminate ${sends.info}, failed ${sends.fail}; ${read} different values read`);
  console.log(ANOMALIES.map((name) => `${name} ${counts[name]}`).join(', '));
  for (const name of ANOMALIES) for (const evidence of anomalies[name]) console.log(`  ${name}: ${evidence}`);
  printGaps(gaps);
  for (const failure of failures.slice(0, SHOWN_FAILURES)) console.log(`  ${failure}`);
  if (failures.length > SHOWN_FAILURES) console.log(`  and ${failures.length - SHOWN_FAILURES} more`);
  if (sends.ok === 0) console.log('nothing was acknowledged: the run proves nothing');
  return verdict.valid && failures.length === 0 && sends.ok > 0;
}

function printGaps({ longest, counts }: Gaps): void {
  console.log('longest time without an acknowledgement in a partition, by what was broken in it:');
  for (const [faults, gap] of [...longest].sort(([, a], [, b]) => b.ms - a.ms)) {
    const count = counts.get(faults);
    const notes = [
      `partition ${gap.partition}, until ${(gap.endedMs / 1000).toFixed(1)} s`,
      ...(count === undefined ? [] : [`${count} times`]),
      ...(gap.afterHealMs > 0 && faults !== 'none' ? [`${gap.afterHealMs.toFixed(0)} ms of it after the faults`] : []),
      ...(GOALS_MS[faults] === undefined ? [] : [`to reach: ${GOALS_MS[faults]} ms`]),
    ];
    console.log(`  ${gap.ms.toFixed(0).padStart(6)} ms  ${faults} (${notes.join('; ')})`);
  }
}

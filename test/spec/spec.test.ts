import { describe, expect, test } from 'vitest';
import { simulateCore } from '../sim/core/simulate.ts';
import { ACTIONS, Coverage } from './actions.ts';
import { TraceChecker } from './cluster.ts';
import { lineOf, parseLine, type TraceEvent } from './trace.ts';

describe('the specification', () => {
  test('explains simulated runs, and their traces take at least 95% of its actions', () => {
    const coverage = new Coverage();
    for (let seed = 1; seed <= 150; seed++) simulateCore(seed, { record: new TraceChecker(coverage).check });
    expect(coverage.share, `never taken: ${coverage.missing.join(', ')}`).toBeGreaterThanOrEqual(0.95);
    expect([...coverage.counts.keys()]).toEqual([...ACTIONS]);
  });

  test('a trace says the same as lines', () => {
    const events: TraceEvent[] = [];
    simulateCore(3, { record: (event) => events.push(event) });
    const checker = new TraceChecker();
    for (const event of events) checker.check(parseLine(lineOf(event)));
    expect(checker.events).toBe(events.length);
    expect(events.length).toBeGreaterThan(1000);
  });
});

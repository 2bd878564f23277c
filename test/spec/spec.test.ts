import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { runScript } from '../raft/core/script.ts';
import { simulateCore } from '../sim/core/simulate.ts';
import { Coverage } from './actions.ts';
import { TraceChecker } from './cluster.ts';
import { lineOf, parseLine, type TraceEvent } from './trace.ts';

const folder = new URL('../raft/core/testdata/', import.meta.url);
const scripts = readdirSync(folder).filter((name) => name.endsWith('.txt'));

/** What the nodes of a script do. Not checked within, where a script expects errors. */
function traceOf(name: string): TraceEvent[] {
  const events: TraceEvent[] = [];
  runScript(readFileSync(new URL(name, folder), 'utf8'), (event) => events.push(event));
  return events;
}

function checked(events: readonly TraceEvent[], coverage = new Coverage()): TraceChecker {
  const checker = new TraceChecker(coverage);
  for (const event of events) checker.check(event);
  return checker;
}

describe('the specification', () => {
  test('at least 95% of its actions are taken in simulations and scripts, and all of those are explained', () => {
    const coverage = new Coverage();
    for (const name of scripts) checked(traceOf(name), coverage);
    for (let seed = 1; seed <= 100; seed++) simulateCore(seed, { record: new TraceChecker(coverage).check });
    expect(coverage.share, `never taken: ${coverage.missing.join(', ')}`).toBeGreaterThanOrEqual(0.95);
  });

  test.each(scripts)('explains the script %s', (name) => {
    expect(checked(traceOf(name)).events).toBeGreaterThan(1);
  });

  test('a trace says the same as lines', () => {
    let lines = 0;
    for (let seed = 1; seed <= 5; seed++) {
      const events: TraceEvent[] = [];
      simulateCore(seed, { record: (event) => events.push(event) });
      lines += checked(events.map((event) => parseLine(lineOf(event)))).events;
    }
    expect(lines).toBeGreaterThan(1000);
  });

  describe('does not allow', () => {
    const honest = traceOf('paper-5.2-election-and-log-replication.txt');
    const firstOf = (type: TraceEvent['what']['type'], is: (event: TraceEvent) => boolean = () => true) =>
      honest.findIndex((event) => event.what.type === type && is(event));
    const changed = (at: number, change: (event: TraceEvent) => TraceEvent) => honest.with(at, change(honest[at] as TraceEvent));

    test('a vote that is not durable', () => {
      const vote = ({ what }: TraceEvent) =>
        what.type === 'send' && what.message.type === 'voteResponse' && what.message.granted && !what.message.pre;
      const sent = firstOf('send', vote);
      const { replica } = honest[sent] as TraceEvent;
      const written = honest.findLastIndex((event, at) => at < sent && event.replica === replica && event.what.type === 'written');
      const early = [...honest.slice(0, written), honest[sent] as TraceEvent, ...honest.slice(written)];
      expect(() => checked(early)).toThrow(/before that is durable|should be/);
    });

    test('a commit index that jumps', () => {
      const at = firstOf('receive', ({ after }) => after.lastIndex > after.commit);
      expect(() => checked(changed(at, (event) => ({ ...event, after: { ...event.after, commit: event.after.lastIndex } })))).toThrow(
        'commit',
      );
    });

    test('a term without a reason', () => {
      const at = firstOf('receive');
      expect(() => checked(changed(at, (event) => ({ ...event, after: { ...event.after, term: event.after.term + 1 } })))).toThrow(
        'term should be',
      );
    });

    test('another entry at an index and term that is known', () => {
      const at = honest.findLastIndex(({ log }) => (log?.appended.length ?? 0) > 0);
      const other = (event: TraceEvent): TraceEvent => ({
        ...event,
        log: { ...event.log, appended: event.log?.appended.map((entry) => ({ ...entry, chainLow: entry.chainLow ^ 1 })) ?? [] },
      });
      expect(() => checked(changed(at, other))).toThrow(/log matching|should have appended/);
    });

    test('a log that changes by itself', () => {
      const at = firstOf('written');
      const log = { appended: [{ index: 99, term: 99, kind: 0, chainHigh: 0, chainLow: 0 }] };
      expect(() => checked(changed(at, (event) => ({ ...event, log })))).toThrow(/appended|without reason/);
    });
  });
});

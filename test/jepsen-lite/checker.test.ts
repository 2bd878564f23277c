import { describe, expect, test } from 'vitest';
import { type Anomaly, check, type Operation } from './checker.ts';

const ok = (value: string, offset: number, producer = 1): Operation => ({
  type: 'send',
  partition: 0,
  value,
  producer,
  outcome: 'ok',
  offset,
});
const poll = (consumer: number, ...records: [number, string][]): Operation => ({
  type: 'poll',
  consumer,
  partition: 0,
  records: records.map(([offset, value]) => ({ offset, value })),
});

function anomaliesOf(history: readonly Operation[]): Anomaly[] {
  const verdict = check(history);
  return (Object.keys(verdict.counts) as Anomaly[]).filter((name) => verdict.counts[name] > 0);
}

describe('the checker finds each planted anomaly, and nothing in a clean history', () => {
  test('a clean history', () => {
    const history: Operation[] = [
      ok('a', 0),
      ok('b', 1),
      { type: 'send', partition: 0, value: 'c', producer: 1, outcome: 'info' },
      { type: 'send', partition: 0, value: 'd', producer: 1, outcome: 'fail' },
      poll(1, [0, 'a'], [1, 'b']),
      poll(1, [2, 'c']),
      { type: 'assign', consumer: 1 },
      poll(1, [0, 'a'], [1, 'b'], [2, 'c']),
    ];
    expect(check(history)).toMatchObject({ valid: true, sends: { ok: 2, info: 1, fail: 1 }, read: 3 });
  });

  const planted: [Anomaly, Operation[]][] = [
    ['inconsistent-offsets', [ok('a', 0), poll(1, [0, 'x'], [1, 'a'])]],
    ['lost-write', [ok('a', 0), ok('b', 1), { type: 'assign', consumer: 1 }, poll(1, [1, 'b'])]],
    ['lost-write', [ok('a', -1), ok('b', 1), poll(1, [1, 'b'])]],
    ['unseen', [ok('a', 0), ok('b', 1), poll(1, [0, 'a'])]],
    ['duplicate', [ok('a', 0), poll(1, [0, 'a'], [1, 'a'])]],
    ['aborted-read', [{ type: 'send', partition: 0, value: 'a', producer: 1, outcome: 'fail' }, poll(1, [0, 'a'])]],
    ['nonmonotonic-poll', [ok('a', 0), ok('b', 1), poll(1, [0, 'a'], [1, 'b']), poll(1, [1, 'b'])]],
    ['int-nonmonotonic-poll', [ok('a', 0), ok('b', 1), poll(1, [0, 'a'], [1, 'b'], [1, 'b'])]],
    ['poll-skip', [ok('a', 0), ok('b', 1), ok('c', 2), poll(2, [1, 'b']), poll(1, [0, 'a']), poll(1, [2, 'c'])]],
    ['int-poll-skip', [ok('a', 0), ok('b', 1), ok('c', 2), poll(2, [1, 'b']), poll(1, [0, 'a'], [2, 'c'])]],
    ['nonmonotonic-send', [ok('b', 1), ok('a', 0), poll(1, [0, 'a'], [1, 'b'])]],
  ];
  test.each(planted)('%s', (anomaly, history) => {
    expect(anomaliesOf(history)).toContain(anomaly);
    expect(check(history).valid).toBe(false);
  });
});

describe('records that were deleted on purpose', () => {
  const ok = (value: string, offset: number): Operation => ({ type: 'send', partition: 0, value, producer: 1, outcome: 'ok', offset });
  const polled = (...records: [number, string][]): Operation => ({
    type: 'poll',
    consumer: 1,
    partition: 0,
    records: records.map(([offset, value]) => ({ offset, value })),
  });
  const history = [ok('a', 0), ok('b', 1), ok('c', 2), ok('d', 3), polled([0, 'a']), polled([3, 'd'])];

  test('need not be read, and may be passed over', () => {
    expect(check(history, new Map([[0, 3]])).valid).toBe(true);
  });

  test('those above are missed as ever', () => {
    const { counts } = check(history, new Map([[0, 2]]));
    expect(counts).toMatchObject({ 'lost-write': 1, 'poll-skip': 1 });
    expect(check(history).counts).toMatchObject({ 'lost-write': 2, 'poll-skip': 1 });
    expect(check([ok('a', 0), ok('b', 1)], new Map([[0, 1]])).counts).toMatchObject({ unseen: 1 });
  });
});

import { describe, expect, it } from 'vitest';
import { type Frame, type Paint, render } from '../../src/cli/demo/view.ts';
import { byteSize, count, milliseconds, sparkline } from '../../src/cli/format.ts';

const plain: Paint = { bold: String, dim: String, green: String, yellow: String, red: String, cyan: String };
const coloured: Paint = { ...plain, bold: (text) => `\u001b[1m${text}\u001b[22m`, green: (text) => `\u001b[32m${text}\u001b[39m` };

const frame: Frame = {
  seconds: 12.7,
  brokers: [
    { id: 1, address: '127.0.0.1:7101', state: 'serving', pid: 4711, residentBytes: 123_456_789 },
    { id: 2, address: '127.0.0.1:7102', state: 'dead', pid: undefined, residentBytes: 0 },
    { id: 3, address: '127.0.0.1:7103', state: 'starting', pid: 4713, residentBytes: 0 },
  ],
  partitions: [
    { partition: 0, leader: 1, leaderEpoch: 3, replicas: [1, 2, 3], inSync: [1, 3], highWatermark: 1200, position: 1150 },
    { partition: 1, leader: 0, leaderEpoch: 2, replicas: [2, 3, 1], inSync: [2, 3, 1], highWatermark: 10, position: 12 },
  ],
  throughput: [0, 500, 1000],
  p50Ms: 0.84,
  p99Ms: 12.34,
  longestGapMs: 456.7,
  acknowledged: 12_345,
  read: 12_300,
  pending: 45,
  doubled: 0,
  outOfOrder: 0,
  events: Array.from({ length: 40 }, (_, at) => ({ at: at * 1000, text: `event ${at}` })),
};

describe('the live view', () => {
  it('shows brokers, leaders, terms, flow and keys', () => {
    const text = render(frame, plain, 120, 30).join('\n');
    expect(text).toMatch(/● broker 1 {2}127\.0\.0\.1:7101 +serving +pid 4711 +123 MB +leads 0/);
    expect(text).toMatch(/● broker 2 {2}127\.0\.0\.1:7102 +dead/);
    expect(text).toMatch(/^ {2}0 +1 +3 +1 3 +1,200 +1,150 +50$/m);
    // What was read is there, whatever the last answer about the end said.
    expect(text).toMatch(/^ {2}1 +- +2 +2 3 1 +12 +12 +0$/m);
    expect(text).toContain('1,000 records/s  ▁▅█');
    expect(text).toContain('p50 0.84 ms   p99 12.3 ms   longest gap 457 ms');
    expect(text).toContain('none doubled, none out of order');
    expect(text).toContain('1 kill -9 broker 1   2 bring back broker 2   3 kill -9 broker 3   q end with the proof');
  });

  it.each([
    [120, 30],
    [80, 24],
    [40, 18],
    [20, 5],
    [1, 1],
  ])('fits into %d by %d', (columns, rows) => {
    const lines = render(frame, coloured, columns, rows);
    expect(lines).toHaveLength(rows);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape of a colour begins with one.
    for (const line of lines) expect([...line.replaceAll(/\u001b\[[0-9;]*m/g, '')].length).toBeLessThanOrEqual(columns);
  });

  it('shows the newest events, as many as there is room for', () => {
    const text = render(frame, plain, 100, 24).join('\n');
    expect(text).toContain('event 39');
    expect(text).not.toContain('event 0\n');
  });
});

describe('numbers for people', () => {
  it.each([
    [0, '0 B'],
    [999, '999 B'],
    [1500, '1.5 kB'],
    [123_456_789, '123 MB'],
    [2.5e12, '2.5 TB'],
  ])('%d bytes are %s', (bytes, text) => expect(byteSize(bytes)).toBe(text));
  it('counts', () => {
    expect([count(1, 'record'), count(2000, 'record')]).toEqual(['1 record', '2,000 records']);
    expect([0.123, 12.34, 1234].map(milliseconds)).toEqual(['0.12 ms', '12.3 ms', '1234 ms']);
  });
  it('draws nothing from nothing', () => {
    expect([sparkline([]), sparkline([0, 0]), sparkline([1, 8])]).toEqual(['', '▁▁', '▂█']);
  });
});

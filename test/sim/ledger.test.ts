import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, expect, test } from 'vitest';
import { type Campaign, codeHash, nextSeed, readLedger, totalOf, writeDown } from './ledger.ts';
import { failed, type SeedReport } from './seed-report.ts';
import { add, EMPTY, percentile, summaryOf, table } from './summary.ts';

const directory = mkdtempSync(join(tmpdir(), 'flotilla-ledger-'));
const path = join(directory, 'ledger.ndjson');
afterEach(() => rmSync(path, { force: true }));
afterAll(() => rmSync(directory, { recursive: true }));

function campaign(from: number, reports: readonly SeedReport[]): Campaign {
  const summary = reports.map(summaryOf).reduce(add, EMPTY);
  return { kind: 'core', code: codeHash('core'), commit: 'abc', from, to: from + reports.length - 1, minutes: 1, summary };
}

function report(seed: number, operations: number): SeedReport {
  return { seed, failure: undefined, counts: operations > 500, figures: { operations }, effects: { kill: 2 } };
}

test('a campaign that goes on is one line, and the next begins where it ended', () => {
  writeDown(campaign(1, [report(1, 600)]), path);
  writeDown(campaign(1, [report(1, 600), report(2, 100)]), path);
  writeDown(campaign(3, [report(3, 900), failed(4, 'seed 4: lost')]), path);
  const campaigns = readLedger(path);
  expect(campaigns.map(({ from, to }) => [from, to])).toEqual([
    [1, 2],
    [3, 4],
  ]);
  expect(nextSeed(campaigns)).toBe(5);
  expect(totalOf(campaigns)).toMatchObject({ seeds: 4, counted: 2, failed: [4], effects: { kill: 6 } });
});

test('distributions add up', () => {
  const summary = Array.from({ length: 100 }, (_, i) => summaryOf(report(i, 900 + 2 * i))).reduce(add, EMPTY);
  const { operations = {} } = summary.figures;
  expect(percentile(operations, 0.5)).toBe(1_000);
  expect(percentile(operations, 0.9)).toBe(1_100);
  expect(table(summary)).toContain('100 seeds, 100 count, 0 failed');
});

test('the code under test has one name as long as it is the same', () => {
  expect(codeHash('broker')).toBe(codeHash('broker'));
  expect(codeHash('broker')).not.toBe(codeHash('core'));
});

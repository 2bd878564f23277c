import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { root } from '../../scripts/steps.ts';
import { mutate, parseMutant, readMutants } from './mutant.ts';
import { HAZARDS, WAITING } from './waiting.ts';

const mutants = readMutants();
const read = (file: string) => readFileSync(join(root, file), 'utf8');

describe('the mutants', () => {
  test.each(mutants)('$name applies', (mutant) => {
    expect(mutate(mutant, read).size).toBeGreaterThan(0);
    expect(mutant.tests.length + mutant.core + mutant.broker, 'something hunts it').toBeGreaterThan(0);
    for (const file of mutant.tests) expect(existsSync(join(root, file)), file).toBe(true);
  });

  test('every hazard has one, or waits', () => {
    const planted = new Set(mutants.map(({ hazard }) => hazard));
    const names = Array.from({ length: HAZARDS }, (_, i) => `B${String(i + 1).padStart(2, '0')}`);
    expect(names.filter((name) => planted.has(name) === name in WAITING)).toEqual([]);
  });

  const patch = (hunk: string) => `a title\nwhy: so\nharm: loss\ntests: test/x.test.ts\n\n--- src/x.ts\n@@\n${hunk}\n`;

  test('are found by their text, wherever it stands, and only if it stands once', () => {
    const mutant = parseMutant('B01-x', patch(' one\n-two\n+2'));
    expect(mutate(mutant, () => 'zero\none\ntwo\nthree\n').get('src/x.ts')).toBe('zero\none\n2\nthree\n');
    expect(() => mutate(mutant, () => 'one\n  two\n')).toThrow('does not apply');
    expect(() => mutate(mutant, () => 'one\ntwo\nand\none\ntwo\n')).toThrow('fits 2 places');
    expect(() => mutate(parseMutant('B01-x', patch(' one')), () => 'one\n')).toThrow('does not apply');
  });

  test('that say less than they must are refused', () => {
    expect(() => parseMutant('B01-x', patch('-a').replace('why: so\n', ''))).toThrow('not a mutant');
    expect(() => parseMutant('B01-x', patch('-a').replace('loss', 'none'))).toThrow('not a mutant');
    expect(() => parseMutant('B01-x', patch('-a').replace('tests:', 'test:'))).toThrow('not known: test');
    expect(() => parseMutant('x', patch('-a'))).toThrow('not a mutant');
  });
});

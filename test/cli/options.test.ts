import { describe, expect, it } from 'vitest';
import { bootstrap, bytes, header, integer, keyValue, separator, startingPoint } from '../../src/cli/options.ts';

describe('--from', () => {
  const now = Date.UTC(2026, 0, 31, 12);
  it.each([
    ['beginning', 'beginning'],
    ['end', 'end'],
    ['0', { offset: 0 }],
    ['123456789012', { offset: 123456789012 }],
    ['@1700000000000', { timestamp: 1700000000000 }],
    ['@2026-01-31T12:00:00Z', { timestamp: now }],
    ['@2026-01-31', { timestamp: Date.UTC(2026, 0, 31) }],
    ['@-15m', { timestamp: now - 15 * 60_000 }],
    ['@-2d', { timestamp: now - 2 * 86_400_000 }],
  ])('%s', (text, expected) => expect(startingPoint(text, now)).toEqual(expected));
  it.each(['', 'start', '-1', '1.5', '@', '@yesterday', '@-15', '1e3', '0x10'])('refuses %j', (text) =>
    expect(() => startingPoint(text, now)).toThrow(/Give|give/),
  );
});

describe('numbers and sizes', () => {
  it.each([
    ['512', 512],
    ['64k', 64_000],
    ['1KiB', 1024],
    ['2MiB', 2 * 2 ** 20],
    ['1g', 1e9],
  ])('%s is %d bytes', (text, expected) => expect(bytes(text)).toBe(expected));
  it.each(['', 'k', '-1', '1.5k', '10 apples'])('refuses %j bytes', (text) => expect(() => bytes(text)).toThrow('Give bytes'));
  it('takes an integer within its bounds only', () => {
    const parse = integer(1, 10);
    expect(parse('1')).toBe(1);
    expect(parse('10')).toBe(10);
    for (const text of ['0', '11', '-1', '1.0', '', 'x', '1e1']) expect(() => parse(text)).toThrow('from 1 to 10');
  });
});

describe('--bootstrap', () => {
  it('takes host:port with commas, IPv6 in brackets', () => {
    expect(bootstrap(' a:1 , [::1]:65535,')).toBe('a:1,[::1]:65535');
  });
  it.each(['', ',', 'host', 'host:', 'host:0', 'host:65536', ':7101', 'a:1 b:2'])('refuses %j', (text) =>
    expect(() => bootstrap(text)).toThrow(),
  );
});

describe('repeated options', () => {
  it('collects key=value, the last one winning', () => {
    expect(keyValue('a=2', keyValue('b=x=y', keyValue('a=1')))).toEqual({ a: '2', b: 'x=y' });
    expect(() => keyValue('novalue')).toThrow('key=value');
    expect(() => keyValue('=x')).toThrow('key=value');
  });
  it('collects headers, in order, with repeats', () => {
    expect(header('a=2', header('a=1'))).toEqual([
      ['a', '1'],
      ['a', '2'],
    ]);
  });
  it('takes a tab as separator', () => {
    expect(separator('\\t')).toBe('\t');
    expect(() => separator('')).toThrow();
  });
});

/** Parsers of option values. Each refuses with what would be right; commander turns that into exit 2. */
import { InvalidArgumentError } from 'commander';
import { messageOf } from '../base/errors.ts';
import { parseGroupName } from '../base/group-name.ts';
import type { StartingPoint } from './client.ts';

export const DEFAULT_BOOTSTRAP = '127.0.0.1:7101';

/** An integer of [min, max], as digits: no sign, no fraction, no exponent. */
export function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) throw new InvalidArgumentError(`Give a whole number from ${min} to ${max}.`);
    return value;
  };
}

const sizes = { '': 1, k: 1e3, m: 1e6, g: 1e9, ki: 2 ** 10, mi: 2 ** 20, gi: 2 ** 30 } as const;

/** Bytes: `512`, `64k`, `1Mi`, `2GiB`. */
export function bytes(text: string): number {
  const match = /^(\d{1,12})\s*(k|m|g|ki|mi|gi)?b?$/i.exec(text.trim());
  if (match === null) throw new InvalidArgumentError('Give bytes, such as 512, 64k or 1MiB.');
  return Number(match[1]) * sizes[(match[2] ?? '').toLowerCase() as keyof typeof sizes];
}

/** `host:port,…` */
export function bootstrap(text: string): string {
  const addresses = text
    .split(',')
    .map((address) => address.trim())
    .filter((address) => address !== '');
  if (addresses.length === 0) throw new InvalidArgumentError('Give host:port, or several with commas between.');
  for (const address of addresses) {
    const port = Number(/^(?:[^\s:]+|\[[^\]\s]+\]):(\d{1,5})$/.exec(address)?.[1] ?? 0);
    if (port < 1 || port > 65535) throw new InvalidArgumentError(`'${address}' is not host:port.`);
  }
  return addresses.join(',');
}

/** `beginning`, `end`, an offset, or `@TIME`: ISO 8601, milliseconds since the epoch, or an age such as `@-15m`. */
export function startingPoint(text: string, nowMs: number = Date.now()): StartingPoint {
  if (text === 'beginning' || text === 'end') return text;
  if (/^\d{1,15}$/.test(text)) return { offset: Number(text) };
  if (text.startsWith('@')) {
    const timestamp = time(text.slice(1), nowMs);
    if (timestamp !== undefined) return { timestamp };
    throw new InvalidArgumentError(
      `'${text.slice(1)}' is not a time: give ISO 8601 (@2026-01-31T12:00:00Z), milliseconds, or an age (@-15m).`,
    );
  }
  throw new InvalidArgumentError('Give beginning, end, an offset, or @TIME.');
}

const ageUnits = { s: 1e3, m: 60e3, h: 3600e3, d: 86400e3 } as const;

function time(text: string, nowMs: number): number | undefined {
  if (/^\d{1,15}$/.test(text)) return Number(text);
  const age = /^-(\d{1,9})([smhd])$/.exec(text);
  if (age !== null) return nowMs - Number(age[1]) * ageUnits[age[2] as keyof typeof ageUnits];
  const parsed = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(parsed) ? undefined : parsed;
}

/** Collects `key=value`, repeated. */
export function keyValue(text: string, previous: Readonly<Record<string, string>> = {}): Readonly<Record<string, string>> {
  const equals = text.indexOf('=');
  if (equals <= 0) throw new InvalidArgumentError('Give key=value.');
  return { ...previous, [text.slice(0, equals).trim()]: text.slice(equals + 1) };
}

/** Collects `--set key=value`, repeated; the keys are checked with the rest of the configuration. */
export function assignment(text: string, previous: readonly string[] = []): readonly string[] {
  if (text.indexOf('=') <= 0) throw new InvalidArgumentError('Give key=value.');
  return [...previous, text];
}

/** Collects what is given several times. */
export function each(text: string, previous: readonly string[] = []): readonly string[] {
  return [...previous, text];
}

/** Collects headers `key=value`; a key may repeat, as in Kafka. */
export function header(text: string, previous: readonly [string, string][] = []): readonly [string, string][] {
  const equals = text.indexOf('=');
  if (equals <= 0) throw new InvalidArgumentError('Give key=value.');
  return [...previous, [text.slice(0, equals), text.slice(equals + 1)]];
}

/** One or more characters; `\t` and `\0` may be written so. */
export function separator(text: string): string {
  const unescaped = text.replaceAll('\\t', '\t').replaceAll('\\0', '\0');
  if (unescaped === '' || unescaped.includes('\n')) throw new InvalidArgumentError('Give one character or more, no line end.');
  return unescaped;
}

/** `TOPIC/PARTITION`, or `metadata`. */
export function raftGroup(text: string): string {
  try {
    parseGroupName(text);
    return text;
  } catch (error) {
    throw new InvalidArgumentError(messageOf(error));
  }
}

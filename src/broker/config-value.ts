/** Configuration values: how their text is read, checked and explained. Units are those people write: `64MiB`, `30s`, or a plain number. */
import { FlotillaError } from '../base/errors.ts';

export type ConfigType = 'int' | 'number' | 'bytes' | 'duration' | 'string' | 'list' | 'enum';

/** One row of a configuration table. */
export interface ConfigKey {
  readonly key: string;
  readonly type: ConfigType;
  /** As text, in the form that a person would write. Undefined: none, the value is absent unless set. */
  readonly default: string | undefined;
  /** Inclusive, in bytes, milliseconds or units; of a list, its items. */
  readonly min?: number;
  readonly max?: number;
  /** Allowed values of an enum, or of each item of a list. */
  readonly values?: readonly string[];
  /** May change while the broker runs. */
  readonly dynamic: boolean;
  readonly doc: string;
}

export type ConfigValue = string | number | readonly string[] | undefined;

const byteUnits: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  kb: 1000,
  mb: 1000 ** 2,
  gb: 1000 ** 3,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
  tib: 1024 ** 4,
};
const durationUnits: Readonly<Record<string, number>> = { '': 1, ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000 };

/** The value that `text` stands for. Errors: INVALID_CONFIG saying what is allowed. */
export function parseConfigValue(row: ConfigKey, text: string): ConfigValue {
  const trimmed = text.trim();
  switch (row.type) {
    case 'string':
      return trimmed === '' ? undefined : trimmed;
    case 'enum':
      return parseEnum(row, trimmed);
    case 'list':
      return parseList(row, trimmed);
    case 'int':
      return whole(row, trimmed, parseNumber(row, trimmed, { '': 1 }));
    case 'number':
      return parseNumber(row, trimmed, { '': 1 });
    case 'bytes':
      return whole(row, trimmed, parseNumber(row, trimmed, byteUnits));
    case 'duration':
      return whole(row, trimmed, parseNumber(row, trimmed, durationUnits));
  }
}

function parseList(row: ConfigKey, text: string): readonly string[] {
  const items = text === '' ? [] : text.split(',').map((item) => (row.values === undefined ? item.trim() : parseEnum(row, item.trim())));
  if (items.length < (row.min ?? 0)) throw invalid(row, text);
  return items;
}

function parseEnum(row: ConfigKey, text: string): string {
  const found = row.values?.find((value) => value.toLowerCase() === text.toLowerCase());
  if (found === undefined) throw invalid(row, text);
  return found;
}

function parseNumber(row: ConfigKey, text: string, units: Readonly<Record<string, number>>): number {
  const match = /^(-?\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text);
  const unit = match === null ? undefined : units[(match[2] ?? '').toLowerCase()];
  const value = match === null || unit === undefined ? Number.NaN : Number(match[1]) * unit;
  if (!Number.isFinite(value)) throw invalid(row, text);
  if (value < (row.min ?? Number.MIN_SAFE_INTEGER) || value > (row.max ?? Number.MAX_SAFE_INTEGER)) throw invalid(row, text);
  return value;
}

function whole(row: ConfigKey, text: string, value: number): number {
  if (!Number.isSafeInteger(value)) throw invalid(row, text);
  return value;
}

function invalid(row: ConfigKey, text: string): FlotillaError {
  return new FlotillaError('INVALID_CONFIG', `${row.key}=${text} is not valid. Set ${row.key} to ${describeAllowed(row)}.`);
}

/** The allowed values in words, for messages and `flotilla config`. */
export function describeAllowed(row: ConfigKey): string {
  switch (row.type) {
    case 'string':
      return 'a text';
    case 'enum':
      return `one of ${(row.values ?? []).join(', ')}`;
    case 'list':
      return row.values === undefined ? 'a comma-separated list' : `a comma-separated list of ${row.values.join(', ')}`;
    case 'int':
      return `a whole number${range(row)}`;
    case 'number':
      return `a number${range(row)}`;
    case 'bytes':
      return `a size like 1048576, 64MiB or 1GiB${range(row)}`;
    case 'duration':
      return `a duration like 500ms, 30s, 5m or 7d (a plain number is milliseconds)${range(row)}`;
  }
}

function range(row: ConfigKey): string {
  if (row.min !== undefined && row.max !== undefined) return `, ${row.min} to ${row.max}`;
  if (row.min !== undefined) return `, at least ${row.min}`;
  return row.max === undefined ? '' : `, at most ${row.max}`;
}

/** The candidate with the smallest edit distance from `text`, and that distance. */
export function nearest(
  text: string,
  candidates: readonly string[],
): { readonly candidate: string; readonly distance: number } | undefined {
  let best: { candidate: string; distance: number } | undefined;
  for (const candidate of candidates) {
    const distance = editDistance(text, candidate);
    if (best === undefined || distance < best.distance) best = { candidate, distance };
  }
  return best;
}

/** INVALID_CONFIG for a key that does not exist, naming the one that was probably meant. */
export function unknownKey(key: string, rows: readonly ConfigKey[], where: string): FlotillaError {
  const guess = nearest(
    key,
    rows.map((row) => row.key),
  );
  const hint = guess === undefined || guess.distance > Math.max(3, key.length / 2) ? '' : ` Did you mean ${guess.candidate}?`;
  return new FlotillaError('INVALID_CONFIG', `There is no setting ${key} (${where}).${hint}`);
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitute = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(substitute, (previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}

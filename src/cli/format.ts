/** Numbers as people read them. */

export function integerText(value: number): string {
  return Math.round(value).toLocaleString('en');
}

/** `1 record`, `2,000 records`. */
export function count(value: number, noun: string): string {
  return `${integerText(value)} ${noun}${value === 1 ? '' : 's'}`;
}

/** Decimal units: `1.5 MB`. */
export function byteSize(bytes: number): string {
  if (bytes < 1000) return `${Math.round(bytes)} B`;
  for (const [unit, size] of [
    ['kB', 1e3],
    ['MB', 1e6],
    ['GB', 1e9],
  ] as const) {
    if (bytes < size * 1000) return `${(bytes / size).toFixed(bytes < size * 100 ? 1 : 0)} ${unit}`;
  }
  return `${(bytes / 1e12).toFixed(1)} TB`;
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

/** Roughly how long: `45 s`, `12 min`, `3 h`, `5 d`. */
export function duration(ms: number): string {
  for (const [unit, size, next] of [
    ['s', 1e3, 60e3],
    ['min', 60e3, 3600e3],
    ['h', 3600e3, 86400e3],
  ] as const) {
    if (ms < next) return `${Math.floor(ms / size)} ${unit}`;
  }
  return `${Math.floor(ms / 86400e3)} d`;
}

export function milliseconds(ms: number): string {
  return `${ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0)} ms`;
}

const bars = '▁▂▃▄▅▆▇█';

/** One character a value, scaled to the largest. */
export function sparkline(values: readonly number[]): string {
  const largest = Math.max(1e-9, ...values);
  return values.map((value) => bars[Math.min(bars.length - 1, Math.floor((value / largest) * bars.length))]).join('');
}

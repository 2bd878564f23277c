/** What a run has measured, said as it comes or as one JSON object at the end. */
export class Figures {
  readonly #json: boolean;
  readonly #values: Record<string, number | string> = {};

  constructor(json: boolean) {
    this.#json = json;
  }

  note(name: string, value: number | string): void {
    const rounded = typeof value === 'number' ? Math.round(value * 100) / 100 : value;
    this.#values[name] = rounded;
    if (!this.#json) console.log(`${name.padEnd(52)} ${rounded}`);
  }

  /** What goes on, for people. */
  say(text: string): void {
    if (!this.#json) console.log(text);
  }

  end(): void {
    if (this.#json) console.log(JSON.stringify(this.#values));
  }
}

export function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** The middle one; NaN of none. */
export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const high = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? Number.NaN) + high) / 2;
}

/** The parts that `--only` names, or all. @throws Error for a name that is none */
export function chosen<T extends string>(only: string | undefined, parts: readonly T[]): ReadonlySet<T> {
  if (only === undefined) return new Set(parts);
  const names = only.split(',').map((name) => name.trim());
  const wrong = names.filter((name) => !parts.some((part) => part === name));
  if (wrong.length > 0) throw new Error(`--only takes ${parts.join(', ')}; not ${wrong.join(', ')}`);
  return new Set(parts.filter((part) => names.includes(part)));
}

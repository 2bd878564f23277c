/** Texts as numbers, and the symmetry of the world: what each thing is called when the replicas change their names. */
import { describe, type Renaming } from './describe.ts';

/** All ways to rename n replicas. The first leaves them as they are. */
export function renamingsOf(n: number): Renaming[] {
  if (n === 0) return [[]];
  const before = renamingsOf(n - 1);
  return Array.from({ length: n }, (_, last) =>
    before.map((renaming) => [...renaming.map((to) => (to >= n - 1 - last ? to + 1 : to)), n - 1 - last]),
  ).flat();
}

/** Each different text has a number of its own. */
export class Shapes {
  readonly renamings: readonly Renaming[];
  readonly #numbers = new Map<string, number>();

  constructor(renamings: readonly Renaming[]) {
    this.renamings = renamings;
  }

  number(text: string): number {
    let number = this.#numbers.get(text);
    if (number === undefined) {
      number = this.#numbers.size;
      this.#numbers.set(text, number);
    }
    return number;
  }

  /** The value's number under each renaming. */
  of(value: unknown): number[] {
    return this.renamings.map((renaming) => this.number(describe(value, renaming)));
  }
}

/** Things that are told apart by their text alone. */
export class Interned<T> {
  readonly #shapes: Shapes;
  readonly #byShape = new Map<number, number>();
  readonly values: T[] = [];
  /** Of each thing its number under each renaming. */
  readonly shapes: number[][] = [];

  constructor(shapes: Shapes) {
    this.#shapes = shapes;
  }

  /** The thing's place; `value` is asked for when it is new. `told`: all that tells it apart. */
  add(told: unknown, value: () => T): number {
    const own = this.#shapes.number(describe(told, this.#shapes.renamings[0] as Renaming));
    let at = this.#byShape.get(own);
    if (at === undefined) {
      at = this.values.length;
      this.#byShape.set(own, at);
      this.values.push(value());
      this.shapes.push(this.#shapes.of(told));
    }
    return at;
  }

  at(place: number): T {
    return this.values[place] as T;
  }
}

/** Breadth first through all states of a world, each once: so the first counterexample is a shortest one. */
import { lineOf } from './script.ts';
import type { Action, State, World } from './world.ts';

export interface Beginning {
  readonly start: State;
  readonly prefix: readonly string[];
}

export interface Limits {
  /** Actions from the start. */
  readonly depth: number;
  readonly states: number;
  /** True: stop. Asked often. */
  readonly stop: () => boolean;
}

export interface Progress {
  /** All states that so many actions lead to are known, and were checked. */
  readonly depth: number;
  readonly states: number;
  /** States at that depth. */
  readonly frontier: number;
}

export interface Found extends Progress {
  /** There is nothing more: every state within the world's bounds was seen. */
  readonly complete: boolean;
  readonly violation: { readonly what: string; readonly script: readonly string[] } | undefined;
}

/** From `start`, which `prefix` led to. */
export function search(world: World, { start, prefix }: Beginning, limits: Limits, told: (progress: Progress) => void): Found {
  const seen = new NumberSet();
  const ways = new Ways();
  let frontier: State[] = [start];
  seen.add(world.key(frontier[0] as State));
  let first = ways.add(-1, -1);
  let depth = 0;
  const found = (complete: boolean, violation: Found['violation']) => ({
    depth,
    states: seen.size,
    frontier: frontier.length,
    complete,
    violation,
  });
  while (depth < limits.depth) {
    const next: State[] = [];
    const firstNext = ways.size;
    for (const [at, state] of frontier.entries()) {
      if (at % 64 === 0 && (limits.stop() || seen.size >= limits.states)) return found(false, undefined);
      for (const [number, action] of world.actions(state).entries()) {
        const outcome = world.apply(state, action);
        if (outcome === undefined) continue;
        if ('violation' in outcome) {
          const script = [...prefix, ...scriptTo(world, start, ways, first + at), lineOf(action)];
          return found(false, { what: outcome.violation, script });
        }
        if (!seen.add(world.key(outcome.state))) continue;
        ways.add(first + at, number);
        next.push(outcome.state);
      }
    }
    if (next.length === 0) return found(true, undefined);
    frontier = next;
    first = firstNext;
    depth++;
    told({ depth, states: seen.size, frontier: frontier.length });
  }
  return found(false, undefined);
}

/** The lines that lead from `start` to a state. */
function scriptTo(world: World, start: State, ways: Ways, at: number): string[] {
  const numbers: number[] = [];
  for (let way = at; ways.from(way) >= 0; way = ways.from(way)) numbers.push(ways.action(way));
  const lines: string[] = [];
  let state = start;
  for (const number of numbers.reverse()) {
    const action = world.actions(state)[number] as Action;
    lines.push(lineOf(action));
    const outcome = world.apply(state, action);
    if (outcome !== undefined && 'state' in outcome) state = outcome.state;
  }
  return lines;
}

/** From which state, by which of its actions, each state was found first: eight bytes a state. */
class Ways {
  #from = new Int32Array(1 << 16);
  #action = new Int16Array(1 << 16);
  size = 0;

  add(from: number, action: number): number {
    if (this.size === this.#from.length) {
      this.#from = doubled(this.#from, new Int32Array(this.size * 2));
      this.#action = doubled(this.#action, new Int16Array(this.size * 2));
    }
    this.#from[this.size] = from;
    this.#action[this.size] = action;
    return this.size++;
  }

  from(at: number): number {
    return this.#from[at] as number;
  }

  action(at: number): number {
    return this.#action[at] as number;
  }
}

function doubled<T extends Int32Array | Int16Array>(from: T, into: T): T {
  into.set(from);
  return into;
}

/** Numbers from 1 to 2^53 in eight bytes each, twice: a Set takes five times that, and holds 16 million. */
class NumberSet {
  #slots = new Float64Array(1 << 16);
  size = 0;

  /** False: it was there. */
  add(number: number): boolean {
    if (this.size * 2 >= this.#slots.length) this.#grow();
    const slot = this.#slotOf(number);
    if (this.#slots[slot] === number) return false;
    this.#slots[slot] = number;
    this.size++;
    return true;
  }

  #slotOf(number: number): number {
    const mask = this.#slots.length - 1;
    let slot = (number % 0xffff_fffb) & mask;
    while (this.#slots[slot] !== 0 && this.#slots[slot] !== number) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Float64Array(old.length * 2);
    for (const number of old) if (number !== 0) this.#slots[this.#slotOf(number)] = number;
  }
}

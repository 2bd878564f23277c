import type { StateOperation, StateStore } from '../base/environment.ts';

/** A {@link StateStore} in memory, for simulation and tests: it outlives a simulated crash as long as the object is kept. */
export class MemoryStateStore implements StateStore {
  readonly #values = new Map<string, Uint8Array>();

  async get(key: string): Promise<Uint8Array | undefined> {
    return this.#values.get(key)?.slice();
  }

  async entries(prefix: string): Promise<[key: string, value: Uint8Array][]> {
    return [...this.#values]
      .filter(([key]) => key.startsWith(prefix))
      .sort(([a], [b]) => compareUtf8(a, b))
      .map(([key, value]) => [key, value.slice()]);
  }

  async write(operations: readonly StateOperation[]): Promise<void> {
    for (const { key, value } of operations) {
      if (value === undefined) this.#values.delete(key);
      else this.#values.set(key, value.slice());
    }
  }

  async close(): Promise<void> {}
}

/** LevelDB's order is that of the UTF-8 bytes, which is code point order and not the UTF-16 order of `<`. */
function compareUtf8(a: string, b: string): number {
  const left = Array.from(a);
  const right = Array.from(b);
  for (let i = 0; i < left.length && i < right.length; i++) {
    const difference = (left[i]?.codePointAt(0) ?? 0) - (right[i]?.codePointAt(0) ?? 0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

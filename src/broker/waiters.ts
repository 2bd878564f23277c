/**
 * Promises that wait for the log to reach an index, in index order, so that one apply resolves all that it reaches in one pass.
 */
export interface Waiter<T> {
  readonly index: number;
  /** Monotonic milliseconds. */
  readonly deadlineMs: number;
  readonly result: T;
  readonly resolve: (result: T) => void;
  readonly reject: (error: Error) => void;
  settled: boolean;
}

/** Settled slots at the front before the array is cut. */
const COMPACT_AT = 1024;

export class WaiterQueue<T> {
  #items: Waiter<T>[] = [];
  #head = 0;

  get size(): number {
    return this.#items.length - this.#head;
  }

  /** Resolves with `result` once {@link release} reaches the index; rejects at {@link expire} or {@link rejectAll}. */
  wait(index: number, deadlineMs: number, result: T): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const waiter: Waiter<T> = { index, deadlineMs, result, resolve, reject, settled: false };
    const items = this.#items;
    // Nearly always the last; only a duplicate waits for an index that was proposed before.
    let at = items.length;
    while (at > this.#head && (items[at - 1]?.index ?? 0) > index) at--;
    if (at === items.length) items.push(waiter);
    else items.splice(at, 0, waiter);
    return promise;
  }

  /** Resolves all that wait for an index up to `index`. */
  release(index: number): void {
    const items = this.#items;
    for (let waiter = items[this.#head]; waiter !== undefined && waiter.index <= index; waiter = items[this.#head]) {
      this.#head++;
      if (!waiter.settled) waiter.resolve(waiter.result);
    }
    if (this.#head === items.length || this.#head >= COMPACT_AT) {
      this.#items = items.slice(this.#head);
      this.#head = 0;
    }
  }

  /** Rejects all that wait for an index above `index`. */
  rejectAbove(index: number, error: Error): void {
    const items = this.#items;
    for (let last = items.at(-1); items.length > this.#head && last !== undefined && last.index > index; last = items.at(-1)) {
      items.pop();
      if (!last.settled) last.reject(error);
    }
  }

  rejectAll(error: Error): void {
    const items = this.#items;
    const head = this.#head;
    this.#items = [];
    this.#head = 0;
    for (let at = head; at < items.length; at++) {
      const waiter = items[at];
      if (waiter !== undefined && !waiter.settled) waiter.reject(error);
    }
  }

  /** Rejects all whose deadline has passed; returns the earliest deadline of the others, or undefined. */
  expire(nowMs: number, error: () => Error): number | undefined {
    let earliest: number | undefined;
    for (let at = this.#head; at < this.#items.length; at++) {
      const waiter = this.#items[at];
      if (waiter === undefined || waiter.settled) continue;
      if (waiter.deadlineMs <= nowMs) {
        waiter.settled = true;
        waiter.reject(error());
      } else if (earliest === undefined || waiter.deadlineMs < earliest) earliest = waiter.deadlineMs;
    }
    return earliest;
  }
}

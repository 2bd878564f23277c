import type { Environment, Timer } from '../../src/base/environment.ts';

/** A clock that moves only by `advance`; `soon` is a microtask, `nextTurn` a real turn of the loop. */
export class ManualEnvironment implements Environment {
  now = 0;
  wall = 1_000_000;
  #timers = new Set<{ at: number; task: () => void }>();

  monotonicMs(): number {
    return this.now;
  }

  wallMs(): number {
    return this.wall + this.now;
  }

  after(ms: number, task: () => void): Timer {
    const timer = { at: this.now + ms, task };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  soon(task: () => void): void {
    queueMicrotask(task);
  }

  nextTurn(task: () => void): void {
    setImmediate(task);
  }

  uint32(): number {
    return 4;
  }

  get timers(): number {
    return this.#timers.size;
  }

  advance(ms: number): void {
    this.now += ms;
    for (const timer of [...this.#timers].sort((a, b) => a.at - b.at)) {
      if (timer.at > this.now || !this.#timers.delete(timer)) continue;
      timer.task();
    }
  }
}

/** Lets everything that waits on promises run. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}

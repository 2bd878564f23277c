import type { Environment, Timer } from '../../../src/base/environment.ts';

interface Task {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/** Virtual time: nothing happens but in `run`, in an order that the seed fixes. */
export class VirtualEnvironment implements Environment {
  #now = 0;
  #order = 0;
  #timers: Task[] = [];
  #soon: (() => void)[] = [];
  #turn: (() => void)[] = [];
  #random: number;

  constructor(seed = 1) {
    this.#random = seed >>> 0 || 1;
  }

  monotonicMs(): number {
    return this.#now;
  }

  wallMs(): number {
    return this.#now;
  }

  uint32(): number {
    this.#random ^= this.#random << 13;
    this.#random ^= this.#random >>> 17;
    this.#random ^= this.#random << 5;
    this.#random >>>= 0;
    return this.#random;
  }

  after(ms: number, task: () => void): Timer {
    const timer = { at: this.#now + Math.max(0, ms), order: this.#order++, run: task };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  soon(task: () => void): void {
    this.#soon.push(task);
  }

  nextTurn(task: () => void): void {
    this.#turn.push(task);
  }

  /** Lets `ms` pass. */
  async run(ms: number): Promise<void> {
    const end = this.#now + ms;
    for (;;) {
      await this.#settle();
      const next = this.#timers.toSorted((a, b) => a.at - b.at || a.order - b.order)[0];
      if (next === undefined || next.at > end) break;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      this.#now = next.at;
      next.run();
    }
    this.#now = end;
  }

  /** Time passes until the condition holds; fails after `ms`. */
  async until(condition: () => boolean, what: string, ms = 10_000): Promise<void> {
    const end = this.#now + ms;
    while (!condition()) {
      if (this.#now >= end) throw new Error(`did not happen within ${ms} ms: ${what}`);
      await this.run(1);
    }
  }

  async #settle(): Promise<void> {
    for (;;) {
      // Microtasks of the code under test: a macrotask of the real loop lets them all run.
      await new Promise((resolve) => setImmediate(resolve));
      const tasks = this.#soon.length > 0 ? this.#soon : this.#turn;
      if (tasks.length === 0) return;
      if (tasks === this.#soon) this.#soon = [];
      else this.#turn = [];
      for (const task of tasks) task();
    }
  }
}

import type { Environment, Timer } from '../../src/base/environment.ts';
import { SeededRandom } from './random.ts';

interface Event {
  at: number;
  order: number;
  readonly owner: VirtualEnvironment | undefined;
  task: (() => void) | undefined;
  /** It waited for its process, and is next. */
  released: boolean;
}

/**
 * Virtual time for a whole simulated world. Events run one at a time in the order (time, order of scheduling); between two events all
 * promise continuations run to their end, so one seed gives one schedule.
 */
export class VirtualTime {
  #now = 0;
  #order = 0;
  #hash = 0x811c9dc5;
  #heap: Event[] = [];
  #fired: Event | undefined;
  /** Milliseconds since the epoch at time 0. */
  readonly epochMs = 1_790_000_000_000;
  events = 0;
  /** Told after each event, once all that follows from it has run: the step after which everything must hold. */
  afterEvent: ((owner: VirtualEnvironment | undefined) => void) | undefined;

  get nowMs(): number {
    return this.#now;
  }

  schedule(delayMs: number, task: () => void, owner?: VirtualEnvironment): Event {
    const event: Event = { at: this.#now + Math.max(0, delayMs), order: this.#order++, owner, task, released: false };
    this.#push(event);
    return event;
  }

  /** Runs all events up to `ms` from now. */
  async run(ms: number): Promise<void> {
    await this.#runUntil(() => false, this.#now + ms);
  }

  /** Runs until `done()` or until `withinMs` have passed; says whether it became true. */
  runUntil(done: () => boolean, withinMs: number): Promise<boolean> {
    return this.#runUntil(done, this.#now + withinMs);
  }

  /** Runs until the promise settles; throws when that takes longer than `withinMs`. */
  async settle<T>(promise: Promise<T>, withinMs: number): Promise<T> {
    let settled = false;
    promise.then(
      () => {
        settled = true;
      },
      () => {
        settled = true;
      },
    );
    if (!(await this.runUntil(() => settled, withinMs))) throw new Error(`still waiting after ${withinMs} simulated ms`);
    return promise;
  }

  /**
   * The loop itself is not asynchronous: it runs in a macrotask and drains the microtasks after each event. Now and then it lets the
   * real event loop go round, which changes nothing inside.
   */
  #runUntil(done: () => boolean, until: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const turn = () => {
        try {
          const result = this.#runEvents(done, until);
          if (result === undefined) setImmediate(turn);
          else resolve(result);
        } catch (error) {
          reject(error);
        }
      };
      setImmediate(turn);
    });
  }

  /** Undefined: there is more to run. */
  #runEvents(done: () => boolean, until: number): boolean | undefined {
    for (let left = EVENTS_A_MACROTASK; left > 0; left--) {
      drainMicrotasks();
      const fired = this.#fired;
      if (fired !== undefined) {
        this.#fired = undefined;
        this.afterEvent?.(fired.owner);
      }
      if (done()) return true;
      const event = this.#heap[0];
      if (event === undefined || event.at > until) {
        this.#now = until;
        return done();
      }
      this.#pop();
      this.#fire(event);
    }
    return undefined;
  }

  #fire(event: Event): void {
    const task = event.task;
    if (task === undefined) return;
    const owner = event.owner;
    if (owner !== undefined) {
      if (owner.killed) return;
      if (owner.pausedUntilMs > event.at || (owner.waiting.length > 0 && !event.released)) {
        owner.deferred++;
        owner.waiting.push(event);
        this.#wakeLater(owner);
        return;
      }
    }
    this.#now = Math.max(this.#now, event.at);
    this.events++;
    this.note(event.order);
    this.note(event.at * 1000);
    event.task = undefined;
    this.#fired = event;
    task();
    if (owner?.turnMs !== undefined) owner.pausedUntilMs = Math.max(owner.pausedUntilMs, this.#now + owner.turnMs());
  }

  /** The process does not run for so long; 0: it goes on now. */
  pause(owner: VirtualEnvironment, ms: number): void {
    owner.pausedUntilMs = this.#now + ms;
    if (owner.waiting.length > 0) this.schedule(ms, () => this.#wake(owner));
  }

  #wakeLater(owner: VirtualEnvironment): void {
    if (owner.wakes) return;
    owner.wakes = true;
    this.schedule(owner.pausedUntilMs - this.#now, () => this.#wake(owner));
  }

  /** One event that waited at a time: each may keep the process from the next. */
  #wake(owner: VirtualEnvironment): void {
    owner.wakes = false;
    if (owner.killed) owner.waiting.length = 0;
    else if (owner.pausedUntilMs <= this.#now) {
      const event = owner.waiting.shift();
      if (event !== undefined) {
        event.released = true;
        event.at = this.#now;
        event.order = this.#order++;
        this.#push(event);
      }
    }
    if (owner.waiting.length > 0) this.#wakeLater(owner);
  }

  /** Folds a number into the trace's hash. */
  note(value: number): void {
    this.#hash = Math.imul(this.#hash ^ value, 0x01000193) >>> 0;
  }

  /** Over every event so far: equal for equal seeds. */
  get hash(): number {
    return this.#hash;
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as Event;
      if (before(above, event)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop() as Event;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1] as Event, heap[child] as Event)) child++;
      const below = heap[child] as Event;
      if (before(last, below)) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = last;
  }
}

function before(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** Events after which the real event loop may go round. */
const EVENTS_A_MACROTASK = 2_000;

/**
 * Runs all promise continuations to their end. Only from a macrotask: it does nothing inside a microtask. A `setImmediate` after each event
 * would do the same and takes ten times as long.
 */
const drainMicrotasks = (process as unknown as { _tickCallback(): void })._tickCallback;

/** One process's environment in the simulated world. Once killed, none of its tasks runs any more. */
export class VirtualEnvironment implements Environment {
  readonly time: VirtualTime;
  readonly random: SeededRandom;
  killed = false;
  /** It was asked to end, and will. */
  stopping = false;
  /** The machine that it is on, if that is a broker's. */
  machine: number | undefined;
  /** Events before this time wait for it: SIGSTOP. */
  pausedUntilMs = 0;
  /** Events that had to wait for the process so far. */
  deferred = 0;
  /** Those that wait now, in their order. */
  readonly waiting: Event[] = [];
  /** The clock will see to them. */
  wakes = false;
  /** Milliseconds for which an event keeps the process from the next one: a slow event loop. Undefined: none. */
  turnMs: (() => number) | undefined;
  /** What this process's wall clock shows beyond the true time. */
  wallSkewMs = 0;
  /** How often it was looked at. */
  wallReads = 0;

  constructor(time: VirtualTime, random: SeededRandom) {
    this.time = time;
    this.random = random;
  }

  static alone(seed = 1): VirtualEnvironment {
    return new VirtualEnvironment(new VirtualTime(), new SeededRandom(seed));
  }

  monotonicMs(): number {
    return this.time.nowMs;
  }

  wallMs(): number {
    this.wallReads++;
    return Math.floor(this.time.epochMs + this.time.nowMs + this.wallSkewMs);
  }

  uint32(): number {
    return this.random.uint32();
  }

  after(ms: number, task: () => void): Timer {
    const event = this.time.schedule(ms, task, this);
    return {
      cancel: () => {
        event.task = undefined;
      },
    };
  }

  soon(task: () => void): void {
    queueMicrotask(() => {
      if (!this.killed) task();
    });
  }

  nextTurn(task: () => void): void {
    this.time.schedule(0, task, this);
  }

  kill(): void {
    this.killed = true;
  }
}

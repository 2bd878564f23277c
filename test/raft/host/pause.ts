import type { Environment, Timer } from '../../../src/base/environment.ts';
import type { PeerReceiver, PeerTransport } from '../../../src/raft/types.ts';

/** SIGSTOP and SIGCONT for one broker: its clock goes on, but nothing of it runs; timers that came due, and frames, wait. */
export class Pause {
  readonly environment: Environment;
  #waiting: (() => void)[] | undefined;

  constructor(inner: Environment) {
    const later = (task: () => void) => () => this.#run(task);
    this.environment = {
      monotonicMs: () => inner.monotonicMs(),
      wallMs: () => inner.wallMs(),
      uint32: () => inner.uint32(),
      after: (ms, task): Timer => inner.after(ms, later(task)),
      soon: (task) => inner.soon(later(task)),
      nextTurn: (task) => inner.nextTurn(later(task)),
    };
  }

  transport(inner: PeerTransport): PeerTransport {
    return {
      ...inner,
      start: (receiver: PeerReceiver) =>
        inner.start({
          frame: (from, lane, frame) => this.#run(() => receiver.frame(from, lane, frame)),
          connected: (broker, lane) => this.#run(() => receiver.connected(broker, lane)),
          disconnected: (broker, lane) => this.#run(() => receiver.disconnected(broker, lane)),
        }),
    };
  }

  pause(): void {
    this.#waiting ??= [];
  }

  resume(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const task of waiting) task();
  }

  #run(task: () => void): void {
    if (this.#waiting === undefined) task();
    else this.#waiting.push(task);
  }
}

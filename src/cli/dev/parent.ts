/** What a broker process and the `flotilla dev` that started it tell each other, over Node's IPC channel. */

export type ChildMessage =
  | { readonly type: 'ready' }
  | { readonly type: 'memory'; readonly residentBytes: number }
  /** It is about to end with exit 1. */
  | { readonly type: 'failed'; readonly message: string };

const MEMORY_INTERVAL_MS = 1000;

/** The process that started this one to watch over it, if it was started so. */
export class Parent {
  static find(): Parent | undefined {
    return process.send === undefined ? undefined : new Parent();
  }

  /** Calls `gone` when the parent has died: its brokers end with it. */
  onGone(gone: () => void): void {
    process.once('disconnect', gone);
  }

  ready(): void {
    this.#tell({ type: 'ready' });
    setInterval(() => this.#tell({ type: 'memory', residentBytes: process.memoryUsage.rss() }), MEMORY_INTERVAL_MS).unref();
  }

  failed(message: string): void {
    this.#tell({ type: 'failed', message });
  }

  #tell(message: ChildMessage): void {
    if (process.connected) process.send?.(message, undefined, undefined, () => {}); // A parent that has just died needs no news.
  }
}

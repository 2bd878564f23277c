/** A progress bar on stderr, when that is a terminal. The total is not known: it shows the count and the rate. */
import { SingleBar } from 'cli-progress';
import type { Streams } from './io.ts';

export class Progress {
  readonly #bar: SingleBar | undefined;
  readonly #timer: NodeJS.Timeout | undefined;

  constructor({ stderr }: Pick<Streams, 'stderr'>, label: string, done: () => number, total?: number) {
    if (stderr.isTTY !== true) return;
    const bar = new SingleBar({
      format: total === undefined ? `{value} ${label}, {rate}/s` : `{bar} {value}/{total} ${label}, {rate}/s`,
      stream: stderr as NodeJS.WritableStream,
      hideCursor: true,
      clearOnComplete: true,
      fps: 10,
    });
    const started = performance.now();
    bar.start(total ?? 0, 0, { rate: 0 });
    this.#timer = setInterval(() => {
      const rate = Math.round((done() * 1000) / Math.max(1, performance.now() - started));
      bar.update(done(), { rate: rate.toLocaleString('en') });
    }, 100);
    this.#bar = bar;
  }

  end(): void {
    clearInterval(this.#timer);
    this.#bar?.stop();
  }
}

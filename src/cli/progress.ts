/** A progress bar on stderr, when that is a terminal. The total is not known: it shows the count and the rate. */
import { SingleBar } from 'cli-progress';
import { integerText } from './format.ts';
import type { Streams } from './io.ts';

export class Progress {
  readonly #bar: SingleBar | undefined;
  readonly #timer: NodeJS.Timeout | undefined;

  constructor({ stderr }: Pick<Streams, 'stderr'>, label: string, done: () => number, total?: number) {
    if (stderr.isTTY !== true) return;
    const bar = new SingleBar({
      format: total === undefined ? `{count} ${label}, {rate}/s` : `{bar} {count} of {all} ${label}, {rate}/s`,
      stream: stderr as NodeJS.WritableStream,
      hideCursor: true,
      clearOnComplete: true,
      fps: 10,
    });
    const started = performance.now();
    const show = () => {
      const rate = (done() * 1000) / Math.max(1, performance.now() - started);
      return { count: integerText(done()), all: integerText(total ?? 0), rate: integerText(rate) };
    };
    bar.start(total ?? 0, 0, show());
    this.#timer = setInterval(() => bar.update(done(), show()), 100);
    this.#bar = bar;
  }

  end(): void {
    clearInterval(this.#timer);
    this.#bar?.stop();
  }
}

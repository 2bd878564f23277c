/** The terminal as a screen: the alternate buffer, redrawn whole, given back as it was however the process ends. */
import type { Streams } from '../io.ts';

const ENTER = '\u001b[?1049h\u001b[?25l';
const LEAVE = '\u001b[?25h\u001b[?1049l';

export class Screen implements Disposable {
  readonly #streams: Streams;
  readonly #leave = () => this[Symbol.dispose]();
  #open = true;

  constructor(streams: Streams, onKey: (key: string) => void) {
    this.#streams = streams;
    const { stdin, stdout } = streams;
    stdout.write(ENTER);
    if (isTerminal(stdin)) stdin.setRawMode(true);
    stdin.on('data', (bytes: Buffer) => {
      for (const key of bytes.toString('latin1')) onKey(key);
    });
    process.once('exit', this.#leave);
  }

  get size(): { columns: number; rows: number } {
    const { columns = 80, rows = 24 } = this.#streams.stdout as { columns?: number; rows?: number };
    return { columns, rows };
  }

  /** One write a frame, so that nothing flickers. */
  draw(lines: readonly string[]): void {
    if (this.#open) this.#streams.stdout.write(`\u001b[H${lines.map((line) => `${line}\u001b[K`).join('\r\n')}\u001b[J`);
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    const { stdin, stdout } = this.#streams;
    process.off('exit', this.#leave);
    if (isTerminal(stdin)) stdin.setRawMode(false);
    stdin.pause();
    stdout.write(LEAVE);
  }
}

function isTerminal(stdin: Streams['stdin']): stdin is Streams['stdin'] & { setRawMode(raw: boolean): void } {
  return stdin.isTTY === true && 'setRawMode' in stdin;
}

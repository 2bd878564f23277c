/** Standard input, output and error as the commands use them: results on stdout, everything else on stderr. */
import type { Readable, Writable } from 'node:stream';

export interface Streams {
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: Writable & { readonly isTTY?: boolean; readonly columns?: number };
  readonly stderr: Writable & { readonly isTTY?: boolean; readonly columns?: number };
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Writes results, with back-pressure. A reader that went away (`| head`) ends the command quietly; a full disk ends it with {@link error}. */
export class Output {
  readonly #stream: Writable;
  readonly #readerGone: () => void;
  #gone = false;
  #error: Error | undefined;

  constructor(stream: Writable, readerGone: () => void) {
    this.#stream = stream;
    this.#readerGone = readerGone;
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_DESTROYED') this.#error ??= error;
      this.#close();
    });
  }

  /** Why results could not be written. Undefined: they were, or nobody wanted them. */
  get error(): Error | undefined {
    return this.#error;
  }

  /** Writes a line. Resolves when the stream takes more, so that awaiting it bounds what is buffered. */
  line(text: string | Uint8Array): Promise<void> | undefined {
    if (this.#gone) return undefined;
    const ready = this.#stream.write(typeof text === 'string' ? `${text}\n` : Buffer.concat([text, newline]));
    return ready ? undefined : this.#drained();
  }

  json(value: unknown): Promise<void> | undefined {
    return this.line(JSON.stringify(value));
  }

  /** Everything written has left the process, or nobody reads any more. */
  flush(): Promise<void> {
    if (this.#gone) return Promise.resolve();
    return new Promise((resolve) => {
      this.#stream.once('close', resolve);
      this.#stream.write('', () => resolve());
    });
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#stream.off('drain', done).off('close', done).off('error', done);
        resolve();
      };
      this.#stream.on('drain', done).on('close', done).on('error', done);
    });
  }

  #close(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#readerGone();
  }
}

const newline = new Uint8Array([0x0a]);

/** Colours only on a terminal, never with NO_COLOR (https://no-color.org). */
export function wantsColour(stream: { readonly isTTY?: boolean }, env: Streams['env']): boolean {
  return stream.isTTY === true && !env['NO_COLOR'] && env['TERM'] !== 'dumb';
}

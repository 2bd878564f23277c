/** What every command gets: where results go, whom to connect to, and when to stop. */
import type { ClusterClient } from './client.ts';
import { Exit, explain, explainJson, UsageError } from './failures.ts';
import { Output, type Streams, wantsColour } from './io.ts';

export type Connect = (bootstrap: string, signal: AbortSignal) => Promise<ClusterClient>;

export interface GlobalOptions {
  readonly bootstrap: string;
  readonly json: boolean;
}

export class Session {
  readonly streams: Streams;
  readonly out: Output;
  readonly bootstrap: string;
  readonly json: boolean;
  readonly colour: boolean;
  readonly #connect: Connect;
  readonly #stop = new AbortController();
  #interrupted = false;

  constructor(streams: Streams, connect: Connect, options: GlobalOptions) {
    this.streams = streams;
    this.bootstrap = options.bootstrap;
    this.json = options.json;
    this.colour = wantsColour(streams.stdout, streams.env);
    this.#connect = connect;
    this.out = new Output(streams.stdout, () => this.#stop.abort());
  }

  /** Fires when the command should come to its end: Ctrl-C, SIGTERM, or nobody reads its results any more. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** A person or the system asked to stop (a closed pipe does not count). */
  get interrupted(): boolean {
    return this.#interrupted;
  }

  interrupt(): void {
    this.#interrupted = true;
    this.#stop.abort();
  }

  connect(): Promise<ClusterClient> {
    return this.#connect(this.bootstrap, this.signal);
  }

  /** Tells a person something that is not a result. */
  note(text: string): void {
    this.streams.stderr.write(`${text}\n`);
  }

  /** Runs a command to its exit code. */
  async run(command: (session: Session) => Promise<void>): Promise<number> {
    const code = await this.#run(command);
    await this.out.flush();
    if (this.out.error === undefined) return code;
    this.#explain(this.out.error);
    return Exit.failed;
  }

  async #run(command: (session: Session) => Promise<void>): Promise<number> {
    try {
      await command(this);
      return Exit.done;
    } catch (error) {
      if (this.signal.aborted && !this.#interrupted) return Exit.done;
      this.#explain(error);
      return error instanceof UsageError ? Exit.usage : Exit.failed;
    }
  }

  #explain(error: unknown): void {
    this.note(this.json ? explainJson(error) : `flotilla: ${explain(error)}`);
  }
}

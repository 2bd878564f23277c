/** Starts on a data directory in a process of their own, which LevelDB may end: one process for all of them, as long as it lives. */
import { type ChildProcess, fork } from 'node:child_process';
import type { Entry } from '../../../src/raft/core/entry.ts';

/** What a group's log has. */
export interface WordsLog {
  readonly term: number;
  readonly entries: readonly Entry[];
  readonly firstReplicableIndex: number;
  readonly snapshot: { readonly index: number; readonly state: Uint8Array } | undefined;
}

export interface StartRequest {
  readonly directory: string;
  readonly incarnation: number;
  readonly log: WordsLog;
}

export type StartReply =
  | { readonly words: readonly string[]; readonly loaded: number; readonly log: WordsLog }
  | { readonly failure: string };

const CHILD = new URL('state-child.ts', import.meta.url).pathname;

export class StateProcess implements Disposable {
  #child: ChildProcess | undefined;

  /** Undefined: the process died. The next start is in another one. */
  async start(request: StartRequest): Promise<StartReply | undefined> {
    // LevelDB says on stderr what it ends the process over.
    this.#child ??= fork(CHILD, { serialization: 'advanced', stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    const child = this.#child;
    const reply = await new Promise<StartReply | undefined>((resolve) => {
      child.once('message', (message) => resolve(message as StartReply));
      child.once('exit', () => resolve(undefined));
      child.send(request);
    });
    child.removeAllListeners();
    if (reply === undefined) this.#child = undefined;
    return reply;
  }

  [Symbol.dispose](): void {
    this.#child?.kill('SIGKILL');
  }
}

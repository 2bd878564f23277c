/**
 * The store of applied state as the broker has it, a LevelDB on a real disk, with checkpoints of a state machine in it, and damage to one of its files, or to the
 * checkpoint itself, while the process is down. At the next start the state must come out as it was: from the store where that is whole, or anew from the log. A
 * process that dies over the store is started once more, as whoever keeps a broker running does.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { must } from '../../../src/base/assert.ts';
import { openLevelStore } from '../../../src/platform/state-store.ts';
import { TemporaryDirectory } from '../../processes.ts';
import { FakeGroup, neverAborted } from '../../rsm/fakes.ts';
import { seeded } from '../fixture.ts';
import { damaged, type Kind, type Outcome } from './damage.ts';
import type { StartReply, StateProcess, WordsLog } from './state-process.ts';
import { startOn } from './state-start.ts';

const FILES = { CURRENT: /^CURRENT$/, MANIFEST: /^MANIFEST-\d+$/, 'level log': /^\d+\.log$/, 'level ldb': /^\d+\.ldb$/ } as const;
const CHECKPOINT = 'checkpoint';
export const STATE_CLASSES = [...(Object.keys(FILES) as (keyof typeof FILES)[]), CHECKPOINT] as const;
export type StateClass = (typeof STATE_CLASSES)[number];

export function isStateClass(name: string): name is StateClass {
  return (STATE_CLASSES as readonly string[]).includes(name);
}

/** Operations before each checkpoint, and checkpoints in each of two lives of the process. */
const OPERATIONS = 5;
const CHECKPOINTS = 6;
/** Of one word, at most: so that files have many sectors. */
const MAX_WORD_CHARS = 2_000;
const KEY = 'rsm/words/checkpoint';

export class StateTrials implements Disposable {
  readonly #directory = new TemporaryDirectory();
  readonly #group = new FakeGroup();
  readonly #draw: (bound: number) => number;
  /** As the process left them. */
  #files: (readonly [name: string, bytes: Uint8Array])[] = [];
  /** The state, in words. */
  #due = '';
  #incarnation = 0;
  readonly #process: StateProcess;

  private constructor(seed: number, process: StateProcess) {
    this.#process = process;
    const random = seeded(seed + 2_000_000);
    this.#draw = (bound) => random.uint32() % bound;
  }

  static async begin(seed: number, process: StateProcess): Promise<StateTrials> {
    const trials = new StateTrials(seed, process);
    mkdirSync(trials.#directory.join('quarantine'));
    for (let life = 0; life < 2; life++) await trials.#live(life === 0 && seed % 2 === 0);
    trials.#files = readdirSync(trials.#state).map((name) => [name, new Uint8Array(readFileSync(`${trials.#state}/${name}`))]);
    return trials;
  }

  [Symbol.dispose](): void {
    this.#directory[Symbol.dispose]();
  }

  /** Undefined: nothing changed by it. */
  async run(file: StateClass, kind: Kind): Promise<Outcome | undefined> {
    rmSync(this.#state, { recursive: true, force: true });
    mkdirSync(this.#state);
    for (const [name, bytes] of this.#files) writeFileSync(`${this.#state}/${name}`, bytes);
    const changed = file === CHECKPOINT ? await this.#damageValue(kind) : this.#damageFile(FILES[file], kind);
    if (!changed) return undefined;
    let why: string | undefined;
    let lost = 0;
    let deaths = 0;
    let log = this.#log;
    // What the first start makes whole, the second finds whole.
    for (let start = 1; start <= 2 && why === undefined; start++) {
      let reply = await this.#start(log);
      if (reply === undefined) {
        deaths++;
        reply = await this.#start(log);
      }
      if (reply === undefined) why = `two processes died at start ${start}`;
      else if ('failure' in reply) why = reply.failure;
      else {
        log = reply.log;
        if (JSON.stringify(reply.words) !== this.#due) {
          lost++;
          why = `the state is another at start ${start}`;
        }
        if (start === 2 && reply.loaded === 0) why ??= 'nothing was stored at the first start';
      }
    }
    return { whileDown: true, repaired: why === undefined, lost, why, deaths };
  }

  #start(log: WordsLog): Promise<StartReply | undefined> {
    return this.#process.start({ directory: this.#directory.path, incarnation: ++this.#incarnation, log });
  }

  get #state(): string {
    return this.#directory.join('state');
  }

  get #log(): WordsLog {
    const { term, log } = this.#group;
    return { term, entries: log.entries, firstReplicableIndex: log.firstReplicableIndex, snapshot: log.snapshot };
  }

  /** A process that takes operations and writes checkpoints. `drops`: in the end its log begins behind a snapshot. */
  async #live(drops: boolean): Promise<void> {
    const { runtime, close } = await startOn(this.#directory.path, ++this.#incarnation, this.#group);
    for (let i = 0; i < CHECKPOINTS; i++) {
      for (let j = 0; j < OPERATIONS; j++) {
        const word = `${runtime.state.length} `.padEnd(1 + this.#draw(MAX_WORD_CHARS), String(this.#draw(1_000_000)));
        await runtime.run(() => ({ records: [word], response: undefined }), neverAborted);
      }
      await runtime.checkpoint();
    }
    const { log } = this.#group;
    const state = drops ? log.snapshotSource?.(0, runtime.appliedIndex) : undefined;
    if (state !== undefined) {
      log.snapshot = { index: runtime.appliedIndex, state };
      log.firstReplicableIndex = runtime.appliedIndex + 1;
    }
    this.#due = JSON.stringify(runtime.state);
    await close();
  }

  #damageFile(pattern: RegExp, kind: Kind): boolean {
    const some = this.#files.filter(([name, bytes]) => pattern.test(name) && bytes.length > 0);
    const found = some[this.#draw(Math.max(1, some.length))];
    if (found === undefined) return false;
    const [name, bytes] = found;
    const after = damaged(bytes, kind, this.#draw);
    writeFileSync(`${this.#state}/${name}`, after);
    return !same(bytes, after);
  }

  /** What the store's own checksums do not find: it gives back other bytes than it was given. */
  async #damageValue(kind: Kind): Promise<boolean> {
    const store = await openLevelStore(this.#state);
    const value = must(await store.get(KEY), 'a checkpoint');
    const after = damaged(value, kind, this.#draw);
    await store.write([{ key: KEY, value: after }]);
    await store.close();
    return !same(value, after);
  }
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

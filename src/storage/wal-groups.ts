/** What the write-ahead log knows of each group: its newest HardState and the entries that are not yet in segments. */
import { assert, must } from '../base/assert.ts';
import type { GroupKey } from '../base/ids.ts';
import type { Entry } from '../raft/core/entry.ts';
import type { HardState } from '../raft/core/types.ts';

export const INITIAL_HARD_STATE: HardState = { term: 0, vote: 0, commit: 0 };

/** One group's newest records, as of the last frame that was encoded. */
export class WalGroup {
  readonly key: GroupKey;
  hardState: HardState = INITIAL_HARD_STATE;
  /** Of the last row. */
  sequence = 0;
  /** Entries up to here are durable in segments, as the log's frames say. */
  synced = 0;
  /** Entries up to here are durable in segments; a row that says so may still be queued. */
  flushed = 0;
  /** As {@link synced}, in frames that are durable. */
  syncedDurably = 0;
  /** Its records can't be proved whole: said in each file's head until the group is forgotten. */
  damaged = false;
  forgotten = false;
  /** Entries up to here are written to segments: a file's bytes stand for them, and memory need not. */
  #released = 0;
  /** Consecutive, above #released, and for each the generation of the file that holds it. */
  #entries: Entry[] = [];
  #generations: number[] = [];

  constructor(key: GroupKey) {
    this.key = key;
  }

  /** Entries that only the write-ahead log holds. */
  get liveEntries(): readonly Entry[] {
    return this.#entries;
  }

  append(entry: Entry, generation: number): void {
    if (entry.index <= this.#released) return;
    const last = this.#entries.at(-1);
    assert(last === undefined || entry.index === last.index + 1, 'entries of a group are consecutive', {
      index: entry.index,
      last: last?.index,
    });
    this.#entries.push(entry);
    this.#generations.push(generation);
  }

  truncate(index: number): void {
    const first = this.#entries[0];
    if (first === undefined) return;
    const keep = Math.max(0, index - first.index + 1);
    this.#entries.length = Math.min(this.#entries.length, keep);
    this.#generations.length = this.#entries.length;
  }

  /** Entries up to `index` need not be held any more, but from the first one on that stands in the file of generation `kept`. */
  release(index: number, kept?: number): void {
    if (index <= this.#released) return;
    const first = this.#entries[0];
    const limit = first === undefined ? 0 : Math.max(0, Math.min(this.#entries.length, index - first.index + 1));
    let count = 0;
    while (count < limit && this.#generations[count] !== kept) count++;
    this.#released = count < limit ? must(first, 'there is one to keep').index + count - 1 : index;
    this.#entries.splice(0, count);
    this.#generations.splice(0, count);
  }

  /** The runs of consecutive live entries that a file holds. */
  runsIn(generation: number): Entry[][] {
    const runs: Entry[][] = [];
    let run: Entry[] | undefined;
    for (let i = 0; i < this.#entries.length; i++) {
      const entry = this.#entries[i];
      if (entry === undefined || this.#generations[i] !== generation) {
        run = undefined;
        continue;
      }
      if (run === undefined) {
        run = [];
        runs.push(run);
      }
      run.push(entry);
    }
    return runs;
  }

  /** The entries now stand in a newer file. */
  moved(entries: readonly Entry[], generation: number): void {
    const first = this.#entries[0];
    if (first === undefined) return;
    for (const entry of entries) {
      const at = entry.index - first.index;
      if (this.#entries[at] === entry) this.#generations[at] = generation;
    }
  }
}

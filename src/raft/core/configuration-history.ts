import { must } from '../../base/assert.ts';
import type { ReplicaId } from '../../base/ids.ts';
import { decodeConfiguration } from './configuration.ts';
import { type Entry, EntryKind } from './entry.ts';
import { isVoter } from './membership.ts';
import type { Configuration } from './types.ts';

export interface EffectiveConfiguration {
  /** Of its entry; 0: from the group's creation. */
  readonly index: number;
  readonly configuration: Configuration;
}

/** The configurations of a log. The last one appended is in force, committed or not, and a truncation takes it back (thesis 4.1): so it is derived from the log alone (hazard B13). */
export class ConfigurationHistory {
  readonly #effective: EffectiveConfiguration[];

  constructor(first: EffectiveConfiguration) {
    this.#effective = [first];
  }

  get current(): EffectiveConfiguration {
    return must(this.#effective.at(-1), 'there is a configuration');
  }

  /**
   * True for a voter of any configuration since the last one known to be committed. One that is left out of the newest may hold entries that the voters
   * need, and nobody could get a majority without it if it did not campaign (thesis 4.2.2).
   */
  mayLead(id: ReplicaId): boolean {
    return this.#effective.some(({ configuration }) => isVoter(configuration, id));
  }

  append(entry: Entry): void {
    if (entry.kind !== EntryKind.config || entry.index <= this.current.index) return;
    this.#effective.push({ index: entry.index, configuration: decodeConfiguration(entry.payload) });
  }

  truncateTo(index: number): void {
    while (this.#effective.length > 1 && this.current.index > index) this.#effective.pop();
  }

  /** A committed configuration is never taken back, so those before it are not needed. */
  commitTo(index: number): void {
    while ((this.#effective[1]?.index ?? Number.POSITIVE_INFINITY) <= index) this.#effective.shift();
  }
}

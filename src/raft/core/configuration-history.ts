import { must } from '../../base/assert.ts';
import { decodeConfiguration } from './configuration.ts';
import { type Entry, EntryKind } from './entry.ts';
import type { Configuration } from './types.ts';

interface Effective {
  readonly index: number;
  readonly configuration: Configuration;
}

/** The configurations of a log. The last one appended is in force, committed or not, and a truncation takes it back (thesis 4.1): so it is derived from the log alone (hazard B13). */
export class ConfigurationHistory {
  readonly #effective: Effective[];

  constructor(index: number, configuration: Configuration) {
    this.#effective = [{ index, configuration }];
  }

  get current(): Effective {
    return must(this.#effective.at(-1), 'there is a configuration');
  }

  /** True when the entry brought a new configuration into force. */
  append(entry: Entry): boolean {
    if (entry.kind !== EntryKind.config || entry.index <= this.current.index) return false;
    this.#effective.push({ index: entry.index, configuration: decodeConfiguration(entry.payload) });
    return true;
  }

  /** True when a configuration was taken back. */
  truncateTo(index: number): boolean {
    const before = this.#effective.length;
    while (this.#effective.length > 1 && this.current.index > index) this.#effective.pop();
    return this.#effective.length < before;
  }

  /** A committed configuration is never taken back, so those before it are not needed. */
  commitTo(index: number): void {
    while ((this.#effective[1]?.index ?? Number.POSITIVE_INFINITY) <= index) this.#effective.shift();
  }
}

import type { SoftState } from './types.ts';

/** Role, term and leader, as the host was last told of them. */
export class Standing {
  #told: SoftState;

  constructor({ role, term, leader }: SoftState) {
    this.#told = { role, term, leader };
  }

  isNews({ role, term, leader }: SoftState): boolean {
    return role !== this.#told.role || term !== this.#told.term || leader !== this.#told.leader;
  }

  /** What the host is to be told; undefined: it knows. */
  take(present: SoftState): SoftState | undefined {
    if (!this.isNews(present)) return undefined;
    const { role, term, leader } = present;
    this.#told = { role, term, leader };
    return this.#told;
  }
}

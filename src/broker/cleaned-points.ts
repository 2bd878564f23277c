/** How far a replica has cleaned its log, and since when, by the time that its process measures: no jump of a clock makes it longer (hazard B41). */

/** Of the time that counts: what is cleaned more often is noted so often. */
const SPACING = 1 / 16;

interface Point {
  readonly offset: number;
  readonly sinceMs: number;
}

export class CleanedPoints {
  /** Ascending; at most one more than there are spacings. */
  #points: readonly Point[] = [];

  /** The offset up to which all has been clean for `forMs`, given up to where it is now. */
  settledTo(cleanedTo: number, forMs: number, nowMs: number): number {
    // A leader's snapshot took the place of the log: what was known of it is void.
    if (cleanedTo < (this.#points.at(-1)?.offset ?? 0)) this.#points = [];
    const newest = this.#points.at(-1);
    if (cleanedTo > (newest?.offset ?? 0) && nowMs - (newest?.sinceMs ?? Number.NEGATIVE_INFINITY) >= forMs * SPACING) {
      this.#points = [...this.#points, { offset: cleanedTo, sinceMs: nowMs }];
    }
    const settled = this.#points.findLastIndex(({ sinceMs }) => nowMs - sinceMs >= forMs);
    this.#points = this.#points.slice(Math.max(0, settled));
    return settled < 0 ? 0 : (this.#points[0]?.offset ?? 0);
  }
}

/** The longest time without an acknowledgement in a partition, by what was broken in it. */
export interface Gap {
  readonly ms: number;
  readonly partition: number;
  /** When the next acknowledgement came, in milliseconds after the start. */
  readonly endedMs: number;
  /** How much of it was after the last of the faults was over; 0: one still lasted when it ended. */
  readonly afterHealMs: number;
}

interface Span {
  readonly name: string;
  readonly from: number;
  to: number;
}

export class Gaps {
  /** The longest of each combination of faults; `none`: with nothing broken. */
  readonly longest = new Map<string, Gap>();
  /** How often each fault was done. */
  readonly counts = new Map<string, number>();
  readonly #startedAt = performance.now();
  readonly #last = new Map<number, number>();
  readonly #spans: Span[] = [];

  /** A fault begins; call what is returned when it is healed. */
  begin(name: string): () => void {
    const span = { name, from: performance.now(), to: Number.POSITIVE_INFINITY };
    this.#spans.push(span);
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    return () => {
      span.to = performance.now();
    };
  }

  acknowledged(partition: number): void {
    const now = performance.now();
    const before = this.#last.get(partition) ?? now;
    this.#last.set(partition, now);
    const ms = now - before;
    const spans = this.#spans.filter(({ from, to }) => from < now && to > before);
    const faults = [...new Set(spans.map(({ name }) => name))].sort().join('+') || 'none';
    if (ms <= (this.longest.get(faults)?.ms ?? 0)) return;
    const afterHealMs = Math.max(0, now - Math.max(before, ...spans.map(({ to }) => to)));
    this.longest.set(faults, { ms, partition, endedMs: now - this.#startedAt, afterHealMs });
  }
}

/**
 * Latency as a user feels it. With a rate, each record is timed from when it was due, not from when the sender got to it, so
 * that a stall counts for every record it held up: that corrects for coordinated omission (Gil Tene). Without a rate nothing
 * is due, and nothing can be corrected.
 */
import { build, type Histogram } from 'hdr-histogram-js';

export interface Percentiles {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
  readonly mean: number;
  readonly count: number;
}

export class Latencies {
  /** Microseconds, up to ten minutes. */
  readonly #histogram: Histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: 600_000_000,
    numberOfSignificantValueDigits: 3,
    useWebAssembly: false,
  });

  record(ms: number): void {
    this.#histogram.recordValue(Math.max(1, Math.round(ms * 1000)));
  }

  /** Milliseconds. */
  percentiles(): Percentiles {
    const histogram = this.#histogram;
    // A percentile is told as the upper end of its bucket, which may lie above the largest value.
    const at = (percentile: number) => Math.min(histogram.getValueAtPercentile(percentile), histogram.maxValue) / 1000;
    const empty = histogram.totalCount === 0;
    return {
      p50: at(50),
      p90: at(90),
      p99: at(99),
      p999: at(99.9),
      max: empty ? 0 : histogram.maxValue / 1000,
      mean: empty ? 0 : histogram.mean / 1000,
      count: histogram.totalCount,
    };
  }
}

/** When each record is due, on a steady beat. */
export class Pace {
  readonly #intervalMs: number;
  readonly #startMs: number;
  #next = 0;

  /** `rate` in records a second. */
  constructor(rate: number, startMs: number) {
    this.#intervalMs = 1000 / rate;
    this.#startMs = startMs;
  }

  /** When the next record is due. */
  get dueMs(): number {
    return this.#startMs + this.#next * this.#intervalMs;
  }

  /** Takes the next record and returns when it was due. */
  take(): number {
    const due = this.dueMs;
    this.#next++;
    return due;
  }
}

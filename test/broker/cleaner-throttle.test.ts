import { beforeEach, describe, expect, it } from 'vitest';
import { CleanerThrottle, MAX_REST_MS, SHARE_WHILE_WRITTEN } from '../../src/broker/cleaner-throttle.ts';
import { ManualEnvironment, settled } from './manual-environment.ts';

const FAST = 2 ** 50;

describe('the pace of cleaning', () => {
  let environment: ManualEnvironment;
  let written: number;
  let stop: AbortController;

  beforeEach(() => {
    environment = new ManualEnvironment();
    written = 1_000;
    stop = new AbortController();
  });

  function throttle(bytesPerSecond = FAST): CleanerThrottle {
    const made = new CleanerThrottle({ environment, bytesPerSecond, writtenBytes: () => written });
    made.begin();
    return made;
  }

  /** Milliseconds until it goes on, to the millisecond. */
  async function restOf(resting: Promise<void>): Promise<number> {
    let done = false;
    void resting.then(() => {
      done = true;
    });
    await settled();
    for (let ms = 0; ; ms++) {
      if (done) return ms;
      environment.advance(1);
      await settled();
    }
  }

  function work(on: CleanerThrottle, ms: number, bytes = 1): Promise<number> {
    environment.advance(ms);
    return restOf(on.rest(bytes, stop.signal));
  }

  it('works on while nobody writes', async () => {
    const pace = throttle();
    for (let run = 0; run < 3; run++) expect(await work(pace, 100)).toBe(0);
    expect(environment.timers).toBe(0);
  });

  it('has its share of the time while somebody writes, and all of it again afterwards', async () => {
    const pace = throttle();
    const started = environment.now;
    for (const ms of [10, 20, 3]) {
      written++;
      expect(await work(pace, ms)).toBe(ms * 7);
    }
    expect(33 / (environment.now - started)).toBe(SHARE_WHILE_WRITTEN);
    expect(await work(pace, 10)).toBe(0);
    // Work of a time without writes is not paid for later.
    written++;
    expect(await work(pace, 10)).toBe(70);
  });

  it('counts what was written while it rested', async () => {
    const pace = throttle();
    written++;
    environment.advance(10);
    const resting = restOf(pace.rest(1, stop.signal));
    written++;
    expect(await resting).toBe(70);
    expect(await work(pace, 10)).toBe(70);
    expect(await work(pace, 10)).toBe(0);
  });

  it('does not count what was written before it began', async () => {
    const pace = throttle();
    written++;
    environment.advance(60_000);
    pace.begin();
    expect(await work(pace, 10)).toBe(0);
  });

  it('saves up rests that are too short for a timer', async () => {
    const pace = throttle();
    const rests = [];
    for (let run = 0; run < 4; run++) {
      written++;
      rests.push(await work(pace, 0.5));
    }
    expect(rests).toEqual([0, 7, 0, 7]);
  });

  it('rests no longer than so much, however long the work took', async () => {
    const pace = throttle();
    written++;
    expect(await work(pace, 60_000)).toBe(MAX_REST_MS);
  });

  it('a rest for the rate of bytes is one for the time as well', async () => {
    const pace = throttle(1_000);
    written++;
    expect(await work(pace, 100, 1_000)).toBe(1_000);
    written++;
    expect(await work(pace, 100, 10)).toBe(700);
    expect(await work(pace, 0, 500)).toBe(500);
  });

  it('ends at once when the broker stops', async () => {
    const pace = throttle();
    written++;
    environment.advance(100);
    const resting = pace.rest(1, stop.signal);
    stop.abort();
    await resting;
    written++;
    expect(await work(pace, 100)).toBe(0);
    expect(environment.timers).toBe(0);
  });
});

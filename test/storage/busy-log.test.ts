import { expect, it } from 'vitest';
import { type Random, randomBelow } from '../../src/base/environment.ts';
import type { Entry } from '../../src/raft/core/entry.ts';
import { A, bytesOf, chainOf, entriesFrom, Fixture, REPLICA, seeded, write } from './fixture.ts';

/** Appends without waiting, in frames that hold a few of them, and commits and flushes what was acknowledged, until the power is cut. */
async function work(fixture: Fixture, acknowledged: Entry[], random: Random): Promise<never> {
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, { segmentBytes: 1e6 }, REPLICA);
  let newest: Entry | undefined;
  let queued = 0;
  for (;;) {
    while (queued < 2 + randomBelow(random, 8)) {
      const entries = chainOf(1 + randomBelow(random, 2), { after: newest, bytes: 500 + randomBelow(random, 3000) });
      newest = entries.at(-1);
      queued++;
      void storage.wal.append([write(entries)]).then(() => {
        queued--;
        acknowledged.push(...entries);
      });
    }
    if (acknowledged.length > log.lastIndex) log.append(acknowledged.slice(log.lastIndex));
    if (randomBelow(random, 3) === 0) void log.flush();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

it('a log that has more to write than a frame holds, while it recycles, keeps what was acknowledged (B08)', {
  timeout: 60_000,
}, async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = seeded(seed);
    const fixture = new Fixture(seed, { walFileBytes: 32 * 1024, walFiles: 2, walMaxFrameBytes: 8 * 1024 });
    const acknowledged: Entry[] = [];
    await fixture.cutPower(100 + randomBelow(random, 500), () => work(fixture, acknowledged, random));
    fixture.restart();
    const { log, tail, whole } = await (await fixture.open()).openLog(A, { segmentBytes: 1e6 }, REPLICA);
    expect(whole, `seed ${seed}`).toBe(true);
    const stored = await entriesFrom(log);
    expect(bytesOf([...stored, ...tail]).slice(0, acknowledged.length), `seed ${seed}`).toEqual(bytesOf(acknowledged));
  }
});

import { expect, it } from 'vitest';
import { A, chainOf, Fixture, last, REPLICA, settings, write } from './fixture.ts';

async function opened(more: object) {
  const fixture = new Fixture();
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, { ...settings, ...more }, REPLICA);
  log.snapshotSource = () => Uint8Array.of(1);
  const append = async (entries: ReturnType<typeof chainOf>) => {
    await storage.wal.append([write(entries)]);
    log.append(entries);
  };
  return { fixture, storage, log, append };
}

const bases = (segments: readonly { readonly base: { readonly offset: number } }[]) => segments.map(({ base }) => base.offset);

it('a segment takes as many offsets as it may, through restarts', async () => {
  const { fixture, storage, log, append } = await opened({ segmentRecords: 10 });
  const first = chainOf(4, { records: 3 });
  for (const entry of first) await append([entry]);
  await log.flush();
  expect(bases(log.segments())).toEqual([0, 9]);
  await storage.close();
  fixture.revive();
  const again = await fixture.open();
  const { log: reopened } = await again.openLog(A, { ...settings, segmentRecords: 10 }, REPLICA);
  for (const entry of chainOf(3, { records: 3, after: last(first) })) {
    await again.wal.append([write([entry])]);
    reopened.append([entry]);
  }
  await reopened.flush();
  expect(bases(reopened.segments())).toEqual([0, 9, 18]);
  reopened.configure({ ...settings, segmentRecords: Number.POSITIVE_INFINITY });
  await again.close();
});

it('a log that nobody appends to ends its last segment when that is old, once, with a snapshot', async () => {
  const { fixture, storage, log, append } = await opened({ segmentMs: 1_000 });
  await append(chainOf(3));
  log.rollIfOld();
  fixture.environment.advance(999);
  log.rollIfOld();
  await log.flush();
  expect(log.lastSnapshot).toBeUndefined();
  fixture.environment.advance(1);
  for (let time = 0; time < 3; time++) {
    log.rollIfOld();
    fixture.environment.advance(1_000);
  }
  await log.flush();
  expect(log.lastSnapshot).toEqual({ index: 3, nextOffset: 3 });
  expect(bases(log.segments())).toEqual([0, 3]);
  await storage.close();
});

it('what was there at the start counts from then on', async () => {
  const { fixture, storage, append } = await opened({ segmentMs: 1_000 });
  await append(chainOf(3));
  await storage.close();
  fixture.revive();
  const again = await fixture.open();
  const { log } = await again.openLog(A, { ...settings, segmentMs: 1_000 }, REPLICA);
  log.snapshotSource = () => Uint8Array.of(1);
  fixture.environment.advance(5_000);
  log.rollIfOld();
  await log.flush();
  expect(log.segments()).toHaveLength(1);
  fixture.environment.advance(1_000);
  log.rollIfOld();
  await log.flush();
  expect(log.segments()).toHaveLength(2);
  await again.close();
});

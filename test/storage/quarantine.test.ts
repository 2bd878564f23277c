import { expect, test } from 'vitest';
import { A, chainOf, Fixture, REPLICA, settings, smallWal, write } from './fixture.ts';

const DELAY_MS = 60_000;

/** A group with data that was deleted. */
async function deleted(fixture: Fixture) {
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, settings, REPLICA);
  const entries = chainOf(4);
  await storage.wal.append([write(entries)]);
  log.append(entries);
  expect(await storage.deleteLog(A)).toBe(400);
  return storage;
}

/** What was begun on the disk has ended. */
async function idle(): Promise<void> {
  for (let turns = 0; turns < 20; turns++) await new Promise(setImmediate);
}

const quarantined = (fixture: Fixture) => fixture.disk.files().filter((name) => name.includes('quarantine'));

test('what was deleted gives its room back after a while, and no sooner (B24)', async () => {
  const fixture = new Fixture(1, { ...smallWal, deleteDelayMs: DELAY_MS });
  const storage = await deleted(fixture);
  fixture.environment.advance(DELAY_MS - 1);
  await idle();
  expect(quarantined(fixture)).not.toEqual([]);
  fixture.environment.advance(1);
  await new Promise(setImmediate);
  await storage.close();
  expect(quarantined(fixture)).toEqual([]);
});

test('what the process before left stays for as long after the start', async () => {
  const fixture = new Fixture(1, { ...smallWal, deleteDelayMs: DELAY_MS });
  await (await deleted(fixture)).close();
  const storage = await fixture.open();
  fixture.environment.advance(DELAY_MS - 1);
  await idle();
  await storage.close();
  expect(quarantined(fixture)).not.toEqual([]);
  const again = await fixture.open();
  fixture.environment.advance(DELAY_MS);
  await new Promise(setImmediate);
  await again.close();
  expect(quarantined(fixture)).toEqual([]);
});

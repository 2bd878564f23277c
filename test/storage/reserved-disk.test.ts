import { expect, it } from 'vitest';
import { type LogFields, silentLogger } from '../../src/base/environment.ts';
import { ReservedDisk } from '../../src/storage/reserved-disk.ts';
import { SimDisk } from '../sim/disk.ts';
import { A, bytesOf, chainOf, entriesFrom, Fixture, REPLICA, seeded, settings, TestEnvironment, write } from './fixture.ts';

async function world(bytes = 10_000) {
  const disk = new SimDisk(new TestEnvironment(1), seeded(1));
  const errors: LogFields[] = [];
  let released = 0;
  const log = { ...silentLogger, error: (_event: string, fields: LogFields = {}) => void errors.push(fields) };
  const reserved = new ReservedDisk(disk, { path: 'data/reserve', directory: 'data', bytes, log, released: () => void released++ });
  await reserved.makeDirectory('data');
  return { disk, reserved, errors, released: () => released };
}

const ones = (count: number) => new Uint8Array(count).fill(1);

it('gives the reserve up for what meets a full disk, once, and says so', async () => {
  const { disk, reserved, errors, released } = await world();
  expect(await reserved.prepare()).toBe(true);
  expect(disk.sizeOf('data/reserve')).toBe(10_000);
  const file = await reserved.open('data/a', { create: true });
  disk.fill(0);
  await Promise.all([file.write(0, [ones(4_000)]), file.write(4_000, [ones(4_000)])]);
  expect(disk.sizeOf('data/a')).toBe(8_000);
  expect(disk.files()).toEqual(['data/a']);
  expect(released()).toBe(1);
  expect(errors).toEqual([expect.objectContaining({ reserve: '10000 bytes, given up' })]);
  // The rest of it is room like any other, and then there is none.
  await file.write(8_000, [ones(1_000)]);
  await expect(file.write(9_000, [ones(4_000)])).rejects.toMatchObject({ code: 'ENOSPC' });
});

it('has another one when there is room again', async () => {
  const { disk, reserved, released } = await world();
  await reserved.prepare();
  const file = await reserved.open('data/a', { create: true });
  const end = disk.fill(0);
  await file.write(0, [ones(9_000)]);
  expect(await reserved.prepare()).toBe(false);
  end();
  expect(await reserved.prepare()).toBe(true);
  disk.fill(0);
  await file.write(9_000, [ones(9_000)]);
  expect(released()).toBe(2);
});

it.each([0, 10_000])('other errors, and a full disk without a reserve (of %i bytes), are heard of as they are', async (bytes) => {
  const { disk, reserved } = await world(bytes);
  const file = await reserved.open('data/a', { create: true });
  disk.intercept = ({ kind }) => (kind === 'write' ? 'EIO' : undefined);
  await expect(file.write(0, [ones(10)])).rejects.toMatchObject({ code: 'EIO' });
  disk.intercept = undefined;
  disk.fill(0);
  await expect(file.write(0, [ones(100)])).rejects.toMatchObject({ code: 'ENOSPC' });
  await file.close();
});

it('a full disk does not end the storage: what was taken is written, also to segments, and there after a restart', async () => {
  const fixture = new Fixture(3, { walFileBytes: 64 * 1024, walFiles: 2, reserveBytes: 1_000_000 });
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, settings, REPLICA);
  await storage.prepareReserve();
  fixture.disk.fill(0);
  const entries = chainOf(200, { bytes: 1_000 });
  for (let at = 0; at < entries.length; at += 10) {
    const some = entries.slice(at, at + 10);
    await storage.wal.append([write(some)]);
    log.append(some);
    fixture.environment.advance(250);
  }
  await log.flush();
  expect(fixture.failures).toEqual([]);
  fixture.disk.crash();
  fixture.restart();
  const again = await (await fixture.open()).openLog(A, settings, REPLICA);
  expect(again.whole).toBe(true);
  again.log.append(again.tail);
  expect(bytesOf(await entriesFrom(again.log))).toEqual(bytesOf(entries));
});

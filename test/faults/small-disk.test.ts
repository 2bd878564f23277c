/** A real broker on a file system that is really full. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { BrokerUnderTest, freePorts, until } from '../processes.ts';
import { Ledger } from './ledger.ts';
import { SmallFileSystem } from './small-file-system.ts';

const MIB = 2 ** 20;
const SIZE_MIB = 48;
const WATERMARK_MIB = 8;

let disk: SmallFileSystem;
let broker: BrokerUnderTest;
let ledger: Ledger;
let bootstrap: string;

beforeEach(async () => {
  disk = await SmallFileSystem.mount(SIZE_MIB);
  bootstrap = `127.0.0.1:${await freePorts(1)}`;
  await startBroker();
  ledger = await Ledger.open(bootstrap);
});

afterEach(async () => {
  await ledger[Symbol.asyncDispose]();
  await broker.end('SIGKILL');
  await disk[Symbol.asyncDispose]();
});

async function startBroker(): Promise<void> {
  const settings = {
    'node.id': 1,
    'log.dir': `${disk.path}/data`,
    listeners: `A://${bootstrap}`,
    'flotilla.wal.file.bytes': '1MiB',
    'log.segment.bytes': '1MiB',
    'flotilla.disk.free.min.bytes': `${WATERMARK_MIB}MiB`,
    'flotilla.disk.reserve.bytes': '4MiB',
  };
  const argv = Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  broker = await new BrokerUnderTest(argv, { within: disk.within }).ready();
}

/** Sends until the broker refuses, with the error that a client sees which does not wait for better times. */
async function fillUp(): Promise<void> {
  ledger.press(4);
  await until(() => broker.log.includes('disk nearly full: no records are taken'));
  const impatient = ledger.client.producer({ deliveryTimeoutMs: 1_000 });
  await expect(impatient.send('ledger', { value: 'refused' })).rejects.toThrow(/disk of this broker is nearly full .*Try again/);
}

/** It takes records again, without a restart, and has all of them after one. */
async function takesMoreThan(kept: number): Promise<void> {
  await until(() => ledger.acknowledged.length > kept + 1_000);
  await ledger.relax();
  await ledger.verify();
  expect(broker.isRunning, broker.log).toBe(true);

  await broker.end('SIGKILL');
  await startBroker();
  await ledger.verify();
}

test('filled by its own records it goes on fetching and deleting, and takes records again without a restart', async () => {
  await fillUp();
  expect(disk.freeBytes).toBeGreaterThan(0);
  const kept = ledger.acknowledged.length;
  await ledger.verify();

  // All but the newest: whole segments go.
  const before = (ledger.acknowledged.at(-1)?.offset ?? 0) - 100;
  await ledger.client.admin.deleteRecords([{ topic: 'ledger', partition: 0, before }]);
  await until(() => broker.log.includes('disk has room again'));
  await takesMoreThan(kept);
});

test('filled to the last byte by others it gives up its reserve, keeps what it acknowledged, and takes records again', async () => {
  ledger.press(4);
  await until(() => ledger.acknowledged.length > 1_000);
  // More than is free: the tmpfs takes what fits.
  expect(() => disk.fill('of-others', SIZE_MIB * MIB)).toThrow('ENOSPC');
  await until(() => /disk (nearly )?full: no records/.test(broker.log));
  await ledger.verify();

  const kept = ledger.acknowledged.length;
  disk.remove('of-others');
  await takesMoreThan(kept);
});

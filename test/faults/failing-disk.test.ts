/** A real broker on a disk that fails, is short of room, or does its work by halves (disk-faults.c). */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { NodeDisk } from '../../src/platform/disk.ts';
import { scanFile } from '../../src/storage/wal-scan.ts';
import { BrokerUnderTest, freePorts, TemporaryDirectory, until } from '../processes.ts';
import { checksums } from '../storage/fixture.ts';
import { DiskFaults } from './disk-faults.ts';
import { Ledger } from './ledger.ts';

let home: TemporaryDirectory;
let faults: DiskFaults;
let broker: BrokerUnderTest;
let port: number;

beforeEach(async () => {
  home = new TemporaryDirectory();
  faults = new DiskFaults(home.path);
  port = await freePorts(1);
});

afterEach(async () => {
  await broker.end('SIGKILL');
  faults[Symbol.dispose]();
  home[Symbol.dispose]();
});

/** On the same directory each time. Its files are small, so that segments are written and log files turn over. */
async function startBroker(): Promise<void> {
  const settings = { 'node.id': 1, 'log.dir': home.join('data'), listeners: `A://127.0.0.1:${port}`, 'flotilla.wal.file.bytes': '1MiB' };
  const argv = Object.entries({ ...settings, 'log.segment.bytes': '100KiB', 'flotilla.disk.reserve.bytes': '1MiB' });
  broker = new BrokerUnderTest(
    argv.flatMap(([key, value]) => ['--set', `${key}=${value}`]),
    { environment: faults.environment },
  );
  await broker.ready();
}

const openLedger = () => Ledger.open(`127.0.0.1:${port}`);

describe('an EIO ends the broker, which loses nothing, when it comes of', () => {
  test.each([
    [
      'a write of the write-ahead log',
      'write data/wal/ eio 1',
      /the write-ahead log could not be written: EIO: .*; check the disk, then restart/,
    ],
    [
      'a sync of the write-ahead log',
      'sync data/wal/ eio 1',
      /the write-ahead log could not be written: EIO: .*; check the disk, then restart/,
    ],
    ['a write of a segment', 'write data/groups/ eio 1', /a segment could not be written: EIO: .*; check the disk, then restart/],
    ['a sync of a segment', 'sync data/groups/ eio 1', /a segment could not be written: EIO: .*; check the disk, then restart/],
  ])('%s', async (_, rule, message) => {
    await startBroker();
    await using ledger = await openLedger();
    ledger.press();
    await until(() => ledger.acknowledged.length > 500);
    faults.set(rule);
    const { code, err } = await broker.ended;
    expect(code).toBe(1);
    expect(err).toMatch(/"broker\.failed"/);
    expect(err).toMatch(message);

    faults.set();
    await startBroker();
    const before = ledger.acknowledged.length;
    await until(() => ledger.acknowledged.length > before + 500);
    await ledger.relax();
    await ledger.verify();
  });
});

test('what a failed sync leaves in the page cache alone is written again before it is used (B25)', async () => {
  await startBroker();
  await using ledger = await openLedger();
  await ledger.send();
  faults.set('sync data/wal/ eio 1');
  const inDoubt = ledger.send();
  await broker.ended;
  const unproven = await framesPastTheMark();
  expect(unproven.length, 'frames whose sync failed').toBeGreaterThan(0);

  faults.set();
  await startBroker();
  await inDoubt;
  await broker.end('SIGKILL');
  // The kernel called these pages clean when their sync failed, so they never get to the disk: a power cut takes them.
  const disk = new NodeDisk();
  for (const { path, position, length } of unproven) {
    const file = await disk.open(path, { create: false });
    await file.write(position, [new Uint8Array(length)]);
    await file.close();
  }
  await startBroker();
  await ledger.verify();
  expect(ledger.acknowledged.map(({ value }) => value)).toEqual(['0', '1']);
});

/** Where the frames stand that no later frame calls durable. */
async function framesPastTheMark(): Promise<{ path: string; position: number; length: number }[]> {
  const disk = new NodeDisk();
  const frames: { path: string; position: number; length: number; lsn: number; durableUpTo: number }[] = [];
  for (const name of await disk.list(home.join('data', 'wal'))) {
    const path = home.join('data', 'wal', name);
    const file = await disk.open(path, { create: false });
    const scan = await scanFile(file, await file.size(), checksums.crc32);
    await file.close();
    for (const { position, header } of scan?.frames ?? []) frames.push({ path, position, ...header });
  }
  const mark = Math.max(...frames.map(({ durableUpTo }) => durableUpTo));
  return frames.filter(({ lsn }) => lsn > mark);
}

test('writes and reads that do half of their work are completed', async () => {
  faults.set('write,read * short');
  await startBroker();
  await using ledger = await openLedger();
  ledger.press();
  await until(() => ledger.acknowledged.length > 1_000);
  await ledger.relax();
  await ledger.verify();
  await broker.end('SIGKILL');
  await startBroker();
  await ledger.send();
  await ledger.verify();
});

test('without room records are refused, and the broker goes on when there is room again', async () => {
  await startBroker();
  await using ledger = await openLedger();
  await ledger.send();
  // The first write that finds no room gives up the reserve, which makes some.
  faults.set('write data/wal/ enospc 1', 'stat * full');
  const waiting = ledger.send();
  await until(() => broker.log.includes('disk full: no records and no entries are taken'));
  const impatient = ledger.client.producer({ deliveryTimeoutMs: 500 });
  await expect(impatient.send('ledger', { value: 'refused' })).rejects.toThrow(/disk of this broker is nearly full .*make room there/);
  await ledger.verify();

  faults.set();
  await waiting;
  await ledger.send();
  await ledger.verify();
  expect(broker.isRunning, broker.log).toBe(true);
});

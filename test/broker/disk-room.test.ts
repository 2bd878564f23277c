import { beforeEach, describe, expect, it, test } from 'vitest';
import { silentLogger } from '../../src/base/environment.ts';
import { DiskRoom, LOOK_EVERY_MS } from '../../src/broker/disk-room.ts';
import { ManualEnvironment, settled } from './manual-environment.ts';
import { SimWorld } from './sim-world.ts';

describe('room on a disk', () => {
  const GIB = 2 ** 30;
  let environment: ManualEnvironment;
  let freeBytes: number;
  let failing: boolean;
  let reserves: number;
  let reserveFits: boolean;
  let rooms: string[];
  let room: DiskRoom;

  beforeEach(() => {
    environment = new ManualEnvironment();
    [freeBytes, failing, reserves, reserveFits, rooms] = [50 * GIB, false, 0, true, []];
    room = new DiskRoom({
      disk: {
        freeSpace: async () => {
          if (failing) throw Object.assign(new Error('EIO'), { code: 'EIO' });
          return { freeBytes, totalBytes: 100 * GIB };
        },
      },
      directory: '/data',
      environment,
      log: silentLogger,
      minFreeBytes: GIB / 4,
      minFreePercent: 1,
      prepareReserve: async () => {
        reserves++;
        return reserveFits;
      },
      changed: (now) => void rooms.push(now),
    });
    room.start();
  });

  async function see(free: number): Promise<string> {
    freeBytes = free;
    environment.advance(LOOK_EVERY_MS);
    await settled();
    return room.room;
  }

  it('is low below the watermark, bytes or per cent, and ample again well above it', async () => {
    expect(await see(1.01 * GIB)).toBe('ample');
    expect(reserves).toBeGreaterThan(0);
    room.checkRecords();
    expect(await see(0.99 * GIB)).toBe('low');
    expect(() => room.checkRecords()).toThrow(/nearly full \(1013\.8 MiB free below \/data\).*make room/);
    expect(await see(1.2 * GIB)).toBe('low');
    expect(await see(1.25 * GIB)).toBe('ample');
    room.checkRecords();
    expect(rooms).toEqual(['low', 'ample']);
  });

  it('is none once the reserve is given up, until there is another', async () => {
    await settled();
    room.reserveReleased();
    expect(room.room).toBe('none');
    reserveFits = false;
    expect(await see(40 * GIB)).toBe('none');
    reserveFits = true;
    expect(await see(40 * GIB)).toBe('ample');
    expect(rooms).toEqual(['none', 'ample']);
  });

  it('is as it was while the file system does not say, and nothing is looked at after the end', async () => {
    await see(0.5 * GIB);
    failing = true;
    expect(await see(50 * GIB)).toBe('low');
    await room.stop();
    environment.advance(10 * LOOK_EVERY_MS);
    expect(environment.timers).toBe(0);
  });
});

test('a broker whose disk fills up hands over and takes no records; all is as before when there is room, without a restart (B37)', async () => {
  await using world = await SimWorld.start({ settings: { 'flotilla.disk.reserve.bytes': '1MiB' } });
  const topic = await world.createTopic('orders', { 'segment.bytes': '5000' });
  const producer = world.client.producer();
  let sent = 0;
  const produce = async (count: number) => {
    for (let i = 0; i < count; i++)
      await world.settle(producer.send('orders', { value: new TextEncoder().encode(`value ${sent++}`.padEnd(500, '.')) }));
  };
  await produce(20);
  const leader = await world.leaderOf(topic);
  const end = world.cluster.machine(leader).disk.fill(0);
  await produce(40);
  await world.cluster.time.run(5_000);
  const next = await world.leaderOf(topic);
  expect(next).not.toBe(leader);
  await produce(40);
  // Its replica serves what it has, and it is a voter still: the third may go.
  const third = [1, 2, 3].find((id) => id !== leader && id !== next) as number;
  world.assertAllUp();
  end();
  await world.cluster.time.run(5_000);
  world.cluster.kill(third);
  await produce(20);
  const values = await world.readAll(topic, sent);
  expect(values.map((value) => Number(value.replaceAll('.', '').split(' ')[1]))).toEqual(Array.from({ length: sent }, (_, i) => i));
});

test('where all disks are full producers are told so, consumers read on, and deleting makes room', async () => {
  await using world = await SimWorld.start({ settings: { 'flotilla.disk.reserve.bytes': '1MiB' } });
  const topic = await world.createTopic('orders', { 'segment.bytes': '5000' });
  const value = new Uint8Array(500);
  const producer = world.client.producer({ deliveryTimeoutMs: 5_000 });
  for (let n = 0; n < 60; n++) await world.settle(producer.send('orders', { value }));
  for (const { disk } of world.cluster.machines) disk.fill(0);
  await world.cluster.time.run(3_000);
  await world.refused(producer.send('orders', { value }), 'REQUEST_TIMED_OUT', /nearly full/);
  expect(await world.readAll(topic, 60)).toHaveLength(60);
  const used = world.cluster.machine(1).disk.usedBytes;
  expect(await world.settle(world.client.admin.deleteRecords([{ topic: 'orders', partition: 0, before: 50 }]))).toEqual([50]);
  await world.cluster.time.run(3_000);
  expect(world.cluster.machine(1).disk.usedBytes).toBeLessThan(used);
  world.assertAllUp();
});

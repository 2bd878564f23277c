import { describe, expect, test } from 'vitest';
import type { BrokerId } from '../../../src/base/ids.ts';
import { crc32 } from '../../../src/platform/crc32.ts';
import { EntryKind } from '../../../src/raft/core/entry.ts';
import { encodeLogStart } from '../../../src/storage/log-start.ts';
import type { SimDisk } from '../../sim/disk.ts';
import { cleanBy, fateOf, seeded } from '../../storage/fixture.ts';
import { brokers, groupKey } from './cluster.ts';
import { StoredCluster } from './stored-cluster.ts';

const GROUP = groupKey(0);
const SEGMENT = /\/(\d{20})-(\d{20})(?:\.\d+)?\.(log|entries|control)$/;

function segmentFiles(disk: SimDisk): string[] {
  return disk.files().filter((path) => SEGMENT.test(path) && disk.sizeOf(path) > 0);
}

function firstIndexOf(path: string): number {
  return Number(SEGMENT.exec(path)?.[2]);
}

/** Three replicas with some closed segments, written and synced. */
async function world(seed: number): Promise<{ cluster: StoredCluster; leader: BrokerId }> {
  const cluster = await StoredCluster.start(seed);
  await cluster.elected();
  for (let i = 0; i < 8; i++) {
    cluster.propose(8);
    await cluster.environment.run(100);
    const leader = cluster.replica(await cluster.elected());
    const payload = encodeLogStart(0);
    leader.propose({ kind: EntryKind.setLogStart, payload, recordCount: 0, payloadChecksum: crc32(payload) });
  }
  for (const broker of brokers) await cluster.settle(cluster.replica(broker).log.flush());
  await cluster.environment.run(1_000);
  return { cluster, leader: await cluster.elected() };
}

function flip(disk: SimDisk, path: string, count: number, draw: (bound: number) => number): void {
  for (let i = 0; i < count; i++) disk.corrupt(path, draw(disk.sizeOf(path)), 1 + draw(255));
}

async function untilWhole(cluster: StoredCluster, broker: BrokerId): Promise<void> {
  const { host } = cluster.nodes.get(broker)!;
  expect(await cluster.settle(host.untilWhole(GROUP))).toBe(true);
}

describe('what rots in segments', () => {
  for (const kind of ['log', 'entries', 'control'] as const) {
    for (const damage of ['a bit', 'many bytes', 'truncated', 'gone'] as const) {
      test(`.${kind}, ${damage}: is put right from the others, byte for byte`, async () => {
        const { cluster, leader } = await world(7);
        const victim = brokers.find((broker) => broker !== leader)!;
        const disk = cluster.disks.get(victim)!;
        const random = seeded(3);
        const draw = (bound: number) => random.uint32() % bound;
        const files = segmentFiles(disk).filter((path) => path.endsWith(kind));
        expect(files.length).toBeGreaterThan(0);
        const path = files[Math.floor((files.length - 1) / 2)]!;
        const before = disk.bytes(path);
        if (damage === 'a bit') disk.corrupt(path, Math.floor(before.length / 2), 4);
        else if (damage === 'many bytes') flip(disk, path, 50, draw);
        else if (damage === 'gone') await cluster.settle(disk.remove(path));
        else await cluster.settle(disk.open(path, { create: false }).then((file) => file.truncate(Math.floor(before.length / 3))));
        const { host } = cluster.nodes.get(victim)!;
        host.repair(GROUP, firstIndexOf(path));
        await untilWhole(cluster, victim);
        expect(disk.bytes(path)).toEqual(before);
        expect(host.repairs.repaired).toBeGreaterThan(0);
        expect(cluster.fatal).toEqual([]);
        await cluster.converge();
      });
    }
  }

  test('a read that meets damage is refused, says so, and has it put right', async () => {
    const { cluster, leader } = await world(11);
    const disk = cluster.disks.get(leader)!;
    const path = segmentFiles(disk).find((each) => each.endsWith('.log'))!;
    disk.corrupt(path, 150);
    const { log } = cluster.replica(leader);
    await expect(cluster.settle(log.read(0, 1, 1000))).rejects.toMatchObject({ code: 'STORAGE_ERROR', retriable: true });
    await untilWhole(cluster, leader);
    expect((await cluster.settle(log.read(0, 1, 1000))).nextOffset).toBe(1);
  });

  test('batches before a damaged one are served, and none that is damaged', async () => {
    const { cluster, leader } = await world(12);
    const disk = cluster.disks.get(leader)!;
    const path = segmentFiles(disk).find((each) => each.endsWith('.log'))!;
    // The third of batches of 200 bytes, behind what its header and its offset say.
    disk.corrupt(path, 2 * 200 + 100);
    const { log } = cluster.replica(leader);
    expect((await cluster.settle(log.read(0, 8, 4000))).nextOffset).toBe(2);
    await untilWhole(cluster, leader);
    expect((await cluster.settle(log.read(0, 8, 4000))).nextOffset).toBe(8);
  });

  test('each replica is put right from another that is damaged elsewhere', async () => {
    const { cluster } = await world(13);
    const paths = brokers.map((broker, at) => {
      const path = segmentFiles(cluster.disks.get(broker)!).find((each) => each.endsWith('.log'))!;
      cluster.disks.get(broker)!.corrupt(path, 200 * at + 100);
      return path;
    });
    for (const [at, broker] of brokers.entries()) cluster.nodes.get(broker)!.host.repair(GROUP, firstIndexOf(paths[at]!));
    for (const broker of brokers) await untilWhole(cluster, broker);
    const [first, ...rest] = brokers.map((broker, at) => cluster.disks.get(broker)!.bytes(paths[at]!));
    for (const other of rest) expect(other).toEqual(first);
  });

  test('what nobody has is waited for, and neither served nor given up', async () => {
    const { cluster, leader } = await world(14);
    for (const broker of brokers) {
      const path = segmentFiles(cluster.disks.get(broker)!).find((each) => each.endsWith('.log'))!;
      cluster.disks.get(broker)!.corrupt(path, 100);
      cluster.nodes.get(broker)!.host.repair(GROUP, firstIndexOf(path));
    }
    await cluster.environment.run(20_000);
    for (const broker of brokers) {
      expect(cluster.nodes.get(broker)!.host.damageOf(GROUP)).toContain('entry 2 does not match its checksum');
      await expect(cluster.settle(cluster.replica(broker).log.read(0, 1, 1000))).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    }
    // Once one disk gives back what it held, all have it.
    const disk = cluster.disks.get(leader)!;
    disk.corrupt(segmentFiles(disk).find((each) => each.endsWith('.log'))!, 100);
    for (const broker of brokers) await untilWhole(cluster, broker);
  });

  describe('in a log of which a part was cleaned', () => {
    async function cleanedWorld(seed: number): Promise<{ cluster: StoredCluster; victim: BrokerId; disk: SimDisk; cleaned: string }> {
      const { cluster, leader } = await world(seed);
      const victim = brokers.find((broker) => broker !== leader)!;
      const { log } = cluster.replica(victim);
      const { lastIndex } = log.cleanable()[1]!;
      const { before, after } = await cluster.settle(log.clean(lastIndex, cleanBy(fateOf), new AbortController().signal));
      expect(after).toBeLessThan(before);
      expect(log.cleanable().filter(({ cleaned }) => cleaned)).not.toEqual([]);
      const disk = cluster.disks.get(victim)!;
      return { cluster, victim, disk, cleaned: segmentFiles(disk).find((path) => /\.1\.log$/.test(path))! };
    }

    for (const extension of ['log', 'entries'] as const) {
      for (const damage of ['a bit', 'truncated', 'gone'] as const) {
        test(`what was cleaned, .${extension}, ${damage}: is not served, and the replica is replaced`, async () => {
          const { cluster, victim, disk, cleaned } = await cleanedWorld(16);
          const { host } = cluster.nodes.get(victim)!;
          const path = cleaned.replace(/log$/, extension);
          if (damage === 'a bit') disk.corrupt(path, 30);
          else if (damage === 'gone') await cluster.settle(disk.remove(path));
          else await cluster.settle(disk.open(path, { create: false }).then((file) => file.truncate(disk.sizeOf(path) - 72)));
          const bytes = damage === 'gone' ? undefined : disk.bytes(path);
          host.repair(GROUP, firstIndexOf(path));
          expect(await cluster.settle(host.untilWhole(GROUP))).toBe(false);
          expect(cluster.quarantined.map(({ broker }) => broker)).toEqual([victim]);
          expect(cluster.quarantined[0]!.reason).toContain(path);
          expect(host.damageOf(GROUP)).toContain(path);
          // It is not one that others have: nothing is written to it.
          if (bytes !== undefined) expect(disk.bytes(path)).toEqual(bytes);
          expect(cluster.fatal).toEqual([]);
        });
      }
    }

    test('a read that meets damage has the replica replaced', async () => {
      const { cluster, victim, disk, cleaned } = await cleanedWorld(17);
      disk.corrupt(cleaned, 100);
      const reading = cluster.settle(cluster.replica(victim).log.read(0, 8, 1000));
      await expect(reading).rejects.toMatchObject({ code: 'STORAGE_ERROR', retriable: true });
      await cluster.environment.until(() => cluster.quarantined.length > 0, 'it is found', 10_000);
      expect(cluster.quarantined[0]!.broker).toBe(victim);
    });

    test('the segment behind it is put right, from its first entry on', async () => {
      const { cluster, victim, disk, cleaned } = await cleanedWorld(18);
      const next = segmentFiles(disk).filter((path) => path.endsWith('.log') && path > cleaned)[0]!;
      const files = [next, next.replace(/log$/, 'entries')];
      const before = files.map((path) => disk.bytes(path));
      for (const path of files) disk.corrupt(path, 30);
      cluster.nodes.get(victim)!.host.repair(GROUP, firstIndexOf(next));
      await untilWhole(cluster, victim);
      expect(files.map((path) => disk.bytes(path))).toEqual(before);
      expect(cluster.quarantined).toEqual([]);
    });
  });

  test('a leader with damage that can not be put right hands over', async () => {
    const { cluster, leader } = await world(15);
    const disk = cluster.disks.get(leader)!;
    const path = segmentFiles(disk).find((each) => each.endsWith('.log'))!;
    disk.corrupt(path, 150);
    // Nobody sends it what it lacks.
    cluster.network.lose = (_from, to, lane) => to === leader && lane === 'bulk';
    cluster.nodes.get(leader)!.host.repair(GROUP, firstIndexOf(path));
    await cluster.environment.until(() => cluster.leader() !== undefined && cluster.leader() !== leader, 'another leads', 30_000);
  });
});

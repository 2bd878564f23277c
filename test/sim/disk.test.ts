import { describe, expect, test } from 'vitest';
import { SimDisk } from './disk.ts';
import { SeededRandom } from './random.ts';
import { VirtualEnvironment } from './virtual-environment.ts';

function world(seed = 1) {
  const environment = VirtualEnvironment.alone(seed);
  const disk = new SimDisk(environment, new SeededRandom(seed));
  const settle = <T>(promise: Promise<T>) => environment.time.settle(promise, 1_000);
  const opened = async (path: string) => {
    const file = await settle(disk.open(path, { create: true }));
    await settle(disk.syncDirectory(''));
    return file;
  };
  const cut = () => {
    disk.crash();
    disk.restart();
  };
  return { environment, disk, settle, opened, cut };
}

const ones = (length: number) => [new Uint8Array(length).fill(1)];

describe('the simulated disk', () => {
  test('of two syncs under way, neither covers what was written after it began', async () => {
    // A write that no sync covers survives by chance: of twenty worlds, it must be lost in some.
    let lost = 0;
    for (let seed = 1; seed <= 20; seed++) {
      const { disk, settle, opened, cut } = world(seed);
      const file = await opened('a');
      await settle(file.write(0, ones(512)));
      const first = file.sync();
      const second = file.sync();
      const late = file.write(512, ones(512));
      await settle(Promise.all([first, second, late]));
      cut();
      const bytes = disk.bytes('a');
      expect([...bytes.subarray(0, 512)]).toEqual([...(ones(512)[0] as Uint8Array)]);
      if (bytes.length <= 512 || bytes[512] === 0) lost++;
    }
    expect(lost).toBeGreaterThan(0);
  });

  test('what a failed sync covered is seen by reads, is not synced by the next, and is lost', async () => {
    const { disk, settle, opened, cut } = world();
    const file = await opened('a');
    const end = disk.impose(({ kind }) => (kind === 'sync' ? 'EIO' : undefined));
    await settle(file.write(0, ones(512)));
    await expect(settle(file.sync())).rejects.toThrow('EIO: injected');
    end();
    await settle(file.sync());
    expect(disk.bytes('a')).toHaveLength(512);
    cut();
    expect(disk.bytes('a')).toHaveLength(0);
  });

  test('names of different directories survive apart from each other, those of one directory in their order', async () => {
    const outcomes = new Set<string>();
    for (let seed = 1; seed <= 60; seed++) {
      const { disk, settle, cut } = world(seed);
      for (const path of ['x', 'y']) await settle(disk.makeDirectory(path));
      await settle(disk.syncDirectory(''));
      for (const path of ['x/1', 'y/1', 'x/2', 'y/2']) await settle(disk.open(path, { create: true }));
      cut();
      outcomes.add(disk.files().join());
    }
    expect(outcomes).toContain('x/1,x/2');
    expect(outcomes).toContain('y/1,y/2');
    expect([...outcomes].filter((files) => /(?<!x\/1,)x\/2|(?<!y\/1,)y\/2/.test(files))).toEqual([]);
  });

  test.each(['removeTree', 'rename'] as const)(
    'a directory that takes the name of another keeps what was synced in it: %s',
    async (how) => {
      for (let seed = 1; seed <= 20; seed++) {
        const { disk, settle, cut } = world(seed);
        await settle(disk.makeDirectory('x'));
        await settle(disk.open('x/old', { create: true }));
        for (const path of ['x', '']) await settle(disk.syncDirectory(path));
        await settle(how === 'rename' ? disk.rename('x', 'y') : disk.removeTree('x'));
        await settle(disk.makeDirectory('x'));
        await settle(disk.open('x/new', { create: true }));
        for (const path of ['x', '']) await settle(disk.syncDirectory(path));
        cut();
        expect(disk.files()).toEqual(how === 'rename' ? ['x/new', 'y/old'] : ['x/new']);
      }
    },
  );

  test('what a directory got unsynced is not in another one that takes its name', async () => {
    const { disk, settle, cut } = world();
    await settle(disk.makeDirectory('x'));
    await settle(disk.syncDirectory(''));
    await settle(disk.open('x/old', { create: true }));
    await settle(disk.rename('x', 'y'));
    await settle(disk.makeDirectory('x'));
    await settle(disk.syncDirectory(''));
    await settle(disk.open('x/new', { create: true }));
    await settle(disk.syncDirectory('x'));
    cut();
    expect(disk.files().filter((path) => path.startsWith('x/'))).toEqual(['x/new']);
  });

  test('a stall holds back what is under way and what comes, and then all of it goes on', async () => {
    const { environment, disk, settle, opened } = world();
    const file = await opened('a');
    let held = 0;
    let written = false;
    const end = disk.stall(() => held++);
    const write = file.write(0, ones(8)).then(() => {
      written = true;
    });
    await environment.time.run(60_000);
    expect({ held, written }).toEqual({ held: 1, written: false });
    end();
    await settle(write);
    expect(written).toBe(true);
  });

  test('a write that fails is done in part', async () => {
    const sizes = new Set<number>();
    for (let seed = 1; seed <= 20; seed++) {
      const { disk, settle, opened } = world(seed);
      const file = await opened('a');
      disk.impose(({ growth }) => (growth > 0 ? 'ENOSPC' : undefined));
      await expect(settle(file.write(0, ones(2_000)))).rejects.toMatchObject({ code: 'ENOSPC' });
      sizes.add(disk.bytes('a').length);
    }
    expect(Math.max(...sizes)).toBeLessThanOrEqual(2_000);
    expect(sizes.size).toBeGreaterThan(10);
  });
});

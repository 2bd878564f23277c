import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PooledDisk } from '../../src/storage/pooled-disk.ts';
import { SimDisk } from '../sim/disk.ts';
import { seeded, TestEnvironment } from './fixture.ts';

function pool(limit: number): { disk: SimDisk; pooled: PooledDisk } {
  const disk = new SimDisk(new TestEnvironment(), seeded(1));
  return { disk, pooled: new PooledDisk(disk, limit) };
}

describe('a disk with a bound on open files', () => {
  it('is to its users as any disk, whatever they do at once, and holds the bound whenever it is idle', async () => {
    const operation = fc.record({
      file: fc.nat(9),
      kind: fc.constantFrom('write', 'read', 'sync', 'close'),
      byte: fc.integer({ min: 1, max: 255 }),
      waits: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 4 }), fc.array(operation, { maxLength: 60 }), async (limit, operations) => {
        const { disk, pooled } = pool(limit);
        const files = await Promise.all(Array.from({ length: 10 }, (_, at) => pooled.open(`f${at}`, { create: true })));
        const written = new Map<number, number[]>();
        let pending: Promise<unknown>[] = [];
        for (const { file, kind, byte, waits } of operations) {
          const content = written.get(file) ?? [];
          if (kind === 'write') {
            pending.push(files[file]!.write(content.length, [Uint8Array.of(byte)]));
            written.set(file, [...content, byte]);
          } else if (kind === 'sync') pending.push(files[file]!.sync());
          else if (kind === 'read') pending.push(files[file]!.read(0, 100));
          if (!waits) continue;
          await Promise.all(pending);
          pending = [];
          if (kind === 'close') await files[file]!.close();
          expect(pooled.openCount).toBeLessThanOrEqual(limit);
          expect([...(await files[file]!.read(0, 100))]).toEqual(written.get(file) ?? []);
        }
        await Promise.all(pending);
        for (const [file, content] of written) expect([...disk.bytes(`f${file}`)]).toEqual(content);
        await Promise.all(files.map((file) => file.close()));
        expect(pooled.openCount).toBe(0);
      }),
      { numRuns: 100 },
    );
  });

  it('loses nothing that was synced, also by a file that was closed for another in between', async () => {
    const { disk, pooled } = pool(1);
    const [a, b] = [await pooled.open('a', { create: true }), await pooled.open('b', { create: true })];
    await pooled.syncDirectory('');
    await a.write(0, [Uint8Array.of(1)]);
    await b.write(0, [Uint8Array.of(2)]);
    await a.sync();
    await b.sync();
    disk.crash();
    disk.restart();
    expect([...disk.bytes('a'), ...disk.bytes('b')]).toEqual([1, 2]);
  });

  it('does not forget that a sync failed while it closed a file for another (B25)', async () => {
    const { disk, pooled } = pool(1);
    const [a, b] = [await pooled.open('a', { create: true }), await pooled.open('b', { create: true })];
    await a.write(0, [Uint8Array.of(1)]);
    disk.intercept = ({ kind, path }) => (kind === 'sync' && path === 'a' ? 'EIO' : undefined);
    await b.write(0, [Uint8Array.of(2)]);
    await b.sync();
    disk.intercept = undefined;
    await expect(a.sync()).rejects.toThrow('EIO');
    await expect(a.write(1, [Uint8Array.of(3)])).rejects.toThrow('EIO');
    await expect(a.close()).rejects.toThrow('EIO');
  });
});

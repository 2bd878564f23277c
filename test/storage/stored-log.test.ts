/** Reading a data directory without a broker: what is damaged is named, and nothing changes. */
import { describe, expect, it } from 'vitest';
import { readStored } from '../../src/storage/stored-directory.ts';
import { type Damage, storedEntries } from '../../src/storage/stored-log.ts';
import { A, bytesOf, chainOf, checksums, Fixture, REPLICA, write } from './fixture.ts';

const settings = { segmentBytes: 20_000 };

/** A directory that a broker left: several segments, and some entries that stand in the write-ahead log alone. */
async function left(clean: boolean) {
  const fixture = new Fixture(3, { walFileBytes: 1 << 20, walFiles: 2 });
  const storage = await fixture.open();
  const { log } = await storage.openLog(A, settings, REPLICA);
  const entries = chainOf(40, { bytes: 2000 });
  const tail = chainOf(3, { after: entries.at(-1), bytes: 500 });
  for (const entry of entries) {
    await storage.wal.append([write([entry], { hardState: { term: 1, vote: 2, commit: entry.index } })]);
    log.append([entry]);
  }
  await storage.wal.append([write(tail)]);
  if (clean) await storage.close();
  else fixture.disk.crash();
  fixture.restart();
  return { fixture, entries, tail };
}

async function read(fixture: Fixture) {
  const { disk } = fixture;
  const before = disk.files().map((file) => `${file} ${checksums.crc32(disk.bytes(file))}`);
  const stored = await readStored({ disk, path: 'data', ...checksums });
  const [replica] = stored.replicas;
  const damage: Damage[] = [...stored.damage];
  const indexes: number[] = [];
  const { directory = '', wal } = replica ?? {};
  for await (const { row, payload } of storedEntries({
    disk,
    directory,
    synced: wal?.synced,
    ...checksums,
    report: (wrong) => damage.push(wrong),
  }))
    if (payload !== undefined) indexes.push(row.index);
  expect(disk.files().map((file) => `${file} ${checksums.crc32(disk.bytes(file))}`)).toEqual(before);
  return { stored, replica, damage, indexes };
}

const ofSegments = (fixture: Fixture, extension: string) => fixture.disk.files().filter((name) => name.endsWith(extension));

describe('a data directory that no broker uses', () => {
  it.each([true, false])('is read whole, after a clean stop: %s', async (clean) => {
    const { fixture, entries, tail } = await left(clean);
    const { stored, replica, damage, indexes } = await read(fixture);
    expect(damage).toEqual([]);
    expect(stored.identity?.brokerId).toBe(1);
    expect(replica).toMatchObject({ group: A, replicaId: REPLICA });
    expect(replica?.wal).toMatchObject({ whole: true, hardState: { term: 1, vote: 2, commit: 40 } });
    const synced = replica?.wal?.synced ?? 0;
    const inWal = replica?.wal?.entries ?? [];
    expect(indexes.filter((index) => index <= synced)).toEqual(entries.slice(0, synced).map(({ index }) => index));
    expect(bytesOf(inWal)).toEqual(bytesOf([...entries, ...tail].slice(synced)));
  });

  it.each(['.log', '.entries'])('names every flipped byte of a synced segment: %s', async (extension) => {
    const { fixture } = await left(true);
    const [name = ''] = ofSegments(fixture, extension);
    const size = fixture.disk.bytes(name).length;
    for (let position = 0; position < size; position += Math.ceil(size / 60)) {
      fixture.disk.corrupt(name, position);
      const { damage, indexes } = await read(fixture);
      expect(
        damage.map(({ file }) => file),
        `byte ${position}`,
      ).toEqual([name]);
      const [{ position: at = -1 } = {}] = damage;
      expect(at).toBeLessThanOrEqual(position);
      // The others are read.
      expect(indexes.length).toBeGreaterThan(30);
      fixture.disk.corrupt(name, position);
    }
    expect((await read(fixture)).damage).toEqual([]);
  });

  it('names what is missing at the end of a segment, and a file that is gone', async () => {
    const { fixture } = await left(true);
    const [rows = '', next = ''] = ofSegments(fixture, '.entries');
    const file = await fixture.disk.open(rows, { create: false });
    await file.truncate(72 * 3);
    const { damage } = await read(fixture);
    expect(damage.map(({ what }) => what).join()).toMatch(/entries 4 to \d+ are missing/);
    await fixture.disk.remove(next.replace('.entries', '.log'));
    expect((await read(fixture)).damage.map(({ what }) => what).join()).toMatch(/has 0 of its 2000 bytes/);
  });

  it('names a damaged flush frame, and what it costs', async () => {
    const { fixture } = await left(false);
    const [name = ''] = fixture.disk.files().filter((file) => file.endsWith('.wal'));
    fixture.disk.corrupt(name, 4096 * 8 + 1500);
    const { damage } = await read(fixture);
    expect(damage[0]).toMatchObject({ file: name, position: 4096 * 8 });
    expect(damage.map(({ what }) => what).join()).toContain('is to be replaced');
  });

  it.each(['directory.json', 'replica', '.snapshot'])('names a damaged %s', async (ending) => {
    const { fixture } = await left(true);
    const name = fixture.disk.files().find((file) => file.endsWith(ending));
    if (name === undefined) return expect(ending).toBe('.snapshot');
    fixture.disk.corrupt(name, 17);
    expect((await read(fixture)).damage.map(({ file }) => file)).toEqual([name]);
  });

  it('is told from any other directory', async () => {
    const { disk } = new Fixture();
    await expect(readStored({ disk, path: 'elsewhere', ...checksums })).rejects.toThrow('no data directory');
  });
});

import { expect, it } from 'vitest';
import { findSegments } from '../../src/storage/segment-directory.ts';
import { segmentName } from '../../src/storage/segment-files.ts';
import { INDEX_ROW_BYTES, type IndexRow, putIndexRow, putSparseRow, readIndexRow } from '../../src/storage/segment-index.ts';
import { SimDisk } from '../sim/disk.ts';
import { chainOf, checksums, last, seeded, TestEnvironment } from './fixture.ts';

const { crc32 } = checksums;

/** The rows of a cleaned segment that ends at an entry, of which nothing is left. */
function endingAt(index: number): Uint8Array {
  const bytes = new Uint8Array(INDEX_ROW_BYTES);
  putIndexRow(bytes, 0, last(chainOf(index)), { position: 0, timestampBefore: -1 }, crc32);
  const row = readIndexRow(bytes.slice(), 0, crc32) as IndexRow;
  putSparseRow(bytes, 0, row, new Uint8Array(0), { position: 0, timestampBefore: -1 }, crc32);
  return bytes;
}

const name = (index: number, generation = 0) => segmentName({ index, offset: index - 1, generation });

it('of a directory the newest generation counts that has rows, and nothing that lies within it (B22)', async () => {
  const disk = new SimDisk(new TestEnvironment(), seeded(1));
  await disk.makeDirectory('log');
  const files: Record<string, Uint8Array> = {
    [`${name(1)}.log`]: Uint8Array.of(1),
    [`${name(1)}.entries`]: Uint8Array.of(1),
    [`${name(1, 2)}.log`]: Uint8Array.of(1),
    [`${name(1, 2)}.entries`]: endingAt(20),
    [`${name(1, 3)}.log`]: Uint8Array.of(1),
    [`${name(1, 3)}.entries.aside`]: endingAt(30),
    [`${name(11)}.log`]: Uint8Array.of(1),
    [`${name(11)}.entries`]: Uint8Array.of(1),
    [`${name(11, 1)}.entries`]: endingAt(15),
    [`${name(21)}.log`]: Uint8Array.of(1),
    [`${name(21)}.entries`]: Uint8Array.of(1),
    [`${name(31)}.control`]: Uint8Array.of(1),
    [`${name(31)}.log`]: Uint8Array.of(1),
    [`${name(31)}.snapshot`]: Uint8Array.of(1),
    replica: Uint8Array.of(1),
  };
  for (const [path, bytes] of Object.entries(files)) {
    const file = await disk.open(`log/${path}`, { create: true });
    await file.write(0, [bytes]);
    await file.close();
  }
  const found = await findSegments(disk, 'log', crc32, await disk.list('log'));
  expect(found.segments.map((segment) => [segment.name.index, segment.name.generation, segment.cleaned?.end?.index])).toEqual([
    [1, 2, 20],
    [21, 0, undefined],
  ]);
  // Once, though two of its files are there.
  expect(found.begun.map(({ index }) => index)).toEqual([31]);
  const stays = [name(1, 2), name(21), name(31), 'replica'];
  expect(found.leftovers).toEqual(
    Object.keys(files)
      .sort()
      .filter((path) => !stays.includes(path.replace(/\.[a-z]+$/, ''))),
  );
});

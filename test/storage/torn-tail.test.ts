import { expect, test } from 'vitest';
import { crc32 } from '../../src/platform/crc32.ts';
import { frameIntact, PAGE_BYTES, readHeader } from '../../src/storage/wal-frame.ts';
import { A, chainOf, Fixture, write } from './fixture.ts';

/** Where the whole frames of the newest write-ahead log file stand, in order. */
function framesOf({ disk }: Fixture): { path: string; positions: number[] } {
  const path = disk.files().findLast((each) => each.endsWith('.wal')) ?? '';
  const bytes = disk.bytes(path);
  const positions: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const header = readHeader(bytes, at, crc32);
    if (header === undefined || !frameIntact(bytes, at, header, crc32)) break;
    positions.push(at);
    at += header.length;
  }
  return { path, positions };
}

/** Five entries, each in a frame of its own, of which the last so many lose a byte of their entry: their headers stay as they are. */
async function wholeWithout(lastFrames: number): Promise<boolean | undefined> {
  const fixture = new Fixture();
  const storage = await fixture.open();
  for (const entry of chainOf(5, { bytes: 2 * PAGE_BYTES })) await storage.wal.append([write([entry])]);
  const { path, positions } = framesOf(fixture);
  fixture.disk.crash();
  fixture.restart();
  for (const at of positions.slice(-lastFrames)) fixture.disk.corrupt(path, at + PAGE_BYTES);
  const again = await fixture.open();
  return again.recovered.get(A)?.whole;
}

test('one frame that does not verify, and nothing behind it, is a torn tail: nobody was answered yet (B22)', async () => {
  expect(await wholeWithout(1)).toBe(true);
});

test('two are no torn tail: the second was begun when the first was durable (B22)', async () => {
  expect(await wholeWithout(2)).toBe(false);
  expect(await wholeWithout(3)).toBe(false);
});

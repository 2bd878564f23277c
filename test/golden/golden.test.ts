import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { addGolden, fromText, goldenPath, readGolden, toText } from './files.ts';
import { formats } from './formats.ts';

const written = formats.flatMap(({ name, write }) => (write === undefined ? [] : [{ name, write }]));

test.each(written)('$name is written as it always was', async ({ name, write }) => {
  const bytes = await write();
  addGolden(name, bytes);
  expect(toText(bytes)).toBe(readFileSync(goldenPath(name), 'utf8'));
});

test.each(formats)('$name is read as it was written', async ({ name, read, says }) => {
  expect(await read(readGolden(name))).toEqual(says);
});

test.each(formats.filter(({ uncovered }) => uncovered !== 'all'))(
  '$name with any byte changed is refused',
  async ({ name, read, uncovered }) => {
    const bytes = readGolden(name);
    const accepted: number[] = [];
    for (let at = 0; at < bytes.length; at++) {
      if (uncovered !== 'all' && uncovered.some(([from, to]) => at >= from && at < to)) continue;
      bytes[at] = (bytes[at] as number) ^ 0x10;
      try {
        if ((await read(bytes)) !== undefined) accepted.push(at);
      } catch {
        // Refused with an error.
      }
      bytes[at] = (bytes[at] as number) ^ 0x10;
    }
    expect(accepted).toEqual([]);
  },
);

test('every file is of a format', () => {
  const names = readdirSync(new URL('.', import.meta.url)).filter((name) => name.endsWith('.hex') && !name.startsWith('kafka-'));
  expect(names.sort()).toEqual(formats.map(({ name }) => `${name}.hex`).sort());
});

test('text and bytes are one', () => {
  const bytes = new Uint8Array(5000);
  bytes.set([1, 2, 3], 4000);
  expect(fromText(toText(bytes))).toEqual(bytes);
});

/** The files of a `level` store that a process was killed over: opened by today's LevelDB, with what the state store's contract promises in them. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openLevelStore } from '../../src/platform/state-store.ts';
import { TemporaryDirectory } from '../processes.ts';
import { fromFilesText, readGolden, toFilesText } from './files.ts';

const FILE = new URL('level-v1.txt', import.meta.url);
/** A replicated state machine's checkpoint, under the key that the runtime gives it. */
const KEY = 'rsm/metadata/checkpoint';

/** Its files, while it is open: what a kill leaves. */
async function written(): Promise<[path: string, bytes: Uint8Array][]> {
  using directory = new TemporaryDirectory();
  const store = await openLevelStore(directory.path);
  await store.write([{ key: 'gone', value: Uint8Array.of(1) }]);
  await store.write([
    { key: 'gone', value: undefined },
    { key: KEY, value: readGolden('checkpoint-v1') },
    { key: 'ünïcödé', value: new Uint8Array() },
  ]);
  const names = readdirSync(directory.path).filter((name) => /^(CURRENT|MANIFEST-\d+|\d+\.(log|ldb))$/.test(name));
  const files = names.map((name): [string, Uint8Array] => [name, readFileSync(directory.join(name))]);
  await store.close();
  return files;
}

test('a store that a release left opens', async () => {
  if (process.env['NEW_GOLDEN'] !== undefined && !existsSync(FILE)) writeFileSync(FILE, toFilesText(await written()));
  using directory = new TemporaryDirectory();
  mkdirSync(directory.join('state'));
  for (const [name, bytes] of fromFilesText(readFileSync(FILE, 'utf8'))) writeFileSync(join(directory.join('state'), name), bytes);
  const store = await openLevelStore(directory.join('state'));
  expect(await store.entries('')).toEqual([
    [KEY, readGolden('checkpoint-v1')],
    ['ünïcödé', new Uint8Array()],
  ]);
  await store.close();
});

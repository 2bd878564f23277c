/** The contract of {@link StateStore}, which production's (`level`) and the simulation's keep both. */
import { spawn } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { StateStore } from '../../../src/base/environment.ts';
import { openLevelStore } from '../../../src/platform/state-store.ts';
import { MemoryStateStore } from '../../../src/storage/memory-state-store.ts';
import { TemporaryDirectory } from '../../processes.ts';
import { SeededRandom } from '../../sim/random.ts';
import { batch, newestOf } from './batches.ts';

const KILLS = 8;
const bytes = (...values: number[]) => Uint8Array.from(values);

/** A store that is opened again, as a process does that starts. */
interface Kept extends Disposable {
  open(): Promise<StateStore>;
}

function level(): Kept {
  const directory = new TemporaryDirectory();
  return { open: () => openLevelStore(directory.join('state')), [Symbol.dispose]: () => directory[Symbol.dispose]() };
}

function memory(): Kept {
  const store = new MemoryStateStore();
  return { open: async () => store, [Symbol.dispose]: () => {} };
}

describe.each([
  ['level', level],
  ['memory', memory],
])('a state store in %s', (_, make) => {
  let kept: Kept;
  let store: StateStore;

  beforeEach(async () => {
    kept = make();
    store = await kept.open();
  });
  afterEach(async () => {
    await store.close();
    kept[Symbol.dispose]();
  });

  const keysOf = async (prefix: string) => (await store.entries(prefix)).map(([key]) => key);

  it('has nothing at first, and then what was put last', async () => {
    expect(await store.get('a')).toBeUndefined();
    expect(await store.entries('')).toEqual([]);
    await store.write([{ key: 'a', value: bytes(1) }]);
    await store.write([{ key: 'a', value: bytes(2) }]);
    expect(await store.get('a')).toEqual(bytes(2));
    await store.write([{ key: 'a', value: undefined }]);
    expect(await store.get('a')).toBeUndefined();
    await store.write([{ key: 'a', value: undefined }]);
    await store.write([]);
    expect(await store.entries('')).toEqual([]);
  });

  it('does the operations of a batch in their order', async () => {
    await store.write([
      { key: 'a', value: bytes(1) },
      { key: 'a', value: undefined },
      { key: 'b', value: undefined },
      { key: 'b', value: bytes(2) },
    ]);
    expect(await store.entries('')).toEqual([['b', bytes(2)]]);
  });

  it('takes any value, the empty one too, and hands out what nobody shares', async () => {
    const all = Uint8Array.from({ length: 256 }, (_, at) => at);
    await store.write([
      { key: 'all', value: all },
      { key: 'empty', value: bytes() },
      { key: 'large', value: new Uint8Array(1 << 20).fill(7) },
    ]);
    all.fill(0);
    const got = (await store.get('all')) as Uint8Array;
    expect(got[255]).toBe(255);
    got.fill(0);
    expect((await store.entries('all'))[0]?.[1][255]).toBe(255);
    expect(await store.get('empty')).toEqual(bytes());
    expect((await store.get('large'))?.every((byte) => byte === 7)).toBe(true);
  });

  it('tells keys with a prefix in the order of their UTF-8 bytes', async () => {
    // U+FF5E is below U+1F600 in UTF-8, and above its first half in UTF-16.
    const keys = ['p', 'p/', 'p/1', 'p/10', 'p/2', 'p/é', 'p/～', 'p/😀', 'p/😀/1', 'p0', 'q'];
    await store.write(keys.toReversed().map((key, at) => ({ key, value: bytes(at) })));
    expect(await keysOf('')).toEqual(keys);
    expect(await keysOf('p/')).toEqual(keys.slice(1, 9));
    expect(await keysOf('p/😀')).toEqual(keys.slice(7, 9));
    expect(await keysOf('p/3')).toEqual([]);
  });

  it('has all of it when it is opened again', async () => {
    for (let n = 1; n <= 100; n++) await store.write(batch(n));
    await store.close();
    store = await kept.open();
    expect(await newestOf(store)).toBe(100);
  });
});

it(`a level store has whole batches, and all that resolved, after ${KILLS} kill -9 of its process`, async () => {
  using directory = new TemporaryDirectory();
  const random = new SeededRandom(1);
  const path = directory.join('state');
  let resolved = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    const last = await writeUntilKilled(path, resolved + 1 + random.below(200));
    expect(last).toBeGreaterThan(resolved);
    const store = await openLevelStore(path);
    resolved = await newestOf(store);
    await store.close();
    // The batch that was under way may be there or not.
    expect([last, last + 1]).toContain(resolved);
  }
});

/** Resolves with the last batch that the process said to be written; it is killed soon after it said `enough`. */
async function writeUntilKilled(path: string, enough: number): Promise<number> {
  const child = spawn(process.execPath, [new URL('writer.ts', import.meta.url).pathname, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString();
    if (lastLineOf(said) >= enough) child.kill('SIGKILL');
  });
  await new Promise((resolve) => child.once('close', resolve));
  return lastLineOf(said);
}

/** Of whole lines. */
function lastLineOf(text: string): number {
  return Number(text.slice(0, text.lastIndexOf('\n')).split('\n').at(-1) ?? 0);
}

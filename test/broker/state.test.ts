import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type StateStore, silentLogger } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import { openState } from '../../src/broker/state.ts';
import { NodeDisk } from '../../src/platform/disk.ts';
import { openLevelStore } from '../../src/platform/state-store.ts';

describe('the store of applied state', () => {
  let directory = '';
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'flotilla-state-'));
    mkdirSync(join(directory, 'quarantine'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const open = (openStateStore = openLevelStore) =>
    openState({ disk: new NodeDisk(), directory, incarnation: 3, openStateStore, log: silentLogger });

  /** Gets as far as to where a process ends, and no further. */
  const died = new Promise<never>(() => {});
  const waysToDie: Record<string, (path: string, dies: () => void) => Promise<StateStore>> = {
    'opens it': (_path, dies) => {
      dies();
      return died;
    },
    'reads it': async (path, dies) => {
      const store = await openLevelStore(path);
      const entries = async () => {
        await store.close();
        dies();
        return died;
      };
      return { get: () => died, write: () => died, close: () => died, entries };
    },
  };

  async function fill(): Promise<void> {
    const store = await open();
    for (let i = 1; i <= 20; i++) await store.write([{ key: 'k', value: new Uint8Array(20_000).fill(i) }]);
    await store.close();
    const again = await open();
    await again.close();
  }

  test('is what it was, as long as it is whole', async () => {
    await fill();
    const store = await open();
    expect((await store.get('k'))?.[0]).toBe(20);
    await store.close();
    expect(readdirSync(join(directory, 'quarantine'))).toEqual([]);
  });

  for (const name of ['CURRENT', 'MANIFEST', '.ldb']) {
    for (const how of ['zeros', 'truncated'] as const) {
      test(`with ${name} ${how} it is moved to quarantine, and begins anew`, async () => {
        await fill();
        const state = join(directory, 'state');
        const path = join(state, readdirSync(state).find((each) => each.includes(name))!);
        const bytes = readFileSync(path);
        writeFileSync(path, how === 'zeros' ? bytes.fill(0) : bytes.subarray(0, bytes.length >> 1));
        const store = await open();
        expect(await store.get('k')).toBeUndefined();
        await store.write([{ key: 'k', value: new Uint8Array([crc32('a') & 0xff]) }]);
        await store.close();
        expect(readdirSync(join(directory, 'quarantine'))).toEqual(['state.3']);
      });
    }
  }

  for (const [what, openAndDie] of Object.entries(waysToDie)) {
    test(`over which a process ended that ${what} is moved to quarantine by the next one, and begins anew`, async () => {
      await fill();
      await new Promise<void>((dies) => void open((path) => openAndDie(path, dies)));
      const store = await open();
      expect(await store.get('k')).toBeUndefined();
      await store.close();
      expect(readdirSync(directory).sort()).toEqual(['quarantine', 'state']);
      expect(readdirSync(join(directory, 'quarantine'))).toEqual(['state.3']);
      await fill();
      const whole = await open();
      expect((await whole.get('k'))?.[0]).toBe(20);
      await whole.close();
    });
  }

  test('is not in question after a process that could not open it', async () => {
    await fill();
    await expect(open(() => Promise.reject(new FlotillaError('DATA_DIRECTORY', 'it is taken')))).rejects.toThrow('taken');
    const store = await open();
    expect((await store.get('k'))?.[0]).toBe(20);
    await store.close();
  });

  test('that another process holds is not taken for damaged', async () => {
    const store = await open();
    await expect(open()).rejects.toMatchObject({ code: 'DATA_DIRECTORY' });
    await store.close();
    expect(readdirSync(join(directory, 'quarantine'))).toEqual([]);
  });
});

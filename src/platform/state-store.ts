import { Level } from 'level';
import type { StateOperation, StateStore } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';

/**
 * Opens (or creates) the store of applied state in directory `path`. Every write is one synchronous LevelDB batch: all or nothing, durable
 * when it resolves. Rejects with DATA_DIRECTORY when another process holds it or it may not be read, with STORAGE_ERROR when it is damaged.
 */
export async function openLevelStore(path: string): Promise<StateStore> {
  const level = new Level<string, Uint8Array>(path, { keyEncoding: 'utf8', valueEncoding: 'view' });
  try {
    await level.open();
  } catch (error) {
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
    if (!isTaken(cause))
      throw new FlotillaError('STORAGE_ERROR', `the state store ${path} is damaged: ${messageOf(cause)}`, { cause: error });
    throw new FlotillaError(
      'DATA_DIRECTORY',
      `cannot open the state store ${path}: ${messageOf(cause)}; is another broker using this directory?`,
      { cause: error },
    );
  }
  return new LevelStore(level);
}

/** Another process holds it, or this one has no right to it: nothing is wrong with what it holds. */
function isTaken(cause: unknown): boolean {
  const { code } = cause as { code?: string };
  return code === 'LEVEL_LOCKED' || /\/LOCK: |permission denied/i.test(messageOf(cause));
}

/** Above every key that starts with a prefix: U+10FFFF sorts last in UTF-8. */
const AFTER_PREFIX = '\u{10ffff}';

class LevelStore implements StateStore {
  readonly #level: Level<string, Uint8Array>;
  constructor(level: Level<string, Uint8Array>) {
    this.#level = level;
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    const value = await this.#level.get(key);
    return value && plain(value);
  }

  async entries(prefix: string): Promise<[key: string, value: Uint8Array][]> {
    const found = await this.#level.iterator({ gte: prefix, lt: prefix + AFTER_PREFIX }).all();
    return found.map(([key, value]) => [key, plain(value)]);
  }

  write(operations: readonly StateOperation[]): Promise<void> {
    return this.#level.batch(
      operations.map(({ key, value }) => (value === undefined ? { type: 'del', key } : { type: 'put', key, value })),
      { sync: true },
    );
  }

  close(): Promise<void> {
    return this.#level.close();
  }
}

/** `level` hands out Buffers, whose `slice` is no copy. */
function plain({ buffer, byteOffset, byteLength }: Uint8Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

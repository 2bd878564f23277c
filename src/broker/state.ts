/** The store of applied state. Everything in it is also in a log, so one that rotted is moved to quarantine and made anew. */
import type { Disk, Logger, StateStore } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';

export interface StateOptions {
  readonly disk: Disk;
  /** The data directory. */
  readonly directory: string;
  readonly incarnation: number;
  readonly openStateStore: (path: string) => Promise<StateStore>;
  readonly log: Logger;
}

/** Opens `state/`, and reads all of it once. @throws DATA_DIRECTORY when another process holds it. */
export async function openState(options: StateOptions): Promise<StateStore> {
  const { directory, openStateStore, log } = options;
  const path = `${directory}/state`;
  try {
    return await openWhole(options, path);
  } catch (error) {
    if (error instanceof FlotillaError && error.code === 'DATA_DIRECTORY') throw error;
    log.error('state damaged: it is made anew from the log', { path, error: messageOf(error) });
    await setAside(options, path);
    return openStateStore(path);
  }
}

async function openWhole({ openStateStore }: StateOptions, path: string): Promise<StateStore> {
  const store = await openStateStore(path);
  try {
    await store.entries('');
    return store;
  } catch (error) {
    await store.close().catch(() => {});
    throw error;
  }
}

async function setAside({ disk, directory, incarnation }: StateOptions, path: string): Promise<void> {
  if (!(await disk.exists(path))) return;
  const aside = `${directory}/quarantine/state.${incarnation}`;
  await disk.removeTree(aside);
  await disk.rename(path, aside);
  await disk.syncDirectory(directory);
  await disk.syncDirectory(`${directory}/quarantine`);
}

/**
 * The store of applied state. Everything in it is also in a log, so one that rotted is moved to quarantine and made anew.
 *
 * `state.opening`, an empty file beside it, is there while a process opens the store and reads it once: LevelDB checks not all that it reads, and ends the process
 * over some of what it then meets. A start that finds the file knows that another one ended like that, or was killed meanwhile, which loses nothing either.
 */
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

const OPENING = 'state.opening';

/** Opens `state/`, and reads all of it once. @throws DATA_DIRECTORY when another process holds it. */
export async function openState(options: StateOptions): Promise<StateStore> {
  const { disk, directory, openStateStore } = options;
  const path = `${directory}/state`;
  const opening = `${directory}/${OPENING}`;
  if (await disk.exists(opening)) await setAside(options, path, 'a process ended while it read it');
  else await (await disk.open(opening, { create: true })).close();
  await disk.syncDirectory(directory);
  try {
    return await openWhole(options, path);
  } catch (error) {
    if (error instanceof FlotillaError && error.code === 'DATA_DIRECTORY') throw error;
    await setAside(options, path, messageOf(error));
    return await openStateStore(path);
  } finally {
    await disk.remove(opening);
    await disk.syncDirectory(directory);
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

async function setAside({ disk, directory, incarnation, log }: StateOptions, path: string, why: string): Promise<void> {
  if (!(await disk.exists(path))) return;
  log.error('state damaged: it is made anew from the log', { path, error: why });
  const aside = `${directory}/quarantine/state.${incarnation}`;
  await disk.removeTree(aside);
  await disk.rename(path, aside);
  await disk.syncDirectory(directory);
  await disk.syncDirectory(`${directory}/quarantine`);
}

/**
 * The lock of a data directory: a file `lock` that names its holder by process id, the process's start time and the boot it ran in, so that a
 * recycled id (a container's process 1, most of all) is not taken for the holder.
 */
import fs from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { DiskLock } from '../base/environment.ts';
import { FlotillaError } from '../base/errors.ts';

interface Holder {
  readonly pid: number;
  /** Clock ticks since boot (Linux, /proc/PID/stat field 22), or empty where that is not known. */
  readonly startedAt: string;
  readonly bootId: string;
  readonly host: string;
}

/** Attempts at taking over a dead holder's lock, each lost to another process that tries the same. */
const ATTEMPTS = 5;

/** Keeps the side files of concurrent calls in one process apart. */
let calls = 0;

export async function acquireLock(directory: string): Promise<DiskLock> {
  const path = join(directory, 'lock');
  const self = JSON.stringify(await describeProcess(process.pid));
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (await createLock(path, self)) return { release: () => releaseLock(path, self) };
    const text = await readText(path);
    if (text === undefined) continue;
    const holder = parseHolder(text);
    if (holder !== undefined && (await isRunning(holder))) throw inUse(directory, holder);
    await removeStale(path, text, attempt);
  }
  throw new FlotillaError(
    'DATA_DIRECTORY',
    `${directory}: could not take ${path}, other processes are taking it too; start only one broker on a directory`,
  );
}

/** Written aside and linked, so that a lock file is never seen half-written. */
async function createLock(path: string, self: string): Promise<boolean> {
  const aside = `${path}.${process.pid}.${calls++}`;
  await fs.writeFile(aside, self);
  try {
    await fs.link(aside, path);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  } finally {
    await fs.rm(aside, { force: true });
  }
}

/** Moves the dead holder's file away; when what moved turns out to be another process's fresh lock, puts it back. */
async function removeStale(path: string, stale: string, attempt: number): Promise<void> {
  const aside = `${path}.stale.${process.pid}.${attempt}`;
  try {
    await fs.rename(path, aside);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return;
    throw error;
  }
  if ((await readText(aside)) !== stale) await fs.link(aside, path).catch(() => {});
  await fs.rm(aside, { force: true });
}

async function releaseLock(path: string, self: string): Promise<void> {
  if ((await readText(path)) === self) await fs.rm(path, { force: true });
}

async function isRunning(holder: Holder): Promise<boolean> {
  const here = await describeProcess(holder.pid);
  // Another boot of this machine: the holder is gone. Containers change their host name, but share the boot of the machine.
  if (holder.bootId !== '' && here.bootId !== '' && holder.bootId !== here.bootId) return false;
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if (codeOf(error) === 'ESRCH') return false;
  }
  return holder.startedAt === '' || here.startedAt === '' || holder.startedAt === here.startedAt;
}

async function describeProcess(pid: number): Promise<Holder> {
  const stat = await readText(`/proc/${pid}/stat`);
  // The command name (field 2) may hold spaces and parentheses: count fields after its last parenthesis.
  const startedAt = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  const bootId = (await readText('/proc/sys/kernel/random/boot_id'))?.trim() ?? '';
  return { pid, startedAt, bootId, host: hostname() };
}

function parseHolder(text: string): Holder | undefined {
  try {
    const holder = JSON.parse(text) as Partial<Holder>;
    if (typeof holder.pid !== 'number') return undefined;
    return { pid: holder.pid, startedAt: holder.startedAt ?? '', bootId: holder.bootId ?? '', host: holder.host ?? '' };
  } catch {
    return undefined;
  }
}

function inUse(directory: string, holder: Holder): FlotillaError {
  return new FlotillaError('DATA_DIRECTORY', `${directory} is in use by process ${holder.pid} on ${holder.host}; stop that broker first`);
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await fs.readFile(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

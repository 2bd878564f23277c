/** Files that are opened for one thing, and closed again. */
import type { Disk, DiskFile } from '../base/environment.ts';

/** Does the work on a file that there is, and closes it, however the work ends. */
export async function withFile<T>(disk: Disk, path: string, work: (file: DiskFile) => Promise<T>): Promise<T> {
  const file = await disk.open(path, { create: false });
  try {
    return await work(file);
  } finally {
    await file.close();
  }
}

/** Bytes. */
export function fileSize(disk: Disk, path: string): Promise<number> {
  return withFile(disk, path, (file) => file.size());
}

/** All of it; for one that fits into memory. */
export function readFile(disk: Disk, path: string): Promise<Uint8Array> {
  return withFile(disk, path, async (file) => file.read(0, await file.size()));
}

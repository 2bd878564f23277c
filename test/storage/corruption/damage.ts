/** What disks do to files, besides losing what was not synced. */
import type { SimDisk } from '../../sim/disk.ts';

export const KINDS = ['bit', 'sector', 'truncated', 'zeros', 'swapped'] as const;
export type Kind = (typeof KINDS)[number];

/** Of one trial. */
export interface Outcome {
  readonly whileDown: boolean;
  readonly repaired: boolean;
  readonly lost: number;
  /** What went wrong, if anything did. */
  readonly why: string | undefined;
  /** Processes that died over what they read. */
  readonly deaths?: number;
}

const SECTOR_BYTES = 512;
const MAX_ZEROS = 64 * 1024;

type Draw = (bound: number) => number;

/** The bytes as they are afterwards. */
export function damaged(bytes: Uint8Array, kind: Kind, draw: Draw): Uint8Array {
  const after = bytes.slice();
  const sectors = Math.ceil(bytes.length / SECTOR_BYTES);
  const at = draw(sectors) * SECTOR_BYTES;
  if (kind === 'bit') {
    const byte = draw(bytes.length);
    after[byte] = (after[byte] ?? 0) ^ (1 << draw(8));
  } else if (kind === 'sector') for (let i = at; i < Math.min(at + SECTOR_BYTES, bytes.length); i++) after[i] = draw(256);
  else if (kind === 'zeros') after.fill(0, at, at + 1 + draw(MAX_ZEROS));
  else if (kind === 'truncated') return after.subarray(0, draw(bytes.length));
  else {
    const other = draw(sectors) * SECTOR_BYTES;
    const length = Math.min(SECTOR_BYTES * (1 + draw(8)), bytes.length - Math.max(at, other));
    after.set(bytes.subarray(other, other + length), at);
    after.set(bytes.subarray(at, at + length), other);
  }
  return after;
}

/** Does it to a file of the disk, durably. False: nothing changed by it. */
export async function damage(disk: SimDisk, path: string, kind: Kind, draw: Draw): Promise<boolean> {
  const before = disk.bytes(path);
  if (before.length === 0) return false;
  const after = damaged(before, kind, draw);
  let changed = after.length < before.length;
  for (let i = 0; i < after.length; i++) {
    const mask = (before[i] ?? 0) ^ (after[i] ?? 0);
    if (mask === 0) continue;
    changed = true;
    disk.corrupt(path, i, mask);
  }
  if (after.length === before.length) return changed;
  const file = await disk.open(path, { create: false });
  await file.truncate(after.length);
  await file.sync();
  await file.close();
  return changed;
}

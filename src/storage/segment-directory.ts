/** Which files of a log's directory are its segments, and which a crash left of others. */
import type { Disk } from '../base/environment.ts';
import type { LogPosition } from '../raft/core/types.ts';
import { fileSize, withFile } from './files.ts';
import { EXTENSIONS, parseSegmentName, type SegmentName, segmentName } from './segment-files.ts';
import { INDEX_ROW_BYTES, readIndexRow } from './segment-index.ts';
import type { Crc32 } from './wal-frame.ts';

/** How the name of a file ends that counts only once it has another one (cleaned-segment.ts). */
export const ASIDE = '.aside';

/** A segment that has rows. */
export interface FoundSegment {
  readonly name: SegmentName;
  /** Of a cleaned one, as its file says: how many rows, and where the log stands behind its last entry. `end` undefined: its last row is damaged. */
  readonly cleaned: { readonly rows: number; readonly end: LogPosition | undefined } | undefined;
}

export interface FoundSegments {
  /** In their order. */
  readonly segments: readonly FoundSegment[];
  /** Segments that were begun, and have no rows yet. */
  readonly begun: readonly SegmentName[];
  /** Files of what was being cleaned when a crash came, or had been: nothing of them counts. */
  readonly leftovers: readonly string[];
}

/** Of each segment the newest generation counts that has rows; and none that lies within one before it, which was made from it. `names`: of the directory. */
export async function findSegments(disk: Disk, directory: string, crc32: Crc32, names: readonly string[]): Promise<FoundSegments> {
  const newest = new Map<number, SegmentName>();
  for (const name of named(names, 'entries')) {
    if (name.generation >= (newest.get(name.index)?.generation ?? 0)) newest.set(name.index, name);
  }
  const segments: FoundSegment[] = [];
  for (const name of [...newest.values()].sort((a, b) => a.index - b.index)) {
    if (name.index <= (segments.at(-1)?.cleaned?.end?.index ?? 0)) continue;
    segments.push({ name, cleaned: name.generation === 0 ? undefined : await lookInto(disk, directory, name, crc32) });
  }
  const counting = new Set(segments.map((segment) => segmentName(segment.name)));
  const isBegun = ({ index, generation }: SegmentName) => generation === 0 && !newest.has(index);
  const rowless = [...named(names, 'log'), ...named(names, 'control')].filter(isBegun);
  const begun = [...new Map(rowless.map((name) => [name.index, name])).values()];
  const leftovers = names.filter((name) => {
    if (name.endsWith(ASIDE)) return true;
    const file = EXTENSIONS.map((extension) => parseSegmentName(name, extension)).find((parsed) => parsed !== undefined);
    return file !== undefined && !counting.has(segmentName(file)) && !isBegun(file);
  });
  return { segments, begun, leftovers };
}

function named(names: readonly string[], extension: string): SegmentName[] {
  return names.map((name) => parseSegmentName(name, extension)).filter((name) => name !== undefined);
}

/** How many rows a segment's file has. */
export async function rowsOf(disk: Disk, directory: string, name: SegmentName): Promise<number> {
  return Math.floor((await fileSize(disk, `${directory}/${segmentName(name)}.entries`)) / INDEX_ROW_BYTES);
}

function lookInto(disk: Disk, directory: string, name: SegmentName, crc32: Crc32): Promise<FoundSegment['cleaned']> {
  return withFile(disk, `${directory}/${segmentName(name)}.entries`, async (file) => {
    const rows = Math.floor((await file.size()) / INDEX_ROW_BYTES);
    const last = readIndexRow(await file.read((rows - 1) * INDEX_ROW_BYTES, INDEX_ROW_BYTES), 0, crc32);
    return { rows, end: last?.isSparse ? last : undefined };
  });
}

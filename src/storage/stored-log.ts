/**
 * A replica's segments as they stand in their files, for who only looks: `flotilla log`. Reads everything, believes nothing, changes nothing. What is wrong
 * is reported, and reading goes on behind it as far as that is possible.
 */
import type { Disk } from '../base/environment.ts';
import { continuesChain } from '../raft/core/append-check.ts';
import { type Entry, EntryKind } from '../raft/core/entry.ts';
import type { LogPosition } from '../raft/core/types.ts';
import { FileWindow } from './file-window.ts';
import { fileSize } from './files.ts';
import { batchBaseOffsetAt, batchNextOffsetAt, type Checksums, isRecordBatch, maxTimestampOf, payloadIntact } from './payload.ts';
import { findSegments, rowsOf } from './segment-directory.ts';
import { EXTENSIONS, type SegmentBase, type SegmentName, segmentName } from './segment-files.ts';
import { entryOf, headChecksumOf, INDEX_ROW_BYTES, type IndexRow, PayloadFile, readIndexRow } from './segment-index.ts';

/** Bytes of entries between two pauses of who checks a segment. */
const PACE_BYTES = 256 * 1024;

/** Something that is not as it was written. */
export interface Damage {
  readonly file: string;
  /** Bytes from the start of the file. */
  readonly position: number;
  readonly what: string;
  /** Of a segment: the entries that it concerns, from the first to the last. */
  readonly entries?: readonly [first: number, last: number];
}

export interface StoredEntry {
  readonly row: IndexRow;
  /** Undefined: damaged, which was reported. */
  readonly payload: Uint8Array | undefined;
}

export interface StoredSegment {
  /** Of a generation above 0: a cleaned one. */
  readonly base: SegmentName;
  /** That it has something of. */
  readonly entries: number;
  readonly lastIndex: number;
  /** Of all its files. */
  readonly bytes: number;
}

export interface StoredLogOptions extends Checksums {
  readonly disk: Disk;
  readonly directory: string;
  /** Segments hold all up to here, durably: what is damaged above it was never relied on. Undefined: not known. */
  readonly synced: number | undefined;
  readonly report: (damage: Damage) => void;
}

/** The segments of a replica's directory, in order. What a crash left of others is not looked at: the next start removes it. */
export async function listSegments({
  disk,
  directory,
  crc32,
}: Pick<StoredLogOptions, 'disk' | 'directory' | 'crc32'>): Promise<StoredSegment[]> {
  const names = await disk.list(directory);
  const { segments } = await findSegments(disk, directory, crc32, names);
  const stored: StoredSegment[] = [];
  for (const { name: base, cleaned } of segments) {
    const entries = cleaned?.rows ?? (await rowsOf(disk, directory, base));
    let bytes = 0;
    for (const extension of EXTENSIONS) {
      const name = `${segmentName(base)}.${extension}`;
      if (names.includes(name)) bytes += await fileSize(disk, `${directory}/${name}`);
    }
    stored.push({ base, entries, lastIndex: cleaned?.end?.index ?? base.index + entries - 1, bytes });
  }
  return stored;
}

/** Every entry in the segments, in order, its payload verified; of a damaged row there is no entry. */
export async function* storedEntries(options: StoredLogOptions): AsyncGenerator<StoredEntry> {
  const segments = await listSegments(options);
  let previous: LogPosition | undefined;
  for (const [at, { base }] of segments.entries()) {
    const reader = await SegmentReader.open(options, base);
    try {
      const next = segments[at + 1]?.base;
      previous = yield* reader.read(next, previous);
    } finally {
      await reader.close();
    }
  }
}

/** Reads a segment that ends where `next` begins (undefined: the last one) and reports what is damaged of it; `paced` is awaited after each run of entries. */
export async function checkSegment(
  options: StoredLogOptions,
  base: SegmentName,
  next: SegmentBase | undefined,
  paced: (bytes: number) => Promise<void>,
): Promise<void> {
  const reader = await SegmentReader.open(options, base);
  let bytes = 0;
  try {
    for await (const { row } of reader.read(next, undefined)) {
      bytes += INDEX_ROW_BYTES + row.length;
      if (bytes < PACE_BYTES) continue;
      await paced(bytes);
      bytes = 0;
    }
  } finally {
    await reader.close();
  }
  await paced(bytes);
}

type Windows = Readonly<Record<number, FileWindow | undefined>>;

class SegmentReader {
  readonly #options: StoredLogOptions;
  readonly #base: SegmentName;
  /** Undefined: there is no such file. */
  readonly #rows: FileWindow | undefined;
  readonly #payloads: Windows;
  readonly #close: () => Promise<void>;
  /** The greatest timestamp so far; undefined behind a row that can't be read. */
  #timestamp: number | undefined = -1;
  /** Where the next payload stands, by file; undefined behind a row that can't be read. */
  #ends: Partial<Record<PayloadFile, number>> = { [PayloadFile.log]: 0, [PayloadFile.control]: 0 };

  private constructor(
    options: StoredLogOptions,
    base: SegmentName,
    rows: FileWindow | undefined,
    payloads: Windows,
    close: () => Promise<void>,
  ) {
    this.#options = options;
    this.#base = base;
    this.#rows = rows;
    this.#payloads = payloads;
    this.#close = close;
  }

  static async open(options: StoredLogOptions, base: SegmentName): Promise<SegmentReader> {
    const { disk, directory } = options;
    const closes: (() => Promise<void>)[] = [];
    const open = async (extension: string): Promise<FileWindow | undefined> => {
      const path = `${directory}/${segmentName(base)}.${extension}`;
      if (!(await disk.exists(path))) return undefined;
      const file = await disk.open(path, { create: false });
      closes.push(() => file.close());
      return new FileWindow(file, await file.size());
    };
    const close = async (): Promise<void> => {
      for (const closeFile of closes) await closeFile();
    };
    const rows = await open('entries');
    const payloads = { [PayloadFile.log]: await open('log'), [PayloadFile.control]: await open('control') };
    return new SegmentReader(options, base, rows, payloads, close);
  }

  close(): Promise<void> {
    return this.#close();
  }

  get #cleaned(): boolean {
    return this.#base.generation > 0;
  }

  /** Returns where the log stands behind it; undefined: not known. */
  async *read(next: SegmentBase | undefined, before: LogPosition | undefined): AsyncGenerator<StoredEntry, LogPosition | undefined> {
    const stored = Math.floor((this.#rows?.size ?? 0) / INDEX_ROW_BYTES);
    const { synced } = this.#options;
    const due = next !== undefined ? next.index - this.#base.index : Math.max(0, (synced ?? 0) - this.#base.index + 1);
    let previous = before;
    for (let at = 0; at < stored; at++) {
      const row = await this.#row(at);
      if (row === undefined) {
        const what = this.#cleaned ? 'a row' : `the row of entry ${this.#base.index + at}`;
        // Behind what is synced it may be torn, and what follows it is nothing.
        const index = this.#base.index + at;
        if (!this.#cleaned && !this.#counts(index, next)) return undefined;
        this.#report('entries', at * INDEX_ROW_BYTES, `${what} does not match its checksum`, this.#cleaned ? this.#base.index : index);
        previous = undefined;
        this.#ends = {};
        this.#timestamp = undefined;
        continue;
      }
      yield await this.#entry(row, at, previous, next);
      previous = row;
    }
    if (this.#cleaned) {
      if (stored === 0) this.#report('entries', 0, 'its rows are missing', this.#base.index);
      if (stored === 0 || next === undefined || previous === undefined || previous.index + 1 === next.index) return previous;
      const what = `it ends at entry ${previous.index}, and the next segment begins at ${next.index}`;
      this.#report('entries', stored * INDEX_ROW_BYTES, what, previous.index);
      return undefined;
    }
    if (stored < due) {
      const [first, last] = [this.#base.index + stored, this.#base.index + due - 1];
      this.#report('entries', stored * INDEX_ROW_BYTES, `entries ${first} to ${last} are missing`, first, last);
      return undefined;
    }
    return previous;
  }

  async #row(at: number): Promise<IndexRow | undefined> {
    const bytes = await this.#rows?.at(at * INDEX_ROW_BYTES, INDEX_ROW_BYTES);
    const row = bytes && readIndexRow(bytes, 0, this.#options.crc32);
    if (row === undefined || row.isSparse !== this.#cleaned) return undefined;
    return this.#cleaned || row.index === this.#base.index + at ? row : undefined;
  }

  async #entry(row: IndexRow, at: number, previous: LogPosition | undefined, next: SegmentBase | undefined): Promise<StoredEntry> {
    const payload = await this.#payload(row);
    const wrong = this.#whatIsWrong(row, payload, previous);
    const file = row.file as PayloadFile;
    this.#ends[file] = row.position + row.length;
    this.#timestamp = Math.max(this.#timestamp ?? -1, row.maxTimestamp);
    if (wrong === undefined) return { row, payload };
    if (this.#counts(row.index, next)) {
      const { index, position } = row;
      // Of two rows of which one does not continue the other, either may be another log's.
      if (wrong.in === 'row')
        this.#report('entries', at * INDEX_ROW_BYTES, `entry ${index} ${wrong.what}`, Math.max(this.#base.index, index - 1), index);
      else this.#report(extensionOf(file), position, `entry ${index} ${wrong.what}`, index);
    }
    return { row, payload: undefined };
  }

  async #payload({ file, position, length }: IndexRow): Promise<Uint8Array> {
    if (length === 0) return new Uint8Array(0);
    return (await this.#payloads[file as PayloadFile]?.at(position, length)) ?? new Uint8Array(0);
  }

  #whatIsWrong(row: IndexRow, payload: Uint8Array, previous: LogPosition | undefined): { in: 'row' | 'payload'; what: string } | undefined {
    const entry = entryOf(row, payload);
    if (previous !== undefined && !this.#continues(previous, entry)) return { in: 'row', what: 'does not continue the log before it' };
    const due = this.#ends[row.file as PayloadFile] ?? row.position;
    if (row.position !== due) return { in: 'row', what: 'is not where the payload before it ends' };
    if (payload.length < row.length) return { in: 'payload', what: `has ${payload.length} of its ${row.length} bytes` };
    if (headChecksumOf(payload, this.#options.crc32) !== row.headChecksum || !payloadIntact(entry, this.#options))
      return { in: 'payload', what: 'does not match its checksum' };
    const timestamp = this.#timestamp === undefined ? row.maxTimestamp : Math.max(this.#timestamp, maxTimestampOf(entry));
    if (row.isRunning && row.maxTimestamp !== timestamp)
      return { in: 'row', what: `states ${row.maxTimestamp} as the greatest timestamp so far, not ${timestamp}` };
    if (!isRecordBatch(row) || row.file === PayloadFile.gone) return undefined;
    const offsets = batchBaseOffsetAt(payload, 0) === row.nextOffset - row.recordCount && batchNextOffsetAt(payload, 0) === row.nextOffset;
    return offsets
      ? undefined
      : { in: 'payload', what: `states other offsets than ${row.nextOffset - row.recordCount} to ${row.nextOffset - 1}` };
  }

  /** In a cleaned segment entries are missing in between. */
  #continues(previous: LogPosition, entry: Entry): boolean {
    if (!this.#cleaned) return continuesChain(previous, entry);
    return entry.index > previous.index && entry.nextOffset - entry.recordCount >= previous.nextOffset && entry.term >= previous.term;
  }

  /** Closed segments are synced; of the last one, what the write-ahead log says. */
  #counts(index: number, next: SegmentBase | undefined): boolean {
    return next !== undefined || index <= (this.#options.synced ?? Number.MAX_SAFE_INTEGER);
  }

  #report(extension: string, position: number, what: string, first: number, last = first): void {
    const { directory, report } = this.#options;
    report({ file: `${directory}/${segmentName(this.#base)}.${extension}`, position, what, entries: [first, last] });
  }
}

function extensionOf(file: PayloadFile): string {
  return file === PayloadFile.log ? 'log' : 'control';
}

/** For a person: what kind of entry it is. */
export function kindName(kind: EntryKind): string {
  return Object.entries(EntryKind).find(([, value]) => value === kind)?.[0] ?? `kind ${kind}`;
}

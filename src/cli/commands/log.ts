/** `flotilla log describe | verify | dump DIR`: what stands in the data directory of a broker that does not run. Nothing in it is changed. */
import { createColors } from 'picocolors';
import { FlotillaError } from '../../base/errors.ts';
import { decodeGroupKey, formatGroupKey, METADATA_GROUP } from '../../base/ids.ts';
import { type MetadataRecord, readMetadataEntry } from '../../metadata/records.ts';
import { MetadataStore } from '../../metadata/view.ts';
import { nodeCompressions } from '../../platform/compression.ts';
import { crc32 } from '../../platform/crc32.ts';
import { nativeCrc32c } from '../../platform/crc32c.ts';
import { ReadOnlyDisk } from '../../platform/disk.ts';
import { decodeBatch, readBatchHeader } from '../../record/batch.ts';
import { CompressionTable } from '../../record/compression.ts';
import { type Access, readStored, type StoredDirectory, type StoredReplica } from '../../storage/stored-directory.ts';
import { type Damage, kindName, type StoredEntry, storedEntries } from '../../storage/stored-log.ts';
import { Failure } from '../failures.ts';
import { byteSize, count, integerText } from '../format.ts';
import { Progress } from '../progress.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';
import { lineFormat } from './consume.ts';

export interface DumpOptions {
  readonly partition?: string;
  readonly from?: number;
  readonly max?: number;
  readonly records?: boolean;
  readonly encoding: 'text' | 'base64';
}

/** Records of a batch, decompressed, at most. */
const MAX_BATCH_BYTES = 256 * 2 ** 20;

interface Opened extends StoredDirectory {
  readonly access: Access;
  /** Of a partition, where the metadata log stands here too; else by its topic's id. */
  readonly nameOf: (replica: StoredReplica) => string;
}

async function opened<T>(directory: string, work: (opened: Opened) => Promise<T>): Promise<T> {
  const access = { disk: new ReadOnlyDisk(), path: directory, crc32, crc32c: nativeCrc32c };
  const release = await lock(access);
  try {
    const stored = await readStored(access);
    const topics = await topicNames(access, stored);
    const nameOf = ({ group }: StoredReplica) => {
      if (group === METADATA_GROUP) return 'metadata';
      const { topicId, partition } = decodeGroupKey(group);
      const topic = topics.get(topicId);
      return topic === undefined ? formatGroupKey(group) : `${topic}/${partition}`;
    };
    return await work({ ...stored, access, nameOf });
  } finally {
    await release();
  }
}

/** A broker that runs changes its files all the while. Where nothing can be written, none runs. */
async function lock({ disk, path }: Access): Promise<() => Promise<void>> {
  try {
    const held = await disk.lock(path);
    return () => held.release();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM') return async () => {};
    if (code === 'ENOENT') throw new FlotillaError('DATA_DIRECTORY', `There is no directory ${path}.`);
    throw error;
  }
}

async function topicNames(access: Access, { replicas }: StoredDirectory): Promise<Map<string, string>> {
  const metadata = new MetadataStore();
  const own = replicas.find(({ group }) => group === METADATA_GROUP);
  const nothing = new Uint8Array(0);
  try {
    if (own !== undefined) {
      for await (const { row, payload } of entriesOf(access, own, () => {})) {
        metadata.applyEntry(row.index, kindName(row.kind) === 'batch' ? (payload ?? nothing) : nothing);
      }
    }
  } catch {
    // A metadata log that is damaged, or begins at a snapshot: what was read so far has to do.
  }
  return new Map([...metadata.image.topics.values()].map(({ topicId, name }) => [topicId, name]));
}

function entriesOf(
  { disk, crc32c }: Access,
  { directory, wal }: StoredReplica,
  report: (damage: Damage) => void,
): AsyncGenerator<StoredEntry> {
  return storedEntries({ disk, directory, synced: wal?.synced, report, crc32, crc32c });
}

export async function describeLogs(session: Session, directory: string): Promise<void> {
  await opened(directory, async ({ identity, wal, replicas, quarantine, nameOf }) => {
    const rows = replicas.map((replica) => describeReplica(replica, nameOf(replica)));
    rows.sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
    if (session.json) {
      const { files } = wal;
      return void (await session.out.json({ directory, identity, wal: files, replicas: rows, quarantine }));
    }
    const counting = wal.files.filter(({ counts }) => counts).length;
    const bytes = wal.files.reduce((sum, file) => sum + file.bytes, 0);
    const cluster = identity === undefined ? 'no identity' : `broker ${identity.brokerId} of cluster ${identity.clusterId ?? 'none yet'}`;
    await session.out.line(
      `${directory}: ${cluster}; directory ${identity?.directoryId ?? '?'}, ${count(identity?.incarnation ?? 0, 'start')} so far`,
    );
    await session.out.line(`write-ahead log: ${count(wal.files.length, 'file')}, ${counting} in use, ${byteSize(bytes)}`);
    if (quarantine.length > 0) await session.out.line(`quarantine: ${count(quarantine.length, 'replica')}, deleted or replaced`);
    await session.out.line('');
    await session.out.line(replicaTable(rows, session.colour));
  });
}

function describeReplica({ group, replicaId, segments, snapshots, wal }: StoredReplica, name: string) {
  const newest = snapshots.at(-1);
  const first = segments[0]?.base;
  const last = segments.at(-1);
  const entries = wal?.entries ?? [];
  return {
    name,
    group: formatGroupKey(group),
    replicaId,
    whole: wal?.whole ?? false,
    term: wal?.hardState.term ?? 0,
    vote: wal?.hardState.vote ?? 0,
    commitIndex: wal?.hardState.commit ?? 0,
    firstIndex: first?.index ?? newest?.firstIndex ?? 1,
    lastIndex: entries.at(-1)?.index ?? Math.max(wal?.synced ?? 0, last?.lastIndex ?? 0),
    syncedIndex: wal?.synced ?? 0,
    logStartOffset: Math.max(first?.offset ?? 0, newest?.logStartOffset ?? 0),
    segments: segments.length,
    cleanedSegments: segments.filter(({ base }) => base.generation > 0).length,
    cleanedIndex: segments.findLast(({ base }) => base.generation > 0)?.lastIndex ?? 0,
    bytes: segments.reduce((sum, segment) => sum + segment.bytes, 0),
    entriesInWal: entries.length,
    snapshots: snapshots.length,
  };
}

function replicaTable(rows: readonly ReturnType<typeof describeReplica>[], colour: boolean): string {
  const { red } = createColors(colour);
  return table(
    ['PARTITION', 'REPLICA', 'TERM', 'ENTRIES', 'IN SEGMENTS', 'CLEANED', 'START OFFSET', 'SEGMENTS', 'SIZE', 'IN THE WAL', 'STATE'],
    rows.map((row) => [
      row.name,
      row.replicaId ?? '?',
      row.term,
      `${integerText(row.firstIndex)} to ${integerText(row.lastIndex)}`,
      integerText(row.syncedIndex),
      integerText(row.cleanedIndex),
      integerText(row.logStartOffset),
      row.segments,
      byteSize(row.bytes),
      row.entriesInWal,
      row.whole ? 'whole' : red('not whole'),
    ]),
    colour,
  );
}

export async function verifyLogs(session: Session, directory: string): Promise<void> {
  await opened(directory, async ({ access, replicas, wal, damage, nameOf }) => {
    const found: Damage[] = [];
    const report = async (wrong: Damage): Promise<void> => {
      found.push(wrong);
      if (!session.json) await session.out.line(`${wrong.file}:${wrong.position}: ${wrong.what}`);
    };
    for (const wrong of damage) await report(wrong);
    let entries = 0;
    let bytes = 0;
    const total = replicas.reduce((sum, { segments }) => sum + segments.reduce((part, segment) => part + segment.bytes, 0), 0);
    const progress = new Progress(session.streams, 'bytes verified', () => bytes, total);
    try {
      for (const replica of replicas) {
        const pending: Damage[] = [];
        for await (const { row } of entriesOf(access, replica, (wrong) => pending.push(wrong))) {
          entries++;
          bytes += row.length + row.header.length;
          if (session.signal.aborted) throw new Failure('It was interrupted before all was verified.');
          for (const wrong of pending.splice(0)) await report({ ...wrong, what: `${nameOf(replica)}: ${wrong.what}` });
        }
        for (const wrong of pending) await report({ ...wrong, what: `${nameOf(replica)}: ${wrong.what}` });
      }
    } finally {
      progress.end();
    }
    const frames = wal.files.reduce((sum, file) => sum + file.frames, 0);
    const summary = { replicas: replicas.length, entries, bytes, walFrames: frames, damage: found };
    if (session.json) await session.out.json(summary);
    const what = `${count(replicas.length, 'replica')}, ${integerText(entries)} entries in segments, ${count(frames, 'flush frame')}`;
    if (found.length > 0) {
      throw new Failure(
        `${what}: ${count(found.length, 'damaged place')}. Change no file by hand. What is damaged is served to nobody; a replica that is not whole gets a successor by ` +
          'itself once its broker runs. Damage in a segment stays: while the other replicas are whole, start this broker with an empty directory instead.',
      );
    }
    session.note(`${what}: all as it was written`);
  });
}

export async function dumpLog(session: Session, directory: string, options: DumpOptions): Promise<void> {
  await opened(directory, async ({ access, replicas, nameOf }) => {
    const replica = chosen(replicas, nameOf, options.partition);
    const toLine = lineFormat({ format: session.json ? 'json' : 'key-value', encoding: options.encoding });
    let left = options.max ?? Number.POSITIVE_INFINITY;
    const damage: Damage[] = [];
    const take = async (entry: StoredEntry | WalEntry): Promise<void> => {
      if (entry.row.nextOffset <= (options.from ?? 0) && entry.row.recordCount > 0) return;
      if (options.records !== true) {
        left--;
        await session.out.line(session.json ? JSON.stringify(entryJson(entry)) : entryLine(entry));
        return;
      }
      // None, too, of the last entry of a cleaned segment.
      if (entry.payload === undefined || entry.payload.length === 0 || kindName(entry.row.kind) !== 'batch') return;
      if (replica.group === METADATA_GROUP) {
        for (const record of readMetadataEntry(entry.payload))
          if (left-- > 0) await session.out.line(metadataLine(entry.row.index, record));
        return;
      }
      for (const record of recordsOf(entry.payload)) {
        if (record.offset < (options.from ?? 0) || left-- <= 0) continue;
        await session.out.line(toLine({ ...record, topic: nameOf(replica), partition: decodeGroupKey(replica.group).partition }));
      }
    };
    const synced = replica.wal?.synced ?? Number.POSITIVE_INFINITY;
    for await (const entry of entriesOf(access, replica, (wrong) => damage.push(wrong))) {
      // Above that, the write-ahead log has them.
      if (entry.row.index > synced || left <= 0 || session.signal.aborted) break;
      await take(entry);
    }
    for (const entry of replica.wal?.entries ?? []) {
      if (left <= 0 || session.signal.aborted) break;
      await take({ row: { ...entry, length: entry.payload.length }, payload: entry.payload, inWal: true });
    }
    if (damage.length > 0) throw new Failure(`${count(damage.length, 'damaged place')}: \`flotilla log verify\` names them.`);
  });
}

interface WalEntry {
  readonly row: Pick<StoredEntry['row'], 'index' | 'term' | 'kind' | 'nextOffset' | 'recordCount' | 'length'>;
  readonly payload: Uint8Array | undefined;
  readonly inWal: true;
}

function chosen(replicas: readonly StoredReplica[], nameOf: Opened['nameOf'], name: string | undefined): StoredReplica {
  const names = replicas.map((replica) => nameOf(replica)).sort();
  const found = replicas.filter((replica) => name === undefined || nameOf(replica) === name || formatGroupKey(replica.group) === name);
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  const which = names.length === 0 ? 'there is none' : `there are ${names.join(', ')}`;
  throw new Failure(name === undefined ? `Name a partition with --partition: ${which}.` : `There is no partition ${name} here: ${which}.`);
}

function entryJson({ row, payload, ...rest }: StoredEntry | WalEntry) {
  const { index, term, kind, nextOffset, recordCount, length } = row;
  const base = { index, term, kind: kindName(kind), bytes: length, inWal: 'inWal' in rest, damaged: payload === undefined };
  if (recordCount === 0) return base;
  const offsets = { baseOffset: nextOffset - recordCount, lastOffset: nextOffset - 1, records: recordCount };
  if (payload === undefined) return { ...base, ...offsets };
  if (payload.length === 0) return { ...base, ...offsets, records: 0, cleaned: true };
  const {
    compression,
    maxTimestamp,
    producerId,
    producerEpoch,
    baseSequence,
    leaderEpoch,
    recordCount: records,
  } = readBatchHeader(payload);
  return { ...base, ...offsets, records, leaderEpoch, compression, maxTimestamp, producerId, producerEpoch, baseSequence };
}

function entryLine(entry: StoredEntry | WalEntry): string {
  const json = entryJson(entry);
  const place = `index ${json.index} term ${json.term}`;
  const state = `${json.inWal ? ' (in the write-ahead log)' : ''}${json.damaged ? ' DAMAGED' : ''}${'cleaned' in json ? ' cleaned' : ''}`;
  if (!('baseOffset' in json)) return `${place} ${json.kind} ${json.bytes} bytes${state}`;
  const offsets = `${place} offsets ${json.baseOffset} to ${json.lastOffset} ${json.bytes} bytes`;
  if (!('producerId' in json)) return `${offsets}${state}`;
  const producer = json.producerId === -1 ? '' : ` producer ${json.producerId}/${json.producerEpoch} from ${json.baseSequence}`;
  const time = json.maxTimestamp === -1 ? '' : ` ${new Date(json.maxTimestamp).toISOString()}`;
  return `${offsets} ${json.compression}${time}${producer}${state}`;
}

function metadataLine(index: number, record: MetadataRecord): string {
  return JSON.stringify({ index, ...record }, (_key, value: unknown) => (value instanceof Map ? Object.fromEntries(value) : value));
}

function recordsOf(payload: Uint8Array) {
  return decodeBatch(payload, { compression: new CompressionTable(nodeCompressions), maxBytes: MAX_BATCH_BYTES });
}

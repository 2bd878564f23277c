/** `flotilla consume`: prints records as they come. */
import type { RecordHeader } from '../../record/types.ts';
import type { ClusterClient, IncomingRecord, StartingPoint } from '../client.ts';
import { Failure } from '../failures.ts';
import type { Session } from '../session.ts';

export interface ConsumeOptions {
  readonly from: StartingPoint;
  readonly partition?: number;
  readonly max?: number;
  readonly untilEnd?: boolean;
  readonly format: 'value' | 'key-value' | 'json';
  readonly encoding: 'text' | 'base64';
}

export async function consume(session: Session, topic: string, options: ConsumeOptions): Promise<void> {
  const toLine = lineFormat(session.json ? { ...options, format: 'json' } : options);
  await using client = await session.connect();
  const partitions = await choosePartitions(client, topic, options.partition, session.signal);
  const remaining = options.untilEnd === true ? await untilEnd(client, topic, partitions, options, session.signal) : undefined;
  if (remaining?.size === 0) return;
  let left = options.max ?? Number.POSITIVE_INFINITY;
  await using consumer = client.consumer({
    topic,
    ...(options.partition !== undefined && { partitions: [options.partition] }),
    from: options.from,
    // Of a compacted topic the last records may be gone: then none comes that would say so.
    until: options.untilEnd === true ? 'end' : undefined,
    signal: session.signal,
  });
  try {
    for await (const record of consumer) {
      const end = remaining?.get(record.partition);
      if (remaining === undefined || (end !== undefined && record.offset < end)) {
        await session.out.line(toLine(record));
        left--;
      }
      if (end !== undefined && record.offset >= end - 1) remaining?.delete(record.partition);
      if (left === 0 || remaining?.size === 0 || session.signal.aborted) return;
    }
  } catch (error) {
    if (!session.signal.aborted) throw error;
  }
}

/** Partitions with something between where reading begins and what is the end now, with that end. */
async function untilEnd(
  client: ClusterClient,
  topic: string,
  partitions: readonly number[],
  { from }: ConsumeOptions,
  signal: AbortSignal,
): Promise<Map<number, number>> {
  const ends = await client.admin.endOffsets(topic, partitions, signal);
  const starts = await client.admin.startOffsets(topic, partitions, from, signal);
  const remaining = new Map<number, number>();
  partitions.forEach((partition, at) => {
    const end = ends[at] ?? 0;
    if ((starts[at] ?? 0) < end) remaining.set(partition, end);
  });
  return remaining;
}

async function choosePartitions(
  client: ClusterClient,
  topic: string,
  partition: number | undefined,
  signal: AbortSignal,
): Promise<readonly number[]> {
  const { partitions } = await client.admin.describeTopic(topic, signal);
  if (partition === undefined) return partitions.map((each) => each.partition);
  if (!partitions.some((each) => each.partition === partition)) {
    throw new Failure(`Topic '${topic}' has no partition ${partition}: it has 0 to ${partitions.length - 1}.`);
  }
  return [partition];
}

const TAB = Buffer.from('\t');
const nothing = new Uint8Array();

/** A record as a line. As text, bytes go out as they came in; in JSON, what is not UTF-8 can only survive as base64. */
export function lineFormat({
  format,
  encoding,
}: Pick<ConsumeOptions, 'format' | 'encoding'>): (record: IncomingRecord) => string | Uint8Array {
  const base64 = (bytes: Uint8Array | null) => buffer(bytes ?? nothing).toString('base64');
  const text = (bytes: Uint8Array | null) => (bytes === null ? null : buffer(bytes).toString(encoding === 'base64' ? 'base64' : 'utf8'));
  if (format === 'json') return (record) => JSON.stringify(recordJson(record, text));
  if (format === 'value') return encoding === 'base64' ? ({ value }) => base64(value) : ({ value }) => value ?? nothing;
  if (encoding === 'base64') return ({ key, value }) => `${base64(key)}\t${base64(value)}`;
  return ({ key, value }) => Buffer.concat([key ?? nothing, TAB, value ?? nothing]);
}

function recordJson(record: IncomingRecord, text: (bytes: Uint8Array | null) => string | null) {
  return {
    topic: record.topic,
    partition: record.partition,
    offset: record.offset,
    timestamp: record.timestamp,
    key: text(record.key),
    value: text(record.value),
    headers: headersJson(record.headers, text),
  };
}

/** An object; a key that repeats has an array of its values. */
function headersJson(headers: readonly RecordHeader[], text: (bytes: Uint8Array | null) => string | null) {
  const values = new Map<string, (string | null)[]>();
  for (const { key, value } of headers) values.set(key, [...(values.get(key) ?? []), text(value)]);
  return Object.fromEntries([...values].map(([key, all]) => [key, all.length === 1 ? all[0] : all]));
}

function buffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

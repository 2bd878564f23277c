/** `flotilla topic create | list | describe | alter | delete-records | delete`. */
import type { PartitionDescription, StartingPoint } from '../client.ts';
import { UsageError } from '../failures.ts';
import { byteSize, count, integerText } from '../format.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';

export interface CreateTopicOptions {
  readonly partitions?: number;
  readonly replicas?: number;
  readonly config?: Readonly<Record<string, string>>;
}

export async function createTopic(session: Session, name: string, options: CreateTopicOptions): Promise<void> {
  await using client = await session.connect();
  const { partitions = 0, replicas = 0, config = {} } = options;
  await client.admin.createTopic({ name, partitions, replicas, configs: config }, session.signal);
  if (!session.json) return void (await session.out.line(`created ${name}`));
  const topic = await client.admin.describeTopic(name, session.signal);
  await session.out.json({ name, topicId: topic.topicId, partitions: topic.partitions.length });
}

export async function listTopics(session: Session): Promise<void> {
  await using client = await session.connect();
  const topics = [...(await client.admin.listTopics(session.signal))].sort((a, b) => (a.name < b.name ? -1 : 1));
  const rows = topics.map(({ name, partitions }) => ({
    name,
    partitions: partitions.length,
    replicas: Math.max(0, ...partitions.map(({ replicas }) => replicas.length)),
  }));
  if (session.json) return void (await session.out.json(rows));
  for (const { name } of rows) await session.out.line(name);
}

export async function describeTopic(session: Session, name: string): Promise<void> {
  await using client = await session.connect();
  const topic = await client.admin.describeTopic(name, session.signal);
  if (session.json) {
    return void (await session.out.json({
      name: topic.name,
      topicId: topic.topicId,
      partitions: topic.partitions.map(partitionJson),
      configs: topic.configs,
    }));
  }
  const replicas = Math.max(0, ...topic.partitions.map((partition) => partition.replicas.length));
  const configs = Object.entries(topic.configs).map(([key, value]) => `${key}=${value}`);
  await session.out.line(
    `${topic.name}: ${count(topic.partitions.length, 'partition')}, ${count(replicas, 'replica')}, id ${topic.topicId}`,
  );
  if (configs.length > 0) await session.out.line(configs.join(' '));
  const rows = topic.partitions.map((partition) => [
    partition.partition,
    partition.leader === 0 ? 'none' : partition.leader,
    partition.leaderEpoch,
    partition.replicas.join(','),
    partition.inSync.join(','),
    integerText(partition.logStartOffset),
    integerText(partition.highWatermark),
    byteSize(partition.sizeBytes),
  ]);
  const head = ['PARTITION', 'LEADER', 'EPOCH', 'REPLICAS', 'IN SYNC', 'START', 'HIGH WATERMARK', 'SIZE'];
  await session.out.line(table(head, rows, session.colour));
  for (const { partition, error } of topic.partitions) {
    if (error !== undefined) session.note(`partition ${partition}: its leader did not answer, so its offsets are not known: ${error}`);
  }
}

function partitionJson(partition: PartitionDescription) {
  const { leader, leaderEpoch, replicas, inSync, logStartOffset, highWatermark, sizeBytes, error } = partition;
  return {
    partition: partition.partition,
    leader,
    leaderEpoch,
    replicas,
    inSync,
    logStartOffset,
    highWatermark,
    sizeBytes,
    ...(error !== undefined && { error }),
  };
}

export interface AlterTopicOptions {
  readonly config?: Readonly<Record<string, string>>;
  readonly unset?: readonly string[];
}

export async function alterTopic(session: Session, name: string, { config = {}, unset = [] }: AlterTopicOptions): Promise<void> {
  if (Object.keys(config).length + unset.length === 0) throw new UsageError('Nothing to change: give --config key=value, or --unset key.');
  await using client = await session.connect();
  const configs = await client.admin.alterTopicConfigs(name, { set: config, remove: unset }, session.signal);
  if (session.json) return void (await session.out.json({ name, configs }));
  const all = Object.entries(configs).map(([key, value]) => `${key}=${value}`);
  await session.out.line(all.length === 0 ? `${name}: all as the brokers have it` : `${name}: ${all.join(' ')}`);
}

export interface DeleteRecordsOptions {
  readonly before: StartingPoint;
  /** All of them when not given. */
  readonly partition?: number;
}

export async function deleteRecords(session: Session, name: string, { before, partition }: DeleteRecordsOptions): Promise<void> {
  await using client = await session.connect();
  const { admin } = client;
  const topic = await admin.describeTopic(name, session.signal);
  const partitions = topic.partitions.map((each) => each.partition).filter((each) => partition === undefined || each === partition);
  if (partitions.length === 0) throw new UsageError(`${name} has no partition ${partition}: it has 0 to ${topic.partitions.length - 1}.`);
  const starts =
    before === 'end' ? partitions.map(() => 'end' as const) : await admin.startOffsets(name, partitions, before, session.signal);
  const wanted = partitions.map((each, at) => {
    const start = starts[at] ?? 'end';
    // Nothing is as young as that time: all that there is goes.
    return { partition: each, before: start === Number.POSITIVE_INFINITY ? ('end' as const) : start };
  });
  const offsets = await admin.deleteRecords(name, wanted, session.signal);
  const rows = partitions.map((each, at) => ({ partition: each, logStartOffset: offsets[at] ?? -1 }));
  if (session.json) return void (await session.out.json({ name, partitions: rows }));
  await session.out.line(
    table(
      ['PARTITION', 'START'],
      rows.map((row) => [row.partition, integerText(row.logStartOffset)]),
      session.colour,
    ),
  );
}

export async function deleteTopic(session: Session, name: string): Promise<void> {
  await using client = await session.connect();
  const { partitions } = await client.admin.describeTopic(name, session.signal);
  await client.admin.deleteTopic(name, session.signal);
  // Of those whose leaders answered; each replica has about as much.
  const bytes = partitions.reduce((sum, { sizeBytes = 0, replicas }) => sum + sizeBytes * replicas.length, 0);
  if (session.json) return void (await session.out.json({ name, deleted: true, bytes }));
  await session.out.line(`deleted ${name}: ${byteSize(bytes)} on all brokers together, given back after log.segment.delete.delay.ms`);
}

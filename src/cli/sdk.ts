/** The SDK behind the commands' client interface, with every codec that the CLI carries. */
import { FlotillaError } from '../base/errors.ts';
import type { PartitionInfo, TopicInfo } from '../client/admin.ts';
import type { Client } from '../client/client.ts';
import { connect } from '../client/connect.ts';
import type { Where } from '../client/offsets.ts';
import { nativeCompressions } from '../platform/compression-native.ts';
import type { ClusterAdmin, ClusterClient, StartingPoint, TopicSummary } from './client.ts';

/** No new attempt after it; a person waits no longer for an answer. */
const CALL_TIMEOUT_MS = 15_000;

/** Errors: BROKER_NOT_AVAILABLE naming the addresses. */
export async function connectCluster(bootstrap: string, signal: AbortSignal): Promise<ClusterClient> {
  const client = await connectOrExplain(bootstrap, signal);
  return {
    admin: adminOf(client),
    producer: ({ batchBytes, ...options }) =>
      client.producer({ ...options, ...(batchBytes !== undefined && { maxBatchBytes: batchBytes }) }),
    consumer: ({ topic, partitions, from, until, signal: ends }) =>
      client.consumer({ topics: [{ topic, partitions }], from: whereOf(from), until, signal: ends }),
    close: () => client.close(),
    [Symbol.asyncDispose]: () => client.close(),
  };
}

async function connectOrExplain(bootstrap: string, signal: AbortSignal): Promise<Client> {
  try {
    return await connect({ bootstrap, signal, codecs: nativeCompressions });
  } catch (error) {
    if (!(error instanceof FlotillaError) || error.code !== 'BROKER_NOT_AVAILABLE') throw error;
    throw new FlotillaError('BROKER_NOT_AVAILABLE', `No broker answers at ${bootstrap}.`, { cause: error });
  }
}

function adminOf({ admin }: Client): ClusterAdmin {
  const options = (signal: AbortSignal) => ({ signal, timeoutMs: CALL_TIMEOUT_MS });
  return {
    createTopic: async ({ partitions, replicas, ...rest }, signal) => {
      const counts = { partitions: partitions === 0 ? undefined : partitions, replicas: replicas === 0 ? undefined : replicas };
      await admin.createTopic({ ...rest, ...counts }, options(signal));
    },
    deleteTopic: (name, signal) => admin.deleteTopic(name, options(signal)),
    alterTopicConfigs: (name, change, signal) => admin.alterTopicConfigs(name, change, options(signal)),
    deleteRecords: (topic, partitions, signal) =>
      admin.deleteRecords(
        partitions.map((each) => ({ topic, ...each })),
        options(signal),
      ),
    listTopics: async (signal) => (await admin.listTopics(options(signal))).map(summaryOf),
    describeTopic: async (name, signal) => {
      const topic = await admin.describeTopic(name, options(signal));
      return { ...topic, partitions: topic.partitions.map(partitionOf) };
    },
    describeCluster: async (signal) => {
      const cluster = await admin.describeCluster(options(signal));
      return {
        clusterId: cluster.clusterId,
        controller: cluster.controllerId ?? 0,
        controllerEpoch: cluster.controllerEpoch,
        voters: cluster.voters,
        brokers: cluster.brokers.map(({ brokerId, ...broker }) => ({ id: brokerId, ...broker })).sort((a, b) => a.id - b.id),
        topics: cluster.topics.map(summaryOf),
      };
    },
    endOffsets: (topic, partitions, signal) => admin.listOffsets(queries(topic, partitions, 'end'), options(signal)),
    listRaftGroups: (topic, signal) => admin.listRaftGroups({ topic }, options(signal)),
    scrub: (now, signal) => admin.scrub({ now }, options(signal)),
    describeRaftGroup: (name, signal) => admin.describeRaftGroup(name, options(signal)),
    startOffsets: (topic, partitions, from, signal) => startOffsets(admin, topic, partitions, from, options(signal)),
  };
}

async function startOffsets(
  admin: Client['admin'],
  topic: string,
  partitions: readonly number[],
  from: StartingPoint,
  options: { readonly signal: AbortSignal; readonly timeoutMs: number },
): Promise<readonly number[]> {
  if (typeof from === 'object' && 'offset' in from) return partitions.map(() => from.offset);
  const at = typeof from === 'object' ? { time: from.timestamp } : from;
  const offsets = await admin.listOffsets(queries(topic, partitions, at), options);
  // No record at or after the time: reading begins at the end.
  return offsets.map((offset) => (offset === -1 ? Number.POSITIVE_INFINITY : offset));
}

function queries<At>(topic: string, partitions: readonly number[], at: At) {
  return partitions.map((partition) => ({ topic, partition, at }));
}

function whereOf(from: StartingPoint): Where {
  return typeof from === 'object' && 'timestamp' in from ? { time: from.timestamp } : from;
}

function summaryOf({ name, partitions }: TopicInfo): TopicSummary {
  return { name, partitions: partitions.map((each) => ({ ...each, leader: each.leader ?? 0 })) };
}

function partitionOf(partition: PartitionInfo) {
  return { ...partition, leader: partition.leader ?? 0, error: partition.error?.message };
}

/** `@flotilla/client`: the SDK's public names. */
export { type ErrorCode, FlotillaError } from '../base/errors.ts';
export type { BatchHeader, CompressionName, Record, RecordHeader } from '../record/types.ts';
export type {
  Admin,
  BrokerInfo,
  ClusterDescription,
  ClusterInfo,
  OngoingReassignment,
  PartitionInfo,
  PartitionReassignment,
  TopicDescription,
  TopicInfo,
  TopicPartitionInfo,
  TopicSpec,
} from './admin.ts';
export { Client, type ClientOptions, type ClientPlatform } from './client.ts';
export type { CallOptions } from './cluster.ts';
export { type ConnectOptions, connect } from './connect.ts';
export { type Consumer, type ConsumerOptions, OffsetOutOfRangeError } from './consumer.ts';
export type { ConsumedBatch, ConsumerRecord } from './fetch-buffer.ts';
export type { Isolation, Where } from './offsets.ts';
export type { Producer } from './producer.ts';
export type { RecordMetadata } from './producer-batch.ts';
export type { ProducerOptions, SendOptions } from './producer-options.ts';
export type { RaftGroupFilter } from './raft-groups.ts';
export type {
  RaftConfiguration,
  RaftFollower,
  RaftGroupDescription,
  RaftMember,
  RaftMembership,
  RaftProblem,
  RaftProblemKind,
  RaftReplicaDescription,
  RaftRole,
  RaftSnapshot,
  SilentBroker,
} from './raft-wire.ts';
export type { Partitioner, ProducerRecord } from './records.ts';
export type { BrokerScrub, ScrubFinding } from './scrub.ts';

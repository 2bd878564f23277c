/**
 * The Controller service that every voter of the metadata quorum serves: registration and heartbeats (the leader only), and
 * the metadata log for brokers that have no replica of it (any voter).
 */
import { create } from '@bufbuild/protobuf';
import type { Environment, Logger, Timer } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { type BrokerId, type DirectoryId, type ReplicaId, topicIdFromBytes } from '../base/ids.ts';
import {
  type BrokerHeartbeatRequest,
  BrokerHeartbeatResponseSchema,
  type FollowMetadataRequest,
  type FollowMetadataResponse,
  FollowMetadataResponseSchema,
  type RegisterBrokerRequest,
  RegisterBrokerResponseSchema,
  type ReportReplicasRequest,
  ReportReplicasResponseSchema,
  Controller as Service,
} from '../gen/flotilla/v1/controller_pb.ts';
import { encodeImage } from '../metadata/checkpoint.ts';
import type { MetadataView } from '../metadata/image.ts';
import { EntryKind } from '../raft/core/entry.ts';
import { type RpcService, type RpcStream, type StreamReceiver, streamHandler, unaryHandler } from '../rpc/types.ts';
import type { CommittedLog } from '../rsm/types.ts';
import type { Controller, ReplicaReport } from './types.ts';
import { type ControllerHint, errorToWire, replicaFromWire } from './wire.ts';

export interface ControllerServiceOptions {
  /** This broker's own: it refuses with NOT_CONTROLLER while it does not lead. */
  readonly controller: Controller;
  /** Who leads, for callers that asked the wrong one; undefined: not known, and then this voter may be cut off. */
  readonly leader: () => ControllerHint | undefined;
  readonly metadata: MetadataView;
  /** Group 0's replica here. */
  readonly replica: { readonly log: CommittedLog };
  readonly environment: Environment;
  readonly logger: Logger;
}

/** A follower that is further behind gets a checkpoint instead of entries. */
export const CHECKPOINT_LAG = 10_000;
/** Bytes of entries in one message. */
export const FOLLOW_MESSAGE_BYTES = 256 << 10;
/** An idle stream says that it is alive this often, while this voter knows a leader. */
export const FOLLOW_KEEPALIVE_MS = 2_000;

export function controllerService(options: ControllerServiceOptions): RpcService {
  const { controller, leader } = options;
  return {
    unary: new Map([
      unaryHandler(Service.method.registerBroker, async (request, { signal }) => {
        try {
          await controller.registerBroker(registrationOf(request), signal);
          return create(RegisterBrokerResponseSchema);
        } catch (error) {
          return create(RegisterBrokerResponseSchema, { error: errorToWire(error, leader()) });
        }
      }),
      unaryHandler(Service.method.brokerHeartbeat, async (request, { signal }) => {
        try {
          await controller.heartbeat(heartbeatOf(request), signal);
          return create(BrokerHeartbeatResponseSchema);
        } catch (error) {
          return create(BrokerHeartbeatResponseSchema, { error: errorToWire(error, leader()) });
        }
      }),
      unaryHandler(Service.method.reportReplicas, async (request, { signal }) => {
        try {
          const { index } = await controller.reportReplicas(reportOf(request), signal);
          return create(ReportReplicasResponseSchema, { metadataIndex: BigInt(index) });
        } catch (error) {
          return create(ReportReplicasResponseSchema, { error: errorToWire(error, leader()) });
        }
      }),
    ]),
    streams: new Map([streamHandler(Service.method.followMetadata, (responder) => new MetadataStream(options, responder))]),
  };
}

function registrationOf(request: RegisterBrokerRequest) {
  return {
    brokerId: request.brokerId as BrokerId,
    directoryId: request.directoryId as DirectoryId,
    incarnation: Number(request.incarnation),
    rack: request.rack === '' ? undefined : request.rack,
    listeners: new Map(request.listeners.map(({ name, address }) => [name, address])),
    peerAddress: request.peerAddress,
  };
}

function reportOf(request: ReportReplicasRequest): ReplicaReport {
  return {
    brokerId: request.brokerId as BrokerId,
    incarnation: Number(request.incarnation),
    committed: request.committed.map(({ topicId, partition, leaderEpoch, index, targetEpoch, voters, learners }) => ({
      topicId: topicIdFromBytes(topicId),
      partition,
      leaderEpoch,
      index: Number(index),
      targetEpoch: Number(targetEpoch),
      voters: voters.map(replicaFromWire),
      learners: learners.map(replicaFromWire),
    })),
    failed: request.failed.map(({ topicId, partition, replicaId }) => ({
      topicId: topicIdFromBytes(topicId),
      partition,
      replicaId: Number(replicaId) as ReplicaId,
    })),
  };
}

function heartbeatOf(request: BrokerHeartbeatRequest) {
  return {
    brokerId: request.brokerId as BrokerId,
    incarnation: Number(request.incarnation),
    leaders: request.leaders.map((report) => ({
      topicId: topicIdFromBytes(report.topicId),
      partition: report.partition,
      leader: report.leader as BrokerId,
      leaderEpoch: report.leaderEpoch,
    })),
    stopping: request.stopping,
    metadataIndex: Number(request.metadataIndex),
  };
}

/** One broker that follows the metadata log from here. Sends what is applied, never ahead of what the stream can take. */
class MetadataStream implements StreamReceiver<FollowMetadataRequest> {
  readonly #options: ControllerServiceOptions;
  readonly #responder: RpcStream<FollowMetadataResponse>;
  #next = 0;
  #started = false;
  #sending = false;
  #full = false;
  #ended = false;
  #unsubscribe: (() => void) | undefined;
  #keepalive: Timer | undefined;

  constructor(options: ControllerServiceOptions, responder: RpcStream<FollowMetadataResponse>) {
    this.#options = options;
    this.#responder = responder;
  }

  message(request: FollowMetadataRequest): void {
    if (this.#started || this.#ended) return;
    this.#started = true;
    this.#next = Math.max(1, Number(request.fromIndex));
    this.#unsubscribe = this.#options.metadata.subscribe(() => void this.#pump());
    this.#keepAlive();
  }

  drained(): void {
    this.#full = false;
    void this.#pump();
  }

  closed(): void {
    this.#ended = true;
    this.#unsubscribe?.();
    this.#keepalive?.cancel();
  }

  async #pump(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    try {
      while (!this.#ended && !this.#full && this.#next <= this.#options.metadata.image.index) {
        const message = await this.#nextMessage();
        if (!this.#ended) this.#send(message);
      }
    } catch (error) {
      this.#options.logger.warn('metadata stream ended', { error: messageOf(error) });
      this.#end();
    } finally {
      this.#sending = false;
    }
  }

  async #nextMessage(): Promise<FollowMetadataResponse> {
    const { metadata, replica } = this.#options;
    const { log } = replica;
    if (metadata.image.index - this.#next >= CHECKPOINT_LAG || this.#next < log.firstReplicableIndex) return this.#checkpoint();
    const read = await log.readEntries(this.#next, FOLLOW_MESSAGE_BYTES);
    if (read[0]?.index !== this.#next) return this.#checkpoint();
    const { index: commit } = metadata.image;
    const entries = read
      .filter(({ index }) => index <= commit)
      .map(({ index, kind, payload }) => ({ index: BigInt(index), payload: kind === EntryKind.batch ? payload : new Uint8Array() }));
    this.#next += entries.length;
    return create(FollowMetadataResponseSchema, {
      entries: entries.map((entry) => ({ $typeName: 'flotilla.v1.MetadataEntry' as const, ...entry })),
      commitIndex: BigInt(commit),
    });
  }

  #checkpoint(): FollowMetadataResponse {
    const { image } = this.#options.metadata;
    this.#next = image.index + 1;
    const index = BigInt(image.index);
    return create(FollowMetadataResponseSchema, { checkpoint: encodeImage(image), checkpointIndex: index, commitIndex: index });
  }

  #send(message: FollowMetadataResponse): void {
    if (!this.#responder.send(message)) this.#full = true;
  }

  #keepAlive(): void {
    const { environment, leader, metadata } = this.#options;
    this.#keepalive = environment.after(FOLLOW_KEEPALIVE_MS, () => {
      if (this.#ended) return;
      if (!this.#full && !this.#sending && leader() !== undefined) {
        this.#send(create(FollowMetadataResponseSchema, { commitIndex: BigInt(metadata.image.index) }));
      }
      this.#keepAlive();
    });
  }

  #end(): void {
    this.closed();
    this.#responder.end();
  }
}

import { create } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { silentLogger } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import { type BrokerId, type DirectoryId, type ReplicaId, type TopicId, topicIdToBytes } from '../../src/base/ids.ts';
import { CHECKPOINT_LAG, controllerService, FOLLOW_KEEPALIVE_MS } from '../../src/controller/controller-service.ts';
import { FOLLOW_SILENCE_MS, MetadataFollower } from '../../src/controller/follow.ts';
import { type ControllerRoute, routeController } from '../../src/controller/remote-controller.ts';
import type { AlterTopicConfigs, BrokerHeartbeat, Controller, RegisterBroker, ReplicaReport } from '../../src/controller/types.ts';
import { type ControllerHint, errorToWire } from '../../src/controller/wire.ts';
import {
  Admin,
  AllocateProducerIdResponseSchema,
  AlterTopicConfigsResponseSchema,
  CreateTopicResponseSchema,
  ReassignPartitionsResponseSchema,
} from '../../src/gen/flotilla/v1/admin_pb.ts';
import { encodeImage } from '../../src/metadata/checkpoint.ts';
import { type MetadataRecord, metadataCodec } from '../../src/metadata/records.ts';
import { MetadataStore } from '../../src/metadata/view.ts';
import { EntryKind } from '../../src/raft/core/entry.ts';
import { type RpcChannel, unaryHandler } from '../../src/rpc/types.ts';
import { encodeRecords } from '../../src/rsm/codec.ts';
import { formed, topicRecord } from '../metadata/arbitrary.ts';
import { FakeGroup, ManualEnvironment, outcome, settled } from '../rsm/fakes.ts';
import { MemoryNetwork } from './memory-rpc.ts';

const registration: RegisterBroker = {
  brokerId: 4 as BrokerId,
  directoryId: 'd'.repeat(32) as DirectoryId,
  incarnation: 3,
  rack: undefined,
  listeners: new Map([['external', 'h4:1']]),
  peerAddress: 'h4:2',
};
const heartbeat: BrokerHeartbeat = {
  brokerId: 4 as BrokerId,
  incarnation: 3,
  leaders: [{ topicId: 'e'.repeat(32) as TopicId, partition: 2, leader: 4 as BrokerId, leaderEpoch: 7 }],
  stopping: true,
  metadataIndex: 11,
};

const report: ReplicaReport = {
  brokerId: 4 as BrokerId,
  incarnation: 3,
  committed: [
    {
      topicId: 'e'.repeat(32) as TopicId,
      partition: 2,
      leaderEpoch: 7,
      index: 2 ** 40,
      targetEpoch: 3,
      voters: [{ replicaId: (2 ** 40) as ReplicaId, brokerId: 4 as BrokerId, directoryId: 'a'.repeat(32) as DirectoryId }],
    },
  ],
  failed: [{ topicId: 'd'.repeat(32) as TopicId, partition: 0, replicaId: 9 as ReplicaId }],
};

class RecordingController implements Controller {
  readonly seen: unknown[] = [];
  failure: FlotillaError | undefined;
  #see<T>(call: unknown, answer: T): Promise<T> {
    if (this.failure !== undefined) return Promise.reject(this.failure);
    this.seen.push(call);
    return Promise.resolve(answer);
  }
  createTopic(request: unknown) {
    return this.#see(request, { topicId: 'f'.repeat(32) as TopicId, index: 42 });
  }
  deleteTopic(request: unknown) {
    return this.#see(request, { topicId: 'f'.repeat(32) as TopicId, index: 43 });
  }
  alterTopicConfigs(change: AlterTopicConfigs) {
    return this.#see(change, { configs: change.set, index: 46 });
  }
  allocateProducerIds(count: number) {
    return this.#see(count, { first: 5, count });
  }
  registerBroker(registration: RegisterBroker) {
    return this.#see(registration, undefined);
  }
  heartbeat(heartbeat: BrokerHeartbeat) {
    return this.#see(heartbeat, undefined);
  }
  reassign(changes: unknown) {
    return this.#see(changes, { index: 44 });
  }
  reportReplicas(report: ReplicaReport) {
    return this.#see(report, { index: 45 });
  }
}

/** A voter: its controller, its log, its image. */
class Voter {
  readonly controller = new RecordingController();
  readonly metadata = new MetadataStore();
  readonly group = new FakeGroup();
  leader: ControllerHint | undefined;

  constructor(network: MemoryNetwork, address: string, environment: ManualEnvironment) {
    const service = controllerService({
      controller: this.controller,
      leader: () => this.leader,
      metadata: this.metadata,
      replica: this.group,
      environment,
      logger: silentLogger,
    });
    const admin = [
      unaryHandler(Admin.method.reassignPartitions, async ({ partitions, forwarded }) => {
        expect(forwarded).toBe(true);
        const { index } = await this.controller.reassign(
          partitions.map(({ topic, partition, brokers, cancel }) => ({ topic, partition, brokers: cancel ? undefined : brokers })),
        );
        return create(ReassignPartitionsResponseSchema, { metadataIndex: BigInt(index) });
      }),
      unaryHandler(Admin.method.alterTopicConfigs, async ({ name, set, remove, validateOnly, forwarded }) => {
        expect(forwarded).toBe(true);
        const change = { name, set: new Map(set.map(({ key, value }) => [key, value])), remove, validateOnly };
        const { configs, index } = await this.controller.alterTopicConfigs(change);
        const entries = Array.from(configs, ([key, value]) => ({ key, value }));
        return create(AlterTopicConfigsResponseSchema, { configs: entries, metadataIndex: BigInt(index) });
      }),
      unaryHandler(Admin.method.createTopic, async (request, { signal }) => {
        const configs = new Map(request.configs.map(({ key, value }) => [key, value]));
        expect(request.forwarded).toBe(true);
        try {
          const { topicId, index } = await this.controller.createTopic({ ...request, configs });
          signal.throwIfAborted();
          return create(CreateTopicResponseSchema, { topic: { topicId: topicIdToBytes(topicId) }, metadataIndex: BigInt(index) });
        } catch (error) {
          return create(CreateTopicResponseSchema, { error: errorToWire(error, this.leader) });
        }
      }),
      unaryHandler(Admin.method.allocateProducerId, async ({ count }) =>
        create(AllocateProducerIdResponseSchema, { firstProducerId: 5n, count }),
      ),
    ] as const;
    network.services.set(address, { unary: new Map([...service.unary, ...admin]), streams: service.streams });
  }
  commit(...records: MetadataRecord[]): void {
    this.group.append({ kind: EntryKind.batch, payload: encodeRecords(metadataCodec, records), recordCount: 0, payloadChecksum: 0 });
    this.group.commit();
    this.metadata.applyEntry(this.group.log.committed, this.group.log.entries.at(-1)!.payload);
  }
}

class World {
  readonly environment = new ManualEnvironment();
  readonly network = new MemoryNetwork();
  readonly voters = new Map<string, Voter>();
  constructor(...addresses: string[]) {
    for (const address of addresses) this.voters.set(address, new Voter(this.network, address, this.environment));
  }
  voter(address: string): Voter {
    return this.voters.get(address)!;
  }
  route(more: Partial<ControllerRoute> = {}) {
    return routeController({
      local: () => undefined,
      leaderAddress: () => undefined,
      addresses: () => [...this.voters.keys()],
      connect: this.network.connect,
      environment: this.environment,
      ...more,
    });
  }
}

const notController = new FlotillaError('NOT_CONTROLLER', 'not me');

describe('routeController', () => {
  test('carries every call to a controller as it was made', async () => {
    const { network, ...world } = new World('a');
    const { seen } = world.voters.get('a')!.controller;
    const controller = routeController({
      local: () => undefined,
      leaderAddress: () => 'a',
      addresses: () => ['a'],
      connect: network.connect,
      environment: world.environment,
    });
    const { signal } = new AbortController();
    await controller.registerBroker(registration, signal);
    await controller.heartbeat(heartbeat, signal);
    const request = { name: 't', partitions: 3, replicas: 2, configs: new Map([['k', 'v']]), validateOnly: true };
    await expect(controller.createTopic(request, signal)).resolves.toEqual({ topicId: 'f'.repeat(32), index: 42 });
    await expect(controller.allocateProducerIds(9, signal)).resolves.toEqual({ first: 5, count: 9 });
    expect(seen[0]).toEqual(registration);
    expect(seen[1]).toMatchObject({ ...heartbeat, leaders: [expect.objectContaining(heartbeat.leaders[0]!)] });
    expect(seen[2]).toMatchObject(request);
    const changes = [
      { topic: 't', partition: 1, brokers: [4, 5] as BrokerId[] },
      { topic: 'u', partition: 0, brokers: undefined },
    ];
    await expect(controller.reassign(changes, signal)).resolves.toEqual({ index: 44 });
    await expect(controller.reportReplicas(report, signal)).resolves.toEqual({ index: 45 });
    const change = { name: 't', set: new Map([['k', 'v']]), remove: ['l'], validateOnly: true };
    await expect(controller.alterTopicConfigs(change, signal)).resolves.toEqual({ configs: change.set, index: 46 });
    expect(seen.slice(-3)).toEqual([changes, report, change]);
  });

  test('follows the hint, and asks there first from then on', async () => {
    const world = new World('a', 'b');
    world.voter('a').controller.failure = notController;
    world.voter('a').leader = { brokerId: 2, address: 'b', leaderEpoch: 1 };
    const controller = world.route({ leaderAddress: () => 'a' });
    await controller.registerBroker(registration, new AbortController().signal);
    await controller.registerBroker(registration, new AbortController().signal);
    expect(world.network.calls).toEqual(['a RegisterBroker', 'b RegisterBroker', 'b RegisterBroker']);
  });

  test('tries all voters until one leads, the local one as soon as it does', async () => {
    const world = new World('a', 'b', 'c');
    for (const { controller } of world.voters.values()) controller.failure = notController;
    let local: Controller | undefined;
    const controller = world.route({ local: () => local });
    const remote = outcome(controller.registerBroker(registration, new AbortController().signal));
    await world.environment.advance(10_000);
    expect(new Set(world.network.calls)).toEqual(new Set(['a RegisterBroker', 'b RegisterBroker', 'c RegisterBroker']));
    expect(remote).toEqual({});
    const here = new RecordingController();
    local = here;
    await world.environment.advance(2_000);
    expect(remote.value).toBe('resolved');
    expect(here.seen).toEqual([registration]);
    world.network.services.clear();
    local = undefined;
    const unreachable = outcome(controller.registerBroker(registration, new AbortController().signal));
    await world.environment.advance(2_000);
    expect(unreachable).toEqual({});
  });

  test('gives up at the signal and says what it saw last', async () => {
    const world = new World();
    const abort = new AbortController();
    const failed = outcome(world.route({ addresses: () => ['gone'] }).heartbeat(heartbeat, abort.signal));
    await world.environment.advance(5_000);
    abort.abort();
    await settled();
    expect(failed.code).toBe('REQUEST_TIMED_OUT');
    expect((failed.error as Error).message).toContain('nobody at gone');
    expect(world.environment.timers).toBe(0);
  });

  test('a hint to who does not answer in time is forgotten: the next call asks others first (broker seed 2771)', async () => {
    const world = new World('a');
    world.voter('a').controller.failure = notController;
    world.voter('a').leader = { brokerId: 2, address: 'b', leaderEpoch: 1 };
    const calls: string[] = [];
    const silent = (signal: AbortSignal | undefined) =>
      new Promise<never>((_, reject) =>
        signal?.addEventListener('abort', () => reject(new FlotillaError('ABORTED', 'the caller gave up'))),
      );
    const connect = (address: string): RpcChannel => {
      const channel = world.network.connect(address);
      return {
        ...channel,
        unary: (method, request, options) => {
          calls.push(address);
          return address === 'b' ? silent(options.signal) : channel.unary(method, request, options);
        },
      };
    };
    const controller = world.route({ connect, addresses: () => ['a'] });
    for (let round = 0; round < 2; round++) {
      const deadline = new AbortController();
      const asked = outcome(controller.registerBroker(registration, deadline.signal));
      await settled();
      expect(calls.splice(0)).toEqual(['a', 'b']);
      deadline.abort();
      await settled();
      expect(asked.code).toBe('ABORTED');
    }
  });

  test('tells whoever waits when its broker stops to ask another', async () => {
    const world = new World();
    const { promise, reject } = Promise.withResolvers();
    const channel = {
      address: 'a',
      unary: () => promise,
      close: () => reject(new FlotillaError('CLOSED', 'the channel to a was closed')),
    };
    const controller = world.route({ addresses: () => ['a'], connect: () => channel as unknown as RpcChannel });
    const waiting = outcome(controller.heartbeat(heartbeat, new AbortController().signal));
    await settled();
    controller.close();
    await world.environment.advance(2_000);
    expect(waiting.code).toBe('BROKER_NOT_AVAILABLE');
  });

  test("the controller's own refusals are the caller's at once", async () => {
    const world = new World('a');
    for (const code of ['BROKER_ID_NOT_REGISTERED', 'DUPLICATE_BROKER_REGISTRATION', 'TOPIC_ALREADY_EXISTS'] as const) {
      world.voter('a').controller.failure = new FlotillaError(code, 'no');
      await expect(world.route().heartbeat(heartbeat, new AbortController().signal)).rejects.toMatchObject({ code });
    }
    expect(world.network.calls).toHaveLength(3);
  });
});

describe('MetadataFollower', () => {
  function follow(world: World, metadata = new MetadataStore()) {
    const failures: Error[] = [];
    const follower = new MetadataFollower({
      brokerId: 6 as BrokerId,
      addresses: () => [...world.voters.keys()],
      connect: world.network.connect,
      metadata,
      environment: world.environment,
      logger: silentLogger,
      failed: (error) => void failures.push(error),
    });
    follower.start();
    return { follower, metadata, failures };
  }
  const topic = (voter: Voter, n: number) => topicRecord(voter.metadata.image, n, [[0, 1]]);

  test('gets what is there and then each entry', async () => {
    const world = new World('a');
    const voter = world.voter('a');
    voter.commit(...formed);
    voter.group.append({ kind: EntryKind.noop, payload: new Uint8Array(), recordCount: 0, payloadChecksum: 0 });
    voter.group.commit();
    voter.metadata.applyEntry(2, new Uint8Array());
    const { metadata, follower } = follow(world);
    await settled();
    expect(metadata.image.index).toBe(2);
    voter.commit(topic(voter, 1));
    await settled();
    expect(encodeImage(metadata.image)).toEqual(encodeImage(voter.metadata.image));
    follower.stop();
    await settled();
    expect(world.environment.timers).toBe(0);
  });

  test('gets a checkpoint when it is far behind, or the log does not reach back', async () => {
    const world = new World('a');
    const voter = world.voter('a');
    voter.commit(...formed);
    for (let i = 0; i < CHECKPOINT_LAG; i++) voter.commit({ type: 'allocateProducerIds', nextProducerId: 2 + i });
    voter.commit(topic(voter, 1));
    const { metadata } = follow(world);
    const indexes: number[] = [];
    metadata.subscribe(({ image }) => void indexes.push(image.index));
    await settled();
    expect(indexes).toEqual([0, CHECKPOINT_LAG + 2]);
    expect(encodeImage(metadata.image)).toEqual(encodeImage(voter.metadata.image));

    const cut = new World('a');
    cut.voter('a').metadata.replace(voter.metadata.image);
    const late = follow(cut);
    await settled();
    expect(late.metadata.image.index).toBe(CHECKPOINT_LAG + 2);
  }, 30_000);

  test('a stream that is full is not sent to until it has drained', async () => {
    const world = new World('a');
    const voter = world.voter('a');
    const { metadata } = follow(world);
    await settled();
    const stream = world.network.streams[0]!;
    stream.full = true;
    voter.commit(...formed);
    await settled();
    voter.commit(topic(voter, 1));
    voter.commit(topic(voter, 2));
    await settled();
    expect(metadata.image.index).toBe(1);
    stream.drain();
    await settled();
    expect(metadata.image.index).toBe(3);
  });

  test('goes to the next voter when a stream breaks, from where it was', async () => {
    const world = new World('a', 'b');
    for (const voter of world.voters.values()) voter.commit(...formed);
    const { metadata } = follow(world);
    await settled();
    for (const voter of world.voters.values()) voter.commit(topic(voter, 1));
    world.network.streams[0]!.break();
    await world.environment.advance(1_000);
    expect(world.network.streams.map(({ address }) => address)).toEqual(['a', 'b']);
    expect(metadata.image.index).toBe(2);
  });

  test('leaves a voter that knows no leader, stays with one that does', async () => {
    const world = new World('a', 'b');
    world.voter('b').leader = { brokerId: 2, address: 'b', leaderEpoch: 1 };
    follow(world);
    await world.environment.advance(FOLLOW_SILENCE_MS + 2_000);
    expect(world.network.streams.map(({ address }) => address)).toEqual(['a', 'b']);
    await world.environment.advance(20 * FOLLOW_KEEPALIVE_MS);
    expect(world.network.streams).toHaveLength(2);
  });

  test('stops at a record that it does not know', async () => {
    const world = new World('a');
    const voter = world.voter('a');
    voter.commit(...formed);
    const { failures, metadata } = follow(world);
    await settled();
    const payload = encodeRecords({ encode: () => ({ type: 77, version: 0, body: new Uint8Array() }), decode: () => '' }, ['']);
    voter.group.append({ kind: EntryKind.batch, payload, recordCount: 0, payloadChecksum: 0 });
    voter.group.commit();
    voter.metadata.applyEntry(2, new Uint8Array());
    await settled();
    expect(failures[0]?.message).toMatch(/after entry 1: unknown record type 77/);
    expect(metadata.image.index).toBe(1);
    await world.environment.advance(60_000);
    expect(world.network.streams).toHaveLength(1);
  });
});

import { describe, expect, test } from 'vitest';
import { silentLogger } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import type { BrokerId, ClusterId, DirectoryId, TopicId } from '../../src/base/ids.ts';
import { SETTLED_MS } from '../../src/controller/balance.ts';
import { QuorumController } from '../../src/controller/controller.ts';
import { MAX_PARTITIONS } from '../../src/controller/policy.ts';
import type { CreateTopic } from '../../src/controller/types.ts';
import { encodeImage } from '../../src/metadata/checkpoint.ts';
import { MetadataStore } from '../../src/metadata/view.ts';
import { FakeGroup, type FakeReplica, ManualEnvironment, MemoryStateStore, neverAborted, outcome, settled } from '../rsm/fakes.ts';

const clusterId = 'c'.repeat(32) as ClusterId;
const directory = (n: number) => n.toString(16).padStart(32, 'd') as DirectoryId;

interface Transfer {
  readonly topicId: TopicId;
  readonly partition: number;
  readonly to: BrokerId;
}

class Node {
  readonly environment: ManualEnvironment;
  readonly metadata = new MetadataStore();
  readonly store = new MemoryStateStore();
  readonly transfers: Transfer[] = [];
  readonly warnings: string[] = [];
  readonly replica: FakeReplica;
  controller!: QuorumController;

  constructor(group: FakeGroup, broker: number, environment = new ManualEnvironment()) {
    this.environment = environment;
    this.replica = group.member(broker);
  }
  async open(cluster = clusterId): Promise<this> {
    this.controller = await QuorumController.open({
      environment: this.environment,
      logger: { ...silentLogger, warn: (event) => void this.warnings.push(event) },
      store: this.store,
      metadata: this.metadata,
      settings: { brokerSessionTimeoutMs: 3000, defaultPartitions: 2, defaultReplicationFactor: 1 },
      cluster: { clusterId: cluster, voters: [{ replicaId: 1 }, { replicaId: 2 }, { replicaId: 3 }] },
      checksum: () => 0,
      validateTopicConfig: (configs) => {
        for (const key of configs.keys()) if (key !== 'retention.ms') throw new FlotillaError('INVALID_CONFIG', `unknown ${key}`);
      },
      transfer: async (topicId, partition, to) => void this.transfers.push({ topicId, partition, to }),
      failed: (error) => {
        throw error;
      },
    });
    this.replica.owner = this.controller.attach(this.replica);
    await settled();
    return this;
  }
  register(brokerId: number, more: { incarnation?: number; directoryId?: DirectoryId; rack?: string } = {}) {
    return this.controller.registerBroker(
      {
        brokerId: brokerId as BrokerId,
        directoryId: more.directoryId ?? directory(brokerId),
        incarnation: more.incarnation ?? 1,
        rack: more.rack,
        listeners: new Map(),
        peerAddress: `h${brokerId}:1`,
      },
      neverAborted,
    );
  }
  heartbeat(
    brokerId: number,
    leaders: readonly { topicId: TopicId; partition: number; leader: BrokerId; leaderEpoch: number }[] = [],
    stopping = false,
  ) {
    return this.controller.heartbeat({ brokerId: brokerId as BrokerId, incarnation: 1, leaders, stopping, metadataIndex: 0 }, neverAborted);
  }
  create(name: string, more: Partial<CreateTopic> = {}) {
    return this.controller.createTopic(
      { name, partitions: 1, replicas: 1, configs: new Map(), validateOnly: false, ...more },
      neverAborted,
    );
  }
  /** Time passes while these brokers are heard. */
  async alive(ms: number, ...brokers: readonly number[]): Promise<void> {
    for (let passed = 0; passed < ms; passed += 500) {
      await this.environment.advance(500);
      for (const broker of brokers) await this.heartbeat(broker);
    }
  }
  broker(id: number) {
    return this.metadata.image.brokers.get(id as BrokerId);
  }
}

async function cluster(brokers = 3): Promise<Node> {
  const group = new FakeGroup();
  const node = await new Node(group, 1).open();
  group.elect(node.replica);
  await settled();
  for (let id = 1; id <= brokers; id++) await node.register(id);
  return node;
}

describe('QuorumController', () => {
  test('the first leader records feature level and cluster', async () => {
    const { metadata } = await cluster(0);
    expect(metadata.image).toMatchObject({ clusterId, featureLevel: 2, nextReplicaId: 4 });
  });

  test("refuses another cluster's metadata", async () => {
    const node = await cluster(1);
    await node.controller.close();
    const other = new Node(new FakeGroup(), 1);
    for (const [key, value] of node.store.map) other.store.map.set(key, value);
    await expect(other.open('b'.repeat(32) as ClusterId)).rejects.toMatchObject({ code: 'INCONSISTENT_CLUSTER_ID' });
  });

  test('creates and deletes topics', async () => {
    const node = await cluster();
    const { topicId, index } = await node.create('orders', { partitions: 6, replicas: 3, configs: new Map([['retention.ms', '1']]) });
    expect(node.metadata.image.index).toBe(index);
    expect(node.metadata.image.topics.get(topicId)?.partitions).toHaveLength(6);
    await expect(node.create('orders')).rejects.toMatchObject({ code: 'TOPIC_ALREADY_EXISTS' });
    await expect(node.controller.deleteTopic({ name: 'other', topicId }, neverAborted)).rejects.toMatchObject({ code: 'UNKNOWN_TOPIC_ID' });
    await expect(node.controller.deleteTopic({ name: 'orders', topicId: undefined }, neverAborted)).resolves.toMatchObject({ topicId });
    await expect(node.controller.deleteTopic({ name: 'orders', topicId: undefined }, neverAborted)).rejects.toMatchObject({
      code: 'UNKNOWN_TOPIC_OR_PARTITION',
    });
    const again = await node.create('orders', { partitions: 0, replicas: 0 });
    expect(again.topicId).not.toBe(topicId);
    expect(node.metadata.image.topics.get(again.topicId)?.partitions).toHaveLength(2);
  });

  test('says what is wrong with a request', async () => {
    const node = await cluster(2);
    const refused = async (name: string, more: Partial<CreateTopic>, code: string, message: RegExp) => {
      const { error } = await node.create(name, more).then(
        () => ({ error: undefined }),
        (error: unknown) => ({ error }),
      );
      expect(error).toMatchObject({ code });
      expect((error as Error).message).toMatch(message);
    };
    await refused('', {}, 'INVALID_TOPIC_EXCEPTION', /empty/);
    await refused('..', {}, 'INVALID_TOPIC_EXCEPTION', /'\.\.'/);
    await refused('a b', {}, 'INVALID_TOPIC_EXCEPTION', /ASCII/);
    await refused('x'.repeat(250), {}, 'INVALID_TOPIC_EXCEPTION', /249/);
    await refused('t', { partitions: 1_000_000 }, 'INVALID_PARTITIONS', new RegExp(`${MAX_PARTITIONS}`));
    await refused('t', { partitions: -1 }, 'INVALID_PARTITIONS', /1 to/);
    await refused('t', { replicas: 3 }, 'INVALID_REPLICATION_FACTOR', /2 live brokers/);
    await refused('t', { configs: new Map([['nonsense', '1']]) }, 'INVALID_CONFIG', /nonsense/);
    await node.create('x'.repeat(249), {});
    expect(node.metadata.image.topics.size).toBe(1);
  });

  test('validateOnly checks everything and creates nothing', async () => {
    const node = await cluster();
    await node.create('t', { validateOnly: true });
    await expect(node.create('t', { validateOnly: true, replicas: 4 })).rejects.toMatchObject({ code: 'INVALID_REPLICATION_FACTOR' });
    expect(node.metadata.image.topics.size).toBe(0);
  });

  test("warns of names that differ by '.' and '_'", async () => {
    const node = await cluster();
    await node.create('a.b');
    await node.create('a_b');
    expect(node.warnings.filter((event) => event.includes('collide'))).toHaveLength(1);
  });

  test('two requests for one name at once: one gets it', async () => {
    const node = await cluster();
    const results = await Promise.allSettled([node.create('t'), node.create('t')]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
  });

  test('a thousand topics come and go', async () => {
    const node = await cluster();
    for (let i = 0; i < 1000; i++) await node.create(`topic-${i}`, { partitions: 2, replicas: 2 });
    const { image } = node.metadata;
    expect([image.topics.size, image.topicIds.size, image.nextReplicaId]).toEqual([1000, 1000, 4 + 4000]);
    const leaders = new Map<number, number>();
    for (const topic of image.topics.values()) {
      for (const { replicas } of topic.partitions) leaders.set(replicas[0]!.brokerId, (leaders.get(replicas[0]!.brokerId) ?? 0) + 1);
    }
    expect(Math.max(...leaders.values()) - Math.min(...leaders.values())).toBeLessThanOrEqual(2);
    for (let i = 0; i < 1000; i++) await node.controller.deleteTopic({ name: `topic-${i}`, topicId: undefined }, neverAborted);
    expect([node.metadata.image.topics.size, node.metadata.image.topicIds.size]).toEqual([0, 0]);
  }, 60_000);

  test('the largest topic fits into an entry', async () => {
    const node = await cluster();
    const { topicId } = await node.create('large', { partitions: MAX_PARTITIONS, replicas: 3 });
    expect(node.metadata.image.topics.get(topicId)?.partitions).toHaveLength(MAX_PARTITIONS);
  }, 60_000);

  test('producer ids are given out once', async () => {
    const node = await cluster();
    const blocks = await Promise.all([1, 10, 1000].map((count) => node.controller.allocateProducerIds(count, neverAborted)));
    expect(blocks).toEqual([
      { first: 1, count: 1 },
      { first: 2, count: 10 },
      { first: 12, count: 1000 },
    ]);
    await expect(node.controller.allocateProducerIds(0, neverAborted)).rejects.toMatchObject({ code: 'INVALID_REQUEST' });
  });

  test('one broker id is one live directory', async () => {
    const node = await cluster(1);
    const wiped = { incarnation: 2, directoryId: directory(99) };
    await expect(node.register(1, wiped)).rejects.toMatchObject({ code: 'DUPLICATE_BROKER_REGISTRATION' });
    await node.register(1, { incarnation: 2 });
    await expect(node.register(1, { incarnation: 1 })).rejects.toMatchObject({ code: 'DUPLICATE_BROKER_REGISTRATION' });
    await expect(node.heartbeat(1)).rejects.toMatchObject({ code: 'BROKER_ID_NOT_REGISTERED' });
    await node.environment.advance(3000);
    await node.register(1, wiped);
    expect(node.broker(1)).toMatchObject({ directoryId: directory(99), fenced: false });
  });

  test('a broker that falls silent is fenced, and back with its heartbeat', async () => {
    const node = await cluster(2);
    await node.alive(4000, 1);
    expect([node.broker(1)?.fenced, node.broker(2)?.fenced]).toEqual([false, true]);
    await expect(node.create('t', { replicas: 2 })).rejects.toMatchObject({ code: 'INVALID_REPLICATION_FACTOR' });
    await node.heartbeat(2);
    expect(node.broker(2)?.fenced).toBe(false);
    await node.heartbeat(2, [], true);
    expect(node.broker(2)?.fenced).toBe(true);
    await expect(node.heartbeat(3)).rejects.toMatchObject({ code: 'BROKER_ID_NOT_REGISTERED' });
  });

  test('reported leaders are monotone; what does not exist is ignored', async () => {
    const node = await cluster();
    const { topicId } = await node.create('t', { replicas: 3 });
    const report = (leader: number, leaderEpoch: number, partition = 0) => [
      { topicId, partition, leader: leader as BrokerId, leaderEpoch },
    ];
    await node.heartbeat(2, report(2, 5));
    await node.heartbeat(1, report(1, 4));
    await node.heartbeat(1, report(1, 6, 7));
    await node.heartbeat(1, [{ topicId: 'e'.repeat(32) as TopicId, partition: 0, leader: 1 as BrokerId, leaderEpoch: 1 }]);
    expect(node.metadata.image.topics.get(topicId)?.partitions[0]).toMatchObject({ leader: 2, leaderEpoch: 5 });
    const { index } = node.metadata.image;
    await node.heartbeat(2, report(2, 5));
    expect(node.metadata.image.index).toBe(index);
  });

  test('leadership goes back to the preferred leader once its broker has settled', async () => {
    const node = await cluster();
    const { topicId } = await node.create('t', { replicas: 3 });
    const [preferred, other] = node.metadata.image.topics.get(topicId)!.partitions[0]!.replicas.map(({ brokerId }) => brokerId);
    const rest = [1, 2, 3].filter((id) => id !== preferred);
    await node.heartbeat(preferred!, [{ topicId, partition: 0, leader: preferred!, leaderEpoch: 1 }]);
    await node.alive(SETTLED_MS + 6000, ...rest);
    await node.heartbeat(other!, [{ topicId, partition: 0, leader: other!, leaderEpoch: 2 }]);
    expect(node.transfers).toEqual([]);
    await node.alive(SETTLED_MS - 1000, 1, 2, 3);
    expect(node.transfers).toEqual([]);
    await node.alive(40_000, 1, 2, 3);
    expect(node.transfers).toEqual([{ topicId, partition: 0, to: preferred }]);
    await node.alive(60_000, 1, 2, 3);
    expect(node.transfers).toHaveLength(2);
    await node.heartbeat(preferred!, [{ topicId, partition: 0, leader: preferred!, leaderEpoch: 3 }]);
    await node.alive(70_000, 1, 2, 3);
    expect(node.transfers).toHaveLength(2);
  });

  test('a disk that was replaced has its replicas replaced, also by the next controller', async () => {
    const group = new FakeGroup();
    const environment = new ManualEnvironment();
    const [one, two] = [await new Node(group, 1, environment).open(), await new Node(group, 2, environment).open()];
    group.elect(one.replica);
    await settled();
    for (const id of [1, 2, 3]) await one.register(id);
    const { topicId } = await one.create('t', { partitions: 2, replicas: 3 });
    const targets = () =>
      two.metadata.image.topics
        .get(topicId)!
        .partitions.map(({ target }) => target?.replicas.find(({ brokerId }) => brokerId === 3)?.directoryId);
    await one.alive(3000, 1, 2);
    await one.register(3, { directoryId: directory(99) });
    // The first controller ends before its next tick.
    group.elect(two.replica);
    await settled();
    expect(targets()).toEqual([undefined, undefined]);
    await two.alive(1000, 1, 2, 3);
    expect(targets()).toEqual([directory(99), directory(99)]);
    const { index } = two.metadata.image;
    await two.alive(5000, 1, 2, 3);
    expect(two.metadata.image.index).toBe(index);
  });

  test('leaders report what has committed, and brokers what they gave up', async () => {
    const node = await cluster();
    const { topicId } = await node.create('t', { replicas: 3 });
    const partition = () => node.metadata.image.topics.get(topicId)!.partitions[0]!;
    const [first, second, third] = partition().replicas;
    await node.heartbeat(first!.brokerId, [{ topicId, partition: 0, leader: first!.brokerId, leaderEpoch: 1 }]);
    const { index } = await node.controller.reassign(
      [{ topic: 't', partition: 0, brokers: [first!.brokerId, second!.brokerId] }],
      neverAborted,
    );
    expect(node.metadata.image.index).toBe(index);
    const report = (incarnation: number) =>
      node.controller.reportReplicas(
        {
          brokerId: first!.brokerId,
          incarnation,
          committed: [{ topicId, partition: 0, leaderEpoch: 1, index: 5, targetEpoch: 1, voters: [first!, second!] }],
          failed: [],
        },
        neverAborted,
      );
    await expect(report(2)).rejects.toMatchObject({ code: 'BROKER_ID_NOT_REGISTERED' });
    await report(1);
    expect(partition()).toMatchObject({ replicas: [first, second], target: undefined });
    const again = await report(1);
    expect(again.index).toBe(node.metadata.image.index);
    const failed = [{ topicId, partition: 0, replicaId: third!.replicaId }];
    await node.controller.reportReplicas({ brokerId: third!.brokerId, incarnation: 1, committed: [], failed }, neverAborted);
    expect(partition().failed).toEqual([]);
  });

  test('three controllers hold one image; the new leader gives everyone a new session', async () => {
    const group = new FakeGroup();
    const environment = new ManualEnvironment();
    const nodes: Node[] = [];
    for (const id of [1, 2, 3]) nodes.push(await new Node(group, id, environment).open());
    const [one, two] = nodes as [Node, Node, Node];
    group.elect(one.replica);
    await settled();
    for (const id of [1, 2, 3]) await one.register(id);
    await environment.advance(2000);
    group.autoCommit = false;
    const lost = outcome(one.create('lost'));
    group.elect(two.replica);
    group.autoCommit = true;
    await environment.advance(2000);
    expect(lost.code).toBe('NOT_CONTROLLER');
    await expect(one.create('t')).rejects.toMatchObject({ code: 'NOT_CONTROLLER' });
    expect(two.broker(3)?.fenced).toBe(false);
    await two.create('t', { partitions: 3, replicas: 3 });
    await environment.advance(5000);
    expect([...two.metadata.image.brokers.values()].every(({ fenced }) => fenced)).toBe(true);
    const images = nodes.map(({ metadata }) => encodeImage(metadata.image));
    expect(images[0]).toEqual(images[1]);
    expect(images[2]).toEqual(images[1]);
    expect([...two.metadata.image.topicIds.keys()]).toEqual(['t']);

    const again = new Node(group, 1, environment);
    again.store.map.set('rsm/metadata/checkpoint', [...one.store.map.values()][0]!);
    await again.open();
    await environment.advance(10);
    expect(encodeImage(again.metadata.image)).toEqual(images[1]);
    for (const node of [...nodes, again]) await node.controller.close();
    expect(environment.timers).toBe(0);
  });
});

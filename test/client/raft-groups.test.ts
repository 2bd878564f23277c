/** How the answers of many brokers become one list: scripted brokers that answer in small pages, lag, and fail. */
import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { FlotillaError } from '../../src/base/errors.ts';
import { compareGroupNames, formatGroupName, parseGroupName } from '../../src/base/group-name.ts';
import { type TopicId, topicIdToBytes } from '../../src/base/ids.ts';
import type { Cluster } from '../../src/client/cluster.ts';
import { describeRaftGroup, listRaftGroups, PAGE_TIMEOUT_MS } from '../../src/client/raft-groups.ts';
import { MetadataResponseSchema } from '../../src/gen/flotilla/v1/admin_pb.ts';
import {
  type DescribeReplicasRequest,
  DescribeReplicasResponseSchema,
  RaftReplicaSchema,
  RaftRole,
} from '../../src/gen/flotilla/v1/raft_groups_pb.ts';

const topicId = 'a'.repeat(32) as TopicId;
const PAGE = 3;

interface Told {
  readonly group: string;
  readonly role?: RaftRole;
  readonly term?: number;
  readonly leader?: number;
  readonly topicId?: TopicId;
  readonly generation?: number;
}

class ScriptedBroker {
  readonly asked: DescribeReplicasRequest[] = [];
  readonly timeouts: number[] = [];
  replicas: Told[] = [];
  alive = true;
  /** The error of the n-th page from 1 on. */
  fail: (page: number) => FlotillaError | undefined = () => undefined;
  readonly id: number;

  constructor(id: number, replicas: readonly Told[]) {
    this.id = id;
    this.replicas = [...replicas];
  }

  describe(request: DescribeReplicasRequest) {
    this.asked.push(request);
    const error = this.fail(this.asked.length);
    if (error !== undefined) throw error;
    const { group, topic, after } = request;
    const isDue = (name: string) => after === '' || compareGroupNames(parseGroupName(name), parseGroupName(after)) > 0;
    const due = this.replicas.filter((each) => (group === '' || each.group === group) && isDue(each.group) && each.group.startsWith(topic));
    const replicas = due.slice(0, PAGE).map((told) =>
      create(RaftReplicaSchema, {
        group: told.group,
        topicId: topicIdToBytes(told.topicId ?? (told.group === 'metadata' ? (`${'0'.repeat(31)}1` as TopicId) : topicId)),
        generation: told.generation ?? 0,
        replicaId: BigInt(this.id),
        role: told.role ?? RaftRole.FOLLOWER,
        term: BigInt(told.term ?? 1),
        leaderReplicaId: BigInt(told.leader ?? 0),
        leaderBrokerId: told.leader ?? 0,
        configuration: { voters: [1, 2].map((id) => ({ replicaId: BigInt(id), brokerId: id, directoryId: '' })) },
      }),
    );
    return create(DescribeReplicasResponseSchema, { replicas, more: due.length > PAGE });
  }
}

/** A client's cluster of which the metadata know `partitions` of `orders`. */
function clusterOf(brokers: readonly ScriptedBroker[], partitions: number): Cluster {
  const metadata = create(MetadataResponseSchema, {
    brokers: brokers.map(({ id, alive }) => ({ brokerId: id, address: `b:${id}`, alive })),
    topics: [
      {
        name: 'orders',
        topicId: topicIdToBytes(topicId),
        partitions: Array.from({ length: partitions }, (_, partition) => ({ partition, replicas: [1, 2] })),
      },
    ],
  });
  const channel = (address: string) => ({
    unary: async (method: { name: string }, request: DescribeReplicasRequest, { timeoutMs }: { timeoutMs: number }) => {
      if (method.name === 'Metadata') return metadata;
      const broker = brokers.find(({ id }) => address === `b:${id}`)!;
      broker.timeouts.push(timeoutMs);
      return broker.describe(request);
    },
  });
  return {
    environment: { monotonicMs: () => 0 },
    channels: { get: channel },
    metadata: { addresses: () => ['b:1'] },
    closing: new AbortController().signal,
  } as unknown as Cluster;
}

async function all(cluster: Cluster, topic?: string) {
  const groups = [];
  for await (const group of listRaftGroups(cluster, { topic })) groups.push(group);
  return groups;
}

const names = Array.from({ length: 11 }, (_, partition) => formatGroupName({ topic: 'orders', partition }));
const following = names.map((group) => ({ group, leader: 1 }));
const leading = names.map((group) => ({ group, leader: 1, role: RaftRole.LEADER }));

describe('the list', () => {
  it('is put together from pages that end at different groups', async () => {
    const brokers = [
      new ScriptedBroker(1, [{ group: 'metadata' }, ...leading]),
      new ScriptedBroker(
        2,
        following.filter((_, at) => at % 2 === 0),
      ),
    ];
    const groups = await all(clusterOf(brokers, 11));
    expect(groups.map(({ name }) => name)).toEqual(['metadata', ...names]);
    expect(groups.slice(1).map(({ replicas }) => replicas.map(({ brokerId }) => brokerId))).toEqual(
      names.map((_, at) => (at % 2 === 0 ? [1, 2] : [1])),
    );
    expect(brokers[0]!.asked.map(({ after }) => after)).toEqual(['', 'orders/1', 'orders/4', 'orders/7']);
    expect(brokers[1]!.asked.map(({ after }) => after)).toEqual(['', 'orders/4']);
    expect(brokers[0]!.timeouts).toEqual([PAGE_TIMEOUT_MS, PAGE_TIMEOUT_MS, PAGE_TIMEOUT_MS, PAGE_TIMEOUT_MS]);
  });

  it('asks for a page no sooner than it is needed', async () => {
    const broker = new ScriptedBroker(1, [{ group: 'metadata' }, ...leading]);
    for await (const { name } of listRaftGroups(clusterOf([broker], 11), {})) if (name === 'orders/0') break;
    expect(broker.asked).toHaveLength(1);
  });

  it('goes on without a broker that fails in between, and does not ask it again', async () => {
    const [one, two] = [new ScriptedBroker(1, leading), new ScriptedBroker(2, following)];
    two.fail = (page) => (page === 2 ? new FlotillaError('REQUEST_TIMED_OUT', 'b:2 did not answer in time.') : undefined);
    const groups = await all(clusterOf([one, two], 11), 'orders');
    expect(groups.map(({ replicas }) => replicas.length)).toEqual(names.map((_, at) => (at < 3 ? 2 : 1)));
    expect(groups.map(({ silent }) => silent.map(({ brokerId }) => brokerId))).toEqual(names.map((_, at) => (at < 3 ? [] : [2])));
    expect(two.asked).toHaveLength(2);
  });

  it('gives a broker that is taken for dead less time, and shows groups that nobody has', async () => {
    const broker = new ScriptedBroker(1, []);
    broker.alive = false;
    broker.fail = () => new FlotillaError('NETWORK_EXCEPTION', 'gone');
    const groups = await all(clusterOf([broker], 2));
    expect(groups.map(({ name, replicas }) => [name, replicas.length])).toEqual([
      ['metadata', 0],
      ['orders/0', 0],
      ['orders/1', 0],
    ]);
    expect(groups[1]!.problems.map(({ kind, brokerId }) => [kind, brokerId])).toEqual([
      ['no-leader', undefined],
      ['not-open', 2],
      ['no-answer', 1],
    ]);
    expect(broker.timeouts).toEqual([1_000]);
  });

  it('a defect is thrown, not taken for silence', async () => {
    const broker = new ScriptedBroker(1, []);
    broker.fail = () => new TypeError('defect') as never;
    await expect(all(clusterOf([broker], 1))).rejects.toThrow('defect');
  });
});

describe('a group', () => {
  const described = (...brokers: ScriptedBroker[]) => describeRaftGroup(clusterOf(brokers, 1), 'orders/0');

  it('has the leader of the highest term, of those that think so', async () => {
    const told = (role: RaftRole, term: number) => [{ group: 'orders/0', role, term }];
    const group = await described(new ScriptedBroker(1, told(RaftRole.LEADER, 3)), new ScriptedBroker(2, told(RaftRole.LEADER, 4)));
    expect(group).toMatchObject({ leader: { brokerId: 2 }, term: 4 });
    expect(group.problems.map(({ kind, brokerId }) => [kind, brokerId])).toContainEqual(['two-leaders', 1]);
  });

  it('has the leader that the others follow only where that one is silent', async () => {
    const follower = () => new ScriptedBroker(2, [{ group: 'orders/0', leader: 1, term: 3 }]);
    const hung = new ScriptedBroker(1, []);
    hung.fail = () => new FlotillaError('REQUEST_TIMED_OUT', 'hung');
    expect((await described(hung, follower())).leader).toEqual({ brokerId: 1, replicaId: 1 });
    const awake = new ScriptedBroker(1, [{ group: 'orders/0', term: 3 }]);
    expect((await described(awake, follower())).leader).toBeUndefined();
  });

  it('leaves out replicas of a deleted topic of the same name, and of an older generation', async () => {
    const other = [{ group: 'orders/0', topicId: 'b'.repeat(32) as TopicId }];
    expect((await described(new ScriptedBroker(1, other), new ScriptedBroker(2, [{ group: 'orders/0' }]))).replicas).toMatchObject([
      { brokerId: 2 },
    ]);
    const newer = [{ group: 'orders/0', generation: 1 }];
    const group = await described(new ScriptedBroker(1, newer), new ScriptedBroker(2, [{ group: 'orders/0' }]));
    expect(group).toMatchObject({ generation: 1, replicas: [{ brokerId: 1 }] });
  });

  it('a broker that has not heard of the topic has no replica, and is not silent', async () => {
    const late = new ScriptedBroker(2, []);
    late.fail = () => new FlotillaError('UNKNOWN_TOPIC_OR_PARTITION', 'no topic');
    const group = await described(new ScriptedBroker(1, [{ group: 'orders/0', role: RaftRole.LEADER, leader: 1 }]), late);
    expect(group.silent).toEqual([]);
    expect(group.problems).toMatchObject([
      { kind: 'not-open', brokerId: 2 },
      { kind: 'not-ready', brokerId: 1 },
    ]);
  });

  it('an older broker is silent', async () => {
    const old = new ScriptedBroker(2, []);
    old.fail = () => new FlotillaError('UNSUPPORTED_VERSION', 'b:2 does not serve this call');
    expect((await described(new ScriptedBroker(1, [{ group: 'orders/0' }]), old)).silent).toMatchObject([
      { brokerId: 2, error: { code: 'UNSUPPORTED_VERSION' } },
    ]);
  });
});

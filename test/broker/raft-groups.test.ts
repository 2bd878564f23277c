/** Raft groups through the SDK, against three production brokers in simulation; and the pages of one broker. */
import { create } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RaftGroupDescription } from '../../src/client/index.ts';
import { Admin } from '../../src/gen/flotilla/v1/admin_pb.ts';
import { DescribeReplicasRequestSchema } from '../../src/gen/flotilla/v1/raft_groups_pb.ts';
import { SimWorld } from './sim-world.ts';

let world: SimWorld;
beforeAll(async () => {
  world = await SimWorld.start();
  for (const name of ['orders', 'audit']) {
    await world.settle(
      world.client.admin.createTopic({ name, partitions: name === 'orders' ? 12 : 1, replicas: name === 'orders' ? 3 : 2 }),
    );
  }
});
afterAll(() => world[Symbol.asyncDispose]());

const describeGroup = (name: string) => world.settle(world.client.admin.describeRaftGroup(name));

async function list(topic?: string): Promise<RaftGroupDescription[]> {
  const groups: RaftGroupDescription[] = [];
  const all = async () => {
    for await (const group of world.client.admin.listRaftGroups({ topic })) groups.push(group);
  };
  await world.settle(all());
  return groups;
}

/** One page, straight from a broker. */
function page(broker: number, init: { group?: string; topic?: string; after?: string; limit?: number }) {
  const request = create(DescribeReplicasRequestSchema, init);
  return world.settle(world.connect(`broker-${broker}:9000`).unary(Admin.method.describeReplicas, request, { timeoutMs: 5_000 }));
}

const orders = Array.from({ length: 12 }, (_, partition) => `orders/${partition}`);

describe('with all brokers up', () => {
  it('a group is described by each of its replicas', async () => {
    await world.send({ name: 'orders', topicId: new Uint8Array() }, 'a', 'b', 'c');
    const group = await describeGroup('orders/3');
    expect(group).toMatchObject({ name: 'orders/3', topic: 'orders', partition: 3, generation: 0, silent: [], problems: [] });
    expect(group.replicas.map(({ brokerId }) => brokerId)).toEqual([1, 2, 3]);
    const leader = group.replicas.find(({ role }) => role === 'leader');
    expect(leader).toMatchObject({ ...group.leader, ready: true, term: group.term, commitIndex: group.commitIndex, membership: 'voter' });
    expect(leader?.followers.map(({ brokerId, lag, state }) => ({ brokerId, lag, state }))).toEqual(
      expect.arrayContaining(
        [1, 2, 3].filter((id) => id !== leader?.brokerId).map((brokerId) => ({ brokerId, lag: 0, state: 'replicate' })),
      ),
    );
    for (const replica of group.replicas) expect(replica.leader).toEqual(group.leader);
    expect(group.configuration).toMatchObject({ index: 0, committed: true, joint: false, outgoing: [], learners: [] });
    expect(group.configuration?.voters.map(({ replicaId }) => replicaId).sort()).toEqual(
      group.replicas.map(({ replicaId }) => replicaId).sort(),
    );
  });

  it('the metadata log is one too', async () => {
    const group = await describeGroup('metadata');
    expect(group).toMatchObject({ name: 'metadata', topic: undefined, topicId: `${'0'.repeat(31)}1`, problems: [] });
    expect(group.replicas).toHaveLength(3);
    expect(group.commitIndex).toBeGreaterThan(5);
  });

  it('all are listed by name, or those of a topic', async () => {
    const groups = await list();
    expect(groups.map(({ name }) => name)).toEqual(['metadata', 'audit/0', ...orders]);
    expect(groups.flatMap(({ problems }) => problems)).toEqual([]);
    expect(groups.map(({ replicas }) => replicas.length)).toEqual([3, 2, ...orders.map(() => 3)]);
    expect((await list('audit')).map(({ name }) => name)).toEqual(['audit/0']);
  });

  it('a broker tells page by page, with a bound', async () => {
    const first = await page(1, { limit: 5, topic: 'orders' });
    expect(first.replicas.map(({ group }) => group)).toEqual(orders.slice(0, 5));
    expect(first.more).toBe(true);
    const second = await page(1, { limit: 5, topic: 'orders', after: 'orders/4' });
    expect(second.replicas.map(({ group }) => group)).toEqual(orders.slice(5, 10));
    const last = await page(1, { limit: 5, topic: 'orders', after: 'orders/9' });
    expect(last.replicas.map(({ group }) => group)).toEqual(orders.slice(10));
    expect(last.more).toBe(false);
    expect(await page(1, { after: 'metadata', limit: 2 ** 31 })).toMatchObject({ more: false });
    expect((await page(1, { after: 'orders/11' })).replicas).toEqual([]);
  });

  it.each(['orders', '', 'orders/x', '/0', 'orders/-1'])('%j names no group', async (name) => {
    await world.refused(world.client.admin.describeRaftGroup(name), 'INVALID_REQUEST', /give TOPIC\/PARTITION/);
    if (name !== '') expect((await page(1, { group: name })).error).toMatchObject({ code: 42 });
    if (name !== '') expect((await page(1, { after: name })).error).toMatchObject({ code: 42 });
  });

  it('what is not there is unknown', async () => {
    const { admin } = world.client;
    await world.refused(admin.describeRaftGroup('nothing/0'), 'UNKNOWN_TOPIC_OR_PARTITION', /nothing/);
    await world.refused(admin.describeRaftGroup('orders/12'), 'UNKNOWN_TOPIC_OR_PARTITION', /0 to 11, not 12/);
    await world.refused(list('nothing'), 'UNKNOWN_TOPIC_OR_PARTITION', /nothing/);
    expect((await page(1, { group: 'nothing/0' })).error).toMatchObject({ code: 3 });
    expect((await page(1, { group: 'orders/12' })).error).toMatchObject({ code: 3 });
  });

  it('an aborted list says so, an abandoned one ends', async () => {
    const aborting = new AbortController();
    const groups = world.client.admin.listRaftGroups({}, { signal: aborting.signal })[Symbol.asyncIterator]();
    expect((await world.settle(groups.next())).value).toMatchObject({ name: 'metadata' });
    aborting.abort();
    await world.refused(groups.next(), 'ABORTED', /abort/);
    const others = world.client.admin.listRaftGroups()[Symbol.asyncIterator]();
    await world.settle(others.next());
    expect(await world.settle(others.return?.() as Promise<IteratorResult<unknown>>)).toMatchObject({ done: true });
  });
});

describe('with a broker down', () => {
  it('the others still tell, and it is named', async () => {
    world.cluster.kill(3);
    await world.settle(new Promise<void>((resolve) => world.cluster.client('clock').environment.after(8_000, resolve)));
    const group = await describeGroup('orders/0');
    expect(group.leader?.brokerId).not.toBe(3);
    expect(group.replicas.map(({ brokerId }) => brokerId)).toEqual([1, 2]);
    expect(group.silent).toMatchObject([{ brokerId: 3, alive: false }]);
    expect(group.problems).toMatchObject([{ kind: 'no-answer', brokerId: 3, message: expect.stringContaining('takes it for dead') }]);
    expect([...(group.inSync ?? [])].sort()).toEqual([1, 2]);
    const groups = await list('orders');
    expect(groups.map(({ name }) => name)).toEqual(orders);
    for (const { problems } of groups) expect(problems.map(({ kind }) => kind)).toEqual(['no-answer']);
  });

  it('with the majority down, there is no leader, and it is said why', async () => {
    world.cluster.kill(2);
    await world.settle(new Promise<void>((resolve) => world.cluster.client('clock').environment.after(5_000, resolve)));
    const { leader, problems, replicas } = await describeGroup('orders/0');
    expect({ leader, brokers: replicas.map(({ brokerId }) => brokerId) }).toEqual({ leader: undefined, brokers: [1] });
    expect(problems.map(({ kind, brokerId }) => [kind, brokerId])).toEqual([
      ['no-leader', undefined],
      ['no-answer', 2],
      ['no-answer', 3],
    ]);
    expect(problems[0]?.message).toContain('1 of 3 voters answered');
  });
});

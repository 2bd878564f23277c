import { afterEach, describe, expect, test } from 'vitest';
import { MembersWorld } from './members-world.ts';

let world: MembersWorld;
afterEach(() => world.close());

describe('a partition', () => {
  test('moves to other brokers under load, and nothing is lost', async () => {
    world = await MembersWorld.start();
    await world.topic('t', 1, 2, 3);
    world.load('t');
    await world.cluster.time.run(500);
    await world.move('t', 4, 2, 5);
    await world.moved('t', 4, 2, 5);
    await world.cluster.time.run(1000);
    await world.nothingLost('t');
    expect(await world.directories('t')).toEqual([2, 4, 5]);
  });

  test('gets more replicas and fewer again', async () => {
    world = await MembersWorld.start(2);
    await world.topic('t', 4);
    world.load('t');
    await world.cluster.time.run(500);
    await world.move('t', 4, 1, 5);
    await world.moved('t', 4, 1, 5);
    await world.move('t', 5);
    await world.moved('t', 5);
    await world.cluster.time.run(1000);
    await world.nothingLost('t');
    expect(await world.directories('t')).toEqual([5]);
  });

  test('heals by itself when a broker comes back with an empty disk', async () => {
    world = await MembersWorld.start(3);
    await world.topic('t', 4, 2, 5);
    world.load('t', 20);
    await world.cluster.time.run(500);
    world.cluster.wipe(4);
    await world.cluster.time.run(5000);
    await world.restart(4);
    await world.cluster.time.run(5000);
    await world.moved('t', 4, 2, 5);
    await world.nothingLost('t');
    expect(await world.directories('t')).toEqual([2, 4, 5]);
  });
});

describe('a move goes on', () => {
  /** After so many milliseconds of a move: before anybody has heard of it, while learners come, while the configuration is joint, while it is reported. */
  const delaysMs = [1, 104, 118, 204];
  const sets = [
    [4, 2, 5],
    [1, 4, 3],
    [5, 2, 3],
  ];

  test.each(['the leader', 'the controller', 'a newcomer'])('when %s is killed in the middle of it, whenever that is', async (victim) => {
    world = await MembersWorld.start(4);
    await world.topic('t', 1, 2, 3);
    world.load('t', 20);
    for (const [at, delayMs] of delaysMs.entries()) {
      const before = (await world.partition('t'))!.replicas;
      const target = sets[at % sets.length]!;
      const leader = await world.leader('t');
      const controller = await world.controller();
      const newcomer = target.find((id) => !before.includes(id))!;
      await world.move('t', ...target);
      await world.cluster.time.run(delayMs);
      const killed = victim === 'the leader' ? leader : victim === 'the controller' ? controller : newcomer;
      world.cluster.kill(killed);
      await world.cluster.time.run(1500);
      await world.restart(killed);
      await world.moved('t', ...target);
    }
    await world.nothingLost('t');
    await world.cluster.time.run(1000);
    expect(await world.directories('t')).toEqual([2, 4, 5]);
  });

  test('and can be taken back; what it brought is removed', async () => {
    world = await MembersWorld.start(5);
    await world.topic('t', 1, 2, 3);
    world.load('t', 20);
    for (const delayMs of [1, 50, 110, 120, 210]) {
      await world.move('t', 4, 5, 3);
      await world.cluster.time.run(delayMs);
      const cancelled = world.settle(world.client.admin.cancelReassignments([{ topic: 't', partition: 0 }]));
      // It may have been there already.
      const there = await cancelled.then(
        () => false,
        (error) => (error as { code: string }).code === 'NO_REASSIGNMENT_IN_PROGRESS',
      );
      if (there) await world.move('t', 1, 2, 3);
      await world.moved('t', 1, 2, 3);
    }
    await world.nothingLost('t');
    await world.cluster.time.run(1000);
    expect(await world.directories('t')).toEqual([1, 2, 3]);
  });

  test('until its topic is deleted, and nothing of it is left', async () => {
    world = await MembersWorld.start(6);
    for (const delayMs of [1, 30, 104, 118, 204]) {
      await world.topic('t', 1, 2, 3);
      await world.move('t', 4, 2, 5);
      await world.cluster.time.run(delayMs);
      const { topicId } = (await world.settle(world.client.admin.listTopics()))[0]!;
      await world.settle(world.client.admin.deleteTopic('t'));
      await world.cluster.time.run(1000);
      expect(await world.holders(topicId)).toEqual([]);
      expect(await world.settle(world.client.admin.listReassignments())).toEqual([]);
    }
  });
});

describe('a replica that is lost', () => {
  test('is replaced on its broker when its log can not be proved whole', async () => {
    world = await MembersWorld.start(7);
    await world.topic('t', 4, 2, 5);
    world.load('t', 20);
    await world.cluster.time.run(500);
    const { topicId } = (await world.settle(world.client.admin.listTopics()))[0]!;
    world.cluster.kill(4);
    const { disk } = world.cluster.machine(4);
    await world.settle(disk.removeTree(`/data/groups/${topicId}-0.0`));
    await world.settle(disk.syncDirectory('/data/groups'));
    await world.restart(4);
    await world.cluster.time.run(3000);
    await world.moved('t', 4, 2, 5);
    const healed = [...world.cluster.machine(4).broker!.replicas].filter(({ leadership }) => leadership.term > 0);
    expect(healed).toHaveLength(1);
    await world.nothingLost('t');
  });

  test('is not replaced while it is the only one: it waits for its disk', async () => {
    world = await MembersWorld.start(8);
    await world.topic('t', 4);
    const before = await world.partition('t');
    world.cluster.wipe(4);
    await world.cluster.time.run(5000);
    await world.restart(4);
    await world.cluster.time.run(5000);
    expect(await world.settle(world.client.admin.listReassignments())).toEqual([]);
    expect((await world.partition('t'))!.replicas).toEqual(before!.replicas);
    expect(await world.directories('t')).toEqual([]);
  });

  test('one after the other, all disks of a partition may be replaced', async () => {
    world = await MembersWorld.start(9);
    await world.topic('t', 4, 2, 5);
    world.load('t', 20);
    for (const id of [4, 5, 4]) {
      world.cluster.wipe(id);
      await world.cluster.time.run(4000);
      await world.restart(id);
      await world.cluster.time.run(1000);
      await world.moved('t', 4, 2, 5);
    }
    await world.nothingLost('t');
  });
});

test('what a person gets wrong is said at once', async () => {
  world = await MembersWorld.start(10);
  await world.topic('t', 1, 2, 3);
  const refused = (promise: Promise<unknown>, code: string) => expect(world.settle(promise, 1000)).rejects.toMatchObject({ code });
  const { admin } = world.client;
  await refused(admin.reassignPartitions([{ topic: 't', partition: 0, brokers: [9] }]), 'INVALID_REPLICA_ASSIGNMENT');
  await refused(admin.reassignPartitions([{ topic: 'u', partition: 0, brokers: [1] }]), 'UNKNOWN_TOPIC_OR_PARTITION');
  await refused(admin.cancelReassignments([{ topic: 't', partition: 0 }]), 'NO_REASSIGNMENT_IN_PROGRESS');
  await refused(admin.listReassignments(['u']), 'UNKNOWN_TOPIC_OR_PARTITION');
  world.cluster.kill(5);
  await world.cluster.time.run(500);
  await world.move('t', 1, 2, 5);
  expect(await world.settle(admin.listReassignments(['t']))).toEqual([
    { topic: 't', partition: 0, replicas: [1, 2, 3], target: [1, 2, 5] },
  ]);
  await refused(admin.reassignPartitions([{ topic: 't', partition: 0, brokers: [1, 2, 4] }]), 'REASSIGNMENT_IN_PROGRESS');
});

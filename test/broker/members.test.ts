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
    world.load('t');
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

import { afterEach, describe, expect, test } from 'vitest';
import { Client } from '../../src/client/client.ts';
import { SimCluster } from '../sim/cluster.ts';

const IDS = [1, 2, 3];

/** The production brokers and SDK with default settings, on virtual time; what they can't do in it, they would not do on a machine. */
class World {
  readonly cluster: SimCluster;
  client!: Client;

  constructor(seed: number) {
    this.cluster = new SimCluster({ seed, brokers: 3, settings: { 'flotilla.wal.file.bytes': '1MiB' } });
  }

  get time() {
    return this.cluster.time;
  }

  async start(): Promise<void> {
    await this.cluster.startAll();
    const { signal } = new AbortController();
    await this.time.settle(Promise.all(this.cluster.machines.map(({ broker }) => broker!.ready(signal))), 10_000);
    this.client = await this.time.settle(Client.open(this.cluster.client('client'), { bootstrap: this.cluster.bootstrap }), 10_000);
    await this.time.settle(this.client.admin.createTopic({ name: 't', partitions: 3, replicas: 3 }), 10_000);
  }

  /** A partition that the controller leads, or one that it does not. */
  async partition(ofController: boolean): Promise<{ readonly leader: number; readonly partition: number }> {
    const { controllerId: controller } = await this.time.settle(this.client.admin.describeCluster(), 10_000);
    const { partitions } = await this.time.settle(this.client.admin.describeTopic('t'), 10_000);
    const found = partitions.find(({ leader }) => leader !== undefined && (leader === controller) === ofController);
    if (found?.leader === undefined) throw new Error('leaders are spread over the brokers');
    return { leader: found.leader, partition: found.partition };
  }

  /** Both directions of all links of the broker swallow everything. */
  cutOff(broker: number, fromClient: boolean): void {
    const others = [...IDS.filter((id) => id !== broker).map((id) => `broker-${id}`), ...(fromClient ? ['client'] : [])];
    for (const other of others) {
      this.cluster.network.block(`broker-${broker}`, other);
      this.cluster.network.block(other, `broker-${broker}`);
    }
  }
}

const faults = {
  'kill -9': { withinMs: 1_000, strike: (world: World, leader: number) => world.cluster.kill(leader) },
  'a stopped process': { withinMs: 3_000, strike: (world: World, leader: number) => world.cluster.pause(leader, 60_000) },
  'links that swallow all': { withinMs: 3_000, strike: (world: World, leader: number) => world.cutOff(leader, true) },
  'links between brokers that swallow all': { withinMs: 3_000, strike: (world: World, leader: number) => world.cutOff(leader, false) },
};

describe.each(Object.entries(faults))('after %s of a leader', (_, { withinMs, strike }) => {
  let world: World;
  afterEach(async () => {
    world.cluster.network.heal();
    const closed = world.client.close({ deadlineMs: 0 });
    await world.time.settle(closed, 30_000);
  });

  test.each([
    [true, 1],
    [true, 2],
    [false, 3],
    [false, 4],
  ])(`records are acknowledged and read again in time (the controller, too: %s; seed %i)`, async (ofController, seed) => {
    world = new World(seed);
    await world.start();
    const { leader, partition } = await world.partition(ofController);
    const producer = world.client.producer();
    const consumer = world.client.consumer({ topics: ['t'], from: 'beginning' });
    const records = consumer[Symbol.asyncIterator]();
    await world.time.settle(producer.send('t', { value: 'before', partition }), 10_000);
    await world.time.settle(records.next(), 10_000);
    await world.time.run(700);

    const next = records.next();
    strike(world, leader);
    const struckMs = world.time.nowMs;
    await world.time.settle(producer.send('t', { value: 'after', partition }), withinMs);
    const { value } = await world.time.settle(next, withinMs - (world.time.nowMs - struckMs));
    expect(new TextDecoder().decode(value?.value ?? undefined)).toBe('after');
    expect(world.cluster.failures).toEqual([]);
  });
});

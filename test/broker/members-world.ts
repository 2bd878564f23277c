import { expect } from 'vitest';
import type { Logger } from '../../src/base/environment.ts';
import { Client } from '../../src/client/client.ts';
import type { Producer } from '../../src/client/producer.ts';
import { SimCluster } from '../sim/cluster.ts';

/** Five production brokers in simulation, the first three of them controllers, and a client that produces unique values all the time. */
export class MembersWorld {
  readonly cluster: SimCluster;
  readonly acknowledged: string[] = [];
  readonly failures: unknown[] = [];
  client!: Client;
  #producer!: Producer;
  #next = 0;
  #loading = false;

  private constructor(seed: number, log?: Logger) {
    const settings = { 'flotilla.wal.file.bytes': '1MiB' };
    this.cluster = new SimCluster({ seed, brokers: 5, settings, ...(log === undefined ? {} : { log }) });
  }

  static async start(seed = 1, log?: Logger): Promise<MembersWorld> {
    const world = new MembersWorld(seed, log);
    const { cluster } = world;
    await cluster.startAll();
    const { signal } = new AbortController();
    await world.settle(Promise.all(cluster.machines.map(({ broker }) => broker!.ready(signal))));
    world.client = await world.settle(Client.open(cluster.client('client'), { bootstrap: cluster.bootstrap }));
    world.#producer = world.client.producer();
    return world;
  }

  settle<T>(promise: Promise<T>, withinMs = 60_000): Promise<T> {
    return this.cluster.time.settle(promise, withinMs);
  }

  /** A topic of one partition on these brokers. */
  async topic(name: string, ...brokers: number[]): Promise<void> {
    await this.settle(this.client.admin.createTopic({ name, partitions: 1, replicas: brokers.length }));
    await this.move(name, ...brokers);
    await this.moved(name, ...brokers);
  }

  move(topic: string, ...brokers: number[]): Promise<void> {
    return this.settle(this.client.admin.reassignPartitions([{ topic, partition: 0, brokers }]));
  }

  async partition(topic: string) {
    const topics = await this.settle(this.client.admin.listTopics());
    return topics.find(({ name }) => name === topic)?.partitions[0];
  }

  /** Waits until the metadata show the partition on these brokers, and nothing under way. */
  async moved(topic: string, ...brokers: number[]): Promise<void> {
    for (let waited = 0; ; waited += 200) {
      const under = await this.settle(this.client.admin.listReassignments());
      const replicas = (await this.partition(topic))?.replicas;
      if (under.length === 0 && replicas?.join() === brokers.join()) return;
      if (waited > 60_000) throw new Error(`${topic} is on ${replicas}, under way: ${JSON.stringify(under)}`);
      await this.cluster.time.run(200);
    }
  }

  /** Sends to the partition every few milliseconds until {@link settled}. */
  load(topic: string, everyMs = 5): void {
    this.#loading = true;
    const environment = this.cluster.client('load').environment;
    const send = () => {
      if (!this.#loading) return;
      const value = `v${this.#next++}`;
      this.#producer.send(topic, { value, partition: 0 }).then(
        () => void this.acknowledged.push(value),
        (error: unknown) => void this.failures.push(error),
      );
      environment.after(everyMs, send);
    };
    send();
  }

  /** Ends the load; everything that was sent has been acknowledged, and is read back once, in order. */
  async nothingLost(topic: string): Promise<void> {
    this.#loading = false;
    await this.settle(this.#producer.flush());
    expect(this.failures).toEqual([]);
    expect(this.acknowledged).toHaveLength(this.#next);
    const read: string[] = [];
    const consumer = this.client.consumer({ topics: [topic], from: 'beginning' });
    const records = consumer[Symbol.asyncIterator]();
    while (read.length < this.#next) {
      const { value, done } = await this.settle(records.next());
      if (done) break;
      read.push(new TextDecoder().decode(value.value ?? undefined));
    }
    await this.settle(consumer.close());
    expect(read).toEqual(Array.from({ length: this.#next }, (_, i) => `v${i}`));
  }

  /** The brokers that hold something of the topic. */
  async directories(topic: string): Promise<number[]> {
    return this.holders((await this.settle(this.client.admin.listTopics())).find(({ name }) => name === topic)!.topicId);
  }

  async holders(topicId: string): Promise<number[]> {
    const holders: number[] = [];
    for (const { id: broker, disk } of this.cluster.machines) {
      const names = await this.settle(disk.list('/data/groups'));
      if (names.some((name) => name.startsWith(topicId))) holders.push(broker);
    }
    return holders;
  }

  async restart(id: number): Promise<void> {
    await this.settle(this.cluster.start(id));
    await this.settle(this.cluster.machine(id).broker!.ready(new AbortController().signal));
  }

  async leader(topic: string): Promise<number> {
    for (let waited = 0; waited < 20_000; waited += 100) {
      const leader = (await this.partition(topic))?.leader;
      if (leader !== undefined && this.cluster.isUp(leader)) return leader;
      await this.cluster.time.run(100);
    }
    throw new Error(`${topic} has no leader`);
  }

  async controller(): Promise<number> {
    for (;;) {
      const { controllerId } = await this.settle(this.client.admin.describeCluster());
      if (controllerId !== undefined && this.cluster.isUp(controllerId)) return controllerId;
      await this.cluster.time.run(100);
    }
  }

  async close(): Promise<void> {
    this.#loading = false;
    expect(this.cluster.failures).toEqual([]);
    await this.settle(this.client.close({ deadlineMs: 0 }));
    for (const { id } of this.cluster.machines) this.cluster.kill(id);
  }
}

import { beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import type { Partition } from '../../src/broker/partition.ts';
import { TombstoneFloors } from '../../src/broker/tombstone-floors.ts';
import type { RpcChannel } from '../../src/rpc/types.ts';
import { ManualEnvironment, settled } from './manual-environment.ts';

const INTERVAL_MS = 1_000;
const RETENTION_MS = 16_000;

interface Told {
  replicaId: number;
  settledTo: number;
  notOpen?: string;
  quarantined?: string;
}

let environment: ManualEnvironment;
/** By broker. */
let told: Map<number, Told | Error>;
let alive: Set<number>;
let asked: string[];
let raised: number[];
let partition: ReturnType<typeof fakePartition>;
let floors: TombstoneFloors;

function fakePartition() {
  const member = (id: number) => ({ replicaId: 10 + id, brokerId: id, directoryId: 'd' });
  const log = { tombstoneFloor: 0 };
  return {
    topic: 'orders',
    partition: 3,
    compaction: { compacts: true, deleteRetentionMs: RETENTION_MS },
    own: 100,
    settledTo() {
      return this.own;
    },
    replica: {
      replicaId: 11,
      configurationIndex: 1,
      configuration: { voters: [1, 2].map(member), outgoing: [] as unknown[], learners: [member(3)] },
      leadership: { ready: true, term: 4 },
      states: ['replicate', 'replicate'],
      describe() {
        return { followers: this.states.map((state) => ({ state })) };
      },
      log,
    },
    async raiseTombstoneFloor(floor: number) {
      raised.push(floor);
      log.tombstoneFloor = floor;
    },
  };
}

beforeEach(() => {
  environment = new ManualEnvironment();
  told = new Map([
    [2, { replicaId: 12, settledTo: 90 }],
    [3, { replicaId: 13, settledTo: 80 }],
  ]);
  alive = new Set([2, 3]);
  asked = [];
  raised = [];
  partition = fakePartition();
  floors = new TombstoneFloors({
    partitions: { all: () => [partition as unknown as Partition] },
    channel: (broker) =>
      ({
        unary: async (_method: unknown, { group }: { group: string }) => {
          asked.push(`${broker}: ${group}`);
          const answer = told.get(broker);
          if (answer instanceof Error || answer === undefined) throw answer ?? new FlotillaError('BROKER_NOT_AVAILABLE', 'gone');
          const { replicaId, settledTo, notOpen = '', quarantined = '' } = answer;
          return { replicas: [{ replicaId: BigInt(replicaId), settledTo: BigInt(settledTo), notOpen, quarantined }] };
        },
      }) as unknown as RpcChannel,
    isAlive: (broker) => alive.has(broker),
    environment,
    log: silentLogger,
    intervalMs: INTERVAL_MS,
    requestTimeoutMs: 1_000,
  });
  floors.start();
});

async function pass(): Promise<void> {
  environment.advance(INTERVAL_MS);
  await settled();
}

describe('the tombstone floor', () => {
  it('is what all members have had clean for long enough, learners too; who has told all is asked no more', async () => {
    await pass();
    expect(raised).toEqual([80]);
    expect(asked).toEqual(['2: orders/3', '3: orders/3']);
    partition.own = 80;
    await pass();
    expect(asked).toHaveLength(2);
    partition.own = 120;
    told.set(3, { replicaId: 13, settledTo: 110 });
    await pass();
    expect(raised).toEqual([80, 90]);
    await floors.stop();
    expect(environment.timers).toBe(0);
  });

  it.each<[string, () => void]>([
    ['this broker does not lead', () => Object.assign(partition.replica.leadership, { ready: false })],
    ['the topic is not compacted', () => Object.assign(partition.compaction, { compacts: false })],
    ['a member is down', () => void alive.delete(3)],
    ['a member gets a snapshot', () => void partition.replica.states.splice(0, 1, 'snapshot')],
    ['a member is not known yet to follow', () => void partition.replica.states.splice(0, 1, 'probe')],
  ])('stays, and nobody is asked, where %s', async (_why, change) => {
    change();
    await pass();
    expect([raised, asked]).toEqual([[], []]);
  });

  it.each<[string, () => void]>([
    ['a member does not answer', () => void told.delete(2)],
    ['a member has another replica now', () => void told.set(2, { replicaId: 22, settledTo: 90 })],
    ['a member is not open', () => void told.set(2, { replicaId: 12, settledTo: 90, notOpen: 'no' })],
    ['a member is quarantined', () => void told.set(2, { replicaId: 12, settledTo: 90, quarantined: 'it differs' })],
    ['a member has not cleaned', () => void told.set(2, { replicaId: 12, settledTo: 0 })],
  ])('stays where %s, and is asked for again after a while', async (_why, change) => {
    change();
    await pass();
    expect(raised).toEqual([]);
    const once = asked.length;
    expect(once).toBeGreaterThan(0);
    told.set(2, { replicaId: 12, settledTo: 90 });
    partition.compaction.deleteRetentionMs = 32 * INTERVAL_MS;
    await pass();
    expect(raised).toEqual([80]);
  });

  it.each<[string, () => void]>([
    ['another one leads', () => Object.assign(partition.replica.leadership, { term: 5 })],
    ['a member came', () => Object.assign(partition.replica, { configurationIndex: 2 })],
    ['a member began to get a snapshot', () => void partition.replica.states.splice(0, 1, 'snapshot')],
    ['the own log was replaced', () => Object.assign(partition, { own: 0 })],
  ])('stays where meanwhile %s', async (_why, change) => {
    environment.advance(INTERVAL_MS);
    change();
    await settled();
    expect(asked).toHaveLength(2);
    expect(raised).toEqual([]);
  });
});

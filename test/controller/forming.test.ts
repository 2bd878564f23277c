import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { silentLogger } from '../../src/base/environment.ts';
import { FlotillaError } from '../../src/base/errors.ts';
import type { BrokerId, DirectoryId } from '../../src/base/ids.ts';
import { ClusterFormation, type ConfiguredVoter, type DirectoryIdentity, type FormedCluster } from '../../src/controller/forming.ts';
import { ManualEnvironment, neverAborted, settled } from '../rsm/fakes.ts';

/** A disk survives crashes of the broker on it; a wipe replaces it. */
interface Directory {
  readonly directoryId: DirectoryId;
  cluster: FormedCluster | undefined;
}

class Broker {
  directory: Directory;
  formation: ClusterFormation | undefined;
  stop = new AbortController();
  readonly reasons: string[] = [];
  constructor(directory: Directory) {
    this.directory = directory;
  }
}

/** Brokers whose messages arrive and whose writes end when the test picks them, in any order. */
class World {
  readonly environment = new ManualEnvironment();
  readonly voters: ConfiguredVoter[];
  readonly brokers = new Map<number, Broker>();
  /** All directories that ever held a cluster. */
  readonly formed: { brokerId: number; directory: Directory }[] = [];
  readonly pending: (() => void)[] = [];
  #directories = 0;

  constructor(voters: number, others = 0) {
    this.voters = Array.from({ length: voters }, (_, i) => ({ brokerId: (i + 1) as BrokerId, address: `${i + 1}` }));
    for (let id = 1; id <= voters + others; id++) {
      this.brokers.set(id, new Broker(this.#mkfs()));
    }
  }

  #mkfs(): Directory {
    return { directoryId: (++this.#directories).toString(16).padStart(32, '0') as DirectoryId, cluster: undefined };
  }

  start(id: number): void {
    const broker = this.brokers.get(id)!;
    if (broker.formation !== undefined) return;
    const { directory } = broker;
    const stop = new AbortController();
    broker.stop = stop;
    const formation = new ClusterFormation({
      self: { brokerId: id as BrokerId, directoryId: directory.directoryId, cluster: directory.cluster },
      voters: this.voters,
      identify: (address, asker) => this.#identify(Number(address), asker, stop.signal),
      persist: (cluster) =>
        this.#later(stop.signal, () => {
          directory.cluster = cluster;
          this.formed.push({ brokerId: id, directory });
        }),
      environment: this.environment,
      logger: { ...silentLogger, warn: (_event, fields) => void broker.reasons.push(JSON.stringify(fields)) },
    });
    broker.formation = formation;
    formation.form(stop.signal).catch(() => {});
  }

  crash(id: number): void {
    const broker = this.brokers.get(id)!;
    broker.stop.abort();
    broker.formation = undefined;
  }

  wipe(id: number): void {
    this.crash(id);
    this.brokers.get(id)!.directory = this.#mkfs();
  }

  /** Runs when picked, unless the broker that waits for it has crashed. */
  #later<T>(signal: AbortSignal, work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.pending.push(() => {
        if (signal.aborted) return;
        try {
          resolve(work());
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  async #identify(to: number, asker: DirectoryIdentity, signal: AbortSignal): Promise<DirectoryIdentity> {
    // The request and the answer each take their own time; an answer outlives the broker that gave it.
    const answer = await this.#later(signal, () => {
      const { formation } = this.brokers.get(to)!;
      if (formation === undefined) throw new FlotillaError('NETWORK_EXCEPTION', `broker ${to} is down`);
      return formation.answer(asker);
    });
    return this.#later(signal, () => answer);
  }

  async pick(number: number): Promise<void> {
    if (this.pending.length === 0) await this.environment.advance(600);
    else this.pending.splice(number % this.pending.length, 1)[0]!();
    await settled();
  }

  async run(steps: number): Promise<void> {
    for (let i = 0; i < steps; i++) await this.pick(0);
  }

  clusterOf(id: number): FormedCluster | undefined {
    return this.brokers.get(id)!.directory.cluster;
  }

  /** Clusters of which a majority of the recorded directories exist and belong to it: those could elect a leader. */
  working(): string[] {
    const clusters = new Map(this.formed.map(({ directory }) => [directory.cluster!.clusterId, directory.cluster!]));
    return [...clusters.values()]
      .filter(({ clusterId, voters }) => {
        const there = voters.filter(({ brokerId, directoryId }) => {
          const { directory } = this.brokers.get(brokerId)!;
          return directory.directoryId === directoryId && directory.cluster?.clusterId === clusterId;
        });
        return there.length > voters.length / 2;
      })
      .map(({ clusterId }) => clusterId);
  }
}

describe('ClusterFormation', () => {
  test('voters and others form one cluster, with the directories that answered', async () => {
    const world = new World(3, 2);
    for (const id of world.brokers.keys()) world.start(id);
    await world.run(300);
    const cluster = world.clusterOf(1)!;
    expect(cluster.voters).toEqual(
      [1, 2, 3].map((id) => ({ replicaId: id, brokerId: id, directoryId: world.brokers.get(id)!.directory.directoryId })),
    );
    for (const id of [2, 3, 4, 5]) expect(world.clusterOf(id)).toEqual(cluster);
    await expect(world.brokers.get(4)!.formation!.form(neverAborted)).resolves.toEqual(cluster);
  });

  test('a single voter forms its cluster at once', async () => {
    const world = new World(1);
    world.start(1);
    await world.run(5);
    expect(world.clusterOf(1)?.voters).toHaveLength(1);
  });

  test('nothing is formed while a voter does not answer, and the log says which', async () => {
    const world = new World(3);
    world.start(1);
    world.start(2);
    await world.run(200);
    expect(world.formed).toEqual([]);
    expect(world.brokers.get(1)!.reasons.join()).toMatch(/no answer from 3 \(3\)/);
    world.start(3);
    await world.run(200);
    expect(new Set(world.formed.map(({ directory }) => directory.cluster?.clusterId)).size).toBe(1);
    expect(world.formed).toHaveLength(3);
  });

  test('an empty lowest voter forms nothing where another one belongs to a cluster', async () => {
    const world = new World(3);
    for (const id of [1, 2, 3]) world.start(id);
    await world.run(300);
    const { clusterId } = world.clusterOf(1)!;
    world.wipe(1);
    world.crash(3);
    world.start(1);
    await world.run(300);
    expect(world.clusterOf(1)).toBeUndefined();
    expect(world.brokers.get(1)!.reasons.join()).toMatch(/wiped or replaced/);
    expect(world.working()).toEqual([clusterId]);
  });

  test('a crash before or after the write leaves one cluster', async () => {
    for (const after of [0, 1]) {
      const world = new World(3);
      for (const id of [1, 2, 3]) world.start(id);
      while (world.formed.length < after || (after === 0 && world.environment.now < 2000)) await world.pick(0);
      world.crash(1);
      await world.run(50);
      world.start(1);
      await world.run(300);
      expect(world.formed.length).toBeGreaterThanOrEqual(3);
      expect(world.working()).toHaveLength(1);
    }
  });

  test('an answer from a disk that was wiped since is thrown away', async () => {
    const world = new World(3);
    const old: FormedCluster = {
      clusterId: 'a'.repeat(32) as never,
      voters: [1, 2, 3].map((id) => ({
        replicaId: id as never,
        brokerId: id as BrokerId,
        directoryId: world.brokers.get(id)!.directory.directoryId,
      })),
    };
    world.brokers.get(1)!.directory.cluster = old;
    world.start(1);
    world.start(2);
    // Broker 1 answers broker 2; the answer is on its way while broker 1 loses its disk and begins anew.
    while (world.pending.length > 2) await world.pick(0);
    await world.pick(0);
    const late = world.pending.splice(0);
    expect(late.length).toBeGreaterThan(0);
    world.wipe(1);
    world.start(3);
    world.start(1);
    for (let i = 0; i < 100 && world.clusterOf(1) === undefined; i++) await world.pick(0);
    for (const arrives of late) arrives();
    await world.run(300);
    expect(world.clusterOf(1)?.clusterId).not.toBe(old.clusterId);
    expect(world.clusterOf(2)).toEqual(world.clusterOf(1));
    expect(world.clusterOf(3)).toEqual(world.clusterOf(1));
  });

  test('two clusters behind one list of voters are not joined', async () => {
    const world = new World(3);
    const strange = (clusterId: string): FormedCluster => ({ clusterId: clusterId as never, voters: [] });
    world.brokers.get(1)!.directory.cluster = strange('a'.repeat(32));
    world.brokers.get(2)!.directory.cluster = strange('b'.repeat(32));
    for (const id of [1, 2, 3]) world.start(id);
    await world.run(100);
    expect(world.clusterOf(3)).toBeUndefined();
    expect(world.brokers.get(3)!.reasons.join()).toMatch(/two clusters/);
  });

  test('any interleaving of messages, writes and crashes: one cluster id', async () => {
    const step = fc.oneof(
      { weight: 12, arbitrary: fc.nat().map((pick) => ({ kind: 'pick' as const, pick })) },
      { weight: 1, arbitrary: fc.integer({ min: 1, max: 4 }).map((id) => ({ kind: 'crash' as const, id })) },
      { weight: 3, arbitrary: fc.integer({ min: 1, max: 4 }).map((id) => ({ kind: 'start' as const, id })) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 120 }), async (steps) => {
        const world = new World(3, 1);
        for (const one of steps) {
          if (one.kind === 'pick') await world.pick(one.pick);
          else if (one.kind === 'crash') world.crash(one.id);
          else world.start(one.id);
          expect(new Set(world.formed.map(({ directory }) => directory.cluster?.clusterId)).size).toBeLessThanOrEqual(1);
        }
        for (const id of world.brokers.keys()) world.start(id);
        await world.run(400);
        for (const id of world.brokers.keys()) expect(world.clusterOf(id)?.clusterId).toBe(world.clusterOf(1)!.clusterId);
      }),
      { numRuns: 150 },
    );
  }, 60_000);

  test('any interleaving with wiped disks as well: never two clusters that could work', async () => {
    const id = fc.integer({ min: 1, max: 3 });
    const step = fc.oneof(
      { weight: 10, arbitrary: fc.nat().map((pick) => ({ kind: 'pick' as const, pick })) },
      { weight: 1, arbitrary: id.map((id) => ({ kind: 'crash' as const, id })) },
      { weight: 1, arbitrary: id.map((id) => ({ kind: 'wipe' as const, id })) },
      { weight: 3, arbitrary: id.map((id) => ({ kind: 'start' as const, id })) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 150 }), async (steps) => {
        const world = new World(3);
        for (const voter of [1, 2, 3]) world.start(voter);
        for (const one of steps) {
          if (one.kind === 'pick') await world.pick(one.pick);
          else if (one.kind === 'crash') world.crash(one.id);
          else if (one.kind === 'wipe') world.wipe(one.id);
          else world.start(one.id);
          expect(world.working().length).toBeLessThanOrEqual(1);
        }
      }),
      { numRuns: 300 },
    );
  }, 60_000);
});

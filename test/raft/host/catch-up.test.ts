import { expect, test } from 'vitest';
import { silentLogger } from '../../../src/base/environment.ts';
import type { ReplicaId } from '../../../src/base/ids.ts';
import { CatchUp } from '../../../src/raft/catch-up.ts';
import type { Entry } from '../../../src/raft/core/entry.ts';
import type { RaftReplica } from '../../../src/raft/replica.ts';
import { chainOf } from '../../storage/fixture.ts';
import { groupKey } from './cluster.ts';
import { VirtualEnvironment } from './virtual-environment.ts';

const PAGE = chainOf(1, { bytes: 952 });

/** A follower so many entries behind, whose replica notes when it is supplied, and asks on. */
class Follower {
  supplies = 0;
  readonly replica: RaftReplica;

  constructor(environment: VirtualEnvironment, catchUp: () => CatchUp, lag: number, asksOn: boolean) {
    const replica = {
      group: groupKey(0),
      lastIndex: 1_000_000,
      closed: false,
      reading: new Set<ReplicaId>(),
      log: {
        readEntries: async () => {
          await new Promise<void>((resolve) => environment.after(1, resolve));
          return PAGE;
        },
      },
      supply: (_to: ReplicaId, _entries: readonly Entry[]) => {
        this.supplies++;
        if (asksOn) this.ask(catchUp(), lag);
      },
    };
    this.replica = replica as unknown as RaftReplica;
  }

  ask(catchUp: CatchUp, lag: number): void {
    catchUp.request(this.replica, { to: 7 as ReplicaId, fromIndex: this.replica.lastIndex - lag, maxBytes: 1000 });
  }
}

function world(settings: { maxCatchUpBytes: number; catchUpBytesPerSecond: number }) {
  const environment = new VirtualEnvironment();
  const catchUp = new CatchUp({ scheduler: environment, log: silentLogger, settings });
  const follower = (lag: number, asksOn = true): Follower => {
    const made = new Follower(environment, () => catchUp, lag, asksOn);
    made.ask(catchUp, lag);
    return made;
  };
  return { environment, catchUp, follower };
}

test('the one that is nearly there comes first, and the far ones never starve', async () => {
  // One read at a time.
  const { environment, follower } = world({ maxCatchUpBytes: 1000, catchUpBytesPerSecond: Number.POSITIVE_INFINITY });
  const far = [follower(900_000), follower(800_000)];
  const near = [follower(10), follower(20)];
  await environment.run(2_000);
  const [farSupplies, nearSupplies] = [far, near].map((some) => some.reduce((sum, { supplies }) => sum + supplies, 0)) as [number, number];
  expect(nearSupplies).toBeGreaterThan(2 * farSupplies);
  for (const { supplies } of far) expect(supplies).toBeGreaterThan(50);
});

test('so many bytes a second, and so many at a time', async () => {
  const { environment, follower } = world({ maxCatchUpBytes: 3000, catchUpBytesPerSecond: 50_000 });
  const followers = Array.from({ length: 6 }, (_, i) => follower(1000 * (i + 1)));
  await environment.run(0.5);
  await environment.run(10_000);
  const supplies = followers.reduce((sum, each) => sum + each.supplies, 0);
  // 1000 bytes an entry, header included: 50 a second.
  expect(supplies).toBeGreaterThan(480);
  expect(supplies).toBeLessThan(520);
});

test('a follower has one read at a time', async () => {
  const { environment, catchUp, follower } = world({ maxCatchUpBytes: 1e9, catchUpBytesPerSecond: Number.POSITIVE_INFINITY });
  const one = follower(5, false);
  one.ask(catchUp, 5);
  one.ask(catchUp, 5);
  await environment.run(10);
  expect(one.supplies).toBe(1);
});

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FlotillaError } from '../../src/base/errors.ts';
import { nextMembers } from '../../src/broker/reassignments.ts';
import type { CommittedConfiguration } from '../../src/controller/types.ts';
import { type MetadataImage, namedReplicas } from '../../src/metadata/image.ts';
import { membersOf } from '../../src/raft/core/configuration.ts';
import { enter, isJoint, leave } from '../../src/raft/core/membership.ts';
import type { Configuration } from '../../src/raft/core/types.ts';
import { Quorum, topicId } from '../controller/quorum.ts';
import { replica } from '../metadata/arbitrary.ts';

const [one, two, three, four, five] = [1, 2, 3, 4, 5].map((id) => replica(id, id)) as [Member, Member, Member, Member, Member];
type Member = ReturnType<typeof replica>;
const configuration = (voters: Member[], learners: Member[] = []): Configuration => ({ voters, outgoing: [], learners });

describe('nextMembers', () => {
  test('new replicas learn first, then the target votes, in its order', () => {
    const target = [four, two, five];
    expect(nextMembers(configuration([one, two]), target)).toEqual({ voters: [one, two], learners: [four, five] });
    expect(nextMembers(configuration([one, two], [four]), target)).toEqual({ voters: [one, two], learners: [four, five] });
    expect(nextMembers(configuration([one, two], [five, four]), target)).toEqual({ voters: target, learners: [] });
    expect(nextMembers(configuration(target), target)).toBeUndefined();
    expect(nextMembers(configuration([two, four, five]), target)).toEqual({ voters: target, learners: [] });
  });

  test('learners of an earlier target go', () => {
    expect(nextMembers(configuration([one, two], [three]), [one, two])).toEqual({ voters: [one, two], learners: [] });
    expect(nextMembers(configuration([one, two], [three]), [one, four])).toEqual({ voters: [one, two], learners: [four] });
  });
});

/**
 * The protocol between controller and leaders, with everything that can be late: each broker's metadata, reports, elections, appended configurations that
 * may or may not survive their leader. The functions are the broker's own.
 */
class Model {
  readonly quorum = new Quorum();
  readonly images: MetadataImage[] = [this.quorum.image];
  /** How far each broker has followed `images`. */
  readonly seen = new Map<number, number>();
  readonly reports: [number, CommittedConfiguration][] = [];
  leader = 1;
  term = 1;
  /** In the leader's log: the last committed configuration, and one after it. */
  committed = configuration(this.quorum.partition.replicas as Member[]);
  index = 0;
  appended: Configuration | undefined;
  moves = 0;

  do(decision: () => void): void {
    try {
      decision();
    } catch (error) {
      if (!(error instanceof FlotillaError)) throw error;
    }
    if (this.images.at(-1) !== this.quorum.image) this.images.push(this.quorum.image);
  }

  /** What the leader's broker knows. */
  image() {
    return this.images[this.seen.get(this.leader) ?? 0]!.topics.get(topicId)!.partitions[0]!;
  }

  follow(broker: number, steps: number): void {
    this.seen.set(broker, Math.min(this.images.length - 1, (this.seen.get(broker) ?? 0) + steps));
  }

  /** A voter takes over; what was not committed survives, or not. */
  elect(choice: number, survives: boolean): void {
    if (survives && this.appended !== undefined) this.commit();
    // A new leader goes on from its log.
    this.appended = isJoint(this.committed) ? leave(this.committed) : undefined;
    const voters = [...this.committed.voters, ...this.committed.outgoing];
    this.leader = voters[choice % voters.length]!.brokerId;
    this.term++;
  }

  step(): void {
    const { target, leader, leaderEpoch, configuration: reported, targetEpoch } = this.image();
    if (target === undefined || leader !== this.leader || leaderEpoch !== this.term) return;
    if (this.appended !== undefined || isJoint(this.committed)) return;
    const next = nextMembers(this.committed, target.replicas);
    if (next !== undefined) this.appended = enter(this.committed, next, () => true);
    const { voters, learners } = this.committed;
    if (learners.length > 0 || (next !== undefined && this.index <= reported.index)) return;
    this.reports.push([this.leader, { topicId, partition: 0, leaderEpoch, index: this.index, targetEpoch, voters }]);
  }

  commit(): void {
    if (this.appended === undefined) return;
    this.moves++;
    this.committed = this.appended;
    this.index++;
    this.appended = isJoint(this.committed) ? leave(this.committed) : undefined;
  }

  report(choice: number): void {
    const [from, report] = this.reports[choice % Math.max(1, this.reports.length)] ?? [];
    if (from !== undefined && report !== undefined) this.do(() => this.quorum.report(from, [report]));
  }

  /** No member of the group, present or to come, may be one that its broker takes for gone. */
  check(): void {
    const named = new Set(namedReplicas(this.quorum.partition).map(({ replicaId }) => replicaId));
    for (const each of [this.committed, this.appended])
      for (const { replicaId } of each === undefined ? [] : membersOf(each))
        if (!named.has(replicaId)) throw new Error(`replica ${replicaId} is a member, and named are ${[...named]}`);
  }

  /** Everything arrives, and nothing more is decided. */
  settle(): void {
    for (let round = 0; round < 20; round++) {
      this.do(() => this.quorum.lead(this.leader, this.term));
      this.follow(this.leader, this.images.length);
      this.step();
      this.report(this.reports.length - 1);
      while (this.appended !== undefined) this.commit();
      this.check();
    }
  }
}

const action = fc.record({
  kind: fc.constantFrom(
    'move',
    'move',
    'cancel',
    'repair',
    'fail',
    'wipe',
    'lead',
    'follow',
    'follow',
    'follow',
    'elect',
    'step',
    'step',
    'step',
    'commit',
    'commit',
    'commit',
    'report',
    'report',
    'report',
  ),
  a: fc.nat(1000),
  b: fc.nat(1000),
} as const);

function act(model: Model, { kind, a, b }: { kind: string; a: number; b: number }): void {
  const { quorum } = model;
  const broker = 1 + (a % 5);
  if (kind === 'move') model.do(() => quorum.move(...[0, 1, 2, 3, 4].slice(0, 1 + (b % 3)).map((at) => 1 + ((a + at) % 5))));
  else if (kind === 'cancel') model.do(() => quorum.cancel());
  else if (kind === 'repair') model.do(() => void quorum.repair());
  else if (kind === 'fail')
    model.do(() => namedReplicas(quorum.partition).some(({ brokerId }) => brokerId === broker) && quorum.fail(broker));
  else if (kind === 'wipe' && b % 4 === 0) model.do(() => quorum.wipe(broker));
  else if (kind === 'lead') model.do(() => quorum.lead(model.leader, model.term));
  else if (kind === 'follow') model.follow(a % 2 === 0 ? model.leader : broker, 1 + (b % 3));
  else if (kind === 'elect') model.elect(a, b % 2 === 0);
  else if (kind === 'step') model.step();
  else if (kind === 'commit') model.commit();
  else if (kind === 'report') model.report(model.reports.length - 1 - (a % 3));
}

/** The steps of a case that fast-check found, each with a = b = 0 unless it says so. */
function played(...kinds: string[]): Model {
  const model = new Model();
  for (const kind of kinds) {
    act(model, { kind, a: 0, b: 0 });
    model.check();
  }
  return model;
}

test('a learner that a cancelled target brought is a member until its leader has let go of it', () => {
  const begun = ['lead', 'move', 'follow', 'follow', 'cancel', 'step', 'commit', 'commit', 'follow', 'step'];
  const model = played(...begun, 'move', 'commit', 'follow', 'step', 'report');
  model.settle();
  expect(model.quorum.partition.target).toBeUndefined();
});

test('whatever comes late, no member of a group is taken for gone, and every target is reached in the end', () => {
  let moves = 0;
  fc.assert(
    fc.property(fc.array(action, { minLength: 20, maxLength: 200, size: 'max' }), (actions) => {
      const model = new Model();
      for (const each of actions) {
        act(model, each);
        model.check();
      }
      model.settle();
      const { target, replicas } = model.quorum.partition;
      expect(target).toBeUndefined();
      expect(membersOf(model.committed).map(({ replicaId }) => replicaId)).toEqual(replicas.map(({ replicaId }) => replicaId));
      moves += model.moves;
    }),
    { numRuns: 1000 },
  );
  expect(moves).toBeGreaterThan(1000);
});

import { describe, expect, it } from 'vitest';
import { configuration, group, leading, member, replica, silent } from './raft-fixtures.ts';

const words = (described: ReturnType<typeof group>) =>
  described.problems.map(({ kind, brokerId, message }) => `${kind} ${brokerId ?? '-'}: ${message}`);

describe('problems of a Raft group', () => {
  it('a healthy group has none', () => {
    expect(words(group())).toEqual([]);
  });

  it('without a leader: for want of a majority, or of an election', () => {
    const alone = group({
      leader: undefined,
      inSync: undefined,
      replicas: [replica(1, { leader: undefined })],
      silent: [silent(2, false), silent(3)],
    });
    expect(words(alone)).toEqual([
      'no-leader -: it has no leader: 1 of 3 voters answered, and 2 are needed to elect one',
      "no-answer 2: broker 2 did not answer, and the controller takes it for dead: host-2:9400 can't be reached",
      "no-answer 3: broker 3 did not answer: host-3:9400 can't be reached",
    ]);
    const electing = group({
      leader: undefined,
      inSync: undefined,
      replicas: [1, 2, 3].map((id) => replica(id, { role: 'preCandidate' })),
    });
    expect(words(electing)).toEqual(['no-leader -: it has no leader: an election is under way, or its voters do not reach each other']);
    const gone = group({
      leader: undefined,
      inSync: undefined,
      replicas: [],
      configuration: undefined,
      silent: [1, 2, 3].map((id) => silent(id)),
    });
    expect(words(gone)).toHaveLength(4);
    expect(words(gone)[0]).toBe('no-leader -: it has no leader: no replica of it answered');
  });

  it('a joint configuration needs a majority of the outgoing voters too', () => {
    const joint = configuration({ voters: [1, 2, 3].map(member), outgoing: [4, 5, 6].map(member), ageMs: 1_000 });
    const described = group({
      leader: undefined,
      configuration: joint,
      replicas: [replica(1), replica(2), replica(4)],
      silent: [3, 5, 6].map((id) => silent(id)),
    });
    expect(words(described)[0]).toBe('no-leader -: it has no leader: 1 of 3 outgoing voters answered, and 2 are needed to elect one');
  });

  it('a quarantined voter elects nobody', () => {
    const replicas = [
      replica(1),
      replica(2, { quarantined: 'its log differs from index 7 on' }),
      replica(3, { notOpen: 'the disk', role: undefined }),
    ];
    expect(words(group({ leader: undefined, replicas }))).toEqual([
      'no-leader -: it has no leader: 1 of 3 voters answered, and 2 are needed to elect one',
      'quarantined 2: the replica of broker 2 takes no part: its log differs from index 7 on',
      'not-open 3: the replica of broker 3 is not open: the disk',
    ]);
  });

  it('two leaders, and one that does not serve yet', () => {
    const replicas = [leading(1, { ready: false }), leading(2, { term: 3 }), replica(3)];
    expect(group({ replicas }).problems.map(({ kind, brokerId }) => [kind, brokerId])).toEqual([
      ['two-leaders', 2],
      ['not-ready', 1],
    ]);
  });

  it('followers that are not in sync, but not those that are down, nor learners', () => {
    const leader = leading(1, { inSync: [1] });
    const followers = leader.followers.map((each) => ({ ...each, matchIndex: 4, lag: 1200, state: 'snapshot' as const }));
    const learner = { ...followers[0]!, ...member(4), membership: 'learner' as const };
    const replicas = [{ ...leader, followers: [...followers, learner] }, replica(2), replica(4, { membership: 'learner' })];
    const described = group({ inSync: [1], replicas, configuration: configuration({ learners: [member(4)] }), silent: [silent(3)] });
    expect(words(described)).toEqual([
      "no-answer 3: broker 3 did not answer: host-3:9400 can't be reached",
      'behind 2: broker 2 is not in sync: it holds entries up to 4, 1200 behind the leader; it gets a snapshot',
    ]);
    const said = (state: 'probe' | 'replicate') =>
      words(
        group({
          inSync: [1, 3],
          replicas: [{ ...leader, followers: followers.map((each) => ({ ...each, state })) }, replica(2), replica(3)],
        }),
      );
    expect(said('replicate')).toEqual([
      'behind 2: broker 2 is not in sync: it holds entries up to 4, 1200 behind the leader; it catches up',
    ]);
    // Nothing is known of a log that a new leader has not probed yet.
    expect(said('probe')).toEqual(['behind 2: broker 2 is not in sync: what it holds is being found out']);
  });

  it('a log that diverged', () => {
    expect(words(group({ replicas: [leading(1), replica(2, { divergedIndex: 77 }), replica(3)] }))).toEqual([
      "diverged 2: from index 77 on, the leader's entries do not continue the log of broker 2: one of the two is damaged",
    ]);
  });

  it('a change of members that takes long', () => {
    const outgoing = [1, 2, 4].map(member);
    const replicas = [leading(1), replica(2), replica(3), replica(4, { membership: 'outgoing' })];
    const openFor = (ageMs: number) => words(group({ replicas, configuration: configuration({ index: 9, outgoing, ageMs }) }));
    expect(openFor(29_999)).toEqual([]);
    expect(openFor(45_000)).toEqual([
      'changing-members -: the change of its voters at index 9 is under way for 45 s: it needs majorities of the old and of the new voters',
    ]);
    const stuck = configuration({ index: 9, committed: false, ageMs: 60_000 });
    expect(words(group({ configuration: stuck }))).toEqual(['changing-members -: its configuration at index 9 waits for 60 s to commit']);
  });

  it('a broker that should have a replica and knows of none', () => {
    expect(words(group({ replicas: [leading(1), replica(2)] }))).toEqual([
      'not-open 3: broker 3 should have a replica and knows of none: it may not have learned of it yet',
    ]);
  });
});

/** What is wrong with a Raft group, in words. */
import {
  type RaftConfiguration,
  type RaftGroupDescription,
  type RaftProblem,
  type RaftProblemKind,
  type RaftReplicaDescription,
  raftProblemKinds,
} from './raft-wire.ts';

/** A change of members waits for a learner to catch up before it begins; from then on it takes round trips. */
export const LONG_CHANGE_MS = 30_000;

/** The worst first. `assigned`: brokers that should have a replica, by the metadata. */
export function problemsOf(group: Omit<RaftGroupDescription, 'problems'>, assigned: readonly number[]): RaftProblem[] {
  const problems = [
    ...leadership(group),
    ...group.replicas.flatMap(ofReplica),
    ...silence(group, assigned),
    ...lagging(group),
    ...change(group.configuration),
  ];
  const rank = ({ kind, brokerId = 0 }: RaftProblem) => raftProblemKinds.indexOf(kind) * 2 ** 32 + brokerId;
  return problems.sort((a, b) => rank(a) - rank(b));
}

function problem(kind: RaftProblemKind, brokerId: number | undefined, message: string): RaftProblem {
  return { kind, brokerId, message };
}

function leadership(group: Omit<RaftGroupDescription, 'problems'>): RaftProblem[] {
  const { leader, replicas, configuration } = group;
  if (leader === undefined) return [problem('no-leader', undefined, `it has no leader: ${whyLeaderless(replicas, configuration)}`)];
  const problems: RaftProblem[] = [];
  for (const { brokerId, replicaId, role, term, ready } of replicas) {
    if (role !== 'leader') continue;
    if (replicaId !== leader.replicaId) {
      problems.push(
        problem('two-leaders', brokerId, `broker ${brokerId} still thinks that it leads, in term ${term}; it can't commit anything in it`),
      );
    } else if (!ready) {
      problems.push(
        problem(
          'not-ready',
          brokerId,
          `broker ${brokerId} leads since term ${term}, but nothing of that term has committed, so it does not serve`,
        ),
      );
    }
  }
  return problems;
}

function whyLeaderless(replicas: readonly RaftReplicaDescription[], configuration: RaftConfiguration | undefined): string {
  if (configuration === undefined) return 'no replica of it answered';
  const open = new Set(
    replicas.filter(({ role, quarantined }) => role !== undefined && quarantined === undefined).map(({ replicaId }) => replicaId),
  );
  for (const [voters, which] of [
    [configuration.voters, 'voters'],
    [configuration.outgoing, 'outgoing voters'],
  ] as const) {
    const there = voters.filter(({ replicaId }) => open.has(replicaId)).length;
    const needed = Math.floor(voters.length / 2) + 1;
    if (voters.length > 0 && there < needed) return `${there} of ${voters.length} ${which} answered, and ${needed} are needed to elect one`;
  }
  return 'an election is under way, or its voters do not reach each other';
}

function ofReplica({ brokerId, notOpen, divergedIndex, quarantined, damage, onProbation }: RaftReplicaDescription): RaftProblem[] {
  const problems: RaftProblem[] = [];
  if (notOpen !== undefined) problems.push(problem('not-open', brokerId, `the replica of broker ${brokerId} is not open: ${notOpen}`));
  if (divergedIndex > 0) {
    const what = `from index ${divergedIndex} on, the leader's entries do not continue the log of broker ${brokerId}: one of the two is damaged`;
    problems.push(problem('diverged', brokerId, what));
  }
  if (quarantined !== undefined) {
    problems.push(problem('quarantined', brokerId, `the replica of broker ${brokerId} takes no part: ${quarantined}`));
  }
  if (damage !== undefined)
    problems.push(problem('damaged', brokerId, `broker ${brokerId} gets what rotted on its disk from the others: ${damage}`));
  if (onProbation) {
    const what = 'could not prove its log whole: it counts for nothing until it has all that it can have acknowledged';
    problems.push(problem('on-probation', brokerId, `the replica of broker ${brokerId} ${what}`));
  }
  return problems;
}

/** Members that say nothing: their broker does not answer, or answers and has no such replica. */
function silence({ replicas, silent, configuration }: Omit<RaftGroupDescription, 'problems'>, assigned: readonly number[]): RaftProblem[] {
  const members = membersOf(configuration).map(({ brokerId }) => brokerId);
  const expected = new Set([...members, ...(configuration === undefined ? assigned : [])]);
  for (const { brokerId } of replicas) expected.delete(brokerId);
  return [...expected].map((brokerId) => {
    const broker = silent.find((each) => each.brokerId === brokerId);
    if (broker === undefined) {
      return problem('not-open', brokerId, `broker ${brokerId} should have a replica and knows of none: it may not have learned of it yet`);
    }
    const { alive, error } = broker;
    return problem(
      'no-answer',
      brokerId,
      `broker ${brokerId} did not answer${alive ? '' : ', and the controller takes it for dead'}: ${error.message}`,
    );
  });
}

function membersOf(configuration: RaftConfiguration | undefined) {
  return configuration === undefined ? [] : [...configuration.voters, ...configuration.outgoing, ...configuration.learners];
}

function lagging({ replicas, leader, inSync = [], silent }: Omit<RaftGroupDescription, 'problems'>): RaftProblem[] {
  const leading = replicas.find(({ replicaId }) => replicaId === leader?.replicaId);
  // Of a broker that is down, its lag says nothing new; one that has just come may have everything before the leader hears that it lives.
  const isDown = (brokerId: number) => silent.some((each) => each.brokerId === brokerId);
  const behind = leading?.followers.filter(
    ({ brokerId, membership, lag }) => membership === 'voter' && lag > 0 && !inSync.includes(brokerId) && !isDown(brokerId),
  );
  return (behind ?? []).map(({ brokerId, matchIndex, lag, state }) => {
    const holds = `it holds entries up to ${matchIndex}, ${lag} behind the leader`;
    const how = {
      probe: 'what it holds is being found out',
      replicate: `${holds}; it catches up`,
      snapshot: `${holds}; it gets a snapshot`,
    };
    return problem('behind', brokerId, `broker ${brokerId} is not in sync: ${how[state]}`);
  });
}

function change(configuration: RaftConfiguration | undefined): RaftProblem[] {
  if (configuration === undefined || configuration.ageMs < LONG_CHANGE_MS) return [];
  const { joint, committed, index, ageMs } = configuration;
  const since = `for ${Math.round(ageMs / 1000)} s`;
  if (joint) {
    const what = `the change of its voters at index ${index} is under way ${since}: it needs majorities of the old and of the new voters`;
    return [problem('changing-members', undefined, what)];
  }
  if (committed) return [];
  return [problem('changing-members', undefined, `its configuration at index ${index} waits ${since} to commit`)];
}

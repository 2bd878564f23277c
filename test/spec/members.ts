/** Whom a configuration names, and which one may follow it: voters change through a joint configuration (hazards B12, B13). */
import type { Configuration } from '../../src/raft/core/types.ts';
import { must } from './rejected.ts';

export function membersOf(configuration: Configuration): number[] {
  return [...votersOf(configuration), ...idsOf(configuration.learners)];
}

export function votersOf({ voters, outgoing }: Configuration): number[] {
  return [...idsOf(voters), ...idsOf(outgoing)];
}

/** How a leader's change leads from one configuration to the next. Only learners become voters that hold what is committed (hazard B15). */
export function changeTo(
  target: Configuration,
  before: Configuration,
  holdsCommitted: (id: number) => boolean,
): 'ChangeLearners' | 'EnterJoint' {
  const voters = idsOf(before.voters);
  if (target.outgoing.length === 0) {
    must(sameIds(voters, idsOf(target.voters)), 'changed voters without a joint configuration');
    return 'ChangeLearners';
  }
  must(sameIds(voters, idsOf(target.outgoing)), 'entered a joint configuration from another than the present one');
  for (const id of idsOf(target.voters)) {
    const isReady = voters.includes(id) || (idsOf(before.learners).includes(id) && holdsCommitted(id));
    must(isReady, `made ${id} a voter, which is no learner that holds what was committed two ticks ago`);
  }
  return 'EnterJoint';
}

export function checkLeftJoint(target: Configuration, before: Configuration): void {
  must(target.outgoing.length === 0 && sameIds(idsOf(target.voters), idsOf(before.voters)), 'left a joint configuration for another one');
}

function idsOf(members: readonly { readonly replicaId: number }[]): number[] {
  return members.map(({ replicaId }) => replicaId);
}

function sameIds(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((id) => b.includes(id));
}

/**
 * Changes of a group's members. Voters change through a joint configuration, in which majorities of the old and of the new voters must agree (Raft thesis
 * 4.3), also where one voter alone changes: the rule for single changes (4.1) was wrong as first published (hazard B12). Learners get the log and
 * decide nothing, so they come and go at once.
 */
import { FlotillaError } from '../../base/errors.ts';
import type { ReplicaId } from '../../base/ids.ts';
import { membersOf } from './configuration.ts';
import type { Configuration, Member } from './types.ts';

/** Who is to be in a group. */
export interface Members {
  readonly voters: readonly Member[];
  readonly learners: readonly Member[];
}

export function isJoint(configuration: Configuration): boolean {
  return configuration.outgoing.length > 0;
}

export function isVoter({ voters, outgoing }: Configuration, id: ReplicaId): boolean {
  return has(voters, id) || has(outgoing, id);
}

/**
 * The first configuration on the way from `current`, which is not joint, to `target`. A new voter must be a learner that `hasCaughtUp` (hazard B15).
 * Throws INVALID_REQUEST for members that can't be, INELIGIBLE_REPLICA for a voter that has not caught up.
 */
export function enter(current: Configuration, target: Members, hasCaughtUp: (id: ReplicaId) => boolean): Configuration {
  check(current, target);
  const { voters, learners } = target;
  const same = voters.length === current.voters.length && voters.every(({ replicaId }) => has(current.voters, replicaId));
  if (same) return { voters, outgoing: [], learners };
  for (const { replicaId } of voters) {
    if (has(current.voters, replicaId)) continue;
    if (!has(current.learners, replicaId) || !hasCaughtUp(replicaId)) {
      throw new FlotillaError(
        'INELIGIBLE_REPLICA',
        `replica ${replicaId} has not caught up as a learner, so it can't vote yet; retry when it has`,
      );
    }
  }
  return { voters, outgoing: current.voters, learners };
}

/** What follows a joint configuration once it has committed. */
export function leave({ voters, learners }: Configuration): Configuration {
  return { voters, outgoing: [], learners };
}

function check(current: Configuration, { voters, learners }: Members): void {
  const members = [...voters, ...learners];
  if (voters.length === 0) throw new FlotillaError('INVALID_REQUEST', 'a group has at least one voter');
  if (distinct(members, 'replicaId') < members.length) throw new FlotillaError('INVALID_REQUEST', 'a replica is named twice');
  if (distinct(voters, 'brokerId') < voters.length) throw new FlotillaError('INVALID_REQUEST', 'two voters on one broker fail together');
  for (const { replicaId, brokerId, directoryId } of members) {
    const known = membersOf(current).find((member) => member.replicaId === replicaId);
    if (known === undefined || (known.brokerId === brokerId && known.directoryId === directoryId)) continue;
    throw new FlotillaError(
      'INVALID_REQUEST',
      `replica ${replicaId} belongs to directory ${known.directoryId} of broker ${known.brokerId}; on another it is another replica`,
    );
  }
}

function distinct(members: readonly Member[], field: 'replicaId' | 'brokerId'): number {
  return new Set(members.map((member) => member[field])).size;
}

function has(members: readonly Member[], id: ReplicaId): boolean {
  return members.some(({ replicaId }) => replicaId === id);
}

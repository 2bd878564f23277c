/** Raft groups as the SDK tells of them: a healthy one of three, to be changed. */
import { FlotillaError } from '../../src/base/errors.ts';
import type { RaftConfiguration, RaftGroupDescription, RaftMember, RaftReplicaDescription, SilentBroker } from '../../src/client/index.ts';
import { problemsOf } from '../../src/client/raft-problems.ts';

export const member = (brokerId: number): RaftMember => ({ brokerId, replicaId: 10 + brokerId, directoryId: `${brokerId}`.repeat(32) });

export const configuration = (change: Partial<RaftConfiguration> = {}): RaftConfiguration => ({
  index: 0,
  committed: true,
  joint: (change.outgoing ?? []).length > 0,
  ageMs: 5_400_000,
  voters: [1, 2, 3].map(member),
  outgoing: [],
  learners: [],
  ...change,
});

export const replica = (brokerId: number, change: Partial<RaftReplicaDescription> = {}): RaftReplicaDescription => ({
  brokerId,
  replicaId: 10 + brokerId,
  notOpen: undefined,
  membership: 'voter',
  role: 'follower',
  term: 4,
  leader: { brokerId: 1, replicaId: 11 },
  ready: false,
  commitIndex: 1204,
  appliedIndex: 1204,
  lastIndex: 1204,
  durableIndex: 1204,
  firstReplicableIndex: 1,
  nextOffset: 99,
  quiesced: false,
  configuration: configuration(),
  followers: [],
  inSync: [],
  lastSnapshot: undefined,
  divergedIndex: 0,
  quarantined: undefined,
  cleanedTo: 0,
  tombstoneFloor: 0,
  damage: undefined,
  onProbation: false,
  pendingDiskBytes: 0,
  ...change,
});

export const leading = (brokerId: number, change: Partial<RaftReplicaDescription> = {}): RaftReplicaDescription =>
  replica(brokerId, {
    role: 'leader',
    ready: true,
    inSync: [1, 2, 3],
    followers: [1, 2, 3]
      .filter((id) => id !== brokerId)
      .map((id) => ({
        ...member(id),
        membership: 'voter',
        matchIndex: 1204,
        nextIndex: 1205,
        lag: 0,
        state: 'replicate',
        inFlight: { messages: 0, bytes: 0 },
      })),
    ...change,
  });

/** `problems` are derived, as the SDK does it. */
export function group(change: Partial<Omit<RaftGroupDescription, 'problems'>> = {}): RaftGroupDescription {
  const described = {
    name: 'orders/0',
    topic: 'orders',
    partition: 0,
    topicId: 'a'.repeat(32),
    generation: 0,
    leader: { brokerId: 1, replicaId: 11 },
    term: 4,
    commitIndex: 1204,
    configuration: configuration(),
    inSync: [1, 2, 3],
    replicas: [leading(1), replica(2), replica(3)],
    silent: [],
    ...change,
  };
  return { ...described, problems: problemsOf(described, [1, 2, 3]) };
}

export const silent = (brokerId: number, alive = true): SilentBroker => ({
  brokerId,
  alive,
  error: new FlotillaError('NETWORK_EXCEPTION', `host-${brokerId}:9400 can't be reached`),
});

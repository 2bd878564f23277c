import type { BrokerId, ReplicaId } from '../../base/ids.ts';

/** What a leader shows of a follower. */
export interface FollowerProgress {
  readonly replicaId: ReplicaId;
  readonly brokerId: BrokerId;
  readonly matchIndex: number;
  readonly nextIndex: number;
  readonly active: boolean;
  readonly state: 'probe' | 'replicate';
}

/** NOT_LEADER_OR_FOLLOWER that knows where to go instead. */
import { FlotillaError } from '../base/errors.ts';
import type { BrokerId } from '../base/ids.ts';

export interface KnownLeader {
  readonly brokerId: BrokerId;
  readonly leaderEpoch: number;
}

export class NotLeaderError extends FlotillaError {
  /** Undefined: nobody is known to lead. */
  readonly leader: KnownLeader | undefined;
  constructor(message: string, leader: KnownLeader | undefined) {
    // An answer, no defect: nobody reads where it was made, and a broker that starts gives thousands a second while it opens its partitions.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super('NOT_LEADER_OR_FOLLOWER', message);
    Error.stackTraceLimit = stackTraceLimit;
    this.leader = leader;
  }
}

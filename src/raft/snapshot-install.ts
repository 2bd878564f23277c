/** How a snapshot takes the place of a replica's log: the replica stands still, its writes end, then log and core are made anew. */
import type { Scheduler } from '../base/environment.ts';
import type { GroupKey } from '../base/ids.ts';
import type { OpenedLog, Storage } from '../storage/types.ts';
import type { RaftCore } from './core/raft.ts';
import type { RaftReplica } from './replica.ts';
import type { TurnLoop } from './turn-loop.ts';
import type { ReplicaOptions } from './types.ts';

export interface SnapshotInstallOptions {
  readonly storage: Pick<Storage, 'installSnapshot' | 'discardStaged'>;
  readonly loop: TurnLoop;
  readonly scheduler: Pick<Scheduler, 'nextTurn'>;
  /** Gives the replica a turn; it may have been at rest. */
  readonly schedule: (replica: RaftReplica) => void;
  readonly newCore: (options: ReplicaOptions, opened: OpenedLog) => RaftCore;
  /** What was known of the log that was there before is of no more account. */
  readonly replaced: (group: GroupKey) => void;
  /** The owner can't go on with what the snapshot brought: the replica is to be closed. */
  readonly abandon: (replica: RaftReplica, error: unknown) => Promise<void>;
}

/**
 * Installs the group's staged snapshot, which was verified. False: it can't be now. True: it is installed, or was not needed any more. What storage throws is
 * final: the process must end, and its next start finds the old log or the new one.
 */
export function installSnapshot(
  options: SnapshotInstallOptions,
  replica: RaftReplica,
  snapshot: { readonly lastIndex: number; readonly lastTerm: number },
): Promise<boolean> {
  const installed = replace(options, replica, snapshot).catch((error: unknown) => {
    options.loop.guard(() => {
      throw error;
    });
    return false;
  });
  replica.installing = installed;
  return installed;
}

async function replace(
  { storage, loop, scheduler, schedule, newCore, abandon, replaced }: SnapshotInstallOptions,
  replica: RaftReplica,
  { lastIndex, lastTerm }: { readonly lastIndex: number; readonly lastTerm: number },
): Promise<boolean> {
  replica.paused = true;
  try {
    while (!loop.isIdle(replica)) {
      loop.schedule(replica);
      await new Promise<void>((resolve) => scheduler.nextTurn(resolve));
      await loop.drained();
      if (replica.closed) return false;
    }
    if (!replica.mayInstall(lastTerm)) return false;
    if (replica.hasCommitted(lastIndex, lastTerm)) {
      await storage.discardStaged(replica.group);
      return true;
    }
    const { group, replicaId, options } = replica;
    const opened = await storage.installSnapshot(group, options.settings, replicaId);
    replaced(group);
    try {
      await replica.replace(newCore(options, opened), opened.log);
    } catch (error) {
      await abandon(replica, error);
      return false;
    }
    return true;
  } finally {
    replica.paused = false;
    if (!replica.closed) schedule(replica);
  }
}

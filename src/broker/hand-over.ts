/** A broker that can't serve, since it stops or has yet to join: its leaderships go to voters that are in sync, so that nobody waits for an election. */
import type { Environment, Logger } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { type BrokerId, formatGroupKey, METADATA_GROUP } from '../base/ids.ts';
import type { RaftHost, Replica } from '../raft/types.ts';
import { within } from './deadline.ts';

/** Transfers under way at a time. */
export const MAX_CONCURRENT_TRANSFERS = 64;

export interface HandOverOptions {
  readonly host: RaftHost;
  readonly brokerId: BrokerId;
  readonly environment: Environment;
  readonly log: Logger;
}

/** Transfers what it can within `ms`; what is left is for an election. Resolves with the number of leaderships that are left. */
export async function handOver(options: HandOverOptions, ms: number, wanted: (replica: Replica) => boolean = () => true): Promise<number> {
  const { host, environment, log } = options;
  const waiting = [...host.replicas].filter((replica) => leads(replica) && wanted(replica));
  const endMs = environment.monotonicMs() + ms;
  let turn = 0;
  const worker = async (): Promise<void> => {
    for (let replica = waiting.pop(); replica !== undefined; replica = waiting.pop()) {
      const leftMs = endMs - environment.monotonicMs();
      const targets = targetsOf(replica, options);
      const target = targets[turn++ % Math.max(1, targets.length)];
      if (target === undefined || leftMs <= 0) continue;
      const moved = replica;
      try {
        await within(environment, leftMs, undefined, 'handing leadership over', (signal) =>
          moved.transferLeadership(target.replicaId, signal),
        );
      } catch (error) {
        log.warn('hand-over.failed', { group: formatGroupKey(moved.group), to: target.brokerId, error: messageOf(error) });
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(MAX_CONCURRENT_TRANSFERS, waiting.length) }, worker));
  return [...host.replicas].filter(leads).length;
}

/** A broker that has yet to join its cluster gets so long for it before it passes on what it is elected to lead. */
export const JOIN_PATIENCE_MS = 5_000;

/**
 * A broker that has not joined serves no clients, and is elected all the same: where it does not reach the controller, its partitions would have a leader
 * and take nothing for as long as that lasts. So it passes them on, again and again until `joined` fires. Not the metadata's: joining needs that leader.
 */
export function passOnUntil(joined: AbortSignal, options: HandOverOptions): void {
  const { environment } = options;
  const timer = environment.after(JOIN_PATIENCE_MS, () => {
    void handOver(options, JOIN_PATIENCE_MS, ({ group }) => group !== METADATA_GROUP).then(() => {
      if (!joined.aborted) passOnUntil(joined, options);
    });
  });
  joined.addEventListener('abort', () => timer.cancel(), { once: true });
}

function leads(replica: Replica): boolean {
  return replica.leadership.role === 'leader';
}

function targetsOf(replica: Replica, { host, brokerId }: HandOverOptions): Replica['configuration']['voters'] {
  const inSync = new Set(replica.inSync());
  return replica.configuration.voters.filter(
    (voter) => voter.brokerId !== brokerId && inSync.has(voter.brokerId) && host.isAlive(voter.brokerId),
  );
}

/**
 * Raises the tombstone floor of the compacted partitions that are led here (docs/adr/0007): a tombstone may go when all members have had their logs clean past
 * it for delete.retention.ms, by their own clocks, since by then nobody can still read what it deletes. The members are asked when there is something to raise, so nothing
 * is kept that a new leader would lack. While one of them is down, or is getting a snapshot, the floor waits.
 */
import { create } from '@bufbuild/protobuf';
import type { Environment, Logger } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import { formatGroupName } from '../base/group-name.ts';
import type { BrokerId } from '../base/ids.ts';
import { Admin } from '../gen/flotilla/v1/admin_pb.ts';
import { DescribeReplicasRequestSchema } from '../gen/flotilla/v1/raft_groups_pb.ts';
import { membersOf } from '../raft/core/configuration.ts';
import type { Member } from '../raft/core/types.ts';
import type { RpcChannel } from '../rpc/types.ts';
import type { Partition } from './partition.ts';
import { Rounds } from './rounds.ts';

/** Of delete.retention.ms, between two questions about one partition that came to nothing. */
const ASK_AGAIN_AFTER = 1 / 16;

export interface TombstoneFloorsOptions {
  readonly partitions: { all(): Iterable<Partition> };
  /** Errors: BROKER_NOT_AVAILABLE. */
  readonly channel: (broker: BrokerId) => RpcChannel;
  readonly isAlive: (broker: BrokerId) => boolean;
  readonly environment: Environment;
  readonly log: Logger;
  readonly intervalMs: number;
  readonly requestTimeoutMs: number;
}

export class TombstoneFloors {
  readonly #options: TombstoneFloorsOptions;
  readonly #rounds: Rounds;
  /** Monotonic. */
  readonly #notBefore = new WeakMap<Partition, number>();

  constructor(options: TombstoneFloorsOptions) {
    this.#options = options;
    this.#rounds = new Rounds(options.environment, options.intervalMs, () => this.#check());
  }

  start(): void {
    this.#rounds.start();
  }

  stop(): Promise<void> {
    return this.#rounds.stop();
  }

  async #check(): Promise<void> {
    const { environment, log, partitions } = this.#options;
    for (const partition of [...partitions.all()]) {
      if (this.#rounds.signal.aborted) return;
      if (!partition.compaction.compacts) continue;
      // Also where somebody else leads: since when a log is clean is noted when it is asked for.
      const own = partition.settledTo();
      if (own <= partition.replica.log.tombstoneFloor || environment.monotonicMs() < (this.#notBefore.get(partition) ?? 0)) continue;
      if (!this.#mayRaise(partition)) continue;
      const { topic, partition: number } = partition;
      const askAgainMs = environment.monotonicMs() + partition.compaction.deleteRetentionMs * ASK_AGAIN_AFTER;
      this.#notBefore.set(partition, askAgainMs);
      try {
        const floor = await this.#raise(partition, own);
        if (floor !== undefined) log.info('tombstone floor', { topic, partition: number, to: floor });
      } catch (error) {
        log.debug('tombstone floor undecided', { topic, partition: number, error: messageOf(error) });
      }
    }
  }

  /** Undefined: it stays where it is. */
  async #raise(partition: Partition, own: number): Promise<number | undefined> {
    const { environment, requestTimeoutMs } = this.#options;
    const { replica } = partition;
    const { configurationIndex } = replica;
    const { term } = replica.leadership;
    const others = membersOf(replica.configuration).filter(({ replicaId }) => replicaId !== replica.replicaId);
    const settled = await Promise.all(others.map((member) => this.#ask(partition, member)));
    const floor = Math.min(own, ...settled);
    // Meanwhile a member may have come, or had its log replaced.
    const isSame = replica.configurationIndex === configurationIndex && replica.leadership.term === term && this.#mayRaise(partition);
    if (!isSame || partition.settledTo() < floor || floor <= replica.log.tombstoneFloor) return undefined;
    this.#notBefore.delete(partition);
    await partition.raiseTombstoneFloor(floor, environment.monotonicMs() + requestTimeoutMs);
    return floor;
  }

  /** This broker leads the partition, and all its members are there and have logs of their own. */
  #mayRaise({ replica }: Partition): boolean {
    const { isAlive } = this.#options;
    if (!replica.leadership.ready) return false;
    const others = membersOf(replica.configuration).filter(({ replicaId }) => replicaId !== replica.replicaId);
    return others.every(({ brokerId }) => isAlive(brokerId)) && replica.describe().followers.every(({ state }) => state === 'replicate');
  }

  /** How far the member's log has been clean for long enough. 0: the broker has another replica now, or none. */
  async #ask({ topic, partition }: Partition, { brokerId, replicaId }: Member): Promise<number> {
    const { channel, requestTimeoutMs } = this.#options;
    const request = create(DescribeReplicasRequestSchema, { group: formatGroupName({ topic, partition }) });
    const options = { timeoutMs: requestTimeoutMs, signal: this.#rounds.signal };
    const { replicas } = await channel(brokerId).unary(Admin.method.describeReplicas, request, options);
    const replica = replicas.find((each) => each.replicaId === BigInt(replicaId) && each.notOpen === '' && each.quarantined === '');
    return Number(replica?.settledTo ?? 0n);
  }
}

/**
 * Brings leaderships back to the preferred leader (a partition's first replica) once its broker has been live for a while, so
 * that a rolling restart doesn't leave all leaders on the brokers that were restarted first. Kafka's auto.leader.rebalance.enable.
 */
import type { Logger } from '../base/environment.ts';
import { messageOf } from '../base/errors.ts';
import type { BrokerId, TopicId } from '../base/ids.ts';
import type { MetadataImage } from '../metadata/image.ts';
import { isLost } from './reassignment.ts';

/** A broker must have been live for so long before leaderships go back to it. */
export const SETTLED_MS = 15_000;
/** The same partition is not asked for again within this time: a transfer that failed may fail again. */
export const RETRY_MS = 60_000;
/** The most transfers that are asked for in a pass, so that clients don't all have to find new leaders at once. */
export const TRANSFERS_PER_PASS = 100;
/** How long a transfer may take. */
export const TRANSFER_DEADLINE_MS = 10_000;

/** Asks the partition's present leader to hand over to the broker. */
export type TransferLeadership = (topicId: TopicId, partition: number, to: BrokerId, deadlineMs: number) => Promise<void>;

export class LeaderBalancer {
  readonly #transfer: TransferLeadership;
  readonly #logger: Logger;
  /** When a partition was last asked for. Bounded: entries older than RETRY_MS go. */
  readonly #asked = new Map<string, number>();
  #inFlight = 0;

  constructor(transfer: TransferLeadership, logger: Logger) {
    this.#transfer = transfer;
    this.#logger = logger;
  }

  /** Asks for what is due. Does not wait. */
  pass(image: MetadataImage, nowMs: number, liveForMs: (broker: BrokerId) => number): void {
    for (const [key, askedMs] of this.#asked) if (nowMs - askedMs >= RETRY_MS) this.#asked.delete(key);
    const settled = new Set<BrokerId>();
    for (const { brokerId, fenced } of image.brokers.values()) if (!fenced && liveForMs(brokerId) >= SETTLED_MS) settled.add(brokerId);
    for (const { topicId, name, partitions } of image.topics.values()) {
      for (const partitionImage of partitions) {
        if (this.#inFlight >= TRANSFERS_PER_PASS) return;
        const { partition, replicas, target, leader } = partitionImage;
        const preferred = replicas[0];
        if (leader === undefined || preferred === undefined || leader === preferred.brokerId || !settled.has(preferred.brokerId)) continue;
        // While replicas move, the next preferred leader may be another.
        if (target !== undefined || isLost(image, partitionImage, preferred)) continue;
        const key = `${topicId}-${partition}`;
        if (this.#asked.has(key)) continue;
        this.#asked.set(key, nowMs);
        void this.#ask(topicId, name, partition, preferred.brokerId);
      }
    }
  }

  async #ask(topicId: TopicId, topic: string, partition: number, to: BrokerId): Promise<void> {
    this.#inFlight++;
    try {
      await this.#transfer(topicId, partition, to, TRANSFER_DEADLINE_MS);
    } catch (error) {
      this.#logger.info('leadership stays', { topic, partition, preferred: to, reason: messageOf(error) });
    } finally {
      this.#inFlight--;
    }
  }
}

/** What a topic may be: names, numbers of partitions and replicas. Kafka's rules and error codes. */
import { FlotillaError } from '../base/errors.ts';
import type { MetadataImage } from '../metadata/image.ts';

/** The most partitions that one topic may have. */
export const MAX_PARTITIONS = 100_000;
/** The longest topic name: Kafka's, whose directories were called `name-partition` within 255 bytes. */
export const MAX_TOPIC_NAME = 249;

const legalName = /^[a-zA-Z0-9._-]+$/;

/** Throws INVALID_TOPIC_EXCEPTION unless Kafka would take the name. */
export function checkTopicName(name: string): void {
  const refuse = (why: string): never => {
    throw new FlotillaError('INVALID_TOPIC_EXCEPTION', `topic name ${JSON.stringify(name.slice(0, MAX_TOPIC_NAME + 1))} ${why}`);
  };
  if (name.length === 0) refuse('is empty');
  if (name.length > MAX_TOPIC_NAME) refuse(`has ${name.length} characters, at most ${MAX_TOPIC_NAME} are allowed`);
  if (name === '.' || name === '..') refuse("can't be '.' or '..'");
  if (!legalName.test(name)) refuse("may contain only ASCII letters and digits, '.', '_' and '-'");
}

export function checkPartitions(partitions: number): void {
  if (Number.isInteger(partitions) && partitions >= 1 && partitions <= MAX_PARTITIONS) return;
  throw new FlotillaError('INVALID_PARTITIONS', `a topic has 1 to ${MAX_PARTITIONS} partitions, not ${partitions}`);
}

export function checkReplicas(replicas: number, liveBrokers: number): void {
  if (!Number.isInteger(replicas) || replicas < 1) {
    throw new FlotillaError('INVALID_REPLICATION_FACTOR', `the replication factor is at least 1, not ${replicas}`);
  }
  if (replicas <= liveBrokers) return;
  const brokers = liveBrokers === 1 ? 'there is 1 live broker' : `there are ${liveBrokers} live brokers`;
  throw new FlotillaError('INVALID_REPLICATION_FACTOR', `a replication factor of ${replicas} needs as many live brokers, ${brokers}`);
}

/** A topic whose name differs only by '.' for '_': metric names replace one by the other, so the two collide there. */
export function collidingTopic(image: MetadataImage, name: string): string | undefined {
  if (!/[._]/.test(name)) return undefined;
  const metric = name.replaceAll('.', '_');
  for (const other of image.topicIds.keys()) if (other !== name && other.replaceAll('.', '_') === metric) return other;
  return undefined;
}

/**
 * raftGroups as people name them: `TOPIC/PARTITION`, and `metadata` for the log of the metadata quorum. No topic has a slash in its name,
 * so a topic `metadata` is another thing: `metadata/0`.
 */
import { FlotillaError } from './errors.ts';

export interface GroupName {
  /** Undefined: the metadata log. */
  readonly topic: string | undefined;
  readonly partition: number;
}

export const METADATA_NAME: GroupName = { topic: undefined, partition: 0 };

const pattern = /^([A-Za-z0-9._-]{1,249})\/(\d{1,10})$/;

/** Errors: INVALID_REQUEST. */
export function parseGroupName(text: string): GroupName {
  if (text === 'metadata') return METADATA_NAME;
  const [, topic, digits] = pattern.exec(text) ?? [];
  const partition = Number(digits);
  if (topic !== undefined && partition < 2 ** 31) return { topic, partition };
  throw new FlotillaError('INVALID_REQUEST', `'${text}' names no Raft group: give TOPIC/PARTITION, such as orders/0, or metadata.`);
}

export function formatGroupName({ topic, partition }: GroupName): string {
  return topic === undefined ? 'metadata' : `${topic}/${partition}`;
}

/** The order of lists: the metadata log, then by topic, then by number. */
export function compareGroupNames(a: GroupName, b: GroupName): number {
  if (a.topic === b.topic) return a.partition - b.partition;
  if (a.topic === undefined) return -1;
  if (b.topic === undefined) return 1;
  return a.topic < b.topic ? -1 : 1;
}

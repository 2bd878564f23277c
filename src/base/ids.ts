/**
 * Identities. Contracts that formats stand on: a raftGroup is (topicId, partition, groupGeneration); voters are replica ids,
 * given out by the metadata quorum and never reused, each bound to (brokerId, directoryId); a directory id is minted when a
 * data directory is formatted, so a wiped disk can't vote under its old name (hazard B14).
 */
import { hex } from './bytes.ts';
import { FlotillaError } from './errors.ts';

declare const brand: unique symbol;
type Branded<T, Name extends string> = T & { readonly [brand]: Name };

/** A topic's UUID, 32 lower-case hex digits. A re-created topic has another one. */
export type TopicId = Branded<string, 'TopicId'>;
/** A cluster's UUID, 32 lower-case hex digits. */
export type ClusterId = Branded<string, 'ClusterId'>;
/** A data directory's UUID, 32 lower-case hex digits, minted when it is formatted. */
export type DirectoryId = Branded<string, 'DirectoryId'>;
/** A broker's id, chosen by the operator: 1 to 2^31 - 1. */
export type BrokerId = Branded<number, 'BrokerId'>;
/** A voter or learner of a raftGroup: 1 to 2^53 - 1, unique in the cluster for ever. */
export type ReplicaId = Branded<number, 'ReplicaId'>;
/** The key of a raftGroup in memory: the 24 bytes of its identity as a latin1 string. See {@link encodeGroupKey}. */
export type GroupKey = Branded<string, 'GroupKey'>;

export interface GroupIdentity {
  readonly topicId: TopicId;
  /** 0 to 2^31 - 1 */
  readonly partition: number;
  /** 0 at creation; raised by unsafe recovery. */
  readonly groupGeneration: number;
}

export const GROUP_KEY_BYTES = 24;

const uuidPattern = /^[0-9a-f]{32}$/;

export function isUuid(text: string): boolean {
  return uuidPattern.test(text);
}

/** A random (version 4) UUID as 32 hex digits, from an injected source of 32-bit numbers. */
export function mintUuid(uint32: () => number): string {
  let text = '';
  for (let word = 0; word < 4; word++) text += (uint32() >>> 0).toString(16).padStart(8, '0');
  const variant = ((Number.parseInt(text.charAt(16), 16) & 0x3) | 0x8).toString(16);
  return `${text.slice(0, 12)}4${text.slice(13, 16)}${variant}${text.slice(17)}`;
}

/** The topic id of the metadata quorum's own log: group 0. */
export const METADATA_TOPIC_ID = '00000000000000000000000000000001' as TopicId;

/** The 24 bytes on wires and disks: topic id (16), partition (u32 big-endian), group generation (u32 big-endian); as a latin1 string. */
export function encodeGroupKey(identity: GroupIdentity): GroupKey {
  let key = '';
  for (let i = 0; i < 32; i += 2) key += String.fromCharCode(Number.parseInt(identity.topicId.slice(i, i + 2), 16));
  return (key + uint32Chars(identity.partition) + uint32Chars(identity.groupGeneration)) as GroupKey;
}

export function decodeGroupKey(key: GroupKey): GroupIdentity {
  let topicId = '';
  for (let i = 0; i < 16; i++) topicId += key.charCodeAt(i).toString(16).padStart(2, '0');
  return { topicId: topicId as TopicId, partition: charsUint32(key, 16), groupGeneration: charsUint32(key, 20) };
}

/** For people: `topicId-partition`, with `.generation` once it was raised. */
export function formatGroupKey(key: GroupKey): string {
  const { topicId, partition, groupGeneration } = decodeGroupKey(key);
  return `${topicId}-${partition}${groupGeneration === 0 ? '' : `.${groupGeneration}`}`;
}

export const METADATA_GROUP: GroupKey = encodeGroupKey({ topicId: METADATA_TOPIC_ID, partition: 0, groupGeneration: 0 });

function uint32Chars(value: number): string {
  return String.fromCharCode((value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
}

function charsUint32(text: string, at: number): number {
  return ((text.charCodeAt(at) << 24) | (text.charCodeAt(at + 1) << 16) | (text.charCodeAt(at + 2) << 8) | text.charCodeAt(at + 3)) >>> 0;
}

const TOPIC_ID_BYTES = 16;

/** As it is on wires. Errors: INVALID_REQUEST. */
export function topicIdFromBytes(bytes: Uint8Array): TopicId {
  if (bytes.length !== TOPIC_ID_BYTES) throw new FlotillaError('INVALID_REQUEST', `A topic id has 16 bytes, this one has ${bytes.length}.`);
  return hex(bytes) as TopicId;
}

export function topicIdToBytes(topicId: TopicId): Uint8Array {
  const bytes = new Uint8Array(TOPIC_ID_BYTES);
  for (let at = 0; at < TOPIC_ID_BYTES; at++) bytes[at] = Number.parseInt(topicId.slice(at * 2, at * 2 + 2), 16);
  return bytes;
}

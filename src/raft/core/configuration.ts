/**
 * The payload of a configuration entry (kind `config`), big-endian:
 *
 *   0  u8   version     1
 *   1  u8   voters, u8 outgoing voters, u8 learners: how many of each
 *   4  …    the members, in that order, 28 bytes each: u64 replicaId, u32 brokerId, 16 bytes directoryId
 */
import { hex } from '../../base/bytes.ts';
import { FlotillaError } from '../../base/errors.ts';
import type { BrokerId, DirectoryId, ReplicaId } from '../../base/ids.ts';
import { crc32 } from './crc32.ts';
import { EntryKind } from './entry.ts';
import { putUint32, putUint64, readUint32, readUint64 } from './entry-codec.ts';
import type { Configuration, Member, Proposal } from './types.ts';

const VERSION = 1;
const HEADER_BYTES = 4;
const MEMBER_BYTES = 28;
/** Members of each sort: more voters than this only slow a group down. */
const MAX_MEMBERS = 255;

/** The entry that brings a configuration into force. */
export function proposalOf(configuration: Configuration): Proposal {
  const payload = encodeConfiguration(configuration);
  return { kind: EntryKind.config, payload, recordCount: 0, payloadChecksum: crc32(payload) };
}

export function encodeConfiguration(configuration: Configuration): Uint8Array {
  const members = membersOf(configuration);
  const bytes = new Uint8Array(HEADER_BYTES + members.length * MEMBER_BYTES);
  const counts = [configuration.voters.length, configuration.outgoing.length, configuration.learners.length];
  if (counts.some((count) => count > MAX_MEMBERS)) throw new FlotillaError('INVALID_REQUEST', `at most ${MAX_MEMBERS} members of a sort`);
  bytes.set([VERSION, ...counts]);
  let at = HEADER_BYTES;
  for (const member of members) {
    putUint64(bytes, at, member.replicaId);
    putUint32(bytes, at + 8, member.brokerId);
    for (let i = 0; i < 16; i++) bytes[at + 12 + i] = Number.parseInt(member.directoryId.slice(2 * i, 2 * i + 2), 16);
    at += MEMBER_BYTES;
  }
  return bytes;
}

/** Throws CORRUPT_MESSAGE, or UNSUPPORTED_VERSION for what a newer release wrote. */
export function decodeConfiguration(bytes: Uint8Array): Configuration {
  const [version, voters = 0, outgoing = 0, learners = 0] = bytes;
  if (version !== VERSION) throw new FlotillaError('UNSUPPORTED_VERSION', `configuration of version ${version}; upgrade this broker`);
  if (voters === 0 || bytes.length !== HEADER_BYTES + (voters + outgoing + learners) * MEMBER_BYTES) {
    throw new FlotillaError('CORRUPT_MESSAGE', `a configuration of ${voters}+${outgoing}+${learners} members in ${bytes.length} bytes`);
  }
  const members: Member[] = [];
  for (let at = HEADER_BYTES; at < bytes.length; at += MEMBER_BYTES) members.push(readMember(bytes, at));
  return {
    voters: members.slice(0, voters),
    outgoing: members.slice(voters, voters + outgoing),
    learners: members.slice(voters + outgoing),
  };
}

/** All members: voters, outgoing voters, learners. A replica that is both a voter and an outgoing one comes twice. */
export function membersOf(configuration: Configuration): Member[] {
  return [...configuration.voters, ...configuration.outgoing, ...configuration.learners];
}

function readMember(bytes: Uint8Array, at: number): Member {
  return {
    replicaId: readUint64(bytes, at) as ReplicaId,
    brokerId: readUint32(bytes, at + 8) as BrokerId,
    directoryId: hex(bytes.subarray(at + 12, at + 28)) as DirectoryId,
  };
}

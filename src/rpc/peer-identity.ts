/**
 * Who calls whom, in the headers of each stream between brokers: hazard B14 is a broker that answers to another's name. All values are text.
 *
 *   flotilla-cluster-id, flotilla-broker-id, flotilla-directory-id, flotilla-incarnation   the caller
 *   flotilla-target-broker-id                                                              whom it means to reach
 *   flotilla-target-directory-id                                                           absent while it is not known
 *
 * The callee accepts with one frame: its own incarnation as a u64, big-endian.
 */
import { FlotillaError } from '../base/errors.ts';
import type { BrokerId, ClusterId, DirectoryId } from '../base/ids.ts';
import type { Peer, PeerIdentity } from '../raft/types.ts';

const ACCEPT_BYTES = 8;

type Headers = Readonly<Record<string, string>>;

export function peerHeaders(self: PeerIdentity, target: Peer): Headers {
  return {
    'flotilla-cluster-id': self.clusterId,
    'flotilla-broker-id': String(self.brokerId),
    'flotilla-directory-id': self.directoryId,
    'flotilla-incarnation': String(self.incarnation),
    'flotilla-target-broker-id': String(target.brokerId),
    ...(target.directoryId === undefined ? {} : { 'flotilla-target-directory-id': target.directoryId }),
  };
}

/**
 * The caller, when it belongs to this cluster and means this broker. `known` is what the metadata says of a broker.
 * @throws FlotillaError INCONSISTENT_CLUSTER_ID, DATA_DIRECTORY, INVALID_REQUEST
 */
export function checkCaller(headers: Headers, self: PeerIdentity, known: (broker: BrokerId) => Peer | undefined): PeerIdentity {
  const caller = readCaller(headers);
  if (caller.clusterId !== self.clusterId) {
    throw new FlotillaError(
      'INCONSISTENT_CLUSTER_ID',
      `Broker ${caller.brokerId} belongs to cluster ${caller.clusterId}, this broker to ${self.clusterId}. Check the addresses that it was given.`,
    );
  }
  const target = headers['flotilla-target-broker-id'];
  if (target !== String(self.brokerId)) {
    throw new FlotillaError(
      'INVALID_REQUEST',
      `This is broker ${self.brokerId}, not broker ${target}. Check the addresses that the brokers advertise.`,
    );
  }
  const directory = headers['flotilla-target-directory-id'];
  if (directory !== undefined && directory !== self.directoryId) throw wrongDirectory(self.brokerId, self.directoryId, directory);
  const registered = known(caller.brokerId)?.directoryId;
  if (registered !== undefined && registered !== caller.directoryId) throw wrongDirectory(caller.brokerId, caller.directoryId, registered);
  return caller;
}

function readCaller(headers: Headers): PeerIdentity {
  const brokerId = Number(headers['flotilla-broker-id']);
  const incarnation = Number(headers['flotilla-incarnation']);
  const clusterId = headers['flotilla-cluster-id'];
  const directoryId = headers['flotilla-directory-id'];
  if (
    !Number.isSafeInteger(brokerId) ||
    brokerId < 1 ||
    !Number.isSafeInteger(incarnation) ||
    clusterId === undefined ||
    directoryId === undefined
  ) {
    throw new FlotillaError('INVALID_REQUEST', 'The caller of a stream between brokers does not say who it is.');
  }
  return {
    clusterId: clusterId as ClusterId,
    brokerId: brokerId as BrokerId,
    directoryId: directoryId as DirectoryId,
    incarnation,
  };
}

function wrongDirectory(broker: BrokerId, has: DirectoryId, expected: string): FlotillaError {
  return new FlotillaError(
    'DATA_DIRECTORY',
    `Broker ${broker} runs on data directory ${has}, but it is registered with ${expected}. If its disk was replaced, it must join under the new directory first.`,
  );
}

export function encodeAccept(incarnation: number): Uint8Array {
  const bytes = new Uint8Array(ACCEPT_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, Math.floor(incarnation / 2 ** 32));
  view.setUint32(4, incarnation >>> 0);
  return bytes;
}

/** Undefined: not an acceptance. */
export function decodeAccept(bytes: Uint8Array): number | undefined {
  if (bytes.length !== ACCEPT_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, ACCEPT_BYTES);
  return view.getUint32(0) * 2 ** 32 + view.getUint32(4);
}

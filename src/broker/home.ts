/** A broker's data directory and the cluster that it belongs to: locked, and, while empty, formed or joined. */
import { create } from '@bufbuild/protobuf';
import { must } from '../base/assert.ts';
import type { Disk, DiskLock, Environment, Logger } from '../base/environment.ts';
import { FlotillaError, messageOf } from '../base/errors.ts';
import type { BrokerId, ClusterId, DirectoryId, ReplicaId } from '../base/ids.ts';
import { ClusterFormation, type DirectoryIdentity, type FormedCluster, IDENTIFY_TIMEOUT_MS } from '../controller/forming.ts';
import { IdentifyRequestSchema, type IdentifyResponse, IdentifyResponseSchema, Raft } from '../gen/flotilla/v1/raft_pb.ts';
import { type Connect, type UnaryHandler, unaryHandler } from '../rpc/types.ts';
import { formatDirectory, initDirectory } from '../storage/directory.ts';
import type { BrokerConfig } from './config.ts';

export interface HomeOptions {
  readonly config: BrokerConfig;
  readonly environment: Environment;
  readonly log: Logger;
  readonly disk: Disk;
  readonly connect: Connect;
  readonly crc32: (bytes: Uint8Array, seed?: number) => number;
}

export interface Home {
  readonly directoryId: DirectoryId;
  readonly formation: ClusterFormation;
  readonly lock: DiskLock;
}

/** Takes the directory. Errors: DATA_DIRECTORY. */
export async function openHome(options: HomeOptions): Promise<Home> {
  const { config, disk, crc32, environment } = options;
  const path = config.dataDirectory;
  const access = { disk, path, crc32 };
  await makeDirectory(disk, path);
  const lock = await disk.lock(path);
  try {
    const owner = { brokerId: config.nodeId, clusterId: config.clusterId, random: environment };
    const { directoryId, clusterId, controllerVoters } = await initDirectory(access, owner);
    const cluster = clusterId === undefined || controllerVoters === undefined ? undefined : { clusterId, voters: controllerVoters };
    const formation = new ClusterFormation({
      self: { brokerId: config.nodeId, directoryId, cluster },
      clusterId: clusterId ?? config.clusterId,
      voters: config.voters,
      identify: (address, asker) => identify(options.connect, address, asker),
      persist: async (formed) => {
        await formatDirectory(access, { clusterId: formed.clusterId, controllerVoters: formed.voters });
      },
      environment,
      logger: options.log,
    });
    return { directoryId, formation, lock };
  } catch (error) {
    await lock.release();
    throw error;
  }
}

async function makeDirectory(disk: Disk, path: string): Promise<void> {
  try {
    await disk.makeDirectory(path);
  } catch (error) {
    const what = `the data directory ${path} can't be made: ${messageOf(error)}; make it, writable for this user, or set log.dir to another`;
    throw new FlotillaError('DATA_DIRECTORY', what, { cause: error });
  }
}

/** Serves Raft.Identify: what this directory knows of itself. */
export function identifyHandler(formation: ClusterFormation): [string, UnaryHandler] {
  return unaryHandler(Raft.method.identify, async ({ brokerId }) => toWire(formation.answer({ brokerId: brokerId as BrokerId })));
}

async function identify(connect: Connect, address: string, asker: DirectoryIdentity): Promise<DirectoryIdentity> {
  const channel = connect(address);
  try {
    const { brokerId, directoryId } = asker;
    const request = create(IdentifyRequestSchema, { brokerId, directoryId });
    return fromWire(await channel.unary(Raft.method.identify, request, { timeoutMs: IDENTIFY_TIMEOUT_MS }));
  } finally {
    channel.close();
  }
}

function toWire({ brokerId, directoryId, cluster }: DirectoryIdentity): IdentifyResponse {
  const voters = (cluster?.voters ?? []).map((voter) => ({
    $typeName: 'flotilla.v1.VoterIdentity' as const,
    replicaId: BigInt(voter.replicaId),
    brokerId: voter.brokerId,
    directoryId: voter.directoryId,
  }));
  return create(IdentifyResponseSchema, { brokerId, directoryId, clusterId: cluster?.clusterId ?? '', voters });
}

function fromWire(response: IdentifyResponse): DirectoryIdentity {
  const voters = response.voters.map((voter) => ({
    replicaId: Number(voter.replicaId) as ReplicaId,
    brokerId: voter.brokerId as BrokerId,
    directoryId: voter.directoryId as DirectoryId,
  }));
  const cluster: FormedCluster | undefined = response.clusterId === '' ? undefined : { clusterId: response.clusterId as ClusterId, voters };
  return { brokerId: response.brokerId as BrokerId, directoryId: response.directoryId as DirectoryId, cluster };
}

/** This broker's replica in the metadata quorum, by the formed cluster. */
export function ownVoter(cluster: FormedCluster, brokerId: BrokerId): FormedCluster['voters'][number] {
  return must(
    cluster.voters.find((voter) => voter.brokerId === brokerId),
    'a controller is a voter of the cluster it joined',
    { brokerId },
  );
}
